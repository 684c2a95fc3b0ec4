"""Evaluation of a float graph that may hold core operators and fused ones: the meaning that every pass must keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slm2c import core
from slm2c.ir import Array, Graph, Node
from slm2c.ops import TABLE


def evaluate(node: Node, args: Sequence[Array | None]) -> Array:
    """The float value of one node."""
    op = TABLE.get(node.op)
    if op is not None and not core.known(node.op):
        return op.eval_float(node, args)
    return core.evaluate(node.op, args, node.attrs)


def run(graph: Graph, feeds: Mapping[str, Array], wanted: Sequence[str] | None = None) -> dict[str, Array]:
    """Values by tensor name. `feeds` may name any tensors: what lies behind them is not computed.

    With `wanted`, only what these depend on is evaluated; otherwise everything. A fed token axis may be shorter than
    the maximum when all nodes are fused operators.
    """
    values: dict[str, Array] = {**graph.consts, **feeds}
    for node in needed(graph, feeds, graph.outputs if wanted is None else wanted, everything=wanted is None):
        values[node.outputs[0]] = evaluate(node, [values[x] if x else None for x in node.inputs])
    return values


def needed(graph: Graph, known: Mapping[str, object], wanted: Sequence[str], *, everything: bool = False) -> list[Node]:
    """The nodes to evaluate, in order, for `wanted` when the tensors in `known` are given."""
    missing = set(wanted)
    steps: list[Node] = []
    for node in reversed(graph.nodes):
        if node.outputs[0] not in known and (everything or node.outputs[0] in missing):
            steps.append(node)
            missing.update(node.inputs)
    return steps[::-1]
