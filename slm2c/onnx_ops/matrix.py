"""Matrix products: MatMul, Gemm and the general Einsum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from slm2c.onnx_ops.base import Call, Refused, Result, onnx_op


@onnx_op("MatMul")
def matmul(call: Call) -> Result:
    """As numpy.matmul."""
    return call.matmul(call.input(0), call.input(1))


def scaled(call: Call, x: str, factor: float) -> str:
    """`factor` * `x`; nothing for 1."""
    return x if factor == 1.0 else call.op("mul", x, call.const(factor, np.float32))


@onnx_op("Gemm")
def gemm(call: Call) -> Result:
    """The sum alpha A' B' + beta C. A constant B takes alpha in, so that it costs nothing."""
    a, b = (
        call.transpose(x, (1, 0)) if call.attr_int(flag) and len(call.shape(x)) == 2 else x
        for x, flag in ((call.real(call.input(0)), "transA"), (call.real(call.input(1)), "transB"))
    )
    if len(call.shape(a)) != 2 or len(call.shape(b)) != 2:
        raise Refused(f"needs matrices, but reads {list(call.shape(a))} and {list(call.shape(b))}")
    alpha, beta = call.attr_float("alpha", 1.0), call.attr_float("beta", 1.0)
    b_is_constant = call.builder.value(b) is not None
    y = call.matmul(a, scaled(call, b, alpha) if b_is_constant else b)
    y = y if b_is_constant else scaled(call, y, alpha)
    if not call.has(2) or beta == 0.0:
        return y
    total = call.op("add", y, scaled(call, call.real(call.input(2)), beta))
    if call.shape(total) != call.shape(y):
        raise Refused(f"C of shape {list(call.shape(call.inputs[2]))} does not broadcast to {list(call.shape(y))}")
    return total


@onnx_op("Einsum")
def einsum(call: Call) -> Result:
    """Pair by pair from the left, each pair as one batched matmul (or mul, if it sums over nothing)."""
    equation = call.attr_str("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(call.inputs) or not all(call.has(i) for i in range(len(terms))):
        raise Refused(f"equation {equation} does not suit {len(call.inputs)} operands")
    labels = [_labels(call, term, len(call.shape(x))) for term, x in zip(terms, call.inputs, strict=True)]
    dots = sorted({a for term in labels for a in term if not a.isalpha()})
    if arrow:
        out = _output_labels(right, dots)
    else:
        every = [a for term in labels for a in term]
        out = dots + sorted(a for a in set(every) if a.isalpha() and every.count(a) == 1)
    if len(set(out)) < len(out) or not set(out) <= {a for term in labels for a in term}:
        raise Refused(f"equation {equation} has an output that its operands do not define")
    sizes = _sizes(call, labels)
    x, have = _diagonal(call, call.inputs[0], labels[0], sizes)
    for i, (other, term) in enumerate(zip(call.inputs[1:], labels[1:], strict=True)):
        y, mine = _diagonal(call, other, term, sizes)
        later = {*out, *(a for rest in labels[i + 2 :] for a in rest)}
        x, have = _product(call, x, have, y, mine, later)
    gone = [i for i, a in enumerate(have) if a not in out]
    x = call.reduce("sum", x, gone, keepdims=False) if gone else x
    have = [a for a in have if a in out]
    return call.transpose(x, [have.index(a) for a in out])


def _labels(call: Call, term: str, rank: int) -> list[str]:
    """One label per axis; the axes of an ellipsis are called "0", "1", ... counted from the last."""
    before, dots, after = term.partition("...")
    letters = before + after
    hidden = rank - len(letters)
    if not all(a.isascii() and a.isalpha() for a in letters) or (hidden != 0 and not dots) or hidden < 0 or hidden > 9:
        raise Refused(f"einsum term {term} does not suit rank {rank}")
    return [*before, *(str(9 - hidden + 1 + i) for i in range(hidden)), *after]


def _output_labels(term: str, dots: list[str]) -> list[str]:
    before, ellipsis, after = term.partition("...")
    if not all(a.isascii() and a.isalpha() for a in before + after):
        raise Refused(f"einsum output {term} is not understood")
    return [*before, *(dots if ellipsis else ()), *after]


def _sizes(call: Call, labels: Sequence[Sequence[str]]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for term, x in zip(labels, call.inputs, strict=True):
        for label, size in zip(term, call.shape(x), strict=True):
            if sizes.setdefault(label, size) != size and 1 not in (size, sizes[label]):
                raise Refused(f"axis {label} has lengths {sizes[label]} and {size}")
            sizes[label] = max(size, sizes[label])
    return sizes


def _diagonal(call: Call, x: str, term: Sequence[str], sizes: dict[str, int]) -> tuple[str, list[str]]:
    """`x` with each label once and of full length."""
    x = call.expand(x, [sizes[a] for a in term])
    once = list(dict.fromkeys(term))
    if len(once) == len(term):
        return x, once
    grid = np.indices([sizes[a] for a in once], sparse=True)
    return call.view(x, call.positions(x)[tuple(grid[once.index(a)] for a in term)]), once


def _product(call: Call, x: str, have: list[str], y: str, mine: list[str], later: set[str]) -> tuple[str, list[str]]:
    """The product of two terms, summed over what neither the output nor a later term needs."""
    x, have = _sum_out(call, x, have, later | set(mine))
    y, mine = _sum_out(call, y, mine, later | set(have))
    common = [a for a in have if a in mine]
    batch, summed = [a for a in common if a in later], [a for a in common if a not in later]
    rows, columns = [a for a in have if a not in mine], [a for a in mine if a not in have]
    shape = dict(zip([*have, *mine], [*call.shape(x), *call.shape(y)], strict=True))
    x = call.transpose(x, [have.index(a) for a in [*batch, *rows, *summed]])
    y = call.transpose(y, [mine.index(a) for a in [*batch, *summed, *columns]])
    if not summed:
        x = call.reshape(x, [*call.shape(x), *(1,) * len(columns)])
        y = call.reshape(y, [shape[a] for a in batch] + [1] * len(rows) + [shape[a] for a in columns])
        return call.op("mul", x, y), [*batch, *rows, *columns]
    heights = [shape[a] for a in rows] if not batch else [math.prod(shape[a] for a in rows)]
    depth = math.prod(shape[a] for a in summed)
    lead = [shape[a] for a in batch]
    product = call.matmul(
        call.reshape(x, [*lead, *(heights or [1]), depth]),
        call.reshape(y, [*lead, depth, math.prod(shape[a] for a in columns)]),
    )
    return call.reshape(product, [shape[a] for a in [*batch, *rows, *columns]]), [*batch, *rows, *columns]


def _sum_out(call: Call, x: str, have: list[str], keep: set[str]) -> tuple[str, list[str]]:
    gone = [i for i, a in enumerate(have) if a not in keep]
    return (call.reduce("sum", x, gone, keepdims=False) if gone else x), [a for a in have if a in keep]
