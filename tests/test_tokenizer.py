"""The tokenizer three ways: `Tokenizer.encode`, slm_tokenize() under sanitizers, and Hugging Face `tokenizers`.

The tokenizers are homecmd's, from ../shared, and small ones built here: one for each way to set the normalizer.
"""

from __future__ import annotations

import csv
import functools
import json
import random
import struct
import subprocess
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm2c import unicode_data as ucd
from slm2c.errors import CompileError
from slm2c.tokenizer import MAX_WORD_CHARS, Tokenizer, parse_tokenizer

ROOT = Path(__file__).resolve().parent.parent
NO_LIMIT = 1 << 20  # tokens

# slm.h
OK, ERR_NULL, ERR_BLOB_SIZE, ERR_BLOB_CHECKSUM, ERR_LENGTH_ZERO, ERR_LENGTH_MAX = 0, 1, 5, 9, 10, 11
UNTOUCHED = 0xFFFFFFFF

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "turn on the kitchen light un ##aff ##able token ##ization ESC élan ß ss #"
# Characters that some normalizer makes of others, or that it would make something else of.
ALPHABET = (
    [chr(c) for c in range(0x21, 0x7F)]
    + [chr(c) for c in range(0xA1, 0x250)]  # Latin with accents
    + list("ɤƛαβγωσςιίΐϗабвгдежий")
    + [chr(c) for c in (0x3A3, 0x410, 0x13A0, 0xAB70, 0x1C8A, 0x2C5F, 0x10428, 0x16EBB)]  # some scripts with case
    + [chr(c) for c in (0x1100, 0x1161, 0x11A8, 0xAC01, 0x1175, 0x1112, 0x11C2)]  # jamo and a syllable
    + ["中", "更", "豈", "\U0002f800", "\U00020122", "\U0002b740", "あ", "ア"]  # Han, also by compatibility; kana
    + ["\u093f", "\u09c7", "\u09be", "\u0bc6", "\u1734", "\U0001d157", "\U0001d165"]  # spacing marks
    + ["😀", "👍", "\u200d", "\ufe0f", "\ufffd", "\x07", "\x0b", "\x85", "\xad", "\xa0", "\u2260", "×", "…", "，"]
)
MARKS = ["\u0301", "\u0307", "\u0308"]  # of one class: their order cannot change

HOSTILE = [
    "",
    " ",
    "\t\n\r \u00a0\u3000\u2028",
    "\0",
    "tu\0rn\0 on",
    "\x07\x0b\x0c\x1c\x1d\x1e\x1f\x7f\x85\xad\u200b\ufeff",
    "Turn ON the KITCHEN light!",
    "Élan vital, naïve façade: Ünïcödé",
    "e\u0301lan n\u0303 a\u0323\u0301 a\u0301\u0323 \u0301 \u0301\u0301e",
    "Zalgo: t\u0334\u0310\u035du\u0327\u0300r\u0338n\u0321",
    "İstanbul ıI ŞİŞ ΣΑΣ ὈΔΥΣΣΕΎΣ ẞ ﬁ Ǆ ǅ ǆ Å K Ω",
    "≠ ≮≯ a≠b = \u0338=",
    "😀 👍🏽 👨\u200d👩\u200d👧 🇩🇪 ❤\ufe0f x😀y",
    "中文 豈更\U0002f800 ひらがな カタカナ ｶﾞ x中y \u4dff\u9fff\ua000\u3400\U0002a6d6\U0002b81f",
    "한국어 각 힣 가\u11a8 \u1100\u1161\u11a8",
    "שלום עולם مرحبا بالعالم \u202eabc\u202c",
    "नमस्ते हिन्दी தமிழ் கொ ไทย",
    "[CLS] [MASK] [mask] [PAD][UNK]",
    "a[MASK]b [[MASK]] [MASK [SEP][SEP] [ CLS ] [CL\u0301S] ##able ## un##aff",
    "unaffable " * 3 + "unaffablex tokenization",
    "x" * MAX_WORD_CHARS,
    "x" * (MAX_WORD_CHARS + 1),
    "é" * MAX_WORD_CHARS + " " + "é" * (MAX_WORD_CHARS + 1) + " " + "e\u0301" * MAX_WORD_CHARS,
    "😀" * MAX_WORD_CHARS + " " + "한" * 51 + " " + "한" * 50,
    "light" + "\u0301" * 5000 + " on",
    "turn on the light " * 556,
    "z" * 10_000,
    "é!" * 5_000,
    "中" * 10_000,
    "¡¿§¶·«» 「」、。 – — ‘’ “” … ‰ ₤ € + < = > | ~ ^ ` $",
    "\u1734 \u166d \U0001e94a \ua7cb \U00010d50 \U00011938 \U000105c9",  # where Unicode's versions differ
]
BROKEN = [
    b"\xff",
    b"\x80turn\x80on\xbf",
    b"caf\xc3 caf\xc3\xa9 caf\xc3\xc3\xa9",
    b"\xc0\x80 \xc1\xbf \xe0\x80\x80 \xe0\x9f\xbf \xf0\x80\x80\x80 \xf0\x8f\xbf\xbf",  # overlong
    b"\xed\xa0\x80 \xed\xbf\xbf \xed\x9f\xbf \xee\x80\x80",  # surrogates
    b"\xf4\x8f\xbf\xbf \xf4\x90\x80\x80 \xf5\x80\x80\x80 \xfe\xff",
    b"\xe2\x82 \xe2\x82\xac \xf0\x9f\x98 \xf0\x9f\x98\x80 \xf0\x9f\xf0\x9f\x98\x80",
    "turn on €".encode()[:-1],
    "turn on 😀".encode()[:-1],
    "turn on 😀".encode()[:-2],
    "turn on 😀".encode()[:-3],
]
TEXTS = [text.encode() for text in HOSTILE] + BROKEN


