"""conv2d: cross-correlation of an image, channels last, with an optional ReLU that the output's range performs.

float inputs: x [H, W, C] or [1, H, W, C], weight [M, KH, KW, C / group], bias [M]; attrs: strides, pads (top, left,
bottom, right), dilations, group, activation "" or "relu". The output is [H', W', M], of x's rank. 1-D convolutions have
H = 1.
integer inputs: x int8, weight int8 per output channel in [-127, 127], bias int32 (the input's zero point folded in),
multiplier int32 [M], params. Output int8 or int16.

Quantized as `linear` is; the padding is the input's zero point, that is to say 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slm2c import core, fixedpoint
from slm2c.ir import Array, Graph, Node, Shape, Tensor
from slm2c.ops.base import Arg, Case, KernelCall, OpDef, Special, fields, pack_fields
from slm2c.ops.linear import least_scale, quantize_weight, scale_floor

PARAMS = ("shift", "zero_point", "minimum", "maximum", "input_zero_point", "kernel_height", "kernel_width", "stride_y",
          "stride_x", "pad_top", "pad_left", "dilation_y", "dilation_x", "group")  # fmt: skip


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    x, weight, _ = inputs
    assert x is not None and weight is not None, node.name
    assert len(x.shape) == 3 or (len(x.shape) == 4 and x.shape[0] == 1), f"{node.name}: {x.shape}"
    assert x.shape[-1] == weight.shape[3] * node.attrs["group"], f"{node.name}: {x.shape} by {weight.shape}"
    size = core.window_counts(x.shape[-3:-1], weight.shape[1:3], node.attrs)
    return (*x.shape[:-3], *size, weight.shape[0])


def _convolve(attrs: Mapping[str, Any], x: Array, weight: Array) -> Array:
    """The sums [.., H', W', M], the padding 0."""
    image = np.moveaxis(x.reshape(1, *x.shape[-3:]), 3, 1)
    windows = {k: attrs[k] for k in ("strides", "pads", "dilations", "group")}
    y = core.conv(image, np.moveaxis(weight, 3, 1), None, **windows)
    return np.moveaxis(y[0], 0, 2).reshape(*x.shape[:-3], *y.shape[2:], weight.shape[0])


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, weight, bias = inputs
    assert x is not None and weight is not None and bias is not None
    y = _convolve(node.attrs, x, weight) + bias
    return np.asarray(np.maximum(y, 0) if node.attrs["activation"] == "relu" else y)


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    x, out = tensors[node.inputs[0]], tensors[node.outputs[0]]
    assert x.quant and out.quant and x.token_axis is None, f"{node.name}: convolutions have a fixed size"
    kernel, real_bias = consts[node.inputs[1]], consts[node.inputs[2]].astype(np.float64)
    weight, scale = quantize_weight(kernel.reshape(len(kernel), -1), scale_floor(real_bias, x.quant, out.quant))
    total = weight.astype(np.int64).sum(axis=1)
    bias = np.rint(real_bias / (x.quant.scale * scale)) - x.quant.zero_point * total
    mult, shift = fixedpoint.multiplier(x.quant.scale * scale / out.quant.scale)
    # The largest |accumulator| must survive the shift; a bias beyond that saturates the output in any case.
    room = (2**31 - 1 >> shift) - 128 * np.abs(weight.astype(np.int64)).sum(axis=1)
    assert (room > 0).all(), f"{node.name}: no room for the accumulator at shift {shift}"
    low, high = fixedpoint.INT_RANGE[out.dtype]
    relu = node.attrs["activation"] == "relu"
    params = {
        "shift": shift,
        "zero_point": out.quant.zero_point,
        "minimum": max(low, out.quant.zero_point) if relu else low,
        "maximum": high,
        "input_zero_point": x.quant.zero_point,
        **dict(zip(("kernel_height", "kernel_width"), kernel.shape[1:3], strict=True)),
        **dict(zip(("stride_y", "stride_x"), node.attrs["strides"], strict=True)),
        **dict(zip(("pad_top", "pad_left"), node.attrs["pads"][:2], strict=True)),
        **dict(zip(("dilation_y", "dilation_x"), node.attrs["dilations"], strict=True)),
        "group": node.attrs["group"],
    }
    return {
        f"{out.name}.weight": weight.reshape(kernel.shape),
        f"{out.name}.bias": np.clip(bias, -room, room).astype(np.int32),
        f"{out.name}.multiplier": mult,
        f"{out.name}.params": pack_fields(params, PARAMS),
    }, {**node.attrs, "dtype": out.dtype}


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, weight, bias, mult, params = inputs
    assert x is not None and weight is not None and bias is not None and mult is not None and params is not None
    p = fields(params, PARAMS)
    # Less its zero point x is 0 in the padding; the bias has that of all taps folded in. float64 is exact below 2**53.
    sums = _convolve(node.attrs, x.astype(np.float64) - p["input_zero_point"], weight.astype(np.float64))
    acc = sums.astype(np.int64) + bias + p["input_zero_point"] * weight.astype(np.int64).sum(axis=(1, 2, 3))
    y = fixedpoint.requantize(acc, mult, p["shift"], p["zero_point"], str(node.attrs["dtype"]))
    return np.clip(y, p["minimum"], p["maximum"])


def _lower(node: Node, graph: Graph) -> KernelCall:
    name, weight, bias, mult, params = node.inputs
    x, out = graph.tensors[name], graph.tensors[node.outputs[0]]
    depthwise = node.attrs["group"] > 1 and graph.tensors[weight].shape[3] == 1
    symbol = "slm_conv2d_depthwise_s8" if depthwise else "slm_conv2d_s8"
    args: tuple[Arg, ...] = (Special.NULL, params, mult, name, weight, bias, out.name, *x.shape[-3:], *out.shape[-3:])
    return KernelCall(symbol if out.dtype == "i8" else f"{symbol}_s16", args, node)


def _macs(node: Node, tensors: Mapping[str, Tensor]) -> int:
    _, height, width, depth = tensors[node.inputs[1]].shape
    return tensors[node.outputs[0]].size * height * width * depth


def _error(node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Array | None]) -> Array:
    """Half an LSB for the output, half for the bias, and half an LSB of each weight times its activation."""
    x, weight, bias = inputs
    x_quant, out_quant = tensors[node.inputs[0]].quant, tensors[node.outputs[0]].quant
    assert x is not None and weight is not None and bias is not None and x_quant and out_quant
    _, scale = quantize_weight(weight.reshape(len(weight), -1), scale_floor(bias, x_quant, out_quant))
    reached = _convolve(node.attrs, np.abs(x).astype(np.float64), np.ones(weight.shape))
    return np.asarray(0.51 + (reached + x_quant.scale) * scale / 2 / out_quant.scale)


def _cases(rng: np.random.Generator) -> list[Case]:
    found = []
    for shape, weight_shape, group, strides, pads, dilations, activation in [
        ((1, 1, 1), (1, 1, 1, 1), 1, (1, 1), (0, 0, 0, 0), (1, 1), ""),
        ((7, 5, 3), (17, 3, 3, 3), 1, (1, 1), (1, 1, 1, 1), (1, 1), "relu"),
        ((1, 9, 8, 3), (5, 3, 2, 3), 1, (2, 3), (1, 0, 2, 1), (1, 1), ""),
        ((1, 33, 5), (3, 1, 5, 5), 1, (1, 1), (0, 2, 0, 2), (1, 1), ""),
        ((9, 9, 2), (4, 3, 3, 2), 1, (1, 1), (2, 3, 2, 3), (2, 3), "relu"),
        ((5, 6, 6), (9, 2, 3, 2), 3, (1, 2), (1, 1, 0, 1), (1, 1), ""),
        ((6, 7, 17), (17, 3, 3, 1), 17, (1, 1), (1, 1, 1, 1), (1, 1), "relu"),
        ((6, 7, 3), (6, 3, 2, 1), 3, (2, 1), (0, 1, 1, 0), (1, 2), ""),
    ]:
        name = f"conv2d_{'x'.join(map(str, shape))}_by_{'x'.join(map(str, weight_shape))}"
        attrs = {"strides": strides, "pads": pads, "dilations": dilations, "group": group, "activation": activation}
        node = Node("conv2d", name, ("x", "w", "b"), ("y",), attrs)
        consts = {
            "w": rng.normal(size=weight_shape).astype(np.float32),
            "b": rng.normal(size=weight_shape[0]).astype(np.float32),
        }
        tensors = {"x": Tensor("x", shape, "f32"), **{k: Tensor(k, v.shape, "f32") for k, v in consts.items()}}
        tensors["y"] = Tensor("y", _infer(node, [tensors["x"], tensors["w"], None]), "f32")
        x = (rng.normal(size=shape) + 0.5).astype(np.float32)
        found.append(Case(node, tensors, consts, {"x": x}))
    return found


OP = OpDef(
    name="conv2d",
    kernel="slm_conv2d",
    onnx=("Conv", "BatchNormalization", "Relu"),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    cases=_cases,
    outputs=("i8", "i16"),
    least_scale=least_scale,
    macs=_macs,
    error=_error,
)
