"""The boards as parameters of tests, each with the mark of the tools that it needs."""

from __future__ import annotations

import pytest

from slm2c.board import Architecture, list_boards, load_board

MARKS: dict[Architecture, pytest.MarkDecorator] = {"arm": pytest.mark.qemu, "riscv": pytest.mark.riscv}


def board_params(*, emulated: bool = False) -> list[object]:
    """The names of all boards, or of those that QEMU has itself."""
    found = map(load_board, list_boards())
    return [pytest.param(b.name, marks=MARKS[b.architecture]) for b in found if b.emulator or not emulated]
