"""Small WordPiece tokenizers, one for each way to set them up, and text that is hard on them."""

from __future__ import annotations

import functools
import json
from typing import Any, NamedTuple

from slm2c.tokenizer import MAX_WORD_CHARS, Tokenizer, parse_tokenizer

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
