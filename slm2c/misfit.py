"""misfit: whether what was lowered fits a board, by the linker's own figures where there is one."""

from __future__ import annotations

from typing import NoReturn

from slm2c import budget, emit, measure
from slm2c.board import Board
from slm2c.errors import CompileError
from slm2c.folders import scratch
from slm2c.lower import Lowered
from slm2c.passes import Fused
from slm2c.toolchain import Misfit, cross_cc


def require(board: Board, fused: Fused, lowered: Lowered, name: str) -> None:
    """Raises CompileError if a model does not fit `board`, as budget.check does.

    What is expected to fit is not linked here. Where it is not, the linker is asked, so that the message counts code
    and variables to the byte; without a cross compiler they are left out, or assumed.
    """
    if not budget.excess(board, budget.needs(board, lowered)):
        return
    try:
        cross_cc(board.architecture)
    except CompileError:
        return budget.check(board, fused, lowered)
    with scratch() as work:
        emit.write(work, name, lowered.emitted)
        try:
            measure.image_of(work, name, board, work / "image")
        except Misfit as linked:
            refuse(board, fused, lowered, linked)


def refuse(board: Board, fused: Fused, lowered: Lowered, linked: Misfit) -> NoReturn:
    """Raises CompileError for an image that the linker refused: what it needs, what takes the most, what would help."""
    budget.check(board, fused, lowered, budget.linked_needs(board, lowered, linked.over, linked.arena))
    raise linked
