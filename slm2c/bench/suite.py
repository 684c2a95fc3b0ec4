"""suite: what `make bench` measures, as tables; and the run through them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from slm2c import cycles, toolchain
from slm2c.bench import measure, peers
from slm2c.bench.peers import Layers
from slm2c.bench.results import Element, Op, Peer, Results, Skipped, Total
from slm2c.board import load_board
from slm2c.compile import Options
from slm2c.errors import CompileError
from slm2c.resources import data_dir
from slm2c.students import linear_layers, student

EXAMPLE = Layers("homecmd", layers=6, hidden=128, heads=4, ffn=512)
BOARDS = ("mps2-an500", "mps2-an386", "mps2-an505")
LINEARS = "linear_layers"
"""A model of these alone."""

SWEEP = tuple(range(1, 33))
"""Token counts of whole runs of the example."""

TRACED = (1, 8, 9, 16, 32)
"""Those at which each kernel call is looked at."""

MAIN = BOARDS[0]
"""Where all that is compared with something else is measured: the core of the reference board."""


@dataclass(frozen=True)
class Student:
    """A student with random weights, the token counts to run it at, and what its arena is held to; None for as large as
    is fastest.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    ffn: int
    max_tokens: int
    tokens: tuple[int, ...]
    arena: int | None = None


DEPTHS = tuple(Student(f"layers_{i:02}", i, 128, 4, 512, 32, (8, 16, 32)) for i in range(1, 13))
"""What a layer costs."""

LONG = (
    Student("bert_tiny_512", 2, 128, 2, 512, 512, (512,)),
    Student("bert_mini_256", 4, 256, 4, 1024, 256, (256,)),
    Student("bert_mini_512", 4, 256, 4, 1024, 512, (512,)),
    Student("bert_tiny_512", 2, 128, 2, 512, 512, (512,), arena=224 * 1024),
    Student("bert_mini_256", 4, 256, 4, 1024, 256, (256,), arena=208 * 1024),
    Student("bert_mini_512", 4, 256, 4, 1024, 512, (512,), arena=400 * 1024),
)
"""What many tokens cost, in instructions and memory. A student that is here with a limit, too, shows its price."""

_VOCABULARY = 1000
_CALIBRATION = 2  # random samples; the ranges of random weights matter little
_METHOD = "minmax"


def run(work: Path, committed: Results | None, progress: Callable[[str], None]) -> Results:
    """Measure everything. Figures of peers are the committed ones unless CMSIS_NN_DIR says where to measure anew.

    Raises CompileError without cross compiler or QEMU.
    """
    tools = tool_versions()
    folder = os.environ.get(peers.VARIABLE)
    found: tuple[Peer, ...] = committed.peers if committed else ()
    if folder:
        progress(f"{peers.NAME} on {MAIN}")
        (work / "peers").mkdir()
        found = tuple(peers.measure(Path(folder), EXAMPLE, load_board(MAIN), TRACED, work / "peers"))
    totals, ops, elements = example(work / EXAMPLE.model, progress)
    ops += linears(work / LINEARS, progress)
    skipped: list[Skipped] = []
    for config in (*DEPTHS, *LONG):
        try:
            totals += students(config, work, progress)
        except CompileError as error:
            progress(f"{config.name}: skipped, {error}")
            skipped.append(Skipped(config.name, config.arena, str(error)))
    return Results(tools, tuple(totals), tuple(ops), tuple(elements), found, tuple(skipped))


def tool_versions() -> dict[str, str | None]:
    """The tools that the figures depend on. Raises CompileError without cross compiler or QEMU."""
    toolchain.cross_cc()
    toolchain.qemu()
    known = toolchain.tool_versions()
    return {"cross_cc": known["cross_cc"], "qemu": known["qemu"], "llvm_mca": cycles.llvm_version()}


def example(work: Path, progress: Callable[[str], None]) -> tuple[list[Total], list[Op], list[Element]]:
    """The example student on each board."""
    progress(f"{EXAMPLE.model}: compile")
    model = measure.compile_into(work / "c", data_dir("examples") / EXAMPLE.model, load_board(MAIN), Options())
    totals: list[Total] = []
    ops: list[Op] = []
    elements: list[Element] = []
    for board in map(load_board, BOARDS):
        progress(f"{EXAMPLE.model} on {board.name}")
        some, each, estimated = measure.calls(model, board, TRACED, work)
        totals += measure.runs(model, board, SWEEP, work, estimated)
        ops += some
        elements += each
    return totals, ops, elements


def linears(work: Path, progress: Callable[[str], None]) -> list[Op]:
    """The linear layers of the example's sizes on the main board, with nothing fused to them."""
    e, board, tokens = EXAMPLE, load_board(MAIN), max(TRACED)
    progress(f"linear layers on {MAIN}")
    work.mkdir()
    onnx.save(linear_layers(e.hidden, e.ffn, tokens, _VOCABULARY), work / "model.onnx")
    model = measure.compile_into(work / "c", work / "model.onnx", board, Options(name=LINEARS, method=_METHOD))
    return [op for op in measure.calls(model, board, TRACED, work)[0] if op.op == "linear"]


def students(config: Student, work: Path, progress: Callable[[str], None]) -> list[Total]:
    """One student on the main board. Raises CompileError if it does not fit."""
    c, board = config, load_board(MAIN)
    folder = work / (c.name if c.arena is None else f"{c.name}_{c.arena}")
    progress(f"{folder.name}: {c.layers} layers of {c.hidden}, {c.max_tokens} tokens")
    folder.mkdir()
    proto = student(c.layers, c.hidden, c.heads, c.ffn, c.max_tokens, _VOCABULARY)
    onnx.save(proto, folder / "model.onnx")
    ids = np.random.default_rng(0).integers(0, _VOCABULARY, (_CALIBRATION, c.max_tokens))
    np.savez(folder / "calib.npz", input_ids=ids, attention_mask=np.ones_like(ids))
    model = measure.compile_into(folder / "c", folder, board, Options(name=c.name, method=_METHOD, arena=c.arena))
    return measure.runs(model, board, c.tokens, folder, arena_limit=c.arena)
