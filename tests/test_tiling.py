"""Loops over rows and groups of heads: the C stores the same tensors, bit for bit, however it is tiled."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from slm2c import costs, importer, lower, memory, output, validate
from slm2c.board import load_board
from slm2c.compile import Compiled, Options, compile_model
from slm2c.emit import Texts, emit
from slm2c.errors import CompileError
from slm2c.ops.base import Target
from slm2c.order import order
from slm2c.passes import fuse
from slm2c.quantize import run_int
from slm2c.samples import synthetic
from slm2c.schedule import schedule
from slm2c.students import student
from slm2c.tiling import GROUP, ROW, Tiling

BOARD = load_board("generic-m7-512k-4m")
TOKENS = 37
SHAPE = {"layers": 2, "hidden": 24, "heads": 6, "ffn": 80, "tokens": TOKENS, "vocabulary": 50, "classes": 3}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    path = tmp_path_factory.mktemp("student") / "student.onnx"
    onnx.save(student(**SHAPE), path)
    return compile_model(path, BOARD, Options(method="minmax"))


def folder_of(compiled: Compiled, tiling: Tiling, target: Target, folder: Path) -> tuple[Path, list[str]]:
    """The output folder of the model, scheduled as `tiling` says; and the kinds of its loops."""
    program = schedule(compiled.quantized.graph, target, tiling)
    plan = memory.plan(program.buffers)
    memory.check(program.buffers, plan)
    emitted = emit(program, plan, compiled.fused.interface, Texts(), compiled.name, False)
    chosen = replace(compiled.lowered.chosen, program=program, plan=plan, arena_bytes=emitted.arena_bytes)
    folder.mkdir()
    output.write(folder, replace(compiled, lowered=lower.Lowered(chosen, chosen, emitted, Texts())))
    return folder, [loop.index for loop in program.loops]


@pytest.mark.usefixtures("host_cc")
@pytest.mark.parametrize("dsp", [True, False], ids=["dsp", "portable"])
@pytest.mark.parametrize("rows,groups", [(16, 1), (8, 2), (4, 3), (16, 6), (4, 6)])
def test_every_tensor_is_the_same(compiled: Compiled, tmp_path: Path, rows: int, groups: int, dsp: bool) -> None:
    folder, kinds = folder_of(compiled, Tiling(rows, groups), Target(dsp), tmp_path / "out")
    assert ROW in kinds and (GROUP in kinds) == (groups > 1)
    built = output.read(folder)
    samples = [
        {x: np.arange(n, dtype=np.int64) * 7 % 50 for x in built.float_graph.inputs} for n in (1, 3, 16, 17, 33, TOKENS)
    ]
    rung = validate.host_rung(folder, built.name, built.graph, samples, tmp_path, sanitize=True)
    assert rung.first is None and rung.mismatches == 0
    stored = [node for node in built.graph.nodes if node.op != "view"]
    assert rung.tensors >= len(samples) * len(stored), "a tensor in a loop was not compared"


@pytest.mark.parametrize("rows,groups", list(itertools.product((16, 8, 4), (1, 2, 6))))
def test_plans_meet_their_lower_bound(compiled: Compiled, rows: int, groups: int) -> None:
    plan = memory.plan(schedule(compiled.quantized.graph, Target(True), Tiling(rows, groups)).buffers)
    assert plan.arena_bytes == plan.lower_bound_bytes


def test_order_changes_no_value(compiled: Compiled) -> None:
    graph = compiled.quantized.graph
    ordered = order(graph, Target(True))
    assert {node.op for node in graph.nodes} - {node.op for node in ordered.nodes} == {"lut"}
    sample = synthetic(compiled.fused.graph, compiled.fused.interface, 1)[0]
    before, after = run_int(graph, sample), run_int(ordered, sample)
    for node in ordered.nodes:
        assert np.array_equal(before[node.outputs[0]], after[node.outputs[0]])


def test_tiles_as_the_c_divides_rows() -> None:
    for rows, most in itertools.product(range(1, 100), (4, 8, 16)):
        tiles = costs.tile_rows(rows, most)
        assert sum(tiles) == rows and max(tiles) <= most and len(tiles) == -(-rows // most)
    assert costs.tile_rows(37, 16) == [16, 12, 9]


def test_a_limit_trades_speed_for_memory(compiled: Compiled, tmp_path: Path) -> None:
    path = tmp_path / "student.onnx"
    onnx.save(student(**SHAPE), path)
    fastest = compiled.lowered.chosen
    less = compile_model(path, BOARD, Options(method="minmax", arena=fastest.arena_bytes - 1)).lowered
    assert less.chosen.arena_bytes < fastest.arena_bytes < less.fastest.arena_bytes
    assert less.chosen.instructions > fastest.instructions > less.fastest.instructions
    more = compile_model(path, BOARD, Options(method="minmax", arena=2 * less.fastest.arena_bytes)).lowered
    assert more.chosen.tiling == more.fastest.tiling == Tiling(64, 1), "one tile for all 37 tokens"
    assert more.chosen.weight_bytes < fastest.weight_bytes
    with pytest.raises(
        CompileError, match=r"--arena.*smallest arena of any schedule takes [\d,]+ bytes, 100 are asked"
    ):
        compile_model(path, BOARD, Options(method="minmax", arena=100))


@pytest.mark.parametrize(
    "shape,kilobytes",
    [
        ({"layers": 2, "hidden": 128, "heads": 2, "ffn": 512, "tokens": 512}, 224),
        ({"layers": 4, "hidden": 256, "heads": 4, "ffn": 1024, "tokens": 256}, 208),
        ({"layers": 4, "hidden": 256, "heads": 4, "ffn": 1024, "tokens": 512}, 400),
    ],
    ids=["tiny-512", "mini-256", "mini-512"],
)
def test_long_inputs_fit(tmp_path: Path, shape: dict[str, int], kilobytes: int) -> None:
    path = tmp_path / "student.onnx"
    onnx.save(student(**shape, vocabulary=100), path)
    fused = fuse(importer.load(path, None).graph)
    found = lower.sketch(fused, Texts(), "student", Target(True), kilobytes * 1024)
    assert found.chosen.arena_bytes <= kilobytes * 1024 < found.fastest.arena_bytes
    assert found.plan.arena_bytes <= 1.02 * found.plan.lower_bound_bytes
