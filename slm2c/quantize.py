"""quantize: the policy of who gets which type, and the float graph as an integer graph.

Activations are int8 with a zero point. A tensor becomes int16 where every reader accepts it and 8 bits would cost too
much: model outputs, so that close scores stay apart, and tensors with outliers, or with rows much fainter than others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from slm2c import fixedpoint
from slm2c.calibrate import METHODS, Observed, Sample, choose_range
from slm2c.ir import Array, Graph, Node, Quant, Tensor, const_tensor, verify
from slm2c.ops import TABLE
from slm2c.ops.base import activations

PROMOTE_BELOW_DB = 32.0
"""A tensor whose signal-to-quantization-noise ratio in 8 bits is below this becomes int16 where that is possible.

A normal distribution cut at four sigma has 41 dB, and homecmd agrees with float on 99.4 % of commands in plain int8.
"""


@dataclass(frozen=True)
class Choice:
    """Why a tensor has its type: the measured range, the method, and the noise that rounding it costs."""

    dtype: str
    method: str
    low: float
    high: float
    sqnr_db: float
    reason: str


@dataclass(frozen=True)
class Quantized:
    """The integer graph and, per activation tensor, the choice that was made."""

    graph: Graph
    choices: Mapping[str, Choice]


FILE = "file"
"""The method that takes the ranges a QDQ file states, and min-max where it states none."""


def quantize(graph: Graph, observed: Mapping[str, Observed], method: str, fixed: Collection[str] = ()) -> Quantized:
    """`graph` in integers, ranges by `method` (one of calibrate.METHODS, or FILE).

    `fixed` names inputs and outputs that are integers in the ONNX file: they keep its scale and zero point.
    """
    assert method in (*METHODS, FILE), method
    order = [x for x in graph.inputs if graph.tensors[x].dtype == "f32"] + [n.outputs[0] for n in graph.nodes]
    producers = graph.producers()
    symmetric = {n.inputs[i] for n in graph.nodes for i in TABLE[n.op].symmetric if i < len(n.inputs)}
    symmetric |= _through_views(graph, symmetric)
    tensors, choices = dict(graph.tensors), dict[str, Choice]()
    for name in order:
        node = producers.get(name)
        stated = graph.tensors[name].quant
        if name in fixed and stated is not None:
            choice, quant = _stated(stated, observed[name], "an integer in the file"), stated
        else:
            choice, quant = _choose(graph, node, name, observed[name], method, name in symmetric, choices, tensors)
        choices[name] = choice
        tensors[name] = replace(tensors[name], dtype=choice.dtype, quant=_widened(graph, node, tensors, quant))
    nodes, consts = [], dict[str, Array]()
    for node in graph.nodes:
        made, attrs = TABLE[node.op].quantize(node, tensors, graph.consts)
        consts |= made
        nodes.append(Node(node.op, node.name, (*activations(node, graph.consts), *made), node.outputs, attrs))
    runtime = {k: t for k, t in tensors.items() if k not in graph.consts}
    integer = Graph(
        graph.name,
        graph.inputs,
        graph.outputs,
        tuple(nodes),
        {**runtime, **{k: const_tensor(k, v) for k, v in consts.items()}},
        consts,
    )
    return Quantized(verify(integer), choices)


def _through_views(graph: Graph, names: set[str]) -> set[str]:
    """The tensors from which those in `names` are taken without a change of scale."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if TABLE[node.op].same_quant and node.outputs[0] in names | found:
            found |= {x for x in node.inputs if x not in graph.consts}
    return found


def _choose(
    graph: Graph,
    node: Node | None,
    name: str,
    seen: Observed,
    method: str,
    symmetric: bool,
    choices: Mapping[str, Choice],
    tensors: Mapping[str, Tensor],
) -> tuple[Choice, Quant]:
    op = None if node is None else TABLE[node.op]
    if op is not None and node is not None and op.same_quant:
        source = tensors[node.inputs[0]]
        assert source.quant is not None
        return replace(choices[node.inputs[0]], reason=f"as {node.inputs[0]}"), source.quant
    possible = set(op.outputs) if op is not None else {"i8"}
    accepted = possible & _accepted(graph, name)
    assert accepted, f"no type for {name} between {op.name if op else 'input'} and its readers"
    if op is not None and node is not None and op.fixed_quant is not None:
        dtype = "i16" if "i16" in accepted and name in graph.outputs else "i8"
        quant = op.fixed_quant(node, dtype)
        low, high = ((q - quant.zero_point) * quant.scale for q in fixedpoint.INT_RANGE[dtype])
        return Choice(dtype, "fixed", low, high, _sqnr(seen, quant, dtype), "fixed by the operator"), quant
    stated = graph.tensors[name].quant
    if method == FILE and stated is not None and "i8" in accepted and not (symmetric and stated.zero_point):
        return _stated(stated, seen, ""), stated
    low, high = choose_range(seen, "minmax" if method == FILE else method, symmetric)
    quant = _quant(low, high, "i8", symmetric)
    noise, faint = _sqnr(seen, quant, "i8"), _faint_sqnr(seen, quant)
    if "i16" in accepted:
        reason = (
            "output"
            if name in graph.outputs
            else f"8 bits: {noise:.1f} dB"
            if noise < PROMOTE_BELOW_DB
            else f"8 bits: {faint:.1f} dB in its faintest row"
            if faint < PROMOTE_BELOW_DB
            else "no 8-bit form"
            if "i8" not in accepted
            else ""
        )
        if reason:
            low, high = choose_range(seen, "minmax", True)
            quant = _quant(low, high, "i16", True)
            return Choice("i16", "minmax", low, high, _sqnr(seen, quant, "i16"), reason), quant
    return Choice("i8", method, low, high, noise, "symmetric" if symmetric else ""), quant


