"""take_rows_early: compute only the rows that are read.

A classifier that reads the first token needs that token alone from the last layer on: a view of one row is moved before
the row operators that lead to it. Keys and values of the attention still come from all tokens; its queries do not.
"""

from __future__ import annotations

import numpy as np

from slm2c.ir import Array, Graph, Node
from slm2c.passes.edit import Edit

_ROW_OPS = frozenset({"linear", "lut", "layernorm", "attention"})


def take_rows_early(graph: Graph) -> Graph:
    """`graph` with each view of a single row moved up as far as row operators with no other reader go."""
    while True:
        moved = _move_one(graph)
        if moved is graph:
            return graph
        graph = moved


def _move_one(graph: Graph) -> Graph:
    producers, consumers = graph.producers(), graph.consumers()
    for node in graph.nodes:
        row = _single_row(graph, node)
        maker = producers.get(node.inputs[0]) if row is not None else None
        if (
            maker is None
            or maker.op not in _ROW_OPS
            or consumers[node.inputs[0]] != [node]
            or node.inputs[0] in graph.outputs
        ):
            continue
        if maker.op == "attention" and (maker.attrs["causal"] or (len(maker.inputs) > 3 and maker.inputs[3])):
            continue
        assert row is not None
        edit = Edit(graph)
        count = 1 if maker.op == "attention" else 2 if maker.op == "layernorm" else 1  # inputs that have these rows
        inputs = list(maker.inputs)
        for i in range(count):
            if inputs[i]:
                features = graph.tensors[inputs[i]].shape[1]
                inputs[i] = edit.add(
                    "view",
                    [inputs[i]],
                    {"index": row * features + np.arange(features)[None], "fill": 0.0},
                    (1, features),
                    node.name,
                )
        out = edit.add(maker.op, inputs, maker.attrs, (1, graph.tensors[maker.outputs[0]].shape[1]), maker.name)
        shape = graph.tensors[node.outputs[0]].shape
        if shape != edit.tensors[out].shape:
            out = edit.add(
                "view",
                [out],
                {"index": np.arange(node.attrs["index"].size).reshape(shape), "fill": 0.0},
                shape,
                node.name,
            )
        edit.replace(node.outputs[0], out)
        return _share_views(edit.apply())
    return graph


def _single_row(graph: Graph, node: Node) -> int | None:
    """The row that a view takes out of a [rows > 1, features] tensor, whole and in order."""
    if node.op != "view" or len(graph.tensors[node.inputs[0]].shape) != 2:
        return None
    index: Array = node.attrs["index"]
    rows, features = graph.tensors[node.inputs[0]].shape
    row = int(index.ravel()[0]) // features if index.size else -1
    if rows == 1 or index.size != features or not np.array_equal(index.ravel(), row * features + np.arange(features)):
        return None
    return row


def _share_views(graph: Graph) -> Graph:
    """Equal views of the same tensor are one."""
    edit, seen = Edit(graph), dict[tuple[str, bytes, tuple[int, ...]], str]()
    for node in graph.nodes:
        if node.op == "view":
            key = node.inputs[0], node.attrs["index"].tobytes(), node.attrs["index"].shape
            if key in seen:
                edit.replace(node.outputs[0], seen[key])
            seen.setdefault(key, node.outputs[0])
    return edit.apply()
