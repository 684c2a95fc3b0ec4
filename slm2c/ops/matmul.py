"""matmul: the product of two activations as numpy.matmul defines it, batch axes broadcast.

float inputs: a [..., M, K], b [..., K, N]; b may be a constant (`linear` is better where it fits). Any axis of
activations may count tokens, also K of both.
integer inputs: a int8, b int8 (a constant: symmetric), params. Output int8 or int16.

    sum = sum over k of (a[m, k] - zero_point(a)) * (b[k, n] - zero_point(b))
    output = saturate((sum * multiplier + 2**(31 - shift) >> 32 - shift) + zero_point)

Error: at most 0.5 + |sum| / 2**(33 - shift) LSB, and for a constant b half a step of each element times that of a.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from slm2c import fixedpoint
from slm2c.ir import Array, Graph, Node, Quant, Shape, Tensor
from slm2c.ops.base import Arg, Case, KernelCall, OpDef, Special, fields, pack_fields
from slm2c.ops.layout import broadcast

PARAMS = ("multiplier", "shift", "a_zero_point", "b_zero_point", "zero_point")
"""After these, the struct has the layouts of the matrices of a and of b."""

MAX_TERMS = 2**31 // 255**2
"""Products of two int8 numbers less their zero points that a 32-bit sum holds."""


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    a, b = inputs
    assert a is not None and b is not None and len(a.shape) > 1 < len(b.shape), node.name
    assert a.shape[-1] == b.shape[-2], f"{node.name}: {a.shape} times {b.shape}"
    return (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    a, b = inputs
    assert a is not None and b is not None
    return np.asarray(np.matmul(a, b))


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    a, b, out = (tensors[name] for name in (*node.inputs, *node.outputs))
    found: dict[str, Array] = {}
    b_quant = b.quant
    if b.name in consts:
        assert a.token_axis != len(a.shape) - 1, f"{node.name}: the constant has a row for each token"
        b_quant = _constant_quant(consts[b.name])
        found[f"{out.name}.constant"] = fixedpoint.quantize(consts[b.name], b_quant, "i8")
    assert a.quant and b_quant and out.quant and a.shape[-1] <= MAX_TERMS, f"{node.name}: {a.shape} times {b.shape}"
    mult, shift = fixedpoint.multiplier(a.quant.scale * b_quant.scale / out.quant.scale)
    params = {
        "multiplier": int(mult),
        "shift": shift,
        "a_zero_point": a.quant.zero_point,
        "b_zero_point": b_quant.zero_point,
        "zero_point": out.quant.zero_point,
    }
    matrices = [broadcast(x, out, inner=2).table(runs=False) for x in (a, b)]
    found[f"{out.name}.params"] = np.concatenate([pack_fields(params, PARAMS), *matrices])
    return found, {"dtype": out.dtype}


def _constant_quant(value: Array) -> Quant:
    return Quant(max(float(np.abs(value).max()), 1e-30) / 127)


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    a, b, params = inputs
    assert a is not None and b is not None and params is not None
    p = fields(params[: len(PARAMS)], PARAMS)
    total = fixedpoint.matmul(a.astype(np.int64) - p["a_zero_point"], b.astype(np.int64) - p["b_zero_point"])
    return fixedpoint.rescale(total, p["multiplier"], p["shift"], p["zero_point"], str(node.attrs["dtype"]))


def _lower(node: Node, graph: Graph) -> KernelCall:
    a, b, out = (graph.tensors[name] for name in (*node.inputs[:2], *node.outputs))
    symbol = {"i8": "slm_matmul_s8", "i16": "slm_matmul_s8_s16"}[out.dtype]
    tokens = 1 if a.token_axis is None and b.token_axis is None else Special.TOKENS
    dims = (_length(out, -2), _length(a, -1), _length(out, -1))
    return KernelCall(symbol, (node.inputs[2], a.name, b.name, out.name, *dims, tokens), node)


def _length(tensor: Tensor, axis: int) -> Arg:
    return Special.TOKENS if tensor.token_axis == axis % len(tensor.shape) else tensor.shape[axis]


def _macs(node: Node, tensors: Mapping[str, Tensor]) -> int:
    return tensors[node.outputs[0]].size * tensors[node.inputs[0]].shape[-1]


def _error(node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Array | None]) -> Array:
    """Rounding of the result and of the multiplier, and of b where it is constant."""
    (a, b), out = inputs, tensors[node.outputs[0]].quant
    a_quant, b_quant = (tensors[name].quant for name in node.inputs)
    assert a is not None and b is not None and a_quant and out
    step = 0.0
    if b_quant is None:
        b_quant = _constant_quant(b)
        step = b_quant.scale
    scale = a_quant.scale * b_quant.scale
    _, shift = fixedpoint.multiplier(scale / out.scale)
    rounding = np.matmul(np.abs(a), np.full(b.shape, step / 2)) / out.scale
    return np.asarray(0.51 + rounding + np.matmul(np.abs(a), np.abs(b) + step / 2) / scale / 2 ** (33 - shift))


def _cases(rng: np.random.Generator) -> list[Case]:
    options: list[tuple[Shape, int | None, Shape, int | None, int | None]] = [
        ((1, 1), 0, (1, 1), None, 0),
        ((17, 33), 0, (33, 3), None, 0),
        ((3, 17, 5), 1, (3, 5, 7), None, 1),
        ((3, 4, 5), None, (3, 5, 17), 2, 2),
        ((3, 17), 1, (17, 5), 0, None),
        ((17, 1, 33), 0, (17, 33, 2), 0, 0),
        ((2, 3, 4, 5), None, (3, 5, 2), None, None),
        ((2, 1, 4, 5), None, (3, 5, 2), None, None),
        ((4, 5), None, (2, 3, 5, 1), None, None),
        ((3, 17, 5), 1, (3, 5, 4), None, 1),
    ]
    found = []
    for a_shape, a_axis, b_shape, b_axis, axis in options:
        node = Node("matmul", f"matmul_{'x'.join(map(str, a_shape))}_{'x'.join(map(str, b_shape))}", ("a", "b"), ("y",))
        tensors = {"a": Tensor("a", a_shape, "f32", a_axis), "b": Tensor("b", b_shape, "f32", b_axis)}
        tensors["y"] = Tensor("y", _infer(node, [tensors["a"], tensors["b"]]), "f32", axis)
        feeds = {
            "a": rng.normal(size=a_shape).astype(np.float32),
            "b": (rng.normal(size=b_shape) + 0.5).astype(np.float32),
        }
        found.append(Case(node, tensors, {}, feeds))
    last = found[-1]
    found[-1] = replace(last, consts={"b": last.feeds["b"]}, feeds={"a": last.feeds["a"]})
    return found


OP = OpDef(
    name="matmul",
    kernel="slm_matmul",
    onnx=("MatMul", "Gemm", "Einsum"),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    cases=_cases,
    outputs=("i8", "i16"),
    macs=_macs,
    error=_error,
)