def bert(**options: bool | None) -> dict[str, Any]:
    defaults = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    return {"type": "BertNormalizer", **defaults, **options}


def sequence(*types: str) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": [{"type": kind} for kind in types]}


NORMALIZERS: dict[str, dict[str, Any] | None] = {
    "uncased": bert(),
    "cased": bert(lowercase=False),
    "cased, accents stripped": bert(lowercase=False, strip_accents=True),
    "uncased, accents kept": bert(strip_accents=False),
    "not cleaned": bert(clean_text=False),
    "Han not isolated": bert(handle_chinese_chars=False),
    "nothing": None,
    "NFD, Lowercase, StripAccents": sequence("NFD", "Lowercase", "StripAccents"),
    "NFD, Lowercase": sequence("NFD", "Lowercase"),
    "StripAccents": {"type": "StripAccents"},
}


def special_token(name: str, token_id: int, **flags: bool) -> dict[str, Any]:
    defaults = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": name, **defaults, "special": True, **flags}


def template(*single: str) -> dict[str, Any]:
    def item(name: str) -> dict[str, Any]:
        return {"Sequence" if name == "A" else "SpecialToken": {"id": name, "type_id": 0}}

    special = {name: {"id": name, "ids": [SPECIAL.index(name)], "tokens": [name]} for name in single if name != "A"}
    pair = [item("A"), {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": list(map(item, single)), "pair": pair, "special_tokens": special}


def a_spec(**parts: Any) -> dict[str, Any]:
    """The content of a tokenizer.json with a small vocabulary; `parts` replace what stands there."""
    pieces = [*SPECIAL, *WORDS.split(), *MARKS, *ALPHABET, *(f"##{c}" for c in MARKS + ALPHABET)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special_token(name, i) for i, name in enumerate(SPECIAL)],
        "normalizer": bert(),
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template("[CLS]", "A", "[SEP]"),
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {piece: i for i, piece in enumerate(dict.fromkeys(pieces))},
        },
        **parts,
    }


def model(**parts: Any) -> dict[str, Any]:
    return {**a_spec()["model"], **parts}


def parse(spec: dict[str, Any]) -> Tokenizer:
    return parse_tokenizer(json.dumps(spec))


class Case(NamedTuple):
    spec: str
    tokenizer: Tokenizer
    tables: bytes


def case(spec: str) -> Case:
    tokenizer = parse_tokenizer(spec)
    return Case(spec, tokenizer, tokenizer.to_bytes())


@functools.cache
def variant(name: str) -> Case:
    """By the name of its normalizer."""
    spec = a_spec(normalizer=NORMALIZERS[name])
    if name == "NFD, Lowercase":  # the only one that decomposes and keeps the marks: let them be of one class
        for mark in "\u1734\U0001d165":
            del spec["model"]["vocab"][mark], spec["model"]["vocab"][f"##{mark}"]
    return case(json.dumps(spec))


@pytest.fixture(scope="module")
def homecmd(shared: Path) -> Case:
    return case((shared / "students" / "homecmd" / "tokenizer.json").read_text(encoding="utf-8"))


Request = tuple[bytes, bytes, int]  # tables, text, max_ids
Reply = tuple[int, int, tuple[int, ...]]  # status, n, ids
InC = Callable[[Iterable[Request]], list[Reply]]


