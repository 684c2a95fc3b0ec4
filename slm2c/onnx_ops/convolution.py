"""Sliding windows: convolution and pooling, and the resizing that is a view."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from slm2c.ir import Array, Shape
from slm2c.onnx_ops.base import Call, Refused, Result, onnx_op


def geometry(call: Call, extent: Shape, kernel: Shape) -> dict[str, Shape]:
    """strides, pads and dilations of a window over `extent`, auto_pad resolved."""
    rank = len(kernel)
    strides, dilations = call.attr_ints("strides") or [1] * rank, call.attr_ints("dilations") or [1] * rank
    pads = call.attr_ints("pads") or [0] * 2 * rank
    auto = call.attr_str("auto_pad", "NOTSET")
    if not len(strides) == len(dilations) == len(extent) == rank or len(pads) != 2 * rank or min(strides) < 1:
        raise Refused(f"kernel {list(kernel)}, strides {strides}, dilations {dilations} and pads {pads} do not match")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [
            max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            for size, k, s, d in zip(extent, kernel, strides, dilations, strict=True)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = small + large if auto == "SAME_UPPER" else large + small
    elif auto == "VALID":
        pads = [0] * 2 * rank
    elif auto != "NOTSET":
        raise Refused(f"auto_pad={auto} is unknown")
    return {"strides": tuple(strides), "pads": tuple(pads), "dilations": tuple(dilations)}


def convolve(call: Call, x: str, w: str, bias: str) -> str:
    """Cross-correlation with the node's attributes; bias is a vector or ""."""
    shape, kernel = call.shape(call.real(x)), call.shape(call.real(w))
    group = call.attr_int("group", 1)
    stated = call.attr_ints("kernel_shape")
    if len(shape) < 3 or len(kernel) != len(shape) or (stated is not None and tuple(stated) != kernel[2:]):
        raise Refused(f"input of shape {list(shape)} with weights of shape {list(kernel)} and kernel_shape {stated}")
    if group < 1 or kernel[0] % group or kernel[1] * group != shape[1]:
        raise Refused(f"weights of shape {list(kernel)} in {group} groups do not suit {shape[1]} channels")
    if bias and call.shape(call.real(bias)) != (kernel[0],):
        raise Refused(f"bias of shape {list(call.shape(bias))} for {kernel[0]} channels")
    attrs = geometry(call, shape[2:], kernel[2:])
    call.windows(shape[2:], kernel[2:], attrs, max(shape[:2]) * kernel[0])
    return call.core("conv", [x, w, bias], {**attrs, "group": group})


@onnx_op("Conv")
def conv(call: Call) -> Result:
    """Any number of spatial axes."""
    return convolve(call, call.input(0), call.input(1), call.inputs[2] if call.has(2) else "")


