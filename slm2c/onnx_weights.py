"""Weights that cannot be right: infinities, and outliers that would leave nothing of their neighbours in eight bits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from slm2c.errors import Problem
from slm2c.ir import Array, Graph

MAX_WEIGHT = 1e20
"""A larger weight times any activation leaves float32; nothing that was trained has one."""

OUTLIER = 1e4
"""A weight this many times the median magnitude is worth a warning: its channel's int8 step exceeds all the others."""

_WEIGHTS: Mapping[str, tuple[int, ...]] = {
    "matmul": (0, 1),
    "conv": (1, 2),
    "layernorm": (1, 2),
    "rmsnorm": (1,),
    "gather": (0,),
}
"""Operands that are weights where they are constant."""


def inspect_weights(graph: Graph, labels: Mapping[str, str]) -> tuple[list[Problem], list[Problem]]:
    """Faults and doubts about the constant operands of `graph`; `labels` are the file's names of its values."""
    faults: list[Problem] = []
    doubts: list[Problem] = []
    for node in graph.nodes:
        for at in _WEIGHTS.get(node.op, ()):
            weights = graph.consts.get(node.inputs[at]) if at < len(node.inputs) else None
            if weights is None or weights.dtype != np.float32 or not weights.size:
                continue
            where = labels.get(node.inputs[at], node.name)
            magnitude = np.abs(weights)
            largest = float(magnitude.max())
            if largest > MAX_WEIGHT and not (node.op == "gather" and _is_mask(weights)):
                faults.append(
                    Problem(
                        where,
                        node.op,
                        f"a weight is as large as {largest:.3g}",
                        "training has failed or the file is damaged",
                    )
                )
            elif weights.ndim > 1 and node.op != "layernorm" and largest > OUTLIER * _median(magnitude):
                doubts.append(
                    Problem(
                        where,
                        node.op,
                        f"a weight of {largest:.3g} is {largest / _median(magnitude):.1g} times the "
                        "median: eight bits leave nothing of its neighbours",
                        "clip it and train again",
                    )
                )
    return faults, doubts


def _median(magnitude: Array) -> float:
    """Median of what is not zero."""
    present = magnitude[magnitude > 0]
    return float(np.median(present)) if present.size else 1.0


def _is_mask(table: Array) -> bool:
    """Whether a table with huge negative entries holds nothing else, as the rows of a causal mask do."""
    small = table[np.abs(table) <= MAX_WEIGHT]
    return bool((table <= MAX_WEIGHT).all()) and np.unique(small).size <= 1
