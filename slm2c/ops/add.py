"""add: alpha * x + beta * y, with an optional ReLU; beta = -1 subtracts.

float inputs: x, which has the output's shape, and y, which is broadcast to it as in numpy; a constant is y. One that is
longer than x along the token axis is read for x's tokens. attrs: activation "" or "relu", alpha, beta.
integer inputs: x int8 or int16, y int8 or int16 (a constant: int16, symmetric), params. Output int8 or int16.

    output = saturate(a * x + b * y + c >> shift)

a and b are alpha * scale(x) and beta * scale(y) in units of the output's scale / 2**shift; c holds the zero points and
the half that rounds. The shift is the largest with which no sum can leave 32 bits. Error against the real-valued
function of the same operands: at most 0.5 + (|x - zero_point(x)| + |y - zero_point(y)|) / 2**(shift + 1) LSB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slm2c import fixedpoint
from slm2c.ir import Array, Graph, Node, Quant, Shape, Tensor
from slm2c.ops.base import Case, KernelCall, OpDef, Special, fields, pack_fields
from slm2c.ops.layout import broadcast

PARAMS = ("a", "b", "c", "shift", "minimum", "maximum")


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    x, y = inputs
    assert x is not None and y is not None
    assert np.broadcast_shapes(x.shape, y.shape) == x.shape, f"{node.name}: {x.shape} is not the output's shape"
    return x.shape


def fit(y: Array, to: Shape) -> Array:
    """`y` broadcast to the shape `to`; of a constant for the maximum token count, the first rows."""
    missing = len(to) - y.ndim
    return np.broadcast_to(y[tuple(slice(d) for d in to[missing:])], to)


def quantize_constant(value: Array) -> tuple[Array, Quant]:
    """`value` as symmetric int16: finer than any activation that it meets."""
    peak = float(np.abs(value).max(initial=0.0))
    quant = Quant(peak / 32767 if peak > 0 else 1.0)
    return fixedpoint.quantize(value, quant, "i16"), quant


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, y = inputs
    assert x is not None and y is not None
    total = np.float32(node.attrs["alpha"]) * x + np.float32(node.attrs["beta"]) * fit(y, x.shape)
    return np.asarray(np.maximum(total, 0) if node.attrs["activation"] == "relu" else total)


@dataclass(frozen=True)
class _Term:
    """factor * operand, the operand quantized as `quant` in `dtype`."""

    factor: float
    quant: Quant
    dtype: str


def _terms(node: Node, tensors: Mapping[str, Tensor], constant: Quant | None) -> tuple[_Term, _Term]:
    """Both operands; `constant` is the Quant of a constant y."""
    x, y = (tensors[name] for name in node.inputs)
    y_quant = constant or y.quant
    assert x.quant and y_quant, f"{node.name}: a constant is y"
    return (
        _Term(float(node.attrs["alpha"]), x.quant, x.dtype),
        _Term(float(node.attrs["beta"]), y_quant, "i16" if constant else y.dtype),
    )


def _weights(terms: tuple[_Term, _Term], out: Quant) -> dict[str, int]:
    """The params a, b, c and shift."""
    peaks = [-fixedpoint.INT_RANGE[t.dtype][0] for t in terms]
    ratios = [t.factor * t.quant.scale / out.scale for t in terms]
    # Where a few steps of an operand saturate the output, both are cut alike; shift 0 then always holds.
    cut = max(1.0, *(abs(ratio) * peak / 2**28 for ratio, peak in zip(ratios, peaks, strict=True)))
    for shift in range(30, -1, -1):
        a, b = (round(ratio / cut * 2**shift) for ratio in ratios)
        c = (
            (out.zero_point << shift)
            - a * terms[0].quant.zero_point
            - b * terms[1].quant.zero_point
            + (1 << shift >> 1)
        )
        if abs(a) * peaks[0] + abs(b) * peaks[1] + abs(c) < 2**31:
            return {"a": a, "b": b, "c": c, "shift": shift}
    raise AssertionError(f"no shift for {terms}")


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    out, y = tensors[node.outputs[0]], node.inputs[1]
    assert out.quant
    found: dict[str, Array] = {}
    constant = None
    if y in consts:
        found[f"{out.name}.constant"], constant = quantize_constant(consts[y])
    low, high = fixedpoint.INT_RANGE[out.dtype]
    relu = node.attrs["activation"] == "relu"
    params = {
        **_weights(_terms(node, tensors, constant), out.quant),
        "minimum": max(low, out.quant.zero_point) if relu else low,
        "maximum": high,
    }
    found[f"{out.name}.params"] = pack_fields(params, PARAMS)
    return found, {"dtype": out.dtype}


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, y, params = inputs
    assert x is not None and y is not None and params is not None
    p = fields(params, PARAMS)
    total = p["a"] * x.astype(np.int64) + p["b"] * fit(y, x.shape).astype(np.int64) + p["c"]
    return np.clip(fixedpoint.saturate(total >> p["shift"], str(node.attrs["dtype"])), p["minimum"], p["maximum"])


def _lower(node: Node, graph: Graph) -> KernelCall:
    x, y, out = (graph.tensors[name] for name in (*node.inputs[:2], *node.outputs))
    kinds = [{"i8": "s8", "i16": "s16"}[t.dtype] for t in (x, y, out)]
    symbol = "_".join(["slm_add", *(kinds if len(set(kinds)) > 1 else kinds[:1])])
    layout = f"{out.name}.layout"
    args = (node.inputs[2], layout, x.name, y.name, out.name, Special.TOKENS if x.token_axis is not None else 1)
    return KernelCall(symbol, args, node, {layout: broadcast(y, x).table()})


def _error(node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Array | None]) -> Array:
    """Rounding of the sum and of both weights, and of the constant where y is one."""
    out, (x, y) = tensors[node.outputs[0]].quant, inputs
    assert out and x is not None and y is not None
    constant = tensors[node.inputs[1]].quant is None
    terms = _terms(node, tensors, quantize_constant(y)[1] if constant else None)
    half = 0.5 ** (_weights(terms, out)["shift"] + 1)
    found = 0.51 + half * (np.abs(x) / terms[0].quant.scale + np.abs(fit(y, x.shape)) / terms[1].quant.scale)
    return np.asarray(found + 0.5 * abs(terms[1].factor) * terms[1].quant.scale / out.scale * constant)


def constant_is_a_row(node: Node, graph: Graph) -> bool:
    """Whether an operand that is constant is the same for every row."""
    y = graph.consts.get(node.inputs[1])
    return y is None or y.ndim < 2 or len(y) == 1


def broadcast_cases(op: str, rng: np.random.Generator, attrs: Sequence[Mapping[str, object]]) -> list[Case]:
    """Cases of an operator on x and y, broadcast in all ways; each has the next of `attrs`."""
    options: list[tuple[Shape, int | None, Shape, int | None, bool]] = [
        ((1, 1), 0, (1, 1), 0, False),
        ((17, 33), 0, (17, 33), 0, False),
        ((17, 33), 0, (1, 33), None, False),
        ((17, 33), 0, (17, 1), 0, False),
        ((33, 17), 0, (33, 17), None, True),
        ((33, 17), 0, (17,), None, True),
        ((3, 17), None, (), None, True),
        ((1, 17, 3), 1, (1, 17, 3), None, True),
        ((3, 17, 5), 1, (3, 1, 5), None, False),
        ((3, 17, 5), 1, (17, 5), 0, False),
        ((2, 3, 1, 3, 2, 3), None, (3, 1, 3, 1, 3), None, False),
    ]
    found = []
    for i, (x_shape, x_axis, y_shape, y_axis, constant) in enumerate(options):
        name = "_".join([op, *("x".join(map(str, s)) for s in (x_shape, y_shape))]) + ("_constant" if constant else "")
        values = {
            "x": rng.normal(size=x_shape).astype(np.float32),
            "y": (0.3 * rng.normal(size=y_shape)).astype(np.float32),
        }
        consts = {"y": values.pop("y")} if constant else {}
        tensors = {
            "x": Tensor("x", x_shape, "f32", x_axis),
            "y": Tensor("y", y_shape, "f32", y_axis),
            "z": Tensor("z", x_shape, "f32", x_axis),
        }
        node = Node(op, name, ("x", "y"), ("z",), attrs[i % len(attrs)])
        found.append(Case(node, tensors, consts, values))
    return found


def _cases(rng: np.random.Generator) -> list[Case]:
    attrs = [
        {"activation": "", "alpha": 1.0, "beta": 1.0},
        {"activation": "relu", "alpha": 1.0, "beta": 1.0},
        {"activation": "", "alpha": 1.0, "beta": -1.0},
        {"activation": "", "alpha": 0.5, "beta": 3.0},
    ]
    return broadcast_cases("add", rng, attrs)


OP = OpDef(
    name="add",
    kernel="slm_add",
    onnx=("Add", "Sub", "Relu"),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    cases=_cases,
    rowwise=constant_is_a_row,
    inputs=(("i8", "i16"),),
    outputs=("i8", "i16"),
    inplace=(0, 1),
    error=_error,
)