def _ceil_pads(extent: Shape, kernel: Shape, attrs: Mapping[str, Shape]) -> Shape:
    """Pads at the end of each axis that let ceil_mode's last window fit; one that would start in padding is dropped."""
    rank = len(kernel)
    extra = []
    for i, (size, k) in enumerate(zip(extent, kernel, strict=True)):
        before, after, stride = attrs["pads"][i], attrs["pads"][i + rank], attrs["strides"][i]
        span = attrs["dilations"][i] * (k - 1) + 1
        count = -(-(size + before + after - span) // stride) + 1
        if (count - 1) * stride >= size + before:
            count -= 1
        extra.append(max((count - 1) * stride + span - size - before, after))
    return (*attrs["pads"][:rank], *extra)


def pool(call: Call, x: str, kind: str, kernel: Sequence[int]) -> str:
    """The core operator maxpool or avgpool with the node's attributes."""
    shape = call.shape(call.real(x))
    if len(shape) < 3 or len(kernel) != len(shape) - 2 or min(kernel) < 1:
        raise Refused(f"kernel_shape {list(kernel)} on shape {list(shape)}")
    rank = len(kernel)
    attrs: dict[str, Any] = geometry(call, shape[2:], tuple(kernel))
    count_pads = kind == "avgpool" and bool(call.attr_int("count_include_pad"))
    call.windows(shape[2:], tuple(kernel), attrs, shape[0] * shape[1])
    if call.attr_int("ceil_mode"):
        stretched = _ceil_pads(shape[2:], tuple(kernel), attrs)
        if count_pads and stretched != attrs["pads"]:
            # Only the pads that the file states are counted: make them part of the data.
            widths = [(0, 0), (0, 0), *zip(attrs["pads"][:rank], attrs["pads"][rank:], strict=True)]
            x = call.view(x, np.pad(call.positions(x), widths, constant_values=-1))
            stretched = (*(0,) * rank, *(e - a for e, a in zip(stretched[rank:], attrs["pads"][rank:], strict=True)))
            count_pads = False
        attrs["pads"] = stretched
        call.windows(call.shape(x)[2:], tuple(kernel), attrs, shape[0] * shape[1])
    attrs["kernel"] = tuple(kernel)
    return call.core(kind, [x], attrs if kind == "maxpool" else {**attrs, "count_include_pad": count_pads})


@onnx_op("MaxPool", codes="keep")
def max_pool(call: Call) -> Result:
    """Of integers by way of float32, which holds all int8 and uint8."""
    call.only_first_output()
    x, kernel = call.input(0), call.attr_ints("kernel_shape") or []
    dtype = call.dtype(x)
    if dtype not in ("f32", "i8", "u8"):
        raise Refused(f"max pooling of {dtype} is unsupported")
    return call.cast(pool(call, call.cast(x, "f32"), "maxpool", kernel), dtype)


@onnx_op("AveragePool")
def average_pool(call: Call) -> Result:
    """With or without the pads in the count."""
    return pool(call, call.input(0), "avgpool", call.attr_ints("kernel_shape") or [])


@onnx_op("LpPool")
def lp_pool(call: Call) -> Result:
    """The p-norm of each window, for p of 1 or 2: an average times the size of the window."""
    x, kernel, p = call.real(call.input(0)), call.attr_ints("kernel_shape") or [], call.attr_int("p", 2)
    if p not in (1, 2) or call.attr_int("ceil_mode") or "auto_pad" in call.attrs:
        raise Refused(f"p={p}, ceil_mode or auto_pad are unsupported")
    shape = call.shape(x)
    if len(shape) < 3 or len(kernel) != len(shape) - 2 or min(kernel) < 1:
        raise Refused(f"kernel_shape {kernel} on shape {list(shape)}")
    attrs = geometry(call, shape[2:], tuple(kernel))
    call.windows(shape[2:], tuple(kernel), attrs, shape[0] * shape[1])
    powers = call.op("abs", x) if p == 1 else call.op("mul", x, x)
    average = call.core("avgpool", [powers], {**attrs, "kernel": tuple(kernel), "count_include_pad": True})
    total = call.op("mul", average, call.const(math.prod(kernel), np.float32))
    return total if p == 1 else call.op("sqrt", total)


@onnx_op("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(call: Call) -> Result:
    """Over all spatial axes."""
    x = call.real(call.input(0))
    axes = range(2, len(call.shape(x)))
    if call.op_type == "GlobalLpPool":
        if call.attr_int("p", 2) != 2:
            raise Refused("only p=2 is supported")
        return call.op("sqrt", call.reduce("sum", call.op("mul", x, x), axes))
    return call.reduce("mean" if call.op_type == "GlobalAveragePool" else "max", x, axes)


@onnx_op("Upsample", "Resize")
def resize(call: Call) -> Result:
    """Only what repeats or picks elements: mode nearest, with constant scales or sizes."""
    x = call.input(0)
    shape = call.shape(x)
    if call.attr_str("mode", "nearest") != "nearest":
        raise Refused(f"mode {call.attr_str('mode')} is unsupported", "use nearest, or a convolution")
    if "axes" in call.attrs or call.attr_str("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refused("axes and keep_aspect_ratio_policy are unsupported", "give scales or sizes for every axis")
    scales_at = 1 if call.op_type == "Upsample" or call.opset < 11 else 2
    if call.has(scales_at) and call.shape(call.inputs[scales_at]) == (len(shape),):
        scales = [float(s) for s in call.array(scales_at, "scales")]
        lengths = [math.floor(s * d) if 0 < s < 1 << 24 else -1 for s, d in zip(scales, shape, strict=True)]
    elif call.has(3):
        lengths = call.integers(3, "sizes")
        scales = [n / d if d else 1.0 for n, d in zip(lengths, shape, strict=False)]
    else:
        scales = call.attr_floats("scales") or []
        lengths = [math.floor(s * d) if 0 < s < 1 << 24 else -1 for s, d in zip(scales, shape, strict=False)]
    if len(lengths) != len(shape) or min(lengths, default=1) < 1:
        raise Refused(f"scales {scales} do not suit shape {list(shape)}")
    index = call.positions(x)
    for axis, (length, scale) in enumerate(zip(lengths, scales, strict=True)):
        index = np.take(index, _nearest(call, length, shape[axis], scale), axis=axis)
    return call.view(x, index)


def _nearest(call: Call, length: int, size: int, scale: float) -> Array:
    """Source position of each of `length` elements."""
    legacy = call.op_type == "Upsample" or call.opset < 11
    mode = "asymmetric" if legacy else call.attr_str("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if legacy else call.attr_str("nearest_mode", "round_prefer_floor")
    at = np.arange(length, dtype=np.float64)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and length > 1):
        at = (at + 0.5) / scale - 0.5
    elif mode == "asymmetric":
        at = at / scale
    elif mode == "align_corners":
        at = at * (size - 1) / (length - 1) if length > 1 else at * 0
    elif mode == "pytorch_half_pixel":
        at = at * 0
    else:
        raise Refused(f"coordinate_transformation_mode {mode} is unsupported")
    rules: dict[str, Callable[[Array], Array]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda v: np.ceil(v - 0.5),
        "round_prefer_ceil": lambda v: np.floor(v + 0.5),
    }
    if rounding not in rules:
        raise Refused(f"nearest_mode {rounding} is unknown")
    return np.clip(rules[rounding](at), 0, size - 1).astype(np.int64)
