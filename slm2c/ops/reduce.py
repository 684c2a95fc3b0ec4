"""reduce: mean, sum, maximum or minimum over some axes.

float inputs: x; attrs: kind "mean", "sum", "max" or "min", axes, keepdims. Of the token axis, the n actual rows.
integer inputs: x int8 or int16, params. Output int8 or int16.

mean and sum: r is the exact sum of x - zero_point(x). max and min: r is the extreme of x, minus zero_point(x).

    output = saturate((r * m + 2**(31 - shift) >> 32 - shift) + zero_point)

The multiplier m is that of the scales; for a mean over `count` elements it is divided by `count`, to the nearest
integer, once a call. Error: at most 0.5 + |r| / 2**(32 - shift) LSB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from slm2c import fixedpoint
from slm2c.ir import Array, Graph, Node, Shape, Tensor
from slm2c.ops.base import Case, KernelCall, OpDef, Special, fields
from slm2c.ops.layout import Layout, sizes, steps

PARAMS = ("multiplier", "shift", "input_zero_point", "zero_point")
"""After these, the struct has the layouts of what is kept and of what is reduced."""

MAX_TERMS = 2**16 - 1
"""Of a mean or sum: as many int16 of zero point 0 add up to less than 2**31, and so do int8 less their zero point."""

_REDUCE: Mapping[str, Callable[..., Array]] = {"mean": np.mean, "sum": np.sum, "max": np.max, "min": np.min}


def _axes(node: Node, rank: int) -> tuple[int, ...]:
    return tuple(axis % rank for axis in node.attrs["axes"])


def summed(node: Node, shape: Shape) -> int:
    """How many elements of an input of `shape` are added up for one of the output; 0 where none are."""
    return math.prod(shape[i] for i in _axes(node, len(shape))) if node.attrs["kind"] in ("mean", "sum") else 0


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    assert inputs[0] is not None
    shape, axes = inputs[0].shape, _axes(node, len(inputs[0].shape))
    return tuple(1 if i in axes else d for i, d in enumerate(shape) if i not in axes or node.attrs["keepdims"])


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    x = inputs[0]
    assert x is not None
    keepdims = bool(node.attrs["keepdims"])
    return np.asarray(_REDUCE[node.attrs["kind"]](x, axis=_axes(node, x.ndim), keepdims=keepdims), dtype=np.float32)


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    x, out = tensors[node.inputs[0]], tensors[node.outputs[0]]
    assert x.quant and out.quant
    axes, terms = _axes(node, len(x.shape)), summed(node, x.shape)
    peak = max(abs(q - x.quant.zero_point) for q in fixedpoint.INT_RANGE[x.dtype])
    assert terms * max(peak, 2**15) < 2**31, f"{node.name}: sums of {terms} leave 32 bits"
    mult, shift = fixedpoint.multiplier(x.quant.scale / out.quant.scale)
    lengths = sizes(x)
    loops = list(zip(lengths, steps(lengths), strict=True))
    kept, reduced = (
        Layout(tuple(loop for i, loop in enumerate(loops) if (i in axes) == inside)) for inside in (False, True)
    )
    head = np.array([mult, shift, x.quant.zero_point, out.quant.zero_point], dtype=np.int32)
    params = np.concatenate([head, kept.table(), reduced.table()])
    return {f"{out.name}.params": params}, {**node.attrs, "axes": axes, "dtype": out.dtype}


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, params = inputs
    assert x is not None and params is not None
    p = fields(params[: len(PARAMS)], PARAMS)
    kind, axes = str(node.attrs["kind"]), node.attrs["axes"]
    centred = x.astype(np.int64) - p["input_zero_point"]
    value = _REDUCE["sum" if kind == "mean" else kind](centred, axis=axes, keepdims=bool(node.attrs["keepdims"]))
    mult = fixedpoint.divide_multiplier(p["multiplier"], math.prod(x.shape[i] for i in axes) if kind == "mean" else 1)
    return np.asarray(fixedpoint.rescale(value, mult, p["shift"], p["zero_point"], str(node.attrs["dtype"])))


def _lower(node: Node, graph: Graph) -> KernelCall:
    (first, params), out = node.inputs, node.outputs[0]
    x = graph.tensors[first]
    kinds = [{"i8": "s8", "i16": "s16"}[t.dtype] for t in (x, graph.tensors[out])]
    symbol = "_".join([f"slm_reduce_{node.attrs['kind']}", *dict.fromkeys(kinds)])
    return KernelCall(symbol, (params, first, out, Special.TOKENS if x.token_axis is not None else 1), node)


def _error(node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Array | None]) -> Array:
    """Rounding of the result, of the multiplier and of its quotient."""
    x, x_quant, out_quant = inputs[0], tensors[node.inputs[0]].quant, tensors[node.outputs[0]].quant
    assert x is not None and x_quant and out_quant
    _, shift = fixedpoint.multiplier(x_quant.scale / out_quant.scale)
    kind = "sum" if node.attrs["kind"] in ("mean", "sum") else "max"
    value = _REDUCE[kind](np.abs(x), axis=_axes(node, x.ndim), keepdims=bool(node.attrs["keepdims"])) / x_quant.scale
    return np.asarray(0.51 + value / 2 ** (32 - shift))


def _cases(rng: np.random.Generator) -> list[Case]:
    options: list[tuple[str, Shape, int | None, tuple[int, ...], bool]] = [
        ("mean", (1, 1), 0, (0,), True),
        ("mean", (17, 33), 0, (0,), True),
        ("mean", (33, 17), 0, (-1,), False),
        ("mean", (3, 17, 5), 1, (1,), False),
        ("mean", (3, 17, 5), 1, (0, 2), True),
        ("mean", (2, 3, 2, 3, 2, 3), None, (0, 2, 5), True),
        ("sum", (17, 33), 0, (0, 1), False),
        ("sum", (3, 33), None, (1,), True),
        ("max", (17, 33), 0, (0,), True),
        ("min", (5, 17, 3), 1, (0, 2), False),
    ]
    found = []
    for kind, shape, axis, axes, keepdims in options:
        name = f"reduce_{kind}_{'x'.join(map(str, shape))}_over_{'_'.join(str(a % len(shape)) for a in axes)}"
        node = Node("reduce", name, ("x",), ("y",), {"kind": kind, "axes": axes, "keepdims": keepdims})
        x = Tensor("x", shape, "f32", axis)
        inside = {a % len(shape) for a in axes}
        kept = None if axis is None or axis in inside else axis if keepdims else axis - sum(a < axis for a in inside)
        y = Tensor("y", _infer(node, [x]), "f32", kept)
        found.append(Case(node, {"x": x, "y": y}, {}, {"x": (rng.normal(size=shape) + 0.3).astype(np.float32)}))
    return found


OP = OpDef(
    name="reduce",
    kernel="slm_reduce",
    onnx=("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "GlobalAveragePool", "GlobalMaxPool"),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    cases=_cases,
    inputs=(("i8", "i16"),),
    outputs=("i8", "i16"),
    error=_error,
)
