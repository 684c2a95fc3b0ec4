"""mul: x * y, element by element.

float inputs: x, which has the output's shape, and y, which is broadcast to it as in numpy; a constant is y. One that is
longer than x along the token axis is read for x's tokens.
integer inputs: x int8, y int8 (a constant: int16, symmetric), params. Output int8 or int16.

    product = (x - zero_point(x)) * (y - zero_point(y))
    output = saturate((product * multiplier + 2**(31 - shift) >> 32 - shift) + zero_point)

Error: at most 0.5 + |product| / 2**(33 - shift) LSB, and where y is a constant half a step of y times x.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from slm2c import fixedpoint
from slm2c.ir import Array, Graph, Node, Shape, Tensor
from slm2c.ops.add import broadcast_cases, constant_is_a_row, fit, quantize_constant
from slm2c.ops.base import Case, KernelCall, OpDef, Special, fields, pack_fields
from slm2c.ops.layout import broadcast

PARAMS = ("multiplier", "shift", "x_zero_point", "y_zero_point", "zero_point")


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    x, y = inputs
    assert x is not None and y is not None
    assert np.broadcast_shapes(x.shape, y.shape) == x.shape, f"{node.name}: {x.shape} is not the output's shape"
    return x.shape


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, y = inputs
    assert x is not None and y is not None
    return np.asarray(x * fit(y, x.shape))


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    (x, y), out = (tensors[name] for name in node.inputs), tensors[node.outputs[0]]
    found: dict[str, Array] = {}
    y_quant = y.quant
    if y.name in consts:
        found[f"{out.name}.constant"], y_quant = quantize_constant(consts[y.name])
    assert x.quant and y_quant and out.quant, f"{node.name}: a constant is y"
    mult, shift = fixedpoint.multiplier(x.quant.scale * y_quant.scale / out.quant.scale)
    params = {
        "multiplier": int(mult),
        "shift": shift,
        "x_zero_point": x.quant.zero_point,
        "y_zero_point": y_quant.zero_point,
        "zero_point": out.quant.zero_point,
    }
    found[f"{out.name}.params"] = pack_fields(params, PARAMS)
    return found, {"dtype": out.dtype}


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, y, params = inputs
    assert x is not None and y is not None and params is not None
    p = fields(params, PARAMS)
    product = (x.astype(np.int64) - p["x_zero_point"]) * (fit(y, x.shape).astype(np.int64) - p["y_zero_point"])
    return fixedpoint.rescale(product, p["multiplier"], p["shift"], p["zero_point"], str(node.attrs["dtype"]))


def _lower(node: Node, graph: Graph) -> KernelCall:
    x, y, out = (graph.tensors[name] for name in (*node.inputs[:2], *node.outputs))
    kinds = [{"i8": "s8", "i16": "s16"}[t.dtype] for t in (x, y, out)]
    symbol = "_".join(["slm_mul", *(kinds if len(set(kinds)) > 1 else kinds[:1])])
    layout = f"{out.name}.layout"
    args = (node.inputs[2], layout, x.name, y.name, out.name, Special.TOKENS if x.token_axis is not None else 1)
    return KernelCall(symbol, args, node, {layout: broadcast(y, x).table()})


def _error(node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Array | None]) -> Array:
    """Rounding of the result and of the multiplier, and of the constant where y is one."""
    (x, y), out = inputs, tensors[node.outputs[0]].quant
    x_quant, y_quant = (tensors[name].quant for name in node.inputs)
    assert x is not None and y is not None and x_quant and out
    found = np.full(x.shape, 0.51)
    if y_quant is None:
        y_quant = quantize_constant(y)[1]
        found += np.abs(x) * y_quant.scale / 2 / out.scale
    _, shift = fixedpoint.multiplier(x_quant.scale * y_quant.scale / out.scale)
    return np.asarray(found + np.abs(x / x_quant.scale * fit(y, x.shape) / y_quant.scale) / 2 ** (33 - shift))


def _cases(rng: np.random.Generator) -> list[Case]:
    return broadcast_cases("mul", rng, [{}])


OP = OpDef(
    name="mul",
    kernel="slm_mul",
    onnx=("Mul", "Div"),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    cases=_cases,
    rowwise=constant_is_a_row,
    outputs=("i8", "i16"),
    inplace=(0, 1),
    error=_error,
)
