"""board_tools: what compiler and emulator say of a board's file, in its user's terms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from slm2c.board import Board, list_boards, load_board
from slm2c.errors import CompileError, Problem
from slm2c.process import ToolError, build

_PRECISION = {"none": 0, "fpv4-sp-d16": 4, "fpv5-sp-d16": 4, "fpv5-d16": 12}
"""__ARM_FP of an FPU: bit 2: single, bit 3: double precision (Arm C Language Extensions)."""


def require_flags(cc: str, board: Board) -> None:
    """Raises CompileError if the compiler `cc` refuses the board's flags, or makes of them another core or other
    features than the board's file says.
    """
    command = [cc, *board.flags, "-Werror", "-E", "-dM", "-xc", "/dev/null"]
    try:
        macros = dict(re.findall(r"^#define (\w+) (\w+)$", build(command), re.MULTILINE))
    except ToolError as error:
        fact = f"flags: the compiler refuses {' '.join(board.flags)}: {error.complaint}"
        raise CompileError(Problem(board.name, "", fact, "correct them in the board's file")) from error
    if board.architecture == "riscv":
        found: dict[str, object] = {"dsp": False, "mve": False, "fpu": "__riscv_flen" in macros}
        right = macros.get("__riscv_xlen") == "32"
    else:
        found = {
            "dsp": "__ARM_FEATURE_DSP" in macros,
            "mve": "__ARM_FEATURE_MVE" in macros,
            "fpu": int(macros.get("__ARM_FP", "0"), 0) & 12,
        }
        right = macros.get("__ARM_ARCH_PROFILE") == "77" and "__ARMEB__" not in macros  # 'M'
    problems = []
    if not right:
        fact = f"flags: {' '.join(board.flags)} does not select a little-endian {board.cpu}"
        problems.append(Problem(board.name, "", fact, "correct them in the board's file"))
    for name, there in found.items():
        said = getattr(board.features, name)
        expected = said if name != "fpu" else said != "none" if board.architecture == "riscv" else _PRECISION[said]
        if right and there != expected:
            fact = f"features.{name}: {said!r} is not what the compiler makes of {' '.join(board.flags)}"
            problems.append(Problem(board.name, "", fact, "correct features or flags in the board's file"))
    if problems:
        raise CompileError(problems)


@contextmanager
def blaming(board: Board) -> Iterator[None]:
    """What a tool refuses on a board of its user's own is an error that names the board; on ours it is our fault."""
    try:
        yield
    except ToolError as error:
        if is_ours(board):
            raise
        fact = f"{error.fact}: {error.complaint}; its flags: {' '.join(board.flags)}"
        remedy = "check memories, flags and emulator in the board's file; if they are right, report it as a bug"
        raise CompileError(Problem(board.name, "", fact, remedy)) from error


def is_ours(board: Board) -> bool:
    """Whether a board is one that comes with slm2c, or its memories with the core of another."""
    if board.name not in list_boards():
        return False
    ours = load_board(board.name)
    memory = tuple(replace(region, reserve=0) for region in board.memory)
    same = (ours.memory, ours.emulator, ours.cpu) == (memory, board.emulator, board.cpu)
    cores = {(x.cpu, x.flags, x.features) for x in map(load_board, list_boards())}
    return same and (board.cpu, board.flags, board.features) in cores
