"""footprint: what an exported student takes on a board, by the compiler's own stages; no C is written or linked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slm2c import budget, importer
from slm2c.board import Board
from slm2c.compile import Progress, read_labels
from slm2c.distill.integer import Compiled
from slm2c.emit import Texts
from slm2c.lower import Lowered, lower, sketch, target_of
from slm2c.passes import Fused, fuse
from slm2c.tokenizer import read_tokenizer

CODE_BYTES = 32 * 1024
"""Kept for code until an image is linked: half as much again as homecmd's takes, with its start-up code."""

_NAME = "student"


@dataclass(frozen=True)
class Footprint:
    """Bytes and work of a student on a board.

    flash: the blob: weights, tokenizer, labels; what code takes is known when it is linked, and not in it
    arena: scratch memory of a run at the maximum length
    sram: the arena, the stack that the board keeps, what the caller holds, variables
    instructions: expected of a run at the maximum length
    over: bytes by which each memory of the board is too small, with CODE_BYTES for code; empty where it fits
    """

    flash: int
    arena: int
    sram: int
    instructions: int
    over: Mapping[str, int]


def footprint(folder: Path, board: Board, progress: Progress = lambda *_: None) -> Footprint:
    """Of a folder with model.onnx, tokenizer.json and config.json, in seconds: without calibration.

    What calibration makes int16 is counted as int8: homecmd's flash comes out 0.05 % too small. `footprint_of` has it
    to the byte. Raises CompileError for what cannot be built; not for what does not fit the board.
    """
    progress("footprint", 0, 1)
    fused = fuse(importer.require_supported(importer.load(folder)).graph)
    texts = texts_of(folder, fused)
    room = budget.arena_room(board, fused.graph, texts)
    return of_lowered(sketch(fused, texts, _NAME, target_of(board), room), board)


def footprint_of(compiled: Compiled, texts: Texts, board: Board) -> Footprint:
    """Of a calibrated student, as a build has it; `texts` is of its folder, see `texts_of`."""
    graph = compiled.quantized.graph
    room = budget.arena_room(board, graph, texts)
    return of_lowered(lower(graph, compiled.fused, texts, _NAME, target_of(board), room), board)


def texts_of(folder: Path, fused: Fused) -> Texts:
    """Tokenizer and labels of the folder, as they go into the blob."""
    tokenizer = read_tokenizer(folder / "tokenizer.json").to_bytes()
    return Texts(tokenizer, read_labels(folder / "config.json", fused))


def of_lowered(lowered: Lowered, board: Board) -> Footprint:
    """Of what a student was lowered to."""
    needs = budget.needs(board, lowered)
    return Footprint(
        flash=len(lowered.emitted.blob),
        arena=lowered.emitted.arena_bytes,
        sram=sum(need.bytes for need in needs if board.region(need.region).writable and need.what != "application"),
        instructions=lowered.chosen.instructions,
        over=budget.excess(board, budget.needs(board, lowered, CODE_BYTES)),
    )
