"""build: an ONNX model in, an output folder with C, blob, reference and report out; whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slm2c import budget, firmware, measure, output, renode, report, report_html
from slm2c.board import Board
from slm2c.compile import Compiled, Options, Progress, compile_model, replace_folder, require_replaceable
from slm2c.errors import CompileError
from slm2c.measure import Footprint
from slm2c.toolchain import cross_cc


def build(
    model: Path, out: Path, board: Board, options: Options, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Compile `model` for `board` into the folder `out`; returns the report, which is there as
    report.json and, with pictures, as report.html.

    Raises CompileError for whatever the user can mend; nothing is written then.
    """
    require_replaceable(out)
    compiled = compile_model(model, board, options, progress)
    made: dict[str, Any] = {}

    def fill(folder: Path) -> None:
        output.write(folder, compiled)
        progress("measure", 0, 1)
        found = _footprint(folder, compiled)
        firmware.write(folder, compiled, board.placement.hot if isinstance(found, str) else found.hot)
        renode.write_console(folder / firmware.FOLDER, board, compiled.name)
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
    emitted = compiled.lowered.emitted
    found = measure.footprint(folder, compiled.name, compiled.board, emitted.entries)
    budget.check(compiled.board, compiled.fused, compiled.lowered, found.code)
    return found
