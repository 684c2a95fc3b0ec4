"""How small a value can get, as far as the operators that compute it tell."""

from __future__ import annotations

import math

from slm2c.core import Builder

_SMALLEST = {
    **dict.fromkeys(("relu", "softmax", "sigmoid", "hard_sigmoid", "abs", "sqrt", "exp", "softplus"), 0.0),
    **dict.fromkeys(("erf", "tanh", "sign", "sin", "cos", "softsign"), -1.0),
}
_ANY_OF_INPUTS = frozenset({"concat", "min", "where"})
_FIRST_INPUT = frozenset({"maxpool", "avgpool", "reduce_mean", "reduce_max", "reduce_min", "gather"})
_SUMS_AND_PRODUCTS = frozenset({"add", "mul", "div", "reciprocal", "reduce_sum", "reduce_prod"})

MAX_DEPTH = 16
"""Operators that are followed back before nothing is known."""


def lower_bound(builder: Builder, x: str, depth: int = MAX_DEPTH) -> float:
    """A number that no element of `x` is below; -inf where nothing is known."""
    value = builder.value(x)
    if value is not None:
        return float(value.min(initial=math.inf))
    node = builder.producers.get(x)
    if node is None or depth == 0:
        return -math.inf

    def bound(name: str) -> float:
        return lower_bound(builder, name, depth - 1)

    if node.op in _SMALLEST:
        return _SMALLEST[node.op]
    if node.op == "view":
        return min(bound(node.inputs[0]), node.attrs["fill"] if (node.attrs["index"] < 0).any() else math.inf)
    if node.op in _FIRST_INPUT:
        return bound(node.inputs[0])
    if node.op == "cast":
        unsigned = builder.tensors[node.inputs[0]].dtype in ("bool", "u8")
        return 0.0 if unsigned or bound(node.inputs[0]) >= 0 else -math.inf
    if node.op == "max":
        return max(bound(name) for name in node.inputs)
    if node.op in _ANY_OF_INPUTS:
        return min(bound(name) for name in (node.inputs[1:] if node.op == "where" else node.inputs))
    if node.op == "mul" and node.inputs[0] == node.inputs[1]:
        return 0.0
    if node.op == "pow":
        exponent = builder.value(node.inputs[1])
        even = exponent is not None and bool((exponent % 2 == 0).all())
        return 0.0 if even or bound(node.inputs[0]) >= 0 else -math.inf
    if node.op == "add":
        return sum(bound(name) for name in node.inputs)
    if node.op in _SUMS_AND_PRODUCTS:
        return 0.0 if all(bound(name) >= 0 for name in node.inputs) else -math.inf
    return -math.inf
