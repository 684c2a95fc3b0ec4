"""softmax: over the last axis of [rows, columns].

float inputs: x; attrs: none.
integer inputs: x int8, table int32 [256]: exp(-t * scale(x)) * 2**30 for t, the distance from the row's maximum.
Output int8 in 1/256 with zero point -128, or int16 in 1/32768; a probability of 1 saturates.

With e = table[max - x] and sum = 2 * (e of the row, added up) in 64 bits, normalized to sum = s * 2**k with s in
[2**31, 2**32), a probability is high(e * (reciprocal(s) >> k)) in units of 2**-29, rounded to the output's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from slm2c import core, fixedpoint
from slm2c.ir import Array, Graph, Node, Quant, Shape, Tensor
from slm2c.ops.base import Case, KernelCall, OpDef, rows

OUTPUT_BITS = {"i8": 8, "i16": 15}
"""Fractional bits of a probability."""


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    assert inputs[0] is not None
    return inputs[0].shape


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    assert inputs[0] is not None
    return core.softmax(inputs[0], -1)


def fixed_quant(node: Node, dtype: str) -> Quant:
    """The Quant of probabilities."""
    return Quant(2.0 ** -OUTPUT_BITS[dtype], -128 if dtype == "i8" else 0)


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    x, out = tensors[node.inputs[0]], tensors[node.outputs[0]]
    assert x.quant and out.quant == fixed_quant(node, out.dtype), f"{node.name}: the output's quantization is fixed"
    table = np.rint(np.ldexp(np.exp(-x.quant.scale * np.arange(256)), 30)).astype(np.int32)
    return {f"{out.name}.table": table}, {"dtype": out.dtype}


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, table = inputs
    assert x is not None and table is not None
    wide = x.astype(np.int64)
    e = table[wide.max(axis=1, keepdims=True) - wide]
    total = 2 * e.astype(np.int64).sum(axis=1, keepdims=True)
    k = 32 - fixedpoint.leading_zeros(total, 64)
    inverse = fixedpoint.reciprocal(total >> k) >> k.astype(np.uint64)
    p = fixedpoint.high(e, inverse).astype(np.int64)
    dtype = str(node.attrs["dtype"])
    shift = 29 - OUTPUT_BITS[dtype]
    return fixedpoint.saturate((p + (1 << shift >> 1) >> shift) + fixed_quant(node, dtype).zero_point, dtype)


def _lower(node: Node, graph: Graph) -> KernelCall:
    name, table = node.inputs
    x, out = graph.tensors[name], graph.tensors[node.outputs[0]]
    symbol = "slm_softmax_s8" if out.dtype == "i8" else "slm_softmax_s8_s16"
    return KernelCall(symbol, (name, table, out.name, rows(x), x.shape[1]), node)


def _error(node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Array | None]) -> float:
    return 0.51


def _cases(rng: np.random.Generator) -> list[Case]:
    found = []
    for n, columns, spread in [(1, 1, 1.0), (3, 17, 1.0), (17, 33, 4.0), (5, 64, 20.0), (2, 3000, 0.5), (33, 3, 2.0)]:
        node = Node("softmax", f"softmax_{n}_{columns}", ("x",), ("y",))
        tensors = {k: Tensor(k, (n, columns), "f32", 0) for k in ("x", "y")}
        x = (rng.normal(size=(n, columns)) * spread).astype(np.float32)
        found.append(Case(node, tensors, {}, {"x": x}))
    return found


OP = OpDef(
    name="softmax",
    kernel="slm_softmax",
    onnx=("Softmax",),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    cases=_cases,
    rowwise=lambda node, graph: True,
    outputs=("i8", "i16"),
    fixed_quant=fixed_quant,
    inplace=(0,),
)
