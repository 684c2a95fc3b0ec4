"""channels_last: convolution and pooling on [H, W, C], the layout of the kernels; 1-D ones get a height of 1.

The transposes that this needs are views, and two of them in a row cancel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from slm2c.ir import Graph, Node, Shape
from slm2c.passes.edit import Edit


def channels_last(graph: Graph) -> Graph:
    """Replace conv, maxpool and avgpool of batch 1 by conv2d and pool2d between views; others stay."""
    edit = Edit(graph)
    for node in graph.nodes:
        if (
            node.op in ("conv", "maxpool", "avgpool")
            and len(graph.tensors[node.inputs[0]].shape) in (3, 4)
            and graph.tensors[node.inputs[0]].shape[0] == 1
        ):
            new = _conv(graph, edit, node) if node.op == "conv" else _pool(graph, edit, node)
            if new is not None:
                edit.replace(node.outputs[0], new)
    return edit.apply()


def _channels_last(graph: Graph, edit: Edit, x: str, name: str) -> tuple[str, tuple[int, int, int]]:
    """[1, C, H, W] or [1, C, W] as a view [H, W, C]."""
    shape = graph.tensors[x].shape
    channels, height, width = shape[1], 1 if len(shape) == 3 else shape[2], shape[-1]
    index = np.arange(channels * height * width).reshape(channels, height, width).transpose(1, 2, 0)
    return edit.add("view", [x], {"index": np.ascontiguousarray(index), "fill": 0.0}, index.shape, name), (
        height,
        width,
        channels,
    )


def _channels_first(edit: Edit, y: str, image: Shape, shape: Shape, name: str) -> str:
    index = np.arange(int(np.prod(image))).reshape(image).transpose(2, 0, 1).reshape(shape)
    return edit.add("view", [y], {"index": np.ascontiguousarray(index), "fill": 0.0}, shape, name)


def _window_attrs(attrs: Mapping[str, Any], spatial: int) -> dict[str, Any]:
    pads = tuple(attrs["pads"])
    wide = {
        k: (1, *attrs[k]) if spatial == 1 else tuple(attrs[k]) for k in ("strides", "dilations", "kernel") if k in attrs
    }
    return {**wide, "pads": (0, pads[0], 0, pads[1]) if spatial == 1 else pads}


def _conv(graph: Graph, edit: Edit, node: Node) -> str | None:
    shape, w = graph.tensors[node.inputs[0]].shape, graph.consts.get(node.inputs[1])
    spatial = len(shape) - 2
    if w is None or shape[0] != 1 or spatial not in (1, 2):
        return None
    out = graph.tensors[node.outputs[0]].shape
    weight = (w[:, :, None, :] if spatial == 1 else w).transpose(0, 2, 3, 1)
    bias = graph.consts[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else np.zeros(len(w), np.float32)
    x, _ = _channels_last(graph, edit, node.inputs[0], node.name)
    image = (1 if spatial == 1 else out[2], out[-1], out[1])
    attrs = {**_window_attrs(node.attrs, spatial), "group": node.attrs["group"], "activation": ""}
    y = edit.add("conv2d", [x, edit.const(np.ascontiguousarray(weight)), edit.const(bias)], attrs, image, node.name)
    return _channels_first(edit, y, image, out, node.name)


def _pool(graph: Graph, edit: Edit, node: Node) -> str | None:
    shape, out = graph.tensors[node.inputs[0]].shape, graph.tensors[node.outputs[0]].shape
    spatial = len(shape) - 2
    if shape[0] != 1 or spatial not in (1, 2):
        return None
    x, _ = _channels_last(graph, edit, node.inputs[0], node.name)
    image = (1 if spatial == 1 else out[2], out[-1], out[1])
    attrs = {
        "kind": "max" if node.op == "maxpool" else "average",
        **_window_attrs(node.attrs, spatial),
        "count_include_pad": bool(node.attrs.get("count_include_pad", False)),
    }
    return _channels_first(edit, edit.add("pool2d", [x], attrs, image, node.name), image, out, node.name)
