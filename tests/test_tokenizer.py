"""The tokenizer three ways: `Tokenizer.encode`, slm_tokenize() under sanitizers, and Hugging Face `tokenizers`.

The tokenizers are homecmd's, from ../shared, and those of tests/wordpiece.py.
"""

from __future__ import annotations

import csv
import functools
import json
import random
import struct
import subprocess
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slm2c import unicode_data as ucd
from slm2c.errors import CompileError
from slm2c.tokenizer import parse_tokenizer
from slm2c.toolchain import build_host
from tests.wordpiece import (
    ALPHABET,
    HOSTILE,
    MARKS,
    NORMALIZERS,
    PARTS,
    SPECIAL,
    TEXTS,
    WORDS,
    Case,
    a_spec,
    bert,
    case,
    model,
    parse,
    sequence,
    special_token,
    template,
    variant,
)

ROOT = Path(__file__).resolve().parent.parent
NO_LIMIT = 1 << 20  # tokens

# slm.h
OK, ERR_BLOB_SIZE, ERR_BLOB_CHECKSUM, ERR_LENGTH_ZERO, ERR_LENGTH_MAX = 0, 5, 9, 10, 11
UNTOUCHED = 0xFFFFFFFF


@pytest.fixture(scope="module")
def homecmd(shared: Path) -> Case:
    return case((shared / "students" / "homecmd" / "tokenizer.json").read_text(encoding="utf-8"))


Request = tuple[bytes, bytes, int]  # tables, text, max_ids
Reply = tuple[int, int, tuple[int, ...]]  # status, n, ids
InC = Callable[[Iterable[Request]], list[Reply]]


