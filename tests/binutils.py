"""Linked images as GNU binutils read them, which share nothing with slm2c/elf.py."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from slm2c.board import Board
from slm2c.toolchain import cross_cc


def binutils(board: Board, tool: str, *args: str | Path) -> str:
    return subprocess.check_output(
        [cross_cc(board.architecture).removesuffix("gcc") + tool, *map(str, args)], text=True
    )


def sections(board: Board, elf: Path) -> list[tuple[str, int, int, int]]:
    """(name, size, where it is used, where it is loaded) of what takes memory, by objdump."""
    text = binutils(board, "objdump", "-h", elf)
    found = re.findall(r"^ +\d+ (\S+) +(\w{8})  (\w{8})  (\w{8})  \w{8}  \S+\n +(.*)$", text, re.MULTILINE)
    kept = [(name, *(int(x, 16) for x in numbers), flags) for name, *numbers, flags in found]
    return [
        (name, size, used, loaded if "LOAD" in flags else used)
        for name, size, used, loaded, flags in kept
        if "ALLOC" in flags and size
    ]
