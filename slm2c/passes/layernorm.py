"""fuse_layernorm: whatever subgraph computes LayerNorm or RMSNorm over the last axis becomes one node.

Exporters write it in many algebraic forms (Pow or Mul, Div or Reciprocal, TensorFlow's x * s + (b - mean * s)). So
the candidate region, everything between a tensor and a result that uses only that tensor, constants and reductions
along the last axis, is judged by what it computes on random rows, not by its shape.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from slm2c import core, interpret
from slm2c.ir import Array, Graph, Node
from slm2c.passes.edit import Edit

_REGION_LIMIT = 24  # nodes; the longest known form has 12


def fuse_layernorm(graph: Graph) -> Graph:
    """Replace decomposed normalizations of [rows, features] tensors by `layernorm` or `rmsnorm` nodes."""
    edit = Edit(graph)
    producers, consumers = graph.producers(), graph.consumers()
    taken: set[str] = set()
    for node in graph.nodes:
        if node.op != "reduce_mean" or tuple(node.attrs["axes"]) != (1,) or node.outputs[0] in taken:
            continue
        for start, centre in _starts(producers, node):
            found = _match(graph, producers, consumers, start, centre)
            if found is None:
                continue
            output, region, gamma, beta, epsilon = found
            taken |= region
            shape = graph.tensors[start].shape
            names = [edit.const(gamma), edit.const(beta) if centre else ""]
            edit.replace(
                output,
                edit.add(
                    "layernorm" if centre else "rmsnorm",
                    [start, *names],
                    {"axis": -1, "epsilon": epsilon},
                    shape,
                    node.name,
                ),
            )
            break
    return edit.apply()


def _starts(producers: Mapping[str, Node], mean: Node) -> list[tuple[str, bool]]:
    """The tensors that the mean may be taken of: x for LayerNorm, x behind a square for RMSNorm."""
    x = mean.inputs[0]
    square = producers.get(x)
    if square is not None and (square.op == "pow" or (square.op == "mul" and square.inputs[0] == square.inputs[1])):
        return [(square.inputs[0], False)]
    return [(x, True)]


def _match(
    graph: Graph, producers: Mapping[str, Node], consumers: Mapping[str, list[Node]], start: str, centre: bool
) -> tuple[str, set[str], Array, Array, float] | None:
    shape = graph.tensors[start].shape
    if len(shape) != 2 or start in graph.consts:
        return None
    region = {start}
    order: list[Node] = []
    frontier = list(consumers.get(start, []))
    while frontier and len(order) < _REGION_LIMIT:
        node = frontier.pop(0)
        usable = node.op in core.ELEMENTWISE or (
            node.op in ("reduce_mean", "reduce_sum") and tuple(node.attrs["axes"]) == (1,)
        )
        if (
            node.outputs[0] in region
            or not usable
            or any(x not in region and x not in graph.consts for x in node.inputs)
        ):
            continue
        region.add(node.outputs[0])
        order.append(node)
        frontier += consumers.get(node.outputs[0], [])
    small = sorted(
        {
            float(graph.consts[x].ravel()[0])
            for n in order
            for x in n.inputs
            if x in graph.consts and graph.consts[x].size == 1 and 0 < graph.consts[x].ravel()[0] < 0.1
        }
    )
    for node in reversed(order):
        if graph.tensors[node.outputs[0]].shape == shape:
            judged = _judge(graph, start, node.outputs[0], centre, [*small, 0.0])
            if judged is not None:
                return node.outputs[0], region - {start}, *judged
    return None


def _judge(
    graph: Graph, start: str, output: str, centre: bool, epsilons: list[float]
) -> tuple[Array, Array, float] | None:
    """(gamma, beta, epsilon) if `output` is the normalization of `start`."""
    shape = graph.tensors[start].shape
    rng = np.random.default_rng(0)

    def compute(x: Array) -> Array:
        return interpret.run(graph, {start: x}, [output])[output]

    x = rng.normal(size=shape).astype(np.float32)
    beta = compute(np.zeros_like(x))[0]
    if not np.isfinite(beta).all() or (not centre and beta.any()):
        return None
    unit = core.normalize(x, None, None, -1, 0.0, centre)
    with np.errstate(all="ignore"):
        gamma = ((compute(x) - beta) * np.sign(unit)).sum(axis=0) / np.abs(unit).sum(axis=0)
    gamma = gamma.astype(np.float32)
    if not np.isfinite(gamma).all() or not gamma.any():
        return None
    for epsilon in epsilons:  # a small input tells the epsilon, large and shifted ones the rest
        scales = [1.0, 30.0, float(np.sqrt(epsilon)) or 1.0]
        checks = [rng.normal(size=shape).astype(np.float32) * np.float32(s) for s in scales]
        if all(
            _close(compute(c), core.normalize(c, gamma, beta if centre else None, -1, epsilon, centre)) for c in checks
        ):
            return gamma * np.float32(np.sqrt(1 + epsilon)), beta, epsilon
    return None


def _close(got: Array, expected: Array) -> bool:
    """Equal up to float32 rounding and the epsilon that the first estimate of gamma leaves out."""
    return bool(
        np.isfinite(got).all() and np.abs(got - expected).max() <= 2e-3 * max(1e-6, float(np.abs(expected).max()))
    )
