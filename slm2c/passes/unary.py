"""fuse_unary: any subgraph of elementwise operators over one tensor and scalars is one function of one variable.

GELU in its erf, tanh and Gelu forms, SiLU, hard swish, clips: all become `lut` with the function as a nested tuple,
so no activation needs a pattern of its own. What remains linear (a product with or a sum of a constant) is left for
folding.
"""

from __future__ import annotations

from collections.abc import Mapping

from slm2c.core import ELEMENTWISE
from slm2c.ir import Graph, Node
from slm2c.ops.lut import Expression
from slm2c.passes.edit import Edit

_LINEAR = frozenset({"add", "mul", "sub", "div"})


def fuse_unary(graph: Graph) -> Graph:
    """Replace maximal one-variable elementwise subgraphs by `lut` nodes; a lone relu stays, kernels do it for
    nothing.
    """
    edit = Edit(graph)
    producers = graph.producers()
    readers = {name: len(nodes) for name, nodes in graph.consumers().items()}
    inside: set[str] = set()
    for node in reversed(graph.nodes):
        out = node.outputs[0]
        if out in inside or not _usable(graph, node):
            continue
        found = _region(graph, producers, readers, node)
        if found is None:
            continue
        root, names = found
        expression = _expression(graph, producers, names, root, out)
        if (node.op == "relu" and len(names) == 1) or _is_linear(expression):
            continue
        inside |= names
        edit.replace(out, edit.add("lut", [root], {"fn": expression}, graph.tensors[out].shape, node.name))
    return edit.apply()


def _usable(graph: Graph, node: Node) -> bool:
    return (
        node.op in ELEMENTWISE
        and graph.tensors[node.outputs[0]].dtype == "f32"
        and all(
            (x in graph.consts and graph.consts[x].size == 1)
            or graph.tensors[x].shape == graph.tensors[node.outputs[0]].shape
            for x in node.inputs
        )
    )


def _region(
    graph: Graph, producers: Mapping[str, Node], readers: Mapping[str, int], node: Node
) -> tuple[str, set[str]] | None:
    """(the one variable, the nodes between): the deepest single tensor that `node` is a function of."""
    rank = {name: i for i, name in enumerate(producers)}
    names, leaves = {node.outputs[0]}, {x for x in node.inputs if x not in graph.consts}
    best: tuple[str, set[str]] | None = None
    while True:
        if len(leaves) == 1:
            (leaf,) = leaves
            if graph.tensors[leaf].dtype == "f32":
                best = leaf, set(names)
            if leaf in graph.outputs or readers.get(leaf, 0) > sum(leaf in producers[n].inputs for n in names):
                return best
        if not leaves:
            return best
        last = max(leaves, key=lambda x: rank.get(x, -1))
        maker = producers.get(last)
        if maker is None or not (
            _usable(graph, maker) or (maker.op in ELEMENTWISE and graph.tensors[last].dtype == "bool")
        ):
            return best
        leaves.discard(last)
        names.add(last)
        leaves |= {x for x in maker.inputs if x not in graph.consts}


def _expression(graph: Graph, producers: Mapping[str, Node], names: set[str], root: str, name: str) -> Expression:
    if name == root:
        return ("x",)
    if name in graph.consts:
        return float(graph.consts[name].ravel()[0])
    assert name in names
    node = producers[name]
    parts = tuple(_expression(graph, producers, names, root, x) for x in node.inputs)
    return (node.op, *parts, tuple(sorted(node.attrs.items()))) if node.attrs else (node.op, *parts)


def _is_linear(expression: Expression) -> bool:
    """Whether the function is a chain of sums and products with constants."""
    if not isinstance(expression, tuple) or expression == ("x",):
        return True
    parts = expression[1:]
    return (
        expression[0] in _LINEAR
        and sum(isinstance(p, tuple) for p in parts) == 1
        and all(_is_linear(p) for p in parts)
        and not (expression[0] == "div" and isinstance(parts[1], tuple))
    )
