"""Calibration and the quantization policy: ranges, types, and who decides them."""

from __future__ import annotations

import numpy as np
import pytest

from slm2c.calibrate import Observed, choose_range, observe
from slm2c.core import Builder
from slm2c.fixedpoint import dequantize
from slm2c.interpret import run_fused
from slm2c.ir import Array, Graph, Quant
from slm2c.passes import fuse
from slm2c.quantize import FILE, output_sqnr, quantize, run_int

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def random(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def seen(values: Array) -> Observed:
    flat = values.ravel().astype(np.float32)
    return Observed(float(flat.min()), float(flat.max()), flat, float(np.sqrt(np.square(flat).mean())))


# --- ranges ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_ranges_hold_zero_and_stay_inside_the_extremes(method: str, symmetric: bool) -> None:
    for values in (random(1000) + 3, random(1000) - 3, random(1000), np.zeros(5), np.array([7.0])):
        low, high = choose_range(seen(values), method, symmetric)
        peak = max(abs(float(values.min())), abs(float(values.max())))
        assert -peak - 1e-6 <= low <= 0 <= high <= peak + 1e-6
        assert not symmetric or low == -high


def test_percentile_and_mse_drop_an_outlier_and_minmax_keeps_it() -> None:
    values = np.append(random(100_000), np.float32(1000))
    assert choose_range(seen(values), "minmax", False)[1] == 1000
    assert choose_range(seen(values), "percentile", False)[1] < 10
    assert choose_range(seen(values), "mse", False)[1] < 1000


def test_mse_is_no_worse_than_minmax() -> None:
    for values in (random(5000), random(5000) ** 3, np.abs(random(5000))):

        def error(span: tuple[float, float], real: Array = values) -> float:
            step = (span[1] - span[0]) / 255
            return float(np.square(np.clip(np.rint((real - span[0]) / step), 0, 255) * step + span[0] - real).mean())

        assert (
            error(choose_range(seen(values), "mse", False))
            <= error(choose_range(seen(values), "minmax", False)) * 1.001
        )


def test_observe_sees_extremes_and_the_faintest_row() -> None:
    b = Builder()
    x = b.input("x", (4, 16), "f32")
    graph = fuse(b.graph("g", [b.op("matmul", [x, b.const(random(16, 8))])])).graph
    samples = [{"x": random(4, 16) * np.array([[1], [1e-3], [1], [1]], np.float32)} for _ in range(5)]
    found = observe(graph, samples)["x"]
    everything = np.concatenate([s["x"] for s in samples])
    assert (found.low, found.high) == (everything.min(), everything.max())
    assert found.row_rms == pytest.approx(1e-3, rel=0.5)
    assert found.values.size == everything.size


# --- types ----------------------------------------------------------------------------------------------------------


def network(scale: Array | None = None) -> Graph:
    """Two linear layers around a residual sum and a normalization; rows of the input by `scale`."""
    b = Builder()
    x = b.input("x", (1, 6, 16), "f32")
    h = b.op("add", [b.op("matmul", [x, b.const(random(16, 16))]), b.const(random(16))])
    if scale is not None:
        h = b.op("mul", [h, b.const(scale.reshape(1, 6, 1).astype(np.float32))])
    y = b.op(
        "layernorm",
        [h, b.const(np.ones(16, np.float32)), b.const(np.zeros(16, np.float32))],
        {"axis": 2, "epsilon": 1e-5},
    )
    return fuse(b.graph("net", [b.op("matmul", [y, b.const(random(16, 5))])])).graph


def build(graph: Graph, method: str = "minmax") -> tuple[Graph, dict[str, str], float]:
    samples = [{"x": random(1, 6, 16)} for _ in range(16)]
    made = quantize(graph, observe(graph, samples), method)
    types = {n.op: made.choices[n.outputs[0]].dtype for n in graph.nodes}
    return made.graph, types, output_sqnr(graph, made.graph, samples, [run_fused(graph, s) for s in samples])


def test_outputs_are_int16_and_the_rest_int8() -> None:
    graph = network()
    made, types, sqnr = build(graph)
    assert made.tensors[made.outputs[0]].dtype == "i16"
    assert types["layernorm"] == "i8"
    assert sqnr > 30


def test_a_tensor_with_a_faint_row_becomes_int16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The normalization would lift the rounding noise of the faint row to the size of the others."""
    graph = network(np.array([1, 1, 1, 1, 1, 1e-3]))
    _, types, sqnr = build(graph)
    assert types["mul"] == "i16" and types["layernorm"] == "i8"
    choice = quantize(graph, observe(graph, [{"x": random(1, 6, 16)}]), "minmax").choices
    assert any("faintest row" in c.reason for c in choice.values())
    monkeypatch.setattr("slm2c.quantize.PROMOTE_BELOW_DB", -1000.0)
    _, types, without = build(graph)
    assert types["mul"] == "i8" and sqnr > without + 6


def test_a_relu_is_the_range_of_the_output() -> None:
    b = Builder()
    x = b.input("x", (4, 16), "f32")
    h = b.op("relu", [b.op("matmul", [x, b.const(random(16, 8))])])
    graph = fuse(b.graph("g", [b.op("matmul", [h, b.const(random(8, 3))])])).graph
    samples = [{"x": random(4, 16)} for _ in range(8)]
    made = quantize(graph, observe(graph, samples), "minmax").graph
    hidden = made.tensors[made.nodes[0].outputs[0]]
    assert hidden.quant is not None and hidden.quant.zero_point == -128
    values = run_int(made, samples[0])[hidden.name]
    assert values.min() == -128 and values.dtype == np.int8


def test_ranges_stated_by_the_file_are_used() -> None:
    graph = network()
    name = next(n.outputs[0] for n in graph.nodes if n.op == "layernorm")
    stated = Quant(0.05, 3)
    tensors = dict(graph.tensors)
    tensors[name] = type(tensors[name])(name, tensors[name].shape, "f32", None, stated)
    hinted = type(graph)(graph.name, graph.inputs, graph.outputs, graph.nodes, tensors, graph.consts)
    observed = observe(hinted, [{"x": random(1, 6, 16)}])
    assert quantize(hinted, observed, FILE).graph.tensors[name].quant == stated
    assert quantize(hinted, observed, "minmax").graph.tensors[name].quant != stated


def test_tensors_of_nothing_compile() -> None:
    """All-zero weights, and an activation that a ReLU always clips to 0."""
    b = Builder()
    x = b.input("x", (4, 16), "f32")
    dead = b.op(
        "relu", [b.op("add", [b.op("matmul", [x, b.const(random(16, 8))]), b.const(np.full(8, -1e3, np.float32))])]
    )
    graph = fuse(b.graph("g", [b.op("matmul", [dead, b.const(np.zeros((8, 3), np.float32))])])).graph
    samples = [{"x": random(4, 16) * np.float32(1e-20)} for _ in range(3)]
    made = quantize(graph, observe(graph, samples), "minmax").graph
    out = made.outputs[0]
    quant = made.tensors[out].quant
    assert quant is not None
    assert np.array_equal(dequantize(run_int(made, samples[0])[out], quant), np.zeros((4, 3)))
