"""identifiers: names and texts of others, fit for C."""

from __future__ import annotations

import re
import string

_RESERVED = frozenset(
    re.findall(
        r"\w+",
        # C
        """auto break case char const continue default do double else enum extern float for goto if inline int long
        register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
        main """
        # headers of the C library, which a <name>.h would hide
        """alloca assert complex ctype endian errno features fenv inttypes iso646 limits locale math newlib setjmp
        signal stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string strings tgmath threads
        time uchar wchar wctype """
        # headers and folders beside the model's
        "board console decimal start firmware "
        # targets of CMake
        "all clean flash help install package run test",
    )
)


def is_identifier(name: str) -> bool:
    """Whether `name` can be a prefix of C identifiers, a file name and a target of CMake, and is not the runtime's."""
    return (
        bool(re.fullmatch(r"[a-z][a-z0-9_]{0,47}", name)) and name not in _RESERVED and not re.match("slm(_|$)", name)
    )


def comment_text(text: str) -> str:
    """`text` fit for a C comment: printable ASCII that can neither end the comment nor start a trigraph or a splice."""
    safe = "".join(c if c in string.printable and c not in "\r\n\t\v\f\\?" else "_" for c in text)
    return safe.replace("*/", "*_").replace("/*", "/_")[:120]


def c_string(text: str) -> str:
    """`text` as UTF-8 between the quotes of a C string; in octal what is not plain ASCII, may be part of a trigraph, or
    looks like the end of a comment.
    """
    plain = set(string.ascii_letters + string.digits + string.punctuation + " ") - set('"\\?*')
    return "".join(chr(byte) if chr(byte) in plain else f"\\{byte:03o}" for byte in text.encode("utf-8", "replace"))
