"""build: an ONNX model in, an output folder with C, blob, reference and report out; whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slm2c import budget, costs, firmware, measure, misfit, output, renode, report, report_html, timing
from slm2c.board import Board
from slm2c.compile import Compiled, Options, Progress, compile_model
from slm2c.emit import classifies_text
from slm2c.errors import CompileError, Problem
from slm2c.folders import RECIPE, replace_folder, require_replaceable
from slm2c.measure import Footprint
from slm2c.toolchain import Misfit, cross_cc

_TEXT = "turn on 2 lights, please"
"""What a text model is asked while its stack is measured."""

_EMULATED = 5_000_000_000  # instructions at most: some ten seconds


def build(
    model: Path, out: Path, board: Board, options: Options, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Compile `model` for `board` into the folder `out`; returns the report, which is there as
    report.json and, with pictures, as report.html.

    Raises CompileError for whatever the user can mend; nothing is written then.
    """
    require_replaceable(out, sources=(model, options.tokenizer, options.labels, options.calibration))
    try:
        return _built(model, out, board, options, progress)
    except budget.TooLarge as error:
        student = model if model.is_dir() else model.parent
        if not (student / RECIPE).is_file():
            raise
        fact, remedy = "is a student of `slm2c distill`", "try `slm2c compress --fit` with this board"
        raise CompileError([*error.problems, Problem(str(student), "", fact, remedy)]) from error


def _built(model: Path, out: Path, board: Board, options: Options, progress: Progress) -> dict[str, Any]:
    compiled = compile_model(model, board, options, progress)
    made: dict[str, Any] = {}

    def fill(folder: Path) -> None:
        output.write(folder, compiled)
        progress("measure", 0, 1)
        found = _footprint(folder, compiled)
        firmware.write(folder, compiled, None if isinstance(found, str) else found.placement)
        renode.write_console(folder / firmware.FOLDER, board, compiled.name)
        output.finish(folder, compiled)
        made.update(report.build(compiled, found))
        report.write(folder, made)
        report_html.write(folder, made)

    replace_folder(out, fill)
    return made


def _footprint(folder: Path, compiled: Compiled) -> Footprint | str:
    """What was measured, once it is known to fit; or why nothing could be."""
    try:
        cross_cc(compiled.board.architecture)
    except CompileError as error:
        return str(error)
    lowered, board = compiled.lowered, compiled.board
    tokens = tuple(length.rows for length in timing.lengths(compiled))
    text = _TEXT if classifies_text(lowered.program.graph, lowered.texts) else ""
    if sum(costs.instructions(lowered.program, n) for n in tokens) > _EMULATED:
        tokens, text = (), ""
    try:
        return measure.footprint(folder, compiled.name, board, lowered.emitted.entries, tokens, text)
    except Misfit as linked:
        misfit.refuse(board, compiled.fused, lowered, linked)
