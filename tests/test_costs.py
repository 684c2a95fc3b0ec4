"""The table of expected instructions against what was counted: docs/performance.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from slm2c import costs, importer
from slm2c.bench.results import Op, read
from slm2c.bench.suite import EXAMPLE, MAIN
from slm2c.ir import Graph, Node, Quant, Tensor, const_tensor
from slm2c.lower import Texts, schedules, sketch
from slm2c.ops import linear
from slm2c.ops.base import KernelCall, Target, pack_fields
from slm2c.passes import Fused, fuse
from slm2c.resources import data_dir
from slm2c.schedule import Program
from slm2c.students import student

COUNTED = read(Path(__file__).parents[1] / "docs" / "performance.json")


@pytest.fixture(scope="module")
def fused() -> Fused:
    return fuse(importer.load(data_dir("examples") / EXAMPLE.model, None).graph)


@pytest.fixture(scope="module")
def program(fused: Fused) -> Program:
    return sketch(fused, Texts(), EXAMPLE.model, Target(True)).program


def counted(program: Program) -> Mapping[tuple[str, int], tuple[KernelCall, Op]]:
    """Calls of the program and what they took, by node and token count. Types may differ, which costs little."""
    calls = {call.node.name: call for call in program.calls}
    ops = [op for op in COUNTED.ops if (op.board, op.model) == (MAIN, EXAMPLE.model)]
    return {(op.node, op.tokens): (calls[op.node], op) for op in ops}


def test_calls_of_the_example(program: Program) -> None:
    bounds = {"linear": 0.05, "gelu + linear": 0.05, "tanh + linear": 0.05, "attention": 0.25, "layernorm": 0.06}
    runs = {(call.node.name, n): 0.0 for call in program.calls for n in (1, 8, 9, 16, 32)}
    for n in (1, 8, 9, 16, 32):
        for call, rows, times in costs.runs(program, n):
            runs[call.node.name, n] += times * costs.call_instructions(call, program.graph, rows)
    assert {op.op for _, op in counted(program).values()} >= set(bounds)
    for (node, n), (_, op) in counted(program).items():
        error = runs[node, n] / op.instructions - 1
        assert abs(error) < bounds.get(op.op, 0.3), f"{op.op} {node} at {n} tokens: {error:+.1%}"


@pytest.mark.parametrize("tokens", [1, 8, 9, 16, 32])
def test_runs_of_the_example(program: Program, tokens: int) -> None:
    (total,) = (t for t in COUNTED.totals if (t.board, t.model, t.tokens) == (MAIN, EXAMPLE.model, tokens))
    assert costs.instructions(program, tokens) == pytest.approx(total.instructions, rel=0.03)
    assert costs.weight_bytes(program, tokens) == total.weights_read


def test_weights_are_read_once_for_each_tile(program: Program) -> None:
    """All constants but the embeddings' tables, at up to 16 tokens; twice from 17 on, save what one row reads."""
    graph = program.graph
    weights = sum(
        value.nbytes
        for call in program.calls
        if call.node.op != "embedding"
        for name in call.names
        if (value := call.consts.get(name, graph.consts.get(name))) is not None
    )
    assert costs.weight_bytes(program, 16) - weights == 2 * 16 * 128  # a token's row and its position's
    assert 1.7 * weights < costs.weight_bytes(program, 17) < 2 * weights


def test_smaller_tiles_and_groups_never_seem_faster(fused: Fused, tmp_path: Path) -> None:
    onnx.save(student(2, 64, 4, 256, 100, 50), tmp_path / "student.onnx")
    for model in (fused, fuse(importer.load(tmp_path / "student.onnx", None).graph)):
        graph = sketch(model, Texts(), "m", Target(True)).program.graph
        ways = list(schedules(graph, model, Texts(), Target(True), (64, 32, 16, 8, 4)))
        fastest = ways[0]
        assert all(way.instructions >= fastest.instructions for way in ways)
        assert all(way.weight_bytes >= fastest.weight_bytes for way in ways)


def test_the_cheapest_kernel_is_taken() -> None:
    """A packed layer costs less than a portable one, but for the smallest; where the proof fails, that of pieces."""
    for features, channels, rows in [(1, 1, 1), (17, 3, 5), (128, 128, 1), (2048, 64, 9)]:
        for extreme in (False, True):
            weight = np.full((channels, features), 127 if extreme else 1, dtype=np.int8)
            consts = {
                "weight": weight,
                "bias": np.full(channels, 2**22 if extreme else 0, dtype=np.int32),
                "mult": np.full(channels, 2**30, dtype=np.int32),
                "params": pack_fields({"shift": 0, "zero_point": 0, "minimum": -128, "maximum": 127}, linear.PARAMS),
            }
            node = Node("linear", "fc", ("x", *consts), ("y",), {"dtype": "i8"})
            tensors = {x: Tensor(x, (rows, d), "i8", 0, Quant(1.0)) for x, d in (("x", features), ("y", channels))}
            tensors |= {name: const_tensor(name, value) for name, value in consts.items()}
            graph = Graph("g", ("x",), ("y",), (node,), tensors, consts)
            best = {dsp: costs.best_call(node, graph, Target(dsp)).symbol for dsp in (True, False)}
            fits = not extreme or 128 * 127 * features + 2**22 < 2**23
            assert best[False] == "slm_linear_s8"
            assert best[True] == (
                "slm_linear_s8" if features == 1 else f"slm_linear_{'packed' if fits else 'pieces'}_s8"
            )
