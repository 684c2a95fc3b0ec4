"""Reductions, softmax, arg max and cumulative sums."""

from __future__ import annotations

import math

import numpy as np

from slm2c.onnx_ops.base import Call, Refused, Result, onnx_op

_PLAIN = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod"}


@onnx_op(*_PLAIN, "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
def reduction(call: Call) -> Result:
    """Axes as attribute or, since opset 13 (ReduceSum) and 18, as input; without any: all, or with noop none."""
    x = call.input(0)
    rank = len(call.shape(x))
    axes = call.ints_or_input("axes", 1) or []
    keepdims = bool(call.attr_int("keepdims", 1))
    keep_all = not axes and call.attr_int("noop_with_empty_axes")
    axes = [] if keep_all else list(call.axes(axes or range(rank), rank))
    kind = call.op_type
    if call.dtype(x) == "bool":
        if kind not in ("ReduceMax", "ReduceMin"):
            raise Refused("needs numbers, but reads bool")
    elif kind in ("ReduceL1", "ReduceL2", "ReduceSumSquare"):
        x = call.op("abs", x) if kind == "ReduceL1" else call.op("mul", x, x)
    if kind == "ReduceLogSumExp":
        top = call.reduce("max", call.real(x), axes)
        # An infinite maximum would make inf - inf.
        top = call.op("where", call.op("isinf", top), call.const(0, np.float32), top)
        total = call.reduce("sum", call.op("exp", call.op("sub", x, top)), axes)
        y = call.op("add", call.op("log", total), top)
        return y if keepdims else call.reshape(y, [d for i, d in enumerate(call.shape(y)) if i not in axes])
    y = x if keep_all else call.reduce(_PLAIN.get(kind, "sum"), x, axes, keepdims)
    if kind == "ReduceL2":
        return call.op("sqrt", call.real(y))
    return call.op("log", call.real(y)) if kind == "ReduceLogSum" else y


@onnx_op("Softmax", "LogSoftmax")
def softmax(call: Call) -> Result:
    """Since opset 13 over one axis (-1); before, over all axes from `axis` (1) on, taken together."""
    x = call.real(call.input(0))
    shape = call.shape(x)
    axis = call.axis(call.attr_int("axis", -1 if call.opset >= 13 else 1), max(len(shape), 1))
    if 0 in shape:
        return x
    if call.opset < 13 and axis < len(shape) - 1 and math.prod(shape[axis:]) != shape[axis]:
        flat = call.reshape(x, (*shape[:axis], math.prod(shape[axis:])))
        return call.reshape(_softmax(call, flat, axis), shape)
    return _softmax(call, x, axis) if shape else call.reshape(_softmax(call, call.reshape(x, (1,)), 0), ())


def _softmax(call: Call, x: str, axis: int) -> str:
    if call.op_type == "Softmax":
        return call.softmax(x, axis)
    shifted = call.op("sub", x, call.reduce("max", x, [axis]))
    return call.op("sub", shifted, call.op("log", call.reduce("sum", call.op("exp", shifted), [axis])))


@onnx_op("Hardmax")
def hardmax(call: Call) -> Result:
    """One at the first maximum, zero elsewhere; axes as for Softmax."""
    x = call.real(call.input(0))
    shape = call.shape(x)
    axis = call.axis(call.attr_int("axis", -1 if call.opset >= 13 else 1), len(shape))
    flat = x if call.opset >= 13 else call.reshape(x, (*shape[:axis], math.prod(shape[axis:])))
    first = _arg(call, flat, axis, "max", last=False)
    slots = np.arange(call.shape(flat)[axis]).reshape([-1 if i == axis else 1 for i in range(len(call.shape(flat)))])
    return call.reshape(call.cast(call.op("equal", first, call.const(slots)), "f32"), shape)


def _arg(call: Call, x: str, axis: int, kind: str, *, last: bool) -> str:
    """int64 position of the first (or last) extreme along `axis`, which stays with length 1.

    Where `x` equals its extreme its own position stands, elsewhere one past the end; the least of them is the answer.
    """
    rank, length = len(call.shape(x)), call.shape(x)[axis]
    slots = call.const(np.arange(length).reshape([length if i == axis else 1 for i in range(rank)]))
    hit = call.op("equal", x, call.reduce(kind, x, [axis]))
    if last:
        return call.reduce("max", call.op("where", hit, slots, call.const(-1)), [axis])
    return call.reduce("min", call.op("where", hit, slots, call.const(length)), [axis])


@onnx_op("ArgMax", "ArgMin")
def arg_extreme(call: Call) -> Result:
    """Position of the extreme along one axis."""
    x = call.input(0)
    axis = call.axis(call.attr_int("axis"), len(call.shape(x)))
    y = _arg(call, x, axis, call.op_type[3:].lower(), last=bool(call.attr_int("select_last_index")))
    if call.attr_int("keepdims", 1):
        return y
    return call.reshape(y, [d for i, d in enumerate(call.shape(y)) if i != axis])


@onnx_op("CumSum")
def cumsum(call: Call) -> Result:
    """Running sums along a constant axis."""
    x = call.input(0)
    axis = call.axis(int(call.scalar(1, "axis")), len(call.shape(x)))
    return call.cumsum(x, axis, bool(call.attr_int("exclusive")), bool(call.attr_int("reverse")))
