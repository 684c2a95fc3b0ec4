"""WordPiece: a Hugging Face `tokenizer.json` -> ids in Python, and the tables of runtime_c/slm_tokenizer.c.

BERT's normalizers and pre-tokenizers look at one character at a time, so all of them together are one table,
character -> text, in which a space ends a word: É -> "e", "!" -> " ! ", BEL -> "". `Tokenizer.encode` applies it
with `str.translate`; the C code applies the same table, cut down to what the vocabulary can tell apart. The one
step that looks further, the canonical order of combining marks, is proved to be without effect or refused.

What is implemented is what `tokenizers` 0.23 does, not what its documentation says; see unicode_data.py. Sources:
Wu et al., arXiv 1609.08144 (WordPiece); Devlin et al., arXiv 1810.04805, and its tokenization.py (BERT).
"""

from __future__ import annotations

import json
import re
import struct
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from slm2c import unicode_data as ucd
from slm2c.errors import CompileError, Problem

T = TypeVar("T")
Table = Mapping[int, str]
"""Code point -> text, as `str.translate` takes it; what is not listed stays as it is."""

MAX_WORD_CHARS = 100
"""The longest word, in characters, that the C code buffers: SLM_TOKENIZER_WORD_CHARS."""

MAX_ID = 0xFFFF
"""The tables hold 16-bit ids."""

HANGUL = range(0xAC00, 0xD7A4)
"""The syllables, which decompose by arithmetic (Unicode 3.12)."""

SELF = "\0"
"""In the tables: the character itself."""


