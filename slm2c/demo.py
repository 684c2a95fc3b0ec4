"""demo: the example student, compiled; its C answers typed commands, and it is shown what that costs a board."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slm2c import evaluate, measure, output, toolchain
from slm2c.board import load_board
from slm2c.build import build
from slm2c.compile import Options, Progress
from slm2c.errors import CompileError
from slm2c.resources import data_dir
from slm2c.sentences import read_texts
from slm2c.summary import summary
from slm2c.text import table

BOARD = "generic-m7-512k-4m"


def run(out: Path, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Build examples/homecmd into `out` and run its commands on this machine, and on an emulated core where tools are.

    Raises CompileError without a C compiler, or if `out` cannot be written.
    """
    example = data_dir("examples") / "homecmd"
    toolchain.host_cc()
    report = build(example, out, load_board(BOARD), Options(name="homecmd"), progress)
    built = output.read(out)
    texts = read_texts(example / "commands.txt")
    progress("run", 0, 1)
    answers = evaluate.run_text(built, texts)
    commands = [
        {"text": t, "label": a.label, "score": a.score, "tokens": a.n} for t, a in zip(texts, answers, strict=True)
    ]
    progress("emulate", 0, 1)
    try:
        found = measure.runs(out, built.name, built.board, texts=texts)
    except CompileError as error:
        return {"output": str(out), "commands": commands, "report": report, "instructions": {"reason": str(error)}}
    counted = [run for run in found if run.entry == "classify"]
    for text, answer, row in zip(texts, answers, counted, strict=True):
        same = row.index == answer.index and abs(row.score - answer.score) < 1e-5  # the host prints five digits
        assert same, f"{BOARD} says {row} to {text!r}, this machine {answer}"
    for command, row in zip(commands, counted, strict=True):
        command["instructions"] = row.instructions
    return {"output": str(out), "commands": commands, "report": report, "instructions": _median(commands)}


def _median(commands: list[dict[str, Any]]) -> dict[str, Any]:
    """The command of median cost; of an even number, the cheaper of the two."""
    middle = statistics.median_low(c["instructions"] for c in commands)
    chosen = next(c for c in commands if c["instructions"] == middle)
    return {"median": middle, "tokens": chosen["tokens"], "text": chosen["text"], "core": load_board(BOARD).cpu}


def render(found: Mapping[str, Any]) -> str:
    """The commands and their intents, then the bytes and the instructions."""
    rows = [(c["text"], "->", c["label"], f"{c['score']:.2f}") for c in found["commands"]]
    cost = found["instructions"]
    if "reason" in cost:
        counted = f"  instructions: not counted: {cost['reason']}"
    else:
        counted = (
            f"  instructions on an emulated {cost['core']}: {cost['median']:,} for the median command, text to intent\n"
            f'  ("{cost["text"]}", {cost["tokens"]} tokens; its answers are the same)'
        )
    there = shlex.quote(found["output"])
    next_steps = table(
        [
            (f'slm2c run {there} "is it going to rain"', "ask it yourself"),
            (f"slm2c validate {there}", "compare every tensor with the reference"),
            (f"slm2c report {there}", "see where the bytes go"),
        ],
        "ll",
    )
    head = "The C that slm2c generated answers, on this machine:"
    return f"{head}\n\n{table(rows, '*llr')}\n\n{summary(found['report'])}\n\n{counted}\n\nnext:\n{next_steps}"
