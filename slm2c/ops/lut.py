"""lut: y = f(x), any function of one variable, as a table.

float inputs: x of any shape; attrs: fn, the function as an Expression.
integer inputs: x int8 or int16, table. Output int8 or int16.

int8 x: the table has one entry for each of the 256 values of x, in the output's type: exact up to rounding.
int16 x: the table is int16 [513], f at the points x = -32768 + 128 * i, between which the kernel interpolates linearly.
For an int8 output its entries are in 1/256 LSB.

Where f is undefined (NaN), the table holds f = 0; infinities saturate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slm2c import core, fixedpoint
from slm2c.ir import Array, Graph, Node, Quant, Shape, Tensor
from slm2c.ops.base import Case, KernelCall, OpDef, Special

Expression = float | tuple[Any, ...]
"""A function of one variable: ("x",) itself, a number, or (core operator, *operands), followed by the operator's attrs,
if it has any, as a tuple of (name, value) pairs: ("leaky_relu", ("x",), (("alpha", 0.01),))."""

X: Expression = ("x",)


def evaluate_expression(expression: Expression, x: Array) -> Array:
    """The function at each element of `x`, float32, in its shape."""
    x = np.asarray(x, dtype=np.float32)
    return np.array(np.broadcast_to(_evaluate(expression, x), x.shape), dtype=np.float32)


def _evaluate(expression: Expression, x: Array) -> Array:
    if not isinstance(expression, tuple):
        return np.asarray(expression, dtype=np.float32)
    op, operands, attrs = _parts(expression)
    return x if op == "x" else core.evaluate(op, [_evaluate(part, x) for part in operands], attrs)


def _parts(expression: tuple[Any, ...]) -> tuple[str, tuple[Expression, ...], dict[str, Any]]:
    """(operator, operands, attrs) of an expression."""
    op, *operands = expression
    has_attrs = operands and isinstance(operands[-1], tuple) and isinstance(operands[-1][0], tuple)
    attrs = dict(operands.pop()) if has_attrs else {}
    return op, tuple(operands), attrs


def _cubic(x: Expression) -> Expression:
    return ("add", x, ("mul", 0.044715, ("pow", x, 3.0)))


KNOWN: Mapping[str, Expression] = {
    "identity": X,
    "relu": ("relu", X),
    "relu6": ("min", ("relu", X), 6.0),
    "gelu": ("gelu", X),
    "gelu_tanh": ("mul", ("mul", 0.5, X), ("add", 1.0, ("tanh", ("mul", math.sqrt(2 / math.pi), _cubic(X))))),
    "gelu_sigmoid": ("mul", X, ("sigmoid", ("mul", 1.702, X))),
    "silu": ("mul", X, ("sigmoid", X)),
    "mish": ("mul", X, ("tanh", ("softplus", X))),
    "hard_swish": ("hard_swish", X),
    "hard_sigmoid": ("hard_sigmoid", X, (("alpha", 1 / 6), ("beta", 0.5))),
    "tanh": ("tanh", X),
    "sigmoid": ("sigmoid", X),
    "softplus": ("softplus", X),
    "softsign": ("softsign", X),
    "elu": ("elu", X, (("alpha", 1.0),)),
    "exp": ("exp", X),
    "log": ("log", X),
    "sqrt": ("sqrt", X),
    "rsqrt": ("reciprocal", ("sqrt", X)),
    "reciprocal": ("reciprocal", X),
    "erf": ("erf", X),
    "sin": ("sin", X),
    "cos": ("cos", X),
    "abs": ("abs", X),
    "neg": ("neg", X),
    "square": ("mul", X, X),
}
"""Functions with a name of their own, for reports and comments."""

_GRID = np.linspace(-8, 8, 513, dtype=np.float32)


def describe(expression: Expression) -> str:
    """A short canonical text: the name of the function it equals on [-8, 8], else itself, such as mul(x, 0.5)."""
    values = evaluate_expression(expression, _GRID)
    for name, known in KNOWN.items():
        # The tolerance tells gelu from gelu_tanh (up to 4.7e-4 apart) and forgives float32 in another order.
        if np.allclose(values, evaluate_expression(known, _GRID), rtol=1e-4, atol=1e-5, equal_nan=True):
            return name
    return _text(expression)


def _text(expression: Expression) -> str:
    if not isinstance(expression, tuple):
        return f"{expression:.6g}"
    op, operands, attrs = _parts(expression)
    parts = [_text(x) for x in operands]
    parts += [f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}" for name, value in attrs.items()]
    return f"{op}({', '.join(parts)})" if parts else op


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    assert inputs[0] is not None
    return inputs[0].shape


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    assert inputs[0] is not None
    y = evaluate_expression(node.attrs["fn"], inputs[0])
    return np.where(np.isnan(y), np.float32(0), y)


def _points(dtype: str) -> Array:
    """The integers x at which the table holds the function."""
    return np.arange(-128, 128) if dtype == "i8" else np.arange(-32768, 32769, 128)


def _values(node: Node, x: Quant, dtype: str) -> Array:
    """The function at the points of its table."""
    return np.nan_to_num(_eval_float(node, [fixedpoint.dequantize(_points(dtype), x)]))


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    x, out = tensors[node.inputs[0]], tensors[node.outputs[0]]
    assert x.quant and out.quant
    fine = 256 if x.dtype == "i16" and out.dtype == "i8" else 1
    quant = Quant(out.quant.scale / fine, out.quant.zero_point * fine)
    table = fixedpoint.quantize(_values(node, x.quant, x.dtype), quant, "i16" if x.dtype == "i16" else out.dtype)
    return {f"{out.name}.table": table}, {"dtype": out.dtype, "function": describe(node.attrs["fn"])}


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, table = inputs
    assert x is not None and table is not None
    if x.dtype == np.int8:
        return np.asarray(table[x.astype(np.int64) + 128])
    left, fraction = np.divmod(x.astype(np.int64) + 32768, 128)
    wide = table.astype(np.int64)
    sums = wide[left] * (128 - fraction) + wide[left + 1] * fraction
    shift = 15 if node.attrs["dtype"] == "i8" else 7
    return fixedpoint.saturate(sums + (1 << shift >> 1) >> shift, str(node.attrs["dtype"]))


def _lower(node: Node, graph: Graph) -> KernelCall:
    name, table = node.inputs
    x, out = graph.tensors[name], graph.tensors[node.outputs[0]]
    kinds = [{"i8": "s8", "i16": "s16"}[t.dtype] for t in (x, out)]
    symbol = "_".join(["slm_lut", *dict.fromkeys(kinds)])
    rows = Special.TOKENS if x.token_axis is not None else 1
    columns = x.size if x.token_axis is None else x.size // x.shape[x.token_axis]
    return KernelCall(symbol, (name, table, out.name, rows, columns), node)


def _error(node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Array | None]) -> float:
    """Rounding, and for int16 the chord: at most half the table's largest bend, at a kink (1/8 where f is smooth)."""
    x, out = tensors[node.inputs[0]], tensors[node.outputs[0]]
    assert x.quant and out.quant
    if x.dtype == "i8":
        return 0.51
    low, high = fixedpoint.INT_RANGE[out.dtype]
    steps = np.clip(
        _values(node, x.quant, x.dtype).astype(np.float64) / out.quant.scale + out.quant.zero_point, low, high
    )
    return 1.01 + float(np.abs(np.diff(steps, 2)).max()) / 2