@dataclass(frozen=True)
class Tokenizer:
    """A WordPiece tokenizer.

    `vocab`: piece -> id, where `prefix` opens pieces that continue a word. `unknown`: the id of a word that no
    pieces make up, or that has more than `word_chars` characters. `characters`: what becomes of each character
    in front of WordPiece. `added`: text -> id of tokens that are found in the text as it was typed, longest
    first. `before`, `after`: ids around every text. `max_tokens`: where the file truncates, None if nowhere.
    """

    vocab: Mapping[str, int] = field(repr=False)
    prefix: str
    unknown: int
    word_chars: int
    characters: Table = field(repr=False)
    added: Mapping[str, int]
    before: tuple[int, ...]
    after: tuple[int, ...]
    max_tokens: int | None

    @property
    def largest_id(self) -> int:
        """The largest id that `encode` can give."""
        return max(self.unknown, *self.vocab.values(), *self.added.values(), *self.before, *self.after)

    def encode(self, text: str | bytes, max_tokens: int) -> tuple[int, ...]:
        """The ids of `text`, at most `max_tokens` with `before` and `after`; the text's last ones are cut off.

        Bytes that are not UTF-8 become U+FFFD by maximal subparts (Unicode 3.9, table 3-8), as in
        `bytes.decode("utf-8", "replace")`; a lone surrogate in a `str` counts as its three bytes.

        Raises CompileError if `before` and `after` alone are more than `max_tokens`.
        """
        room = max_tokens - len(self.before) - len(self.after)
        if room < 0:
            raise _refusal(
                "post_processor",
                f"adds {len(self.before) + len(self.after)} special tokens where {max_tokens} tokens are the most",
                "export the model for longer sequences",
            )
        raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        return (*self.before, *islice(self._ids(raw.decode("utf-8", "replace")), room), *self.after)

    def _ids(self, text: str) -> Iterator[int]:
        pattern = "|".join(map(re.escape, self.added))
        for part in re.split(f"({pattern})", text) if pattern else [text]:
            if part in self.added:
                yield self.added[part]
            else:
                for word in part.translate(self.characters).split(" "):
                    yield from self._pieces(word)

    def _pieces(self, word: str) -> list[int]:
        """The ids of the longest piece at the word's start, then of the longest at what is left, and so on."""
        if len(word) > self.word_chars:
            return [self.unknown]
        ids: list[int] = []
        start = 0
        while start < len(word):
            prefix = self.prefix if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self.vocab), None)
            if end is None:
                return [self.unknown]
            ids.append(self.vocab[prefix + word[start:end]])
            start = end
        return ids

    def to_bytes(self) -> bytes:
        """The tables for slm_tokenize(): position-independent, little endian, every offset a multiple of 4.

        Sixteen 32-bit words open them, counted from 0; offsets are in bytes from the first of them:

            0   bytes in all
            1   id of an unknown word
            2   characters of the longest word that is looked up
            3   1 if Hangul syllables decompose into jamo, else 0
            4   ids in front of the text    5   ids behind the text    6   their offset, uint16 each
            7   runs of characters          8   their offset
            9   bytes of replacement text   10  its offset
            11  bytes of added tokens       12  their offset
            13  bytes of the longest piece  14  offset of the pieces' directory
            15  0

        The runs: uint16 first[18], the first run of each plane of Unicode, and the end; uint16 start[], the low
        half of the run's first code point; uint16 text[], where its replacement lies in the replacement text: a
        byte that counts bytes, then UTF-8 in which a space ends a word and a NUL is the character itself.
        Added tokens, longest first: uint16 id, uint16 bytes, UTF-8.
        The directory: for pieces that open a word, then for those that continue one, for each length from 1 byte
        on: uint32 offset, uint32 count of records, sorted: UTF-8 of that length, uint16 id.

        Size: a piece takes its text and 2 bytes. A minimal automaton with perfect hashing saves nothing (10,235
        edges of 5 bytes and 8,192 ids for the pieces of homecmd); front coding would save a quarter for twice
        the code.
        """
        pieces = self._reachable()
        table = self._distinguishable({c for some in pieces for piece in some for c in piece})
        hangul = any(c in table for c in HANGUL)
        runs, text = _runs({c: s for c, s in table.items() if c not in HANGUL})

        out = bytearray(64)

        def put(data: bytes) -> int:
            offset = len(out)
            out.extend(data + bytes(-len(data) % 4))
            return offset

        specials = put(_u16(self.before + self.after))
        characters = put(b"".join(map(_u16, runs)))
        replacements = put(text)
        added = b"".join(_u16((i, len(content.encode()))) + content.encode() for content, i in self.added.items())
        tokens = put(added)
        longest = max((len(piece.encode()) for some in pieces for piece in some), default=0)
        directory = b""
        for some in pieces:
            records = sorted((piece.encode(), i) for piece, i in some.items())
            for size in range(1, longest + 1):
                same = [piece + _u16((i,)) for piece, i in records if len(piece) == size]
                directory += struct.pack("<2I", put(b"".join(same)), len(same))
        lengths = put(directory)
        header = (
            len(out), self.unknown, self.word_chars, hangul, len(self.before), len(self.after), specials,
            len(runs[1]), characters, len(text), replacements, len(added), tokens, longest, lengths, 0,
        )  # fmt: skip
        struct.pack_into("<16I", out, 0, *header)
        return bytes(out)

    def _reachable(self) -> tuple[dict[str, int], dict[str, int]]:
        """The pieces that open a word, and those that continue one, without `prefix`, that some text can need."""
        joined: set[str] = set()  # characters that may stand beside others in a word
        alone: set[str] = set()  # characters that are a word by themselves
        for text in self.characters.values():
            head, *words = text.split(" ")
            joined.update(head, *words[-1:])
            for word in words[:-1]:
                (alone if len(word) == 1 else joined).update(word)

        def spelled(word: str) -> bool:
            return all(c in joined or ord(c) not in self.characters for c in word)

        opening = {p: i for p, i in self.vocab.items() if p and (spelled(p) or p in alone)}
        tails = {
            p[len(self.prefix) :]: i for p, i in self.vocab.items() if p.startswith(self.prefix) and p != self.prefix
        }
        return opening, {p: i for p, i in tails.items() if spelled(p)}

    def _distinguishable(self, alphabet: set[str]) -> dict[int, str]:
        """The part of `characters` that pieces over `alphabet` can tell from characters that stay as they are."""
        table = {}
        for c, text in self.characters.items():
            assert SELF not in text, f"U+{c:04X} becomes {text!r}"
            word = text.strip(" ")
            unknown = bool(word) and " " not in word and not set(word) <= alphabet
            if unknown and chr(c) not in alphabet:  # as unknown as the character itself
                if text == word:
                    continue
                if text == f" {word} ":
                    text = f" {SELF} "
            table[c] = f" {SELF} " if text == f" {chr(c)} " else text
        return table


