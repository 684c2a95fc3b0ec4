"""runtime: which files of runtime_c/ a program needs, by the functions that it calls, and what structs they have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from slm2c.resources import data_dir


@cache
def _sources() -> Mapping[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(data_dir("runtime_c").glob("*.[ch]"))}


@cache
def declares_struct(name: str) -> bool:
    """Whether the runtime has a struct of this name."""
    return any(re.search(rf"\b{name};", text) for text in _sources().values())


@cache
def headers_of(symbol: str) -> tuple[str, ...]:
    """The header that declares a runtime function."""
    return tuple(
        name for name, text in _sources().items() if name.endswith(".h") and re.search(rf"\b{symbol}\(", text)
    )[:1]


def files_of(symbols: Iterable[str]) -> set[str]:
    """The files that define these functions, and what they include. Raises AssertionError for a function that is not
    defined exactly once.
    """
    wanted: list[str] = []
    for symbol in symbols:
        found = [
            name
            for name, text in _sources().items()
            if name.endswith(".c")
            and re.search(rf"^(?!static)[a-z_][\w \*]*\b{symbol}\([^;]*?\)\s*\{{", text, re.MULTILINE | re.DOTALL)
        ]
        assert len(found) == 1, f"{symbol} is defined in {found}"
        wanted += found
    files: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in files:
            continue
        files.add(name)
        for header in re.findall(r'#include "(\w+\.h)"', _sources()[name]):
            wanted.append(header)
            if header.replace(".h", ".c") in _sources():
                wanted.append(header.replace(".h", ".c"))
    return files