@pytest.fixture(scope="module")
def in_c(host_cc: str, tmp_path_factory: pytest.TempPathFactory) -> InC:
    """slm_tokenize() under the address and undefined-behaviour sanitizers, for many requests in one process."""
    program = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    warnings = "-Wall -Wextra -Wconversion -Wsign-conversion -Wcast-qual -Wshadow -Wundef -Wvla -Wdouble-promotion"
    sanitize = "-fsanitize=address,undefined -fno-sanitize-recover=all"
    sources = [ROOT / "runtime_c/slm_tokenizer.c", ROOT / "tests/c/tokenizer_main.c"]
    command = [host_cc, *f"-std=c11 -O1 -g {warnings} -Werror {sanitize}".split(), f"-I{ROOT / 'runtime_c'}"]
    subprocess.run([*command, *map(str, sources), "-o", str(program)], check=True)

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


@pytest.mark.parametrize("everywhere", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NORMALIZERS)
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
    """All pairs of bytes; for each lead byte, what bounds its tails; what ends with the text."""
    pairs = [bytes((a, b)) for a in range(256) for b in range(128, 256)]
    edges = (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)
    longer = [bytes((a, b, c, d)) for a in range(0xC0, 256) for b in edges for c in edges for d in (0x80, 0xFF)]
    within = pairs + longer
    texts = [b" ".join(b"e" + s + b"e" for s in within[i : i + 256]) for i in range(0, len(within), 256)]
    texts += [b"e" + s[:n] for s in longer[::7] for n in (1, 2, 3)]
    assert_all_agree(variant("not cleaned"), in_c, texts, NO_LIMIT)


TEXT = st.lists(
    st.one_of(st.text(), st.sampled_from([*HOSTILE[:22], *WORDS.split(), *SPECIAL, *MARKS, *ALPHABET, " ", "##"]))
).map("".join)


@settings(max_examples=50)
@given(texts=st.lists(TEXT.map(str.encode) | st.binary(), max_size=20), max_tokens=st.integers(2, 40))
@pytest.mark.parametrize("name", ["uncased", "cased", "NFD, Lowercase"])
def test_random_text(name: str, in_c: InC, texts: list[bytes], max_tokens: int) -> None:
    assert_all_agree(variant(name), in_c, texts, max_tokens)


PARTS: dict[str, dict[str, Any]] = {
    "split at white space": {"pre_tokenizer": {"type": "WhitespaceSplit"}},
    "BertProcessing": {"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}},
    "special tokens behind": {"post_processor": template("A", "[SEP]", "[MASK]")},
    "added tokens take spaces": {
        "added_tokens": [special_token(name, i, lstrip=True, rstrip=True) for i, name in enumerate(SPECIAL)]
    },
    "pieces as added tokens": {
        "added_tokens": [special_token(piece, model()["vocab"][piece]) for piece in ("the", "[MASK]", "on", "é")]
    },
    "no prefix": {"model": model(continuing_subword_prefix="")},
    "a letter as prefix": {"model": model(continuing_subword_prefix="e")},
    "short words": {"model": model(max_input_chars_per_word=5)},
    "no words": {"model": model(max_input_chars_per_word=0)},
    "no pieces": {"model": model(vocab={"[UNK]": 65535, "[CLS]": 0, "[SEP]": 1}), "added_tokens": []},
}


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
        (OK, 2, (2, 3)),
        (ERR_LENGTH_ZERO, UNTOUCHED, ()),
        (ERR_LENGTH_ZERO, UNTOUCHED, ()),
    ]


def test_damaged_tables_are_safe(in_c: InC) -> None:
    """Every word of the header and every byte of the small tables takes wild values; the sanitizers watch."""
    whole = variant("NFD, Lowercase").tables
    text = " ".join(HOSTILE[4:19]).encode()
    pieces = min(struct.unpack_from("<16I", whole)[14], 2600)
    rng = random.Random(0)
    requests = []
    for word in range(16):
        for value in (0, 1, 2, 3, 64, 255, 65535, 65536, len(whole) - 1, len(whole), 1 << 31, (1 << 32) - 1):
            tables = bytearray(whole)
            struct.pack_into("<I", tables, 4 * word, value)
            requests.append((bytes(tables), text, 64))
    for _ in range(1500):
        tables = bytearray(whole)
        for _ in range(rng.choice((1, 2, 50))):
            region = rng.choice((range(64, 256), range(64, pieces), range(len(whole) - 500, len(whole))))
            tables[rng.choice(region)] = rng.choice((0, 1, 0x20, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        requests.append((bytes(tables), text, 64))
    statuses = [status for status, *_ in in_c(requests)]
    assert set(statuses) == {OK, ERR_BLOB_SIZE, ERR_BLOB_CHECKSUM, ERR_LENGTH_MAX}


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
