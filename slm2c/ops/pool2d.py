"""pool2d: the greatest or the mean element of each window of an image, channels last.

float inputs: x [H, W, C] or [1, H, W, C]; attrs: kind "max" or "average", kernel, strides, pads (top, left, bottom,
right), dilations, count_include_pad. The output is [H', W', C], of x's rank. The padding never wins, and adds to the
count only with count_include_pad.
integer inputs: x int8, params. Output int8 or int16.

average: r is the exact sum of x - zero_point(x), and the multiplier is divided by the count, to the nearest integer,
once a window. max: r is the greatest x, minus zero_point(x).

    output = saturate((r * multiplier + 2**(31 - shift) >> 32 - shift) + zero_point)

Error: at most 0.5 + |r| / 2**(32 - shift) LSB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slm2c import core, fixedpoint
from slm2c.ir import Array, Graph, Node, Shape, Tensor
from slm2c.ops.base import Arg, Case, KernelCall, OpDef, fields, pack_fields

PARAMS = ("multiplier", "shift", "input_zero_point", "zero_point", "kernel_height", "kernel_width", "stride_y",
          "stride_x", "pad_top", "pad_left", "dilation_y", "dilation_x", "count_padding")  # fmt: skip

_CORE = {"max": "maxpool", "average": "avgpool"}


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    x = inputs[0]
    assert x is not None and (len(x.shape) == 3 or (len(x.shape) == 4 and x.shape[0] == 1)), node.name
    return (*x.shape[:-3], *core.window_counts(x.shape[-3:-1], node.attrs["kernel"], node.attrs), x.shape[-1])


def _pool(attrs: Mapping[str, Any], x: Array, kind: str, count_padding: bool) -> Array:
    """core.pool on channels-last images."""
    image = np.moveaxis(x.reshape(1, *x.shape[-3:]), 3, 1)
    windows = {k: attrs[k] for k in ("kernel", "strides", "pads", "dilations")}
    y = core.pool(image, kind, **windows, count_include_pad=count_padding)
    return np.moveaxis(y[0], 0, 2).reshape(*x.shape[:-3], *y.shape[2:], x.shape[-1])


def _sums(attrs: Mapping[str, Any], x: Array) -> Array:
    """The sums of the windows, the padding 0."""
    return _pool(attrs, x.astype(np.float64), "avgpool", True) * math.prod(attrs["kernel"])


def _counts(attrs: Mapping[str, Any], shape: Shape) -> Array:
    """The elements of each window that count for a mean."""
    taps = _sums(attrs, np.ones(shape))
    return np.full(taps.shape, math.prod(attrs["kernel"])) if attrs["count_include_pad"] else np.rint(taps)


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    x = inputs[0]
    assert x is not None
    return _pool(node.attrs, x, _CORE[node.attrs["kind"]], node.attrs["count_include_pad"])


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    x, out = tensors[node.inputs[0]], tensors[node.outputs[0]]
    assert x.quant and out.quant and x.token_axis is None, f"{node.name}: pooling has a fixed size"
    assert _sums(node.attrs, np.ones(x.shape)).min() > 0.5, f"{node.name}: a window lies in the padding altogether"
    mult, shift = fixedpoint.multiplier(x.quant.scale / out.quant.scale)
    params = {
        "multiplier": int(mult),
        "shift": shift,
        "input_zero_point": x.quant.zero_point,
        "zero_point": out.quant.zero_point,
        **dict(zip(("kernel_height", "kernel_width"), node.attrs["kernel"], strict=True)),
        **dict(zip(("stride_y", "stride_x"), node.attrs["strides"], strict=True)),
        **dict(zip(("pad_top", "pad_left"), node.attrs["pads"][:2], strict=True)),
        **dict(zip(("dilation_y", "dilation_x"), node.attrs["dilations"], strict=True)),
        "count_padding": int(node.attrs["count_include_pad"]),
    }
    return {f"{out.name}.params": pack_fields(params, PARAMS)}, {**node.attrs, "dtype": out.dtype}


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, params = inputs
    assert x is not None and params is not None
    p = fields(params, PARAMS)
    centred = x.astype(np.float64) - p["input_zero_point"]  # exact: windows sum up to far less than 2**53
    mult: Array | int = p["multiplier"]
    if node.attrs["kind"] == "max":
        value = _pool(node.attrs, centred, "maxpool", False)
    else:
        value = np.rint(_sums(node.attrs, centred))
        mult = fixedpoint.divide_multiplier(p["multiplier"], _counts(node.attrs, x.shape))
    return fixedpoint.rescale(value.astype(np.int64), mult, p["shift"], p["zero_point"], str(node.attrs["dtype"]))


def _lower(node: Node, graph: Graph) -> KernelCall:
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    symbol = f"slm_pool2d_{node.attrs['kind']}_s8"
    args: tuple[Arg, ...] = (node.inputs[1], x.name, out.name, *x.shape[-3:], *out.shape[-3:-1])
    return KernelCall(symbol if out.dtype == "i8" else f"{symbol}_s16", args, node)


def _error(node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Array | None]) -> Array:
    """Rounding of the result, of the multiplier and of its quotient."""
    x, x_quant, out_quant = inputs[0], tensors[node.inputs[0]].quant, tensors[node.outputs[0]].quant
    assert x is not None and x_quant and out_quant
    _, shift = fixedpoint.multiplier(x_quant.scale / out_quant.scale)
    average = node.attrs["kind"] == "average"
    value = _sums(node.attrs, np.abs(x)) if average else _pool(node.attrs, np.abs(x), "maxpool", False)
    return np.asarray(0.51 + value / x_quant.scale / 2 ** (32 - shift))


def _cases(rng: np.random.Generator) -> list[Case]:
    found = []
    for kind, shape, kernel, strides, pads, dilations, count_padding in [
        ("max", (1, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), False),
        ("max", (7, 9, 17), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), False),
        ("max", (1, 1, 33, 3), (1, 4), (1, 3), (0, 2, 0, 1), (1, 2), False),
        ("average", (7, 9, 17), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), False),
        ("average", (7, 9, 3), (3, 2), (1, 2), (1, 0, 2, 1), (1, 1), True),
        ("average", (1, 5, 7, 3), (5, 7), (1, 1), (0, 0, 0, 0), (1, 1), False),
        ("average", (8, 8, 1), (2, 3), (3, 1), (1, 2, 0, 2), (2, 2), False),
    ]:
        name = f"pool2d_{kind}_{'x'.join(map(str, shape))}_by_{'x'.join(map(str, kernel))}"
        attrs = {"kind": kind, "kernel": kernel, "strides": strides, "pads": pads, "dilations": dilations}
        node = Node("pool2d", name, ("x",), ("y",), {**attrs, "count_include_pad": count_padding})
        x = Tensor("x", shape, "f32")
        y = Tensor("y", _infer(node, [x]), "f32")
        found.append(Case(node, {"x": x, "y": y}, {}, {"x": (rng.normal(size=shape) + 0.5).astype(np.float32)}))
    return found


OP = OpDef(
    name="pool2d",
    kernel="slm_pool2d",
    onnx=("MaxPool", "AveragePool"),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    cases=_cases,
    outputs=("i8", "i16"),
    error=_error,
)
