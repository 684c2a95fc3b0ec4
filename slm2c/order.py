"""order: rewrites of the integer graph ahead of the schedule, for what kernels can do in one go. Values do not
change.
"""

from __future__ import annotations

from dataclasses import replace

from slm2c.ir import Graph, Node, prune, verify
from slm2c.ops.base import Target
from slm2c.ops.linear import TILE


def order(graph: Graph, target: Target, rows: int = TILE) -> Graph:
    """The integer graph as it is run on `target`, in tiles of at most `rows` rows."""
    return sink_projections(limit_tiles(fuse_tables(graph), rows) if target.dsp else graph)


def limit_tiles(graph: Graph, rows: int) -> Graph:
    """Linear layers that expand at most `rows` rows at a time."""
    nodes = (replace(n, attrs={**n.attrs, "tile": rows}) if n.op == "linear" else n for n in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def fuse_tables(graph: Graph) -> Graph:
    """A table of int8 (GELU, say) that one linear layer reads becomes the layer's own: it is looked up while the layer
    expands its activations to 16 bits, and the tensor between them is never stored.
    """
    consumers = graph.consumers()
    tables: dict[str, Node] = {}
    for node in graph.nodes:
        x, out = node.inputs[0], node.outputs[0]
        readers = consumers.get(out, [])
        if node.op != "lut" or {graph.tensors[x].dtype, graph.tensors[out].dtype} != {"i8"} or out in graph.outputs:
            continue
        if len(readers) == 1 and readers[0].op == "linear" and len(readers[0].inputs) == 5:
            tables[out] = node
    nodes = []
    for node in graph.nodes:
        if node.outputs[0] in tables:
            continue
        if node.op == "linear" and (lut := tables.get(node.inputs[0])):
            attrs = {**node.attrs, "function": lut.attrs["function"]}
            node = replace(node, inputs=(lut.inputs[0], *node.inputs[1:], lut.inputs[1]), attrs=attrs)
        nodes.append(node)
    return verify(prune(replace(graph, nodes=tuple(nodes))))


def sink_projections(graph: Graph) -> Graph:
    """Query, key and value layers that only an attention reads move to right before it, so that they can be tiled with
    it.
    """
    consumers = graph.consumers()
    sunk: dict[str, list[Node]] = {}
    for node in graph.nodes:
        readers = consumers.get(node.outputs[0], [])
        if node.op == "linear" and [r.op for r in readers] == ["attention"] and node.outputs[0] not in graph.outputs:
            sunk.setdefault(readers[0].outputs[0], []).append(node)
    moved = {node.outputs[0] for group in sunk.values() for node in group}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.outputs[0] not in moved:
            nodes += [*sunk.get(node.outputs[0], ()), node]
    return verify(replace(graph, nodes=tuple(nodes)))