def _cases(rng: np.random.Generator) -> list[Case]:
    found = []
    for shape, token_axis, function, spread in [
        ((1, 1), None, "gelu", 2.0),
        ((3, 17), 0, "tanh", 2.0),
        ((17, 33), 0, "silu", 3.0),
        ((4, 5, 3), 1, "sigmoid", 4.0),
        ((33,), 0, "exp", 1.0),
        ((5, 512), 0, "gelu_tanh", 2.0),
        ((3, 17), None, "sqrt", 1.0),
        ((3, 17), None, "hard_sigmoid", 3.0),
    ]:
        name = f"lut_{function}_{'x'.join(map(str, shape))}"
        node = Node("lut", name, ("x",), ("y",), {"fn": KNOWN[function]})
        tensors = {k: Tensor(k, shape, "f32", token_axis) for k in ("x", "y")}
        x = rng.normal(size=shape) * spread
        found.append(Case(node, tensors, {}, {"x": (np.abs(x) if function == "sqrt" else x).astype(np.float32)}))
    return found


OP = OpDef(
    name="lut",
    kernel="slm_lut",
    onnx=("Relu", "Gelu", "Erf", "Tanh", "Sigmoid", "HardSwish", "Softplus", "Exp", "Log", "Sqrt", "Pow"),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    cases=_cases,
    rowwise=lambda node, graph: True,
    inputs=(("i8", "i16"),),
    outputs=("i8", "i16"),
    inplace=(0,),
    error=_error,
)
