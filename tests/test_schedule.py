"""Buffers: what runs in place, what shares memory, and that the plan never lets two live tensors overlap."""

from __future__ import annotations

import numpy as np
import pytest

from slm2c import memory
from slm2c.calibrate import observe
from slm2c.core import Builder
from slm2c.ir import Array, Graph
from slm2c.ops.base import Target
from slm2c.passes import fuse
from slm2c.quantize import quantize, run_int
from slm2c.schedule import ALIGNMENT, Program, schedule
from tests.replay import Replay

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def random(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def program(graph: Graph) -> Program:
    fused = fuse(graph).graph
    samples = [{x: random(*fused.tensors[x].shape) for x in fused.inputs} for _ in range(2)]
    return schedule(quantize(fused, observe(fused, samples), "minmax").graph, Target(dsp=False))


def chain(b: Builder, x: str, width: int) -> str:
    return b.op("tanh", [b.op("matmul", [x, b.const(random(b.shape(x)[-1], width))])])


def test_a_table_runs_in_place() -> None:
    b = Builder()
    x = b.input("x", (4, 16), "f32")
    p = program(b.graph("g", [b.op("matmul", [chain(b, x, 64), b.const(random(64, 3))])]))
    linear, lut, last = (call.node.outputs[0] for call in p.calls)
    assert p.places[lut] == p.places[linear] and p.places[linear].buffer
    assert p.places[last].buffer == "" == p.places["x"].buffer
    assert [b.size for b in p.buffers] == [4 * 64]


def test_what_is_read_again_is_not_overwritten() -> None:
    b = Builder()
    x = b.input("x", (4, 16), "f32")
    h = b.op("matmul", [x, b.const(random(16, 16))])
    graph = b.graph("g", [b.op("matmul", [b.op("mul", [b.op("tanh", [h]), h]), b.const(random(16, 3))])])
    fused = graph  # tanh(h) * h is one table of h; a product with another tensor is not
    p = program(fused)
    check_values(p)
    b = Builder()
    x, z = b.input("x", (4, 16), "f32"), b.input("z", (4, 16), "f32")
    h = b.op("add", [b.op("matmul", [x, b.const(random(16, 16))]), z])
    both = b.op("add", [b.op("tanh", [h]), b.op("mul", [h, z])])
    p = program(b.graph("g", [b.op("matmul", [both, b.const(random(16, 3))])]))
    check_values(p)


def check_values(p: Program) -> None:
    """Replay the program: a call may only read what it was meant to read."""
    Replay(p, run_int(p.graph, {x: random(*p.graph.tensors[x].shape) for x in p.graph.inputs})).run()


def test_every_encoder_tensor_is_intact_when_read() -> None:
    b = Builder()
    x = b.input("x", (1, 8, 16), "f32")
    h = x
    for _ in range(2):
        q, k, v = (b.op("matmul", [h, b.const(random(16, 16))]) for _ in range(3))

        def heads(t: str) -> str:
            return b.view(t, b.positions(t).reshape(8, 2, 8).transpose(1, 0, 2)[None])

        kt = b.view(heads(k), np.swapaxes(b.positions(heads(k)), 2, 3))
        p = b.op("softmax", [b.op("matmul", [heads(q), kt])], {"axis": 3})
        c = b.op("matmul", [p, heads(v)])
        c = b.view(c, np.swapaxes(b.positions(c), 1, 2).reshape(1, 8, 16))
        s = b.op("add", [h, b.op("matmul", [c, b.const(random(16, 16))])])
        s = b.op(
            "layernorm",
            [s, b.const(np.ones(16, np.float32)), b.const(np.zeros(16, np.float32))],
            {"axis": 2, "epsilon": 1e-5},
        )
        f = b.op("matmul", [chain(b, s, 64), b.const(random(64, 16))])
        h = b.op("add", [s, f])
    cls = b.view(h, b.positions(h)[:, 0])
    made = program(b.graph("encoder", [b.op("matmul", [cls, b.const(random(16, 3))])]))
    check_values(made)
    plan = memory.plan(made.buffers)
    memory.check(made.buffers, plan)
    assert plan.arena_bytes == plan.lower_bound_bytes
    assert all(buffer.alignment == ALIGNMENT for buffer in made.buffers)


def test_a_first_row_is_a_pointer() -> None:
    b = Builder()
    x = b.input("x", (1, 8, 32), "f32")
    h = b.op("softmax", [b.op("matmul", [x, b.const(random(32, 32))])], {"axis": 2})
    p = program(b.graph("g", [b.op("matmul", [b.view(h, b.positions(h)[:, 0]), b.const(random(32, 3))])]))
    views = [call for call in p.calls if call.node.op == "view" and not call.symbol]
    assert len(views) == 1 and p.places[views[0].node.outputs[0]].buffer == p.places[views[0].node.inputs[0]].buffer
    check_values(p)
