"""Normalizations: layer and RMS norm as core operators, the others taken apart into arithmetic on constants."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from slm2c.onnx_ops.base import Call, Refused, Result, onnx_op


def layernorm(call: Call, x: str, gamma: str, beta: str, axis: int, epsilon: float, *, op: str = "layernorm") -> str:
    """LayerNorm or RMSNorm of `x` over axes axis..-1.

    gamma and beta ("" if absent) are spread to the normalized axes; one that also varies over leading axes is applied
    apart.
    """
    call.real(x)
    rank = len(call.shape(x))
    axis = call.axis(axis, rank)
    tail = call.shape(x)[axis:]
    inner = [_spread(call, p, tail) for p in (gamma, beta)]
    if "outer" in inner:
        y = call.normalize(op, x, "", "", axis, epsilon)
        y = call.op("mul", y, call.real(gamma)) if gamma else y
        y = call.op("add", y, call.real(beta)) if beta else y
        if call.shape(y) != call.shape(x):
            raise Refused(f"scale or bias does not broadcast to {list(call.shape(x))}")
        return y
    return call.normalize(op, x, inner[0], inner[1], axis, epsilon)


def _spread(call: Call, parameter: str, tail: Sequence[int]) -> str:
    """`parameter` of shape `tail`, or "outer" where it has more to it."""
    if not parameter:
        return ""
    call.real(parameter)
    shape = call.shape(parameter)
    if len(shape) > len(tail):
        if any(d != 1 for d in shape[: -len(tail)]):
            return "outer"
        parameter = call.reshape(parameter, shape[-len(tail) :])
    return call.expand(parameter, tail)


def _statistics(call: Call, x: str, axis: int, epsilon: float) -> tuple[str, str]:
    """LayerNormalization's further outputs: mean and 1 / standard deviation."""
    axes = range(call.axis(axis, len(call.shape(x))), len(call.shape(x)))
    mean = call.reduce("mean", x, axes)
    centred = call.op("sub", x, mean)
    variance = call.reduce("mean", call.op("mul", centred, centred), axes)
    return mean, call.op("reciprocal", call.op("sqrt", call.op("add", variance, call.const(epsilon, np.float32))))


@onnx_op("LayerNormalization")
@onnx_op("LayerNormalization", domain="com.microsoft")
def layer_normalization(call: Call) -> Result:
    """Also where a file of an opset before 17 has it: onnxruntime does not mind."""
    x, axis, epsilon = call.real(call.input(0)), call.attr_int("axis", -1), call.attr_float("epsilon", 1e-5)
    gamma, beta = (call.inputs[i] if call.has(i) else "" for i in (1, 2))
    y = layernorm(call, x, gamma, beta, axis, epsilon)
    return (y, *_statistics(call, x, axis, epsilon)) if any(call.used[1:]) else y


@onnx_op("RMSNormalization", "SimplifiedLayerNormalization")
@onnx_op("SimplifiedLayerNormalization", domain="com.microsoft")
def rms_normalization(call: Call) -> Result:
    """RMSNorm under its two names."""
    call.only_first_output()
    gamma = call.inputs[1] if call.has(1) else ""
    axis, epsilon = call.attr_int("axis", -1), call.attr_float("epsilon", 1e-5)
    return layernorm(call, call.input(0), gamma, "", axis, epsilon, op="rmsnorm")


def per_channel(call: Call, parameter: str, rank: int) -> str:
    """A vector over axis 1 of a tensor of `rank`, shaped to broadcast."""
    shape = call.shape(call.real(parameter))
    if len(shape) != 1:
        raise Refused(f"a parameter per channel has shape {list(shape)}")
    return call.reshape(parameter, (shape[0], *(1,) * (rank - 2))) if rank > 1 else parameter


