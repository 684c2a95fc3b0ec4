"""Loops over rows and groups of heads: the C stores the same tensors, bit for bit, however it is tiled."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from slm2c import costs, importer, lower, memory, output, validate
from slm2c.board import load_board
from slm2c.calibrate import observe
from slm2c.compile import Compiled, Options, compile_model
from slm2c.core import Builder
from slm2c.emit import Texts, emit
from slm2c.errors import CompileError
from slm2c.ir import Graph
from slm2c.ops.base import GROUP, ROW, Target
from slm2c.order import order
from slm2c.passes import fuse
from slm2c.quantize import quantize, run_int
from slm2c.samples import synthetic
from slm2c.schedule import schedule
from slm2c.students import student
from slm2c.tiling import Tiling
from tests.replay import Replay

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
    tiled = replace(compiled, lowered=lower.Lowered(chosen, chosen, emitted, Texts()))
    output.write(folder, tiled)
    output.finish(folder, tiled)
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


@pytest.mark.qemu
@pytest.mark.parametrize("opt", ["-O0", "-Os", "-O3"])
def test_no_level_of_optimisation_changes_a_bit(compiled: Compiled, tmp_path: Path, opt: str) -> None:
    """Inline assembly is easily right at one level only."""
    folder, _ = folder_of(compiled, Tiling(8, 2), Target(True), tmp_path / "out")
    built = output.read(folder)
    samples = [{x: np.arange(n, dtype=np.int64) * 11 % 50 for x in built.float_graph.inputs} for n in (1, 9, TOKENS)]
    board = load_board("mps2-an500")
    rung = validate.qemu_rung(folder, built.name, built.graph, samples, tmp_path, board, opt=opt)
    assert rung.mismatches == 0 and rung.tensors > 0


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


# ---------------------------------------------------------------- graphs that invite mistakes


class Net:
    """A core graph of layers over rows, while it is written."""

    def __init__(self, seed: int, rows: int, width: int) -> None:
        self.rng, self.rows, self.b = np.random.default_rng(seed), rows, Builder()
        self.x = self.b.op("tanh", [self.b.input("x", (1, rows, width), "f32")])

    def width(self, x: str) -> int:
        return self.b.shape(x)[-1]

    def dense(self, x: str, width: int) -> str:
        weight = self.rng.normal(size=(self.width(x), width)) / self.width(x) ** 0.5
        return self.b.op("matmul", [x, self.b.const(weight.astype(np.float32))])

    def norm(self, x: str) -> str:
        ones, zeros = (self.b.const(make(self.width(x), np.float32)) for make in (np.ones, np.zeros))
        return self.b.op("layernorm", [x, ones, zeros], {"axis": 2, "epsilon": 1e-5})

    def attention(self, q: str, k: str, v: str, heads: int) -> str:
        def split(t: str) -> str:
            return self.b.view(t, self.b.positions(t).reshape(self.rows, heads, -1).transpose(1, 0, 2)[None])

        keys = split(k)
        scores = self.b.op("matmul", [split(q), self.b.view(keys, np.swapaxes(self.b.positions(keys), 2, 3))])
        context = self.b.op("matmul", [self.b.op("softmax", [scores], {"axis": 3}), split(v)])
        return self.b.view(context, np.swapaxes(self.b.positions(context), 1, 2).reshape(1, self.rows, -1))

    def graph(self, *outputs: str) -> Graph:
        fused = fuse(self.b.graph("net", list(outputs))).graph
        samples = [{"x": self.rng.normal(size=fused.tensors["x"].shape).astype(np.float32)} for _ in range(2)]
        return quantize(fused, observe(fused, samples), "minmax").graph


def replay(graph: Graph) -> set[str]:
    """Replay every schedule of an integer graph; the kinds of loops that were there."""
    x = np.random.default_rng(1).normal(size=graph.tensors["x"].shape).astype(np.float32)
    kinds = set[str]()
    for dsp, rows, groups in itertools.product((True, False), (16, 8, 4), (1, 2, 4)):
        program = schedule(graph, Target(dsp), Tiling(rows, groups))
        Replay(program, run_int(program.graph, {"x": x})).run()
        kinds |= {loop.index for loop in program.loops}
    return kinds


def test_rows_that_become_longer_do_not_overtake() -> None:
    net = Net(0, 37, 64)
    x = net.x
    for width in (16, 64, 16, 64):
        x = net.dense(x, width)
    assert ROW in replay(net.graph(x))


def test_a_narrow_operand_is_not_overwritten_by_a_wide_sum() -> None:
    """It lies in the buffer of the wide tensor that it was made of, and is read for every element of its row."""
    net = Net(1, 20, 64)
    keep = net.norm(net.x)
    gate = net.dense(net.dense(keep, 64), 1)
    graph = net.graph(net.dense(net.norm(net.b.op("add", [net.b.op("add", [keep, gate]), keep])), 8))
    assert [t.dtype for t in graph.tensors.values() if t.shape == (20, 1)] == ["i8"], "of the sum's type"
    replay(graph)


@pytest.mark.parametrize(
    "kind", ["plain", "q later", "k later", "v later", "q is k", "k is v", "shared", "k out", "lut"]
)
def test_heads_are_grouped_only_where_nothing_else_reads_them(kind: str) -> None:
    net = Net(2, 20, 32)
    x = net.b.op("tanh", [net.dense(net.x, 32)]) if kind == "lut" else net.x
    q, k, v = (net.dense(x, 32) for _ in range(3))
    k = q if kind in ("q is k", "lut") else v if kind == "k is v" else k
    y = net.attention(q, k, v, 4)
    if kind == "shared":
        y = net.attention(net.dense(y, 32), k, v, 4)
    later = {"q later": q, "k later": k, "v later": v, "lut": x}.get(kind)
    y = net.dense(y if later is None else net.b.op("add", [y, later]), 8)
    outputs = (y, k) if kind == "k out" else (y,)
    assert (GROUP in replay(net.graph(*outputs))) == (kind == "plain")


@pytest.mark.parametrize("seed", range(25))
def test_random_graphs(seed: int) -> None:
    """Chains with residuals, bottlenecks, tables, norms and attention."""
    choose = random.Random(seed)
    width = choose.choice([16, 24, 32])
    net = Net(seed, choose.choice([5, 20, 37]), width)
    found = [net.x]
    for _ in range(choose.randint(5, 12)):
        x = found[-1] if choose.random() < 0.7 else choose.choice(found[-4:])
        others = [y for y in found[-4:] if y != x and net.width(y) == net.width(x)]
        kind = choose.choice(["dense", "dense", "tanh", "add", "norm", "attention"])
        if kind == "dense":
            found.append(net.dense(x, choose.choice([8, 16, 24, 32, 64])))
        elif kind == "tanh":
            found.append(net.b.op("tanh", [x]))
        elif kind == "add" and others:
            found.append(net.b.op("add", [x, choose.choice(others)]))
        elif kind == "norm":
            found.append(net.norm(x))
        elif kind == "attention":
            found.append(net.attention(*(net.dense(x, net.width(x)) for _ in range(3)), 4))
    replay(net.graph(net.dense(found[-1], 8)))


@pytest.mark.qemu
def test_a_long_text_is_exact_on_the_emulated_board(tmp_path: Path) -> None:
    """512 tokens in 224 KB, with heads in groups and the widest tiles that fit."""
    path, board = tmp_path / "student.onnx", load_board("mps2-an500")
    onnx.save(student(2, 128, 2, 512, 512, 100), path)
    compiled = compile_model(path, board, Options(method="minmax", arena=224 * 1024))
    assert compiled.lowered.chosen.tiling == Tiling(64, 2)
    (tmp_path / "out").mkdir()
    output.write(tmp_path / "out", compiled)
    output.finish(tmp_path / "out", compiled)
    built = output.read(tmp_path / "out")
    ids = np.random.default_rng(0).integers(0, 100, 512)
    sample = dict.fromkeys(built.float_graph.inputs, ids)
    rung = validate.qemu_rung(built.folder, built.name, built.graph, [sample], tmp_path, board)
    assert rung.mismatches == 0 and rung.tensors > 20
