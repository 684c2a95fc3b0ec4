"""mark_tokens: which axis of each tensor counts tokens, so that every kernel loops over the actual n.

A graph can run with n below its maximum if each of its operators treats tokens alike: row by row, through attention, or
by a reduction over them. Where one does not (a flattened sequence, say), the length is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from slm2c.ir import Graph, Node, Tensor


def mark_tokens(graph: Graph, count: int) -> tuple[Graph, str]:
    """(`graph` with token axes set, "") or (`graph` as it is, the name of the node that fixes the length).

    A sequence of one token has no shorter ones: no axis counts it.
    """
    if count == 1:
        return graph, ""
    tensors = dict(graph.tensors)
    for name in graph.inputs:
        if tensors[name].dtype in ("i32", "i64") and tensors[name].size == count:
            tensors[name] = replace(tensors[name], token_axis=len(tensors[name].shape) - 1)
    for node in graph.nodes:
        axis = _axis(node, graph, tensors, count)
        if axis == _FIXED:
            return graph, node.name or node.op
        out = node.outputs[0]
        tensors[out] = replace(tensors[out], token_axis=axis)
    return replace(graph, tensors=tensors), ""


_FIXED = -1


def _axis(node: Node, graph: Graph, tensors: Mapping[str, Tensor], count: int) -> int | None:
    """Token axis of the node's output, None if it has none, _FIXED if the node needs the full length."""
    inputs = [tensors[x] for x in node.inputs if x and x not in graph.consts]
    axes = [t.token_axis for t in inputs]
    if all(a is None for a in axes):
        return None
    match node.op:
        case "embedding":
            return 0
        case "linear" | "lut":
            return axes[0] if node.op == "lut" or axes[0] == 0 else _FIXED
        case "layernorm" | "softmax":
            return 0 if all(a == 0 for a in axes) else _FIXED
        case "attention":  # a single query row may attend to all tokens
            return axes[0] if axes[0] in (0, None) and axes[1:3] == [0, 0] else _FIXED
        case "add" | "mul":
            return _broadcast_axis(node, graph, tensors)
        case "reduce":
            return _reduced_axis(node, inputs[0])
        case "concat":
            return (
                axes[0]
                if len(set(axes)) == 1 and axes[0] != node.attrs["axis"] and len(inputs) == len(node.inputs)
                else _FIXED
            )
        case "view":
            return _view_axis(node, inputs[0], count)
    return _FIXED


def _broadcast_axis(node: Node, graph: Graph, tensors: Mapping[str, Tensor]) -> int | None:
    rank = len(tensors[node.outputs[0]].shape)
    found = {
        t.token_axis + rank - len(t.shape)
        for x in node.inputs
        if x not in graph.consts
        for t in [tensors[x]]
        if t.token_axis is not None
    }
    if len(found) != 1:
        return _FIXED
    axis = found.pop()
    for name in node.inputs:  # another run-time operand must be broadcast along the tokens
        t = tensors[name]
        place = axis - (rank - len(t.shape))
        if name not in graph.consts and t.token_axis is None and place >= 0 and t.shape[place] != 1:
            return _FIXED
    return axis


def _reduced_axis(node: Node, x: Tensor) -> int | None:
    assert x.token_axis is not None
    axes = {a % len(x.shape) for a in node.attrs["axes"]}
    if x.token_axis in axes:
        return None
    return x.token_axis if node.attrs["keepdims"] else x.token_axis - sum(a < x.token_axis for a in axes)


def _view_axis(node: Node, x: Tensor, count: int) -> int | None:
    index = node.attrs["index"]
    if index.min(initial=0) < 0:
        return _FIXED
    inner = int(np.prod(x.shape[x.token_axis + 1 :])) if x.token_axis is not None else 1
    token = index // inner % count
    if not token.any():
        return None
    within = index // (inner * count) * inner + index % inner  # the position with the token taken out
    for axis, length in enumerate(index.shape):
        along = np.arange(length).reshape([-1 if a == axis else 1 for a in range(index.ndim)])
        alike = np.array_equal(within, np.broadcast_to(np.take(within, [0], axis=axis), index.shape))
        if length == count and alike and np.array_equal(token, np.broadcast_to(along, index.shape)):
            return axis
    return _FIXED