@onnx_op("BatchNormalization")
def batch_normalization(call: Call) -> Result:
    """At inference one multiplication and one addition per channel, whose constants fold."""
    if call.attr_int("training_mode") or any(call.used[1:]):
        raise Refused("training mode", "export the model for inference: model.eval()")
    x = call.real(call.input(0))
    rank = len(call.shape(x))
    scale, bias, mean, variance = (per_channel(call, call.input(i), rank) for i in range(1, 5))
    deviation = call.op("sqrt", call.op("add", variance, call.const(call.attr_float("epsilon", 1e-5), np.float32)))
    factor = call.op("div", scale, deviation)
    offset = call.op("sub", bias, call.op("mul", mean, factor))
    y = call.op("add", call.op("mul", x, factor), offset)
    if call.shape(y) != call.shape(x):
        raise Refused(f"parameters of {call.shape(scale)[0]} channels on shape {list(call.shape(x))}")
    return y


def _group_norm(call: Call, x: str, groups: int, epsilon: float) -> str:
    """Each group of channels of each sample to mean 0 and variance 1."""
    shape = call.shape(call.real(x))
    if len(shape) < 2 or groups < 1 or shape[1] % groups:
        raise Refused(f"{groups} groups on shape {list(shape)}")
    flat = call.reshape(x, (shape[0], groups, math.prod(shape[1:]) // groups))
    return call.reshape(call.normalize("layernorm", flat, "", "", 2, epsilon), shape)


@onnx_op("InstanceNormalization")
def instance_normalization(call: Call) -> Result:
    """Group norm with one channel a group, arXiv 1607.08022."""
    x = call.input(0)
    rank = len(call.shape(x))
    scale, bias = (per_channel(call, call.input(i), rank) for i in (1, 2))
    y = _group_norm(call, x, call.shape(x)[1] if rank > 1 else 0, call.attr_float("epsilon", 1e-5))
    return call.op("add", call.op("mul", y, scale), bias)


@onnx_op("GroupNormalization")
def group_normalization(call: Call) -> Result:
    """Wu and He, arXiv 1803.08494. Before opset 21 scale and bias belong to groups, since to channels."""
    x = call.input(0)
    rank, groups = len(call.shape(x)), call.attr_int("num_groups")
    y = _group_norm(call, x, groups, call.attr_float("epsilon", 1e-5))
    channels = call.shape(x)[1]
    parameters = [call.input(1), call.input(2)]
    for i, p in enumerate(parameters):
        if call.opset < 21 and call.shape(p) == (groups,):
            parameters[i] = call.view(p, np.repeat(np.arange(groups), channels // groups))
    scale, bias = (per_channel(call, p, rank) for p in parameters)
    return call.op("add", call.op("mul", y, scale), bias)


@onnx_op("MeanVarianceNormalization")
def mean_variance_normalization(call: Call) -> Result:
    """(x - mean) / (deviation + 1e-9) over `axes`, by default all but channels."""
    x = call.real(call.input(0))
    given = call.attr_ints("axes")
    axes = call.axes([0, 2, 3] if given is None else given, len(call.shape(x)))
    centred = call.op("sub", x, call.reduce("mean", x, axes))
    deviation = call.op("sqrt", call.reduce("mean", call.op("mul", centred, centred), axes))
    return call.op("div", centred, call.op("add", deviation, call.const(1e-9, np.float32)))


@onnx_op("LpNormalization")
def lp_normalization(call: Call) -> Result:
    """Over the 1- or 2-norm along one axis; 0 where the norm is 0."""
    x = call.real(call.input(0))
    axis = call.attr_int("axis", -1)
    if call.attr_int("p", 2) == 1:
        norm = call.reduce("sum", call.op("abs", x), [axis])
    else:
        norm = call.op("sqrt", call.reduce("sum", call.op("mul", x, x), [axis]))
    zero = call.op("equal", norm, call.const(0, np.float32))
    return call.op("div", x, call.op("where", zero, call.const(1, np.float32), norm))