def _u16(values: Iterable[int]) -> bytes:
    return np.fromiter(values, "<u2").tobytes()


def _runs(table: Table) -> tuple[tuple[list[int], list[int], list[int]], bytes]:
    """Runs of code points with the same replacement, (first of each plane, start, text), and replacement text."""
    text = bytearray()
    where: dict[str, int] = {}
    for replacement in [SELF, *sorted(set(table.values()))]:
        where[replacement] = len(text)
        text += bytes([len(replacement.encode())]) + replacement.encode()
    assert len(text) <= 0x10000, f"{len(text)} bytes of replacement text"
    values = np.full(0x110000, where[SELF])
    values[list(table)] = [where[s] for s in table.values()]
    planes = np.arange(0, 0x110001, 0x10000)
    starts = np.union1d(np.flatnonzero(np.diff(values)) + 1, planes[:-1])
    first = np.searchsorted(starts, planes)
    return (first.tolist(), (starts & 0xFFFF).tolist(), values[starts].tolist()), bytes(text)


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`.

    Raises CompileError that lists every part of it that cannot be reproduced exactly, OSError if it cannot be read.
    """
    return parse_tokenizer(path.read_bytes())


def parse_tokenizer(data: str | bytes) -> Tokenizer:
    """The tokenizer that the text of a `tokenizer.json` describes.

    Raises CompileError that lists every part of it that cannot be reproduced exactly.
    """
    try:
        spec = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _refusal("", f"not a JSON file: {error}", "save it with `tokenizer.save(...)`") from error
    if not isinstance(spec, dict) or spec.get("version") != "1.0":
        raise _refusal("", "not a tokenizer of version 1.0", "save it with `tokenizer.save(...)`")

    problems: list[Problem] = []

    def read(parse: Callable[[Any], T], component: str) -> T | None:
        try:
            return parse(spec.get(component))
        except CompileError as error:
            problems.extend(error.problems)
            return None

    model = read(_model, "model")
    steps = read(_normalizer, "normalizer") or []
    words = read(_pre_tokenizer, "pre_tokenizer") or []
    before, after = read(_post_processor, "post_processor") or ((), ())
    max_tokens = read(_truncation, "truncation")
    read(_check_padding, "padding")
    vocab = model[0] if model else {}
    added = read(lambda tokens: _added_tokens(tokens, vocab), "added_tokens") if model else None
    if problems:
        raise CompileError(problems)
    assert model is not None and added is not None
    characters = _compose(steps + words)
    if any(step is ucd.DECOMPOSED for step in steps):
        _check_mark_order(vocab, characters)
    return Tokenizer(*model, characters, added, before, after, max_tokens)


def _refusal(component: str, fact: str, remedy: str, op: str = "") -> CompileError:
    return CompileError(Problem(f"tokenizer.json {component}".rstrip(), op or "tokenizer", fact, remedy))


def _get(spec: Any, key: str, kind: type[T], component: str) -> T:
    """spec[key], which must be a `kind` (a bool is no int)."""
    value = spec.get(key) if isinstance(spec, dict) else None
    if type(value) is not kind:
        raise _refusal(component, f"{key} is {repr(value)[:60]}, not {kind.__name__}", "check the file")
    return value


def _only(spec: Mapping[str, Any], known: Iterable[str], component: str) -> None:
    """Refuses options that a newer `tokenizers` may have and that would be ignored here."""
    for key in sorted(spec.keys() - set(known) - {"type"}):
        raise _refusal(component, f"unknown option {key}", "re-save it with tokenizers 0.23", spec["type"])


def _model(spec: Any) -> tuple[dict[str, int], str, int, int]:
    """(vocab, prefix, unknown, word_chars)."""
    component = "model"
    kind = _get(spec, "type", str, component)
    if kind != "WordPiece":
        raise _refusal(component, "only WordPiece is supported", "distil to a student of BERT's family", kind)
    _only(spec, ("unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"), component)
    vocab = _get(spec, "vocab", dict, component)
    for piece, i in vocab.items():
        if type(i) is not int or not 0 <= i <= MAX_ID:
            raise _refusal(component, f"id {i!r} of {piece!r} is not in 0..{MAX_ID}", "prune the vocabulary", kind)
        if not _is_unicode(piece):
            raise _refusal(component, f"piece {piece!r} holds a lone surrogate", "prune the vocabulary", kind)
    unknown = _get(spec, "unk_token", str, component)
    if unknown not in vocab:
        raise _refusal(component, f"unk_token {unknown!r} is not in the vocabulary", "add it", kind)
    word_chars = _get(spec, "max_input_chars_per_word", int, component)
    if not 0 <= word_chars <= MAX_WORD_CHARS:
        raise _refusal(
            component,
            f"max_input_chars_per_word is {word_chars}, not in 0..{MAX_WORD_CHARS}",
            f"set it to {MAX_WORD_CHARS}",
            kind,
        )
    return vocab, _get(spec, "continuing_subword_prefix", str, component), vocab[unknown], word_chars


def _normalizer(spec: Any) -> list[Table]:
    if spec is None:
        return []
    if _get(spec, "type", str, "normalizer") != "Sequence":
        return _normalizer_steps(spec)
    _only(spec, ("normalizers",), "normalizer")
    return [step for part in _get(spec, "normalizers", list, "normalizer") for step in _normalizer_steps(part)]


def _normalizer_steps(spec: Any) -> list[Table]:
    component = "normalizer"
    kind = _get(spec, "type", str, component)
    if kind == "BertNormalizer":
        _only(spec, ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), component)
        lowercase = _get(spec, "lowercase", bool, component)
        accents = spec.get("strip_accents") is not None
        strip_accents = _get(spec, "strip_accents", bool, component) if accents else lowercase
        steps: list[Table] = []
        if _get(spec, "clean_text", bool, component):
            steps += [_to(" ", ucd.WHITESPACE) | _to("", ucd.CONTROL)]
        if _get(spec, "handle_chinese_chars", bool, component):
            steps += [_isolated(ucd.CJK)]
        if strip_accents:
            steps += [ucd.DECOMPOSED, _to("", ucd.NONSPACING)]
        return steps + [ucd.LOWER] * lowercase
    parts = {"NFD": ucd.DECOMPOSED, "Lowercase": ucd.LOWER, "StripAccents": _to("", ucd.MARKS)}
    if kind not in parts:
        remedy = f"supported are BertNormalizer, {', '.join(parts)} and a Sequence of them"
        raise _refusal(component, "not supported", remedy, kind)
    _only(spec, (), component)
    return [parts[kind]]


def _pre_tokenizer(spec: Any) -> list[Table]:
    component = "pre_tokenizer"
    kind = _get(spec, "type", str, component)
    if kind not in ("BertPreTokenizer", "WhitespaceSplit"):
        # Whitespace, for one, splits by the regular expression \w+|[^\w\s]+, which looks at two characters.
        raise _refusal(component, "not supported", "supported are BertPreTokenizer and WhitespaceSplit", kind)
    _only(spec, (), component)
    spaces = _to(" ", ucd.WHITESPACE)
    return [spaces | _isolated(ucd.PUNCTUATION)] if kind == "BertPreTokenizer" else [spaces]


def _post_processor(spec: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(before, after)."""
    component = "post_processor"
    if spec is None:
        return (), ()
    kind = _get(spec, "type", str, component)
    if kind == "BertProcessing":
        _only(spec, ("sep", "cls"), component)
        cls, sep = (_ids(_get(spec, key, list, component)[1:], component) for key in ("cls", "sep"))
        return cls, sep
    if kind != "TemplateProcessing":
        raise _refusal(component, "not supported", "supported are TemplateProcessing and BertProcessing", kind)
    _only(spec, ("single", "pair", "special_tokens"), component)
    ids: dict[str, tuple[int, ...]] = {
        name: _ids(_get(token, "ids", list, component), component)
        for name, token in _get(spec, "special_tokens", dict, component).items()
    }
    sides: list[tuple[int, ...]] = [()]
    for item in _get(spec, "single", list, component):
        piece = item.get("SpecialToken") or item.get("Sequence") if isinstance(item, dict) else None
        if _get(piece, "type_id", int, component) != 0:
            raise _refusal(component, "a type_id is not 0", "export the student with one segment", kind)
        name = _get(piece, "id", str, component)
        if "Sequence" in item and name == "A":
            sides.append(())
        elif name in ids:
            sides[-1] += ids[name]
        else:
            raise _refusal(component, f"{name!r} is not in special_tokens", "add it", kind)
    if len(sides) != 2:
        raise _refusal(component, f"the text stands {len(sides) - 1} times in `single`", "put it there once", kind)
    return sides[0], sides[1]


def _ids(values: list[Any], component: str) -> tuple[int, ...]:
    if not all(type(i) is int and 0 <= i <= MAX_ID for i in values):
        raise _refusal(component, f"ids {repr(values)[:60]} are not in 0..{MAX_ID}", "check the file")
    return tuple(values)


def _truncation(spec: Any) -> int | None:
    component = "truncation"
    if spec is None:
        return None
    for key, wrong in ("direction", "Left"), ("strategy", "OnlySecond"):
        if _get(spec, key, str, component) == wrong:
            raise _refusal(component, f"{key} is {wrong}", "use Right and LongestFirst")
    return _get(spec, "max_length", int, component)


def _check_padding(spec: Any) -> None:
    if spec is not None and _get(spec, "direction", str, "padding") != "Right":
        raise _refusal("padding", "moves the text to the right, away from its positions", "pad on the right")


def _added_tokens(tokens: Any, vocab: Mapping[str, int]) -> dict[str, int]:
    """Content -> id, longest first: `tokenizers` takes the leftmost match, and of those the longest.

    lstrip and rstrip take white space beside the token, which ends words anyhow.
    """
    component = "added_tokens"
    added: dict[str, int] = {}
    free = len(vocab)  # `tokenizers` numbers what the vocabulary lacks from here on, whatever the file says
    if not isinstance(tokens, list | None):
        raise _refusal(component, "not a list", "check the file")
    for token in tokens or []:
        content = _get(token, "content", str, component)
        if not content:
            continue
        for flag in ("normalized", "single_word"):
            if _get(token, flag, bool, component):
                raise _refusal(component, f"{content!r} has {flag}: true", "set it to false and retrain")
        if len(content.encode("utf-8", "replace")) > 0xFFFF or not _is_unicode(content) or "\ufffd" in content:
            raise _refusal(component, f"{content[:60]!r} is too long or not Unicode", "remove it")
        expected = vocab.get(content, added.get(content, free))
        free += expected == free and content not in vocab
        if _get(token, "id", int, component) != expected or expected > MAX_ID:
            raise _refusal(component, f"{content!r} has id {token['id']}, not {expected}", "correct it")
        added[content] = expected
    if len(set(added.values())) < len(added):
        raise _refusal(component, "two of them have the same id", "remove one")
    return dict(sorted(added.items(), key=lambda item: (-len(item[0]), item[0])))


def _check_mark_order(vocab: Mapping[str, int], characters: Table) -> None:
    """Proves that a character-wise NFD is exact: canonical order cannot matter to this vocabulary.

    NFD sorts neighbouring combining marks by their class, stably. Marks outside the vocabulary's alphabet make the
    word unknown in any order; marks of one class keep their order.
    """
    marks = {c for piece in vocab for c in piece if unicodedata.combining(c) and ord(c) not in characters}
    if len({unicodedata.combining(c) for c in marks}) > 1:
        names = ", ".join(f"U+{ord(c):04X}" for c in sorted(marks)[:8])
        raise _refusal("normalizer", f"NFD would sort marks in pieces ({names})", "strip the accents", "NFD")


def _to(text: str, code_points: Iterable[int]) -> dict[int, str]:
    return dict.fromkeys(code_points, text)


def _isolated(code_points: Iterable[int]) -> dict[int, str]:
    return {c: f" {chr(c)} " for c in code_points}


def _compose(steps: Sequence[Table]) -> dict[int, str]:
    """The table that does what `steps` do one after the other."""
    table: dict[int, str] = {}
    for step in reversed(steps):
        table = {**table, **{c: text.translate(table) for c, text in step.items()}}
    return table


def _is_unicode(text: str) -> bool:
    return not re.search("[\ud800-\udfff]", text)