def _widened(graph: Graph, node: Node | None, tensors: Mapping[str, Tensor], quant: Quant) -> Quant:
    """`quant` with a scale that the operator can produce; a tensor of next to nothing may be calibrated to less."""
    least = None if node is None else TABLE[node.op].least_scale
    if node is None or least is None or quant.scale >= (scale := least(node, tensors, graph.consts)):
        return quant
    return replace(quant, scale=scale)


def _stated(quant: Quant, seen: Observed, reason: str) -> Choice:
    """The choice of an 8-bit Quant that the file states."""
    low, high = ((q - quant.zero_point) * quant.scale for q in fixedpoint.INT_RANGE["i8"])
    return Choice("i8", FILE, low, high, _sqnr(seen, quant, "i8"), reason)


def _accepted(graph: Graph, name: str) -> set[str]:
    """Element types that every reader of a tensor takes, looking through operators that keep them."""
    types = {"i8", "i16"}
    for node in graph.nodes:
        if name not in node.inputs:
            continue
        op = TABLE[node.op]
        place = activations(node, graph.consts).index(name)
        types &= set(op.inputs[min(place, len(op.inputs) - 1)])
        if op.same_quant:
            types &= _accepted(graph, node.outputs[0])
    return types


def _quant(low: float, high: float, dtype: str, symmetric: bool) -> Quant:
    """Scale and zero point for a range that contains 0; a tensor that is always 0 gets the range of 1."""
    if high - low < 1e-30:
        low, high = (-1.0, 1.0) if symmetric else (0.0, 1.0)
    if symmetric:
        return Quant(high / (32767 if dtype == "i16" else 127))
    scale = (high - low) / 255
    return Quant(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def _sqnr(seen: Observed, quant: Quant, dtype: str) -> float:
    """Signal-to-quantization-noise ratio in dB of rounding the observed values; 120 where there is no noise."""
    error = (
        fixedpoint.dequantize(fixedpoint.quantize(seen.values, quant, dtype), quant).astype(np.float64) - seen.values
    )
    signal, noise = float(np.square(seen.values.astype(np.float64)).mean()), float(np.square(error).mean())
    return 120.0 if noise <= signal * 1e-12 or signal == 0 else float(10 * np.log10(signal / noise))


def _faint_sqnr(seen: Observed, quant: Quant) -> float:
    """Signal-to-quantization-noise ratio in dB of the faintest row: a normalization lifts them, and their noise, to
    full size.
    """
    return 120.0 if seen.row_rms == 0 else float(20 * np.log10(seen.row_rms * np.sqrt(12) / quant.scale))


def run_int(graph: Graph, sample: Sample) -> dict[str, Array]:
    """Every tensor of the integer graph for one sample: the reference that the C is compared with, bit for bit.

    Float inputs are quantized on the way in; integer inputs are taken as they are.
    """
    values: dict[str, Array] = dict(graph.consts)
    for name in graph.inputs:
        tensor = graph.tensors[name]
        values[name] = (
            fixedpoint.quantize(sample[name], tensor.quant, tensor.dtype)
            if tensor.quant
            else sample[name].astype(np.int32)
        )
    for node in graph.nodes:
        values[node.outputs[0]] = TABLE[node.op].eval_int(node, [values[x] if x else None for x in node.inputs])
    return values


def output_sqnr(
    float_graph: Graph, integer: Graph, samples: Sequence[Sample], floats: Sequence[Mapping[str, Array]]
) -> float:
    """Signal-to-noise ratio in dB of the integer graph's outputs against the float ones, over all samples."""
    signal = noise = 0.0
    for sample, expected in zip(samples, floats, strict=True):
        got = run_int(integer, sample)
        for a, b in zip(float_graph.outputs, integer.outputs, strict=True):
            quant = integer.tensors[b].quant
            assert quant is not None
            real = expected[a].astype(np.float64)
            signal += float(np.square(real).sum())
            noise += float(np.square(fixedpoint.dequantize(got[b], quant) - real).sum())
    return 120.0 if noise <= signal * 1e-12 else float(10 * np.log10(max(signal, 1e-300) / noise))


def agreeing(
    float_graph: Graph, integer: Graph, samples: Sequence[Sample], floats: Sequence[Mapping[str, Array]]
) -> int:
    """In how many samples the greatest element of the first output is the same in both graphs."""
    a, b = float_graph.outputs[0], integer.outputs[0]
    pairs = zip(samples, floats, strict=True)
    return sum(int(np.argmax(run_int(integer, sample)[b])) == int(np.argmax(want[a])) for sample, want in pairs)