@pytest.fixture(scope="module")
def in_c(host_cc: str, tmp_path_factory: pytest.TempPathFactory) -> InC:
    """slm_tokenize() under the address and undefined-behaviour sanitizers, for many requests in one process."""
    program = build_host(
        [ROOT / "runtime_c/slm_tokenizer.c", ROOT / "tests/c/tokenizer_main.c"],
        tmp_path_factory.mktemp("tokenizer") / "tokenizer",
        includes=[ROOT / "runtime_c"],
        sanitize=True,
    )

    def run(requests: Iterable[Request]) -> list[Reply]:
        sent = bytearray()
        count, last = 0, None
        for count, (tables, text, max_ids) in enumerate(requests, 1):  # noqa: B007
            sent += struct.pack("<3I", UNTOUCHED if tables is last else len(tables), len(text), max_ids)
            sent += (b"" if tables is last else tables) + text
            last = tables
        done = subprocess.run([program], input=bytes(sent), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        replies = []
        at = 0
        while at < len(done.stdout):
            status, n = struct.unpack_from("<2I", done.stdout, at)
            ids = struct.unpack_from(f"<{n}i", done.stdout, at + 8) if status == OK else ()
            replies.append((status, n, ids))
            at += 8 + 4 * len(ids)
        assert len(replies) == count
        return replies

    return run


def assert_all_agree(subject: Case, in_c: InC, texts: Sequence[bytes], max_tokens: int) -> None:
    ours = [subject.tokenizer.encode(text, max_tokens) for text in texts]
    replies = in_c((subject.tables, text, max_tokens) for text in texts)
    for text, ids, reply in zip(texts, ours, replies, strict=True):
        assert reply == (OK, len(ids), ids), text

    tokenizers = pytest.importorskip("tokenizers")
    reference = tokenizers.Tokenizer.from_str(subject.spec)
    reference.no_padding()
    reference.enable_truncation(max_tokens)
    encodings = reference.encode_batch([text.decode("utf-8", "replace") for text in texts])
    for text, ids, encoding in zip(texts, ours, encodings, strict=True):
        assert list(ids) == encoding.ids, text


def lines_of(code_points: Iterable[int]) -> list[bytes]:
    """Each code point alone, within a word, and at a word's end, in lines of 256 code points."""
    spelled = [f" {chr(c)} e{chr(c)}e {chr(c)}e" for c in code_points if not 0xD800 <= c < 0xE000]
    return ["".join(spelled[i : i + 256]).encode() for i in range(0, len(spelled), 256)]


@functools.cache
def eventful() -> tuple[int, ...]:
    """The code points where something ends or begins: in the sets of unicode_data, in Unicode's categories."""
    sets = [ucd.CONTROL, ucd.WHITESPACE, ucd.CJK, ucd.PUNCTUATION, ucd.NONSPACING, ucd.MARKS, ucd.LOWER, ucd.DECOMPOSED]
    members = [frozenset(code_points) for code_points in sets]
    last: tuple[object, ...] = ()
    found = set(range(0x600)) | {0x10FFFF}
    for c in range(0x110000):
        kind = (unicodedata.category(chr(c)), *(c in some for some in members))
        if kind != last:
            found |= {max(c - 1, 0), c}
        last = kind
    return tuple(sorted(found))


# --- the three agree ---------------------------------------------------------------------------------------------


def test_hwu64(shared: Path, homecmd: Case, in_c: InC) -> None:
    texts = []
    for name in ("train.csv", "val.csv"):
        with (shared / "hwu64" / name).open(newline="", encoding="utf-8") as file:
            texts += [row["text"].encode() for row in csv.DictReader(file)]
    assert len(texts) == 9922
    assert_all_agree(homecmd, in_c, texts, 32)


@pytest.mark.parametrize("max_tokens", [2, 3, 9, 32, NO_LIMIT])
def test_hostile_text_homecmd(homecmd: Case, in_c: InC, max_tokens: int) -> None:
    assert_all_agree(homecmd, in_c, TEXTS, max_tokens)


@pytest.mark.parametrize("name", NORMALIZERS)
def test_hostile_text(name: str, in_c: InC) -> None:
    for max_tokens in (2, 5, NO_LIMIT):
        assert_all_agree(variant(name), in_c, TEXTS, max_tokens)


@pytest.mark.parametrize("name", NORMALIZERS)
def test_eventful_code_points(name: str, in_c: InC) -> None:
    assert_all_agree(variant(name), in_c, lines_of(eventful()), NO_LIMIT)


@pytest.mark.slow
def test_every_code_point_homecmd(homecmd: Case, in_c: InC) -> None:
    assert_all_agree(homecmd, in_c, lines_of(range(0x110000)), NO_LIMIT)


@pytest.mark.parametrize(
    "name, everywhere",
    [
        *((name, False) for name in NORMALIZERS),
        pytest.param("uncased", True, marks=pytest.mark.slow),
        pytest.param("NFD, Lowercase, StripAccents", True, marks=pytest.mark.slow),
    ],
)
def test_character_table(name: str, everywhere: bool) -> None:
    """The words in front of WordPiece: no vocabulary hides a difference."""
    tokenizers = pytest.importorskip("tokenizers", minversion="0.23")
    subject = variant(name)
    reference = tokenizers.Tokenizer.from_str(subject.spec)
    for line in lines_of(range(0x110000) if everywhere else eventful()):
        text = line.decode()
        normal = reference.normalizer.normalize_str(text) if reference.normalizer else text
        expected = [word for word, _ in reference.pre_tokenizer.pre_tokenize_str(normal)]
        words = [word for word in text.translate(subject.tokenizer.characters).split(" ") if word]
        assert words == expected, [hex(ord(c)) for c in text if c not in " e"][::3]


def test_broken_sequences(in_c: InC) -> None:
    """For each lead byte what bounds its tails, within the text and at its end."""
    edges = (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xFF)
    pairs = [bytes((a, b)) for a in range(256) for b in (*edges, a ^ 0x55)]
    longer = [bytes((a, b, c, d)) for a in range(0xC0, 256) for b in edges for c in edges[1:3] for d in edges[2:4]]
    within = pairs + longer
    texts = [b" ".join(b"e" + s + b"e" for s in within[i : i + 256]) for i in range(0, len(within), 256)]
    texts += [b"e" + s[:n] for s in longer[::3] for n in (1, 2, 3)]
    assert_all_agree(variant("not cleaned"), in_c, texts, NO_LIMIT)


TEXT = st.lists(
    st.one_of(st.text(), st.sampled_from([*HOSTILE[:22], *WORDS.split(), *SPECIAL, *MARKS, *ALPHABET, " ", "##"]))
).map("".join)


@settings(max_examples=50)
@given(texts=st.lists(TEXT.map(str.encode) | st.binary(), max_size=20), max_tokens=st.integers(2, 40))
@pytest.mark.parametrize("name", ["uncased", "cased", "NFD, Lowercase"])
def test_random_text(name: str, in_c: InC, texts: list[bytes], max_tokens: int) -> None:
    assert_all_agree(variant(name), in_c, texts, max_tokens)


@pytest.mark.parametrize("name", PARTS)
def test_other_parts(name: str, in_c: InC) -> None:
    subject = case(json.dumps(a_spec(**PARTS[name])))
    for max_tokens in (3, NO_LIMIT):
        assert_all_agree(subject, in_c, TEXTS, max_tokens)


def test_added_tokens_behind_the_vocabulary(in_c: InC) -> None:
    """The leftmost one wins, of those the longest; ids go on where the vocabulary ends."""
    free = len(model()["vocab"])
    contents = ["<a>", "<a><b>", "kit", "<b>", "é "]
    added = [special_token(name, i) for i, name in enumerate(SPECIAL)]
    added += [special_token(content, free + i, special=False) for i, content in enumerate(contents)]
    subject = case(json.dumps(a_spec(added_tokens=added)))
    texts = [b"<a><b><b><a>", "x<a> kitchen é é<a".encode(), b"<a<a>"]
    assert subject.tokenizer.encode(texts[0], 9) == (2, free + 1, free + 3, free, 3)
    assert_all_agree(subject, in_c, texts, NO_LIMIT)


# --- the tables --------------------------------------------------------------------------------------------------


def test_status(in_c: InC) -> None:
    tables = variant("uncased").tables
    bare = parse(a_spec(post_processor=None)).to_bytes()
    replies = in_c(
        [
            (tables, b"turn on", 1),
            (tables, b"turn on", 0),
            (tables, b"turn on", 2),
            (tables[:-1], b"turn on", 8),
            (tables[:63], b"turn on", 8),
            (b"", b"turn on", 8),
            (bytes(64), b"turn on", 8),
            (tables[:8] + b"\x65" + tables[9:], b"turn on", 8),  # words of 101 characters
            (tables + b"\xff", b"", 8),
            (bare, b" ", 8),
            (bare, b"on", 0),
        ]
    )
    assert replies == [
        (ERR_LENGTH_MAX, UNTOUCHED, ()),
        (ERR_LENGTH_MAX, UNTOUCHED, ()),
        (OK, 2, (2, 3)),
        (ERR_BLOB_SIZE, UNTOUCHED, ()),
        (ERR_BLOB_SIZE, UNTOUCHED, ()),
        (ERR_BLOB_SIZE, UNTOUCHED, ()),
        (ERR_BLOB_CHECKSUM, UNTOUCHED, ()),
        (ERR_BLOB_CHECKSUM, UNTOUCHED, ()),
        (OK, 2, (2, 3)),
        (ERR_LENGTH_ZERO, UNTOUCHED, ()),
        (ERR_LENGTH_ZERO, UNTOUCHED, ()),
    ]


def test_damaged_tables_are_safe(in_c: InC) -> None:
    """The words of the header take wild values, then bytes of all else; the sanitizers watch."""
    whole = variant("NFD, Lowercase").tables
    runs, text_bytes, text_at, directory = (struct.unpack_from("<16I", whole)[word] for word in (8, 9, 10, 14))
    text = " ".join(HOSTILE[4:19]).encode()
    damaged = []
    for word in range(16):
        for value in (0, 1, 2, 3, 64, 255, 65535, 65536, len(whole) - 1, len(whole), 1 << 31, (1 << 32) - 1):
            damaged.append(bytearray(whole))
            struct.pack_into("<I", damaged[-1], 4 * word, value)
    rng = random.Random(0)
    regions = range(64, runs + 100), range(text_at, len(whole)), range(directory, len(whole)), range(64, len(whole))
    for _ in range(1200):
        damaged.append(bytearray(whole))
        region = rng.choice(regions)
        for _ in range(rng.choice((1, 2, 50))):
            damaged[-1][rng.choice(region)] = rng.choice((0, 1, 0x20, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    for endless in b"\x80e":  # replacements without end, as continuation bytes and as characters
        damaged.append(bytearray(whole))
        damaged[-1][text_at : text_at + text_bytes] = bytes([200]) + bytes([endless]) * (text_bytes - 1)
        damaged[-1][runs + 36 : text_at] = bytes(text_at - runs - 36)
    damaged.append(bytearray(whole + b"\4abc"))  # a replacement that goes one byte beyond the end
    struct.pack_into("<I", damaged[-1], 0, len(whole) + 4)
    struct.pack_into("<2I", damaged[-1], 36, 4, len(whole))
    damaged[-1][runs + 36 : text_at] = bytes(text_at - runs - 36)
    damaged.append(bytearray(whole))  # records of 3 bytes that begin inside
    struct.pack_into("<2I", damaged[-1], directory, len(whole) - 4, 4)
    statuses = [status for status, *_ in in_c((bytes(tables), text, 64) for tables in damaged)]
    assert set(statuses) == {OK, ERR_BLOB_SIZE, ERR_BLOB_CHECKSUM, ERR_LENGTH_MAX}
    assert statuses[-4:] == [OK, OK, OK, ERR_BLOB_CHECKSUM]


LETTERS = "abcAB é"


@settings(max_examples=50)
@example(characters={ord("A"): "b", ord("b"): "c"}, pieces={"b"}, texts=["A", "b"])
@example(characters={ord("A"): "a b", ord("b"): "c"}, pieces={"a", "b", "bx"}, texts=["A", "b", "Ax"])
@example(characters={ord("A"): " ab ", ord("a"): "c", ord("b"): "c"}, pieces={"a", "##b"}, texts=["A", "ab", "xAx"])
@example(characters={ord("A"): " a b ", ord("é"): "ab"}, pieces={"a"}, texts=["A", "é", "aé"])
@given(
    characters=st.dictionaries(st.sampled_from(LETTERS).map(ord), st.text(LETTERS, max_size=4)),
    pieces=st.sets(st.text("#" + LETTERS, min_size=1, max_size=4), max_size=20),
    texts=st.lists(st.text(LETTERS + "x"), max_size=20),
)
def test_any_character_table(in_c: InC, characters: dict[int, str], pieces: set[str], texts: list[str]) -> None:
    """What is left out of the tables makes no difference, whatever characters become, again and again."""
    vocab = {piece: i for i, piece in enumerate(["[UNK]", *sorted(pieces)])}
    tokenizer = replace(variant("uncased").tokenizer, vocab=vocab, unknown=0, characters=characters | {0x20: " "})
    tables = tokenizer.to_bytes()
    for text, reply in zip(texts, in_c((tables, text.encode(), 64) for text in texts), strict=True):
        ids = tokenizer.encode(text, 64)
        assert reply == (OK, len(ids), ids), text


def test_tables_depend_on_the_content_only() -> None:
    spec = a_spec()
    vocab = spec["model"]["vocab"]
    shuffled = a_spec(model=model(vocab=dict(reversed(vocab.items()))), added_tokens=spec["added_tokens"][::-1])
    assert parse(shuffled).to_bytes() == parse(spec).to_bytes()


def test_tables_are_compact(homecmd: Case) -> None:
    """Text and id of each piece, and 5 KB for all of Unicode."""
    vocab = homecmd.tokenizer.vocab
    text = sum(len(piece.removeprefix("##").encode()) for piece in vocab)
    assert len(homecmd.tables) <= text + 2 * len(vocab) + 5 * 1024


# --- what is refused ---------------------------------------------------------------------------------------------


def without(spec: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in spec.items() if k != key}


@pytest.mark.parametrize(
    "parts, fact",
    [
        ({"version": "2.0"}, "version 1.0"),
        ({"model": {"type": "BPE"}}, "BPE 'tokenizer.json model': only WordPiece"),
        ({"model": {"type": "Unigram"}}, "Unigram 'tokenizer.json model': only WordPiece"),
        ({"model": None}, "type is None"),
        ({"model": model(vocab=[])}, "vocab is []"),
        ({"model": model(vocab={"[UNK]": 65536})}, "id 65536 of '[UNK]'"),
        ({"model": model(vocab={"[UNK]": True})}, "id True"),
        ({"model": model(vocab={"[UNK]": 0, "\ud800": 1})}, "lone surrogate"),
        ({"model": model(unk_token="<unk>")}, "'<unk>' is not in the vocabulary"),
        ({"model": model(max_input_chars_per_word=101)}, "is 101, not in 0..100"),
        ({"model": model(dropout=0.1)}, "unknown option dropout"),
        ({"normalizer": {"type": "NFKC"}}, "NFKC 'tokenizer.json normalizer': not supported"),
        ({"normalizer": sequence("NFD", "Replace")}, "Replace"),
        ({"normalizer": bert(fancy=True)}, "unknown option fancy"),
        ({"normalizer": bert(lowercase=None)}, "lowercase is None, not bool"),
        ({"normalizer": without(bert(), "clean_text")}, "clean_text is None"),
        ({"pre_tokenizer": None}, "type is None"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace 'tokenizer.json pre_tokenizer': not supported"),
        ({"post_processor": {"type": "RobertaProcessing"}}, "RobertaProcessing"),
        ({"post_processor": template("[CLS]")}, "the text stands 0 times"),
        ({"post_processor": template("A", "A")}, "the text stands 2 times"),
        ({"post_processor": {**template("[CLS]", "A"), "special_tokens": {}}}, "'[CLS]' is not in special_tokens"),
        ({"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", -1], "cls": ["[CLS]", 2]}}, "ids [-1]"),
        ({"truncation": {"direction": "Left", "max_length": 8, "strategy": "LongestFirst", "stride": 0}}, "Left"),
        ({"truncation": {"direction": "Right", "max_length": "8", "strategy": "LongestFirst"}}, "max_length"),
        ({"padding": {"direction": "Left"}}, "moves the text"),
        ({"added_tokens": [special_token("[UNK]", 1, normalized=True)]}, "normalized: true"),
        ({"added_tokens": [special_token("[UNK]", 1, single_word=True)]}, "single_word: true"),
        ({"added_tokens": [special_token("[UNK]", 7)]}, "'[UNK]' has id 7, not 1"),
        ({"added_tokens": [special_token("<new>", 7)]}, "'<new>' has id 7"),
        ({"added_tokens": ["[UNK]"]}, "content is None"),
    ],
    ids=lambda value: value.replace("'", "") if isinstance(value, str) else "",
)
def test_refused(parts: dict[str, Any], fact: str) -> None:
    with pytest.raises(CompileError) as refusal:
        parse(a_spec(**parts))
    assert fact in str(refusal.value)
    assert all(problem.remedy for problem in refusal.value.problems)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_not_a_tokenizer(data: bytes) -> None:
    with pytest.raises(CompileError, match="tokenizer"):
        parse_tokenizer(data)


def places(spec: Any) -> Iterator[tuple[str | int, ...]]:
    """The way to each value in `spec` and below, but of the vocabulary only one piece."""
    for key, value in list(spec.items() if isinstance(spec, dict) else enumerate(spec))[:12]:
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in places(value))


def test_junk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in the wrong place: the tokenizer is read, or CompileError says why not."""
    monkeypatch.setattr("slm2c.tokenizer._compose", lambda steps: {})  # slow, and behind all checks
    normalizer = bert(clean_text=False, handle_chinese_chars=False)
    parts = {
        "normalizer": {"type": "Sequence", "normalizers": [normalizer, {"type": "Lowercase"}]},
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": {"direction": "Right"},
        "model": model(vocab={name: i for i, name in enumerate(SPECIAL)}),
    }
    refused = 0
    for other in {}, PARTS["BertProcessing"]:
        text = json.dumps(a_spec(**parts, **other))
        for *way, last in places(json.loads(text)):
            for junk in (None, 5, -1, True, "x", "", [], [5], [None], {}, {"type": "Sequence"}, {"x": []}):
                spec = json.loads(text)
                functools.reduce(lambda value, key: value[key], way, spec)[last] = junk
                try:
                    parse(spec)
                except CompileError:
                    refused += 1
    assert refused > 500


def test_all_problems_are_listed() -> None:
    with pytest.raises(CompileError) as refusal:
        parse(a_spec(normalizer={"type": "NFKC"}, pre_tokenizer={"type": "Metaspace"}, padding={"direction": "Left"}))
    assert [problem.op for problem in refusal.value.problems] == ["NFKC", "Metaspace", "tokenizer"]


def test_marks_whose_order_matters_are_refused() -> None:
    """NFD puts U+0323 (class 220) in front of U+0301 (class 230); a character-wise table cannot."""
    vocab = {piece: i for i, piece in enumerate([*SPECIAL, "a", "##\u0301", "##\u0323"])}
    parse(a_spec(model=model(vocab=vocab)))  # strips them
    with pytest.raises(CompileError, match=r"U\+0301, U\+0323"):
        parse(a_spec(model=model(vocab=vocab), normalizer=sequence("NFD", "Lowercase")))


def test_truncation_of_the_file() -> None:
    truncation = {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
    assert parse(a_spec(truncation=truncation)).max_tokens == 16
    assert variant("uncased").tokenizer.max_tokens is None


def test_room_for_special_tokens() -> None:
    tokenizer = variant("uncased").tokenizer
    assert tokenizer.encode("turn on", 2) == (2, 3)
    with pytest.raises(CompileError, match="adds 2 special tokens where 1"):
        tokenizer.encode("turn on", 1)


def test_text_may_hold_lone_surrogates() -> None:
    tokenizer = variant("not cleaned").tokenizer
    assert tokenizer.encode("a\ud800b", 9) == tokenizer.encode(b"a\xed\xa0\x80b", 9)
    assert len(tokenizer.encode("a\ud800b", 9)) == 2 + 5
