"""Evaluation of float graphs: the meaning that every pass must keep.

Until `passes.finish` a node is a core operator, or a fused one whose name the core set does not have; from then on
every node is one of `slm2c.ops.TABLE`. Some names (add, layernorm) exist in both sets, so the caller says which it
has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slm2c import core
from slm2c.ir import Array, Graph, Node
from slm2c.ops import TABLE


def run(graph: Graph, feeds: Mapping[str, Array], wanted: Sequence[str] | None = None) -> dict[str, Array]:
    """Values by tensor name of a graph before `finish`. `feeds` may name any tensors: what lies behind is not computed.

    With `wanted`, only what these depend on is evaluated; otherwise everything.
    """
    values: dict[str, Array] = {**graph.consts, **feeds}
    for node in _needed(graph, feeds, graph.outputs if wanted is None else wanted, everything=wanted is None):
        args = [values[x] if x else None for x in node.inputs]
        known = core.known(node.op)
        values[node.outputs[0]] = (
            core.evaluate(node.op, args, node.attrs) if known else TABLE[node.op].eval_float(node, args)
        )
    return values


def run_fused(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Values by tensor name of a graph of table operators; a fed token axis may be shorter than the maximum."""
    values: dict[str, Array] = {**graph.consts, **feeds}
    for node in graph.nodes:
        values[node.outputs[0]] = TABLE[node.op].eval_float(node, [values[x] if x else None for x in node.inputs])
    return values


def _needed(
    graph: Graph, known: Mapping[str, object], wanted: Sequence[str], *, everything: bool = False
) -> list[Node]:
    """The nodes to evaluate, in order, for `wanted` when the tensors in `known` are given."""
    missing = set(wanted)
    steps: list[Node] = []
    for node in reversed(graph.nodes):
        if node.outputs[0] not in known and (everything or node.outputs[0] in missing):
            steps.append(node)
            missing.update(node.inputs)
    return steps[::-1]
