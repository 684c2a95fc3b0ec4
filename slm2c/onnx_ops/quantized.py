"""Quantized files as float graphs: integers stand for real values, and the real values are what the graph computes.

A QuantizeLinear leaves its operand as it is and only notes the code (scale, zero point, type) under which the file
stores it; the DequantizeLinear behind it finds the code and does nothing. Constants are dequantized and fold. The code
of an 8-bit activation stays as a hint on the tensor. What quantization does besides rounding is kept: where the code
cannot express values below zero, a Relu that the quantizer has dropped comes back.

Dynamic quantization is the same with a scale of one: DynamicQuantizeLinear(x) is x itself with scale 1 and zero point
0, so that everything behind it, linear as it is, gives the float result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from onnx import GraphProto

from slm2c.ir import DTYPES, Array, Quant
from slm2c.onnx_ops.base import IR_TYPES, TRANSLATIONS, Call, Code, Refused, Result, Value, onnx_op
from slm2c.onnx_ops.bounds import lower_bound
from slm2c.onnx_ops.convolution import convolve, pool
from slm2c.onnx_ops.elementwise import cast as plain_cast
from slm2c.onnx_ops.matrix import scaled

ABSURD_SCALE = 1e6
"""A larger activation scale comes from an attention mask (-inf, -3.4e38) that was calibrated as if it were data."""

_UNIT = Quant(1.0, 0)
_MS = "com.microsoft"
_RANGES = {"i8": (-128, 127), "u8": (0, 255), "i16": (-32768, 32767)}


# ---- codes ----


def _scale(call: Call, index: int) -> Array:
    """A constant scale: positive or zero (an all-zero tensor), possibly infinite."""
    scale = call.array(index, "the scale")
    if scale.dtype.kind != "f" or np.isnan(scale).any() or (scale < 0).any():
        worst = scale[np.isnan(scale) | (scale < 0)].ravel()[0] if scale.dtype.kind == "f" else scale.dtype
        raise Refused(f"the scale is {worst}", "quantize the model again: a scale is a positive number")
    return scale


def _zero_point(call: Call, index: int) -> Array:
    return call.array(index, "the zero point") if call.has(index) else np.zeros((), np.uint8)


def _code(call: Call, scale_at: int, zero_at: int, dtype: str = "") -> Code:
    """The per-tensor code that two inputs state; `dtype` where the zero point does not tell."""
    scale, zero = _scale(call, scale_at), _zero_point(call, zero_at)
    if scale.size != 1 or zero.size != 1:
        raise Refused("quantization of an activation per axis is unsupported", "quantize activations per tensor")
    name = call.dtype(call.inputs[zero_at]) if call.has(zero_at) else dtype or "u8"
    return Code(Quant(float(scale.ravel()[0]), int(zero.ravel()[0])), name)


def _along(call: Call, parameter: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """A scale or zero point per tensor, per axis or per block, shaped to broadcast with data of `shape`."""
    if parameter.size == 1:
        return parameter.reshape(())
    axis = call.axis(axis, len(shape))
    if parameter.ndim == 1 and parameter.shape[0] == shape[axis]:
        return parameter.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    if parameter.ndim == len(shape) and all(n in (1, d) for n, d in zip(parameter.shape, shape, strict=True)):
        return parameter
    if block > 0 and parameter.ndim == len(shape) and parameter.shape[axis] == -(-shape[axis] // block):
        spread = np.repeat(parameter, block, axis=axis)
        return spread[tuple(slice(d) if i == axis else slice(None) for i, d in enumerate(shape))]
    raise Refused(f"a scale of shape {list(parameter.shape)} does not suit data of shape {list(shape)}")


def _affine(call: Call, x: str, factor: float, offset: float) -> str:
    """An affine function of `x`: factor * x + offset."""
    y = scaled(call, x, factor)
    return y if offset == 0.0 else call.op("add", y, call.const(offset, np.float32))


def hint(code: Code) -> Quant:
    """An 8-bit code as int8, which is what the firmware computes with: uint8 moves down by 128."""
    return Quant(code.quant.scale, code.quant.zero_point - 128) if code.dtype == "u8" else code.quant


def as_integers(call: Call, x: str, code: Code) -> str:
    """The integers that the file holds for the real value `x`: round, shift, saturate."""
    if code.dynamic:
        raise Refused("needs integers whose scale is computed at run time", "quantize the model statically")
    q = call.op("round", call.op("div", x, call.const(code.quant.scale or 1.0, np.float32)))
    q = _affine(call, q, 1.0, float(code.quant.zero_point))
    low, high = _RANGES.get(code.dtype, (-(1 << 31), (1 << 31) - 1))
    q = call.op("min", call.op("max", q, call.const(low, np.float32)), call.const(high, np.float32))
    return call.cast(q, code.dtype)


def real_value(call: Call, at: int, scale_at: int, zero_at: int, axis: int = 1) -> str:
    """The real value of input `at`, stored with the scale and zero point of two other inputs."""
    x, code = call.input(at), call.code(at)
    if code is not None:
        stated = _code(call, scale_at, zero_at, code.dtype)
        if stated.quant == code.quant:
            return x
        ratio = stated.quant.scale / code.quant.scale if code.quant.scale > 0 else 0.0
        return _affine(call, x, ratio, (code.quant.zero_point - stated.quant.zero_point) * stated.quant.scale)
    if call.dtype(x) == "f32":
        raise Refused("dequantizes floats")
    scale = call.builder.value(call.input(scale_at))
    if scale is None:
        shifted = call.cast(x, "f32")
        if call.has(zero_at):
            shifted = call.op("sub", shifted, call.cast(call.inputs[zero_at], "f32"))
        return call.op("mul", shifted, call.real(call.inputs[scale_at]))
    scale, zero = _scale(call, scale_at), _zero_point(call, zero_at)
    if not np.isfinite(scale).all():
        raise Refused("the scale is infinite", "quantize the model again")
    shape, block = call.shape(x), call.attr_int("block_size")
    return _dequantize(call, x, _along(call, scale, shape, axis, block), _along(call, zero, shape, axis, block))


def _dequantize(call: Call, x: str, scale: Array, zero: Array) -> str:
    """(x - zero) * scale. A table that is gathered at run time is dequantized as a whole and stays one constant."""
    producer = call.producer(x)
    if producer is not None and producer.op == "gather" and scale.ndim == zero.ndim == 0:
        table, indices = producer.inputs
        if call.builder.value(table) is not None:
            return call.gather(_dequantize(call, table, scale, zero), indices, producer.attrs["axis"])
    y = call.cast(x, "f32")
    if zero.any():
        y = call.op("sub", y, call.const(zero.astype(np.float32)))
    return call.op("mul", y, call.const(scale))


def coded(call: Call, y: str, scale_at: int, zero_at: int, dtype: str = "") -> Value:
    """`y` as the file stores it; leaves a hint on 8-bit activations."""
    code = _code(call, scale_at, zero_at, dtype)
    scale, zero = code.quant.scale, code.quant.zero_point
    if not 0 < scale <= ABSURD_SCALE:
        call.warn(
            f"the scale {scale:.3g} of '{call.outputs[0]}' is absurd and was ignored",
            "an attention mask was calibrated as data: quantize the model again without the mask's Add or Where",
        )
        return Value(y, code)
    low, high = _RANGES.get(code.dtype, (-math.inf, math.inf))
    if zero == low and _may_be_negative(call, y):
        y = call.op("relu", y)
        if abs(scale * (high - zero) - 6.0) < 0.06:  # a dropped Relu6
            y = call.op("min", y, call.const(6.0, np.float32))
    tensor = call.builder.tensors[y]
    if code.dtype in ("i8", "u8") and tensor.quant is None and call.builder.value(y) is None:
        call.builder.tensors[y] = replace(tensor, quant=hint(code))
    return Value(y, code)


def _may_be_negative(call: Call, x: str) -> bool:
    """Whether `x` can have values below zero, other than a graph input, which is taken as the file describes it."""
    source = x
    while (producer := call.producer(source)) is not None and producer.op == "view":
        source = producer.inputs[0]
    return producer is not None and lower_bound(call.builder, x) < 0


# ---- QDQ ----


@onnx_op("QuantizeLinear", codes="own")
@onnx_op("QuantizeLinear", domain=_MS, codes="own")
def quantize_linear(call: Call) -> Result:
    """Of an activation only a note; of a constant the integers."""
    x = call.real(call.input(0))
    value = call.builder.value(x)
    if value is None:
        return coded(call, x, 1, 2, IR_TYPES.get(call.attr_int("output_dtype"), ""))
    scale, zero = _scale(call, 1), _zero_point(call, 2)
    dtype = call.dtype(call.inputs[2]) if call.has(2) else IR_TYPES.get(call.attr_int("output_dtype"), "u8")
    axis, block = call.attr_int("axis", 1), call.attr_int("block_size")
    scale, zero = (_along(call, p, value.shape, axis, block) for p in (scale, zero))
    low, high = _RANGES.get(dtype, (-(1 << 31), (1 << 31) - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.clip(np.rint(value / scale).astype(np.float64) + zero, low, high)
    return call.const(np.nan_to_num(q).astype(DTYPES[dtype]))


@onnx_op("DequantizeLinear", codes="own")
@onnx_op("DequantizeLinear", domain=_MS, codes="own")
def dequantize_linear(call: Call) -> Result:
    """Of a constant the real values; of an activation the reverse of its note."""
    return real_value(call, 0, 1, 2, call.attr_int("axis", 1))


@onnx_op("Cast", codes="own")
def cast(call: Call) -> Result:
    """To float, stored integers become their real value over the scale, not rounded: rounding is what we leave out."""
    code = call.code(0)
    if code is None:
        return plain_cast(call)
    x = call.input(0)
    if IR_TYPES.get(call.attr_int("to")) != "f32":
        return plain_cast(replace(call, inputs=(as_integers(call, x, code),)))
    return _affine(call, x, 1.0 / (code.quant.scale or 1.0), float(code.quant.zero_point))


@onnx_op("DynamicQuantizeLinear", codes="own")
def dynamic_quantize_linear(call: Call) -> Result:
    """The operand itself, with scale 1 and zero point 0."""
    x = Value(call.real(call.input(0)), Code(_UNIT, "u8", dynamic=True))
    return x, call.const(1.0, np.float32), call.const(0, np.uint8)


# ---- integer operators as float ones ----


def _product(call: Call, y: str) -> Value:
    """The int32 result of an integer product: floats of scale one."""
    return Value(y, Code(_UNIT, "i32", any(code is not None and code.dynamic for code in call.codes)))


def _shifted(call: Call, at: int, zero_at: int) -> str:
    """Input `at` less its zero point, as floats: what an integer product multiplies."""
    x, code = call.input(at), call.code(at)
    if code is not None:
        x = _affine(call, x, 1.0 / (code.quant.scale or 1.0), float(code.quant.zero_point))
    x = call.cast(x, "f32")
    if not call.has(zero_at):
        return x
    zero = call.cast(call.inputs[zero_at], "f32")
    value = call.builder.value(zero)
    if value is not None and not value.any():
        return x
    shape = call.shape(zero)
    if at == 0 and len(shape) == 1 and shape[0] > 1:  # the rows of the left operand
        zero = call.reshape(zero, (*shape, 1))
    return call.op("sub", x, zero)


@onnx_op("MatMulInteger", codes="own")
def matmul_integer(call: Call) -> Result:
    """A less its zero point times B less its own, which may be one per row or column."""
    return _product(call, call.matmul(_shifted(call, 0, 2), _shifted(call, 1, 3)))


@onnx_op("ConvInteger", codes="own")
def conv_integer(call: Call) -> Result:
    """The weights' zero point may be one per output channel."""
    w = call.cast(call.input(1), "f32")
    if call.has(3):
        zero = call.cast(call.inputs[3], "f32")
        if len(call.shape(zero)) == 1:
            zero = call.reshape(zero, (*call.shape(zero), *(1,) * (len(call.shape(w)) - 1)))
        w = call.op("sub", w, zero)
    return _product(call, convolve(call, _shifted(call, 0, 2), w, ""))


@onnx_op("MatMulIntegerToFloat", domain=_MS, codes="own")
def matmul_integer_to_float(call: Call) -> Result:
    """A, B, scales, zero points, bias."""
    y = call.matmul(_shifted(call, 0, 4), _shifted(call, 1, 5))
    y = call.op("mul", y, call.op("mul", call.real(call.input(2)), call.real(call.input(3))))
    return call.op("add", y, call.inputs[6]) if call.has(6) else y


@onnx_op("DynamicQuantizeMatMul", domain=_MS, codes="own")
def dynamic_quantize_matmul(call: Call) -> Result:
    """A stays float; B is dequantized."""
    y = call.matmul(call.real(call.input(0)), real_value(call, 1, 2, 3, axis=-1))
    return call.op("add", y, call.inputs[4]) if call.has(4) else y


@onnx_op("QLinearMatMul", codes="own")
def qlinear_matmul(call: Call) -> Result:
    """Operands a and b with scale and zero point each, then those of the result."""
    a = real_value(call, 0, 1, 2, axis=-2)
    return coded(call, call.matmul(a, real_value(call, 3, 4, 5, axis=-1)), 6, 7)


@onnx_op("QGemm", domain=_MS, codes="own")
def qgemm(call: Call) -> Result:
    """The bias is int32 in units of both scales; without an output scale the result is float."""
    b_axis = 0 if call.attr_int("transB") else 1
    a, b = real_value(call, 0, 1, 2), real_value(call, 3, 4, 5, axis=b_axis)
    a = call.transpose(a, (1, 0)) if call.attr_int("transA") else a
    b = call.transpose(b, (1, 0)) if call.attr_int("transB") else b
    alpha = call.attr_float("alpha", 1.0)
    y = call.matmul(a, scaled(call, b, alpha))
    if call.has(6):
        unit = call.op("mul", call.input(1), call.input(4))
        y = call.op("add", y, scaled(call, call.op("mul", call.cast(call.inputs[6], "f32"), unit), alpha))
    return coded(call, y, 7, 8) if call.has(7) else y


@onnx_op("QLinearConv", codes="own")
@onnx_op("QLinearConv", domain=_MS, codes="own")
def qlinear_conv(call: Call) -> Result:
    """The bias is int32 in units of both scales."""
    if call.attr_int("channels_last"):
        raise Refused("channels_last is unsupported")
    x, w, bias = real_value(call, 0, 1, 2), real_value(call, 3, 4, 5, axis=0), ""
    if call.has(8):
        bias = call.op("mul", call.cast(call.inputs[8], "f32"), call.op("mul", call.input(1), call.input(4)))
    return coded(call, convolve(call, x, w, bias), 6, 7)


@onnx_op("QLinearAdd", "QLinearMul", domain=_MS, codes="own")
def qlinear_binary(call: Call) -> Result:
    """Operands a and b with scale and zero point each, then those of the result."""
    op = "add" if call.op_type == "QLinearAdd" else "mul"
    return coded(call, call.op(op, real_value(call, 0, 1, 2), real_value(call, 3, 4, 5)), 6, 7)


@onnx_op(
    "QLinearSigmoid",
    "QLinearLeakyRelu",
    "QLinearGlobalAveragePool",
    "QLinearAveragePool",
    "QLinearSoftmax",
    domain=_MS,
    codes="own",
)
def qlinear_unary(call: Call) -> Result:
    """One operand and the result, with scale and zero point each."""
    x = real_value(call, 0, 1, 2)
    rank = len(call.shape(x))
    last = bool(call.attr_int("channels_last"))
    match call.op_type:
        case "QLinearSigmoid":
            y = call.op("sigmoid", x)
        case "QLinearLeakyRelu":
            y = call.op("leaky_relu", x, alpha=call.attr_float("alpha", 0.01))
        case "QLinearGlobalAveragePool":
            y = call.reduce("mean", x, range(1, rank - 1) if last else range(2, rank))
        case "QLinearAveragePool" if not last:
            y = pool(call, x, "avgpool", call.attr_ints("kernel_shape") or [])
        case "QLinearSoftmax":
            axis = call.axis(call.attr_int("axis", -1), max(rank, 1))
            if call.attr_int("opset", 13) < 13 and axis < rank - 1:
                shape = call.shape(x)
                flat = call.reshape(x, (*shape[:axis], math.prod(shape[axis:])))
                y = call.reshape(call.softmax(flat, axis), shape)
            else:
                y = call.softmax(x, axis)
        case _:
            raise Refused("channels_last is unsupported")
    return coded(call, y, 3, 4)


@onnx_op("QLinearConcat", domain=_MS, codes="own")
def qlinear_concat(call: Call) -> Result:
    """The result's scale and zero point, then value, scale and zero point of each part."""
    parts = [real_value(call, i, i + 1, i + 2) for i in range(2, len(call.inputs) - 2, 3)]
    if not parts:
        raise Refused("has no inputs")
    return coded(call, call.concat(parts, call.attr_int("axis")), 0, 1)


@onnx_op("QLinearWhere", domain=_MS, codes="own")
def qlinear_where(call: Call) -> Result:
    """Condition, x and y with scale and zero point each, then those of the result."""
    return coded(call, call.op("where", call.input(0), real_value(call, 1, 2, 3), real_value(call, 4, 5, 6)), 7, 8)


# ---- the file's integer inputs ----


def coded_input(graph: GraphProto, name: str, dtype: str, constant: Callable[[str], Array | None]) -> Code | None:
    """The code of a graph input that the file takes as 8-bit integers and only ever dequantizes, if all readers agree.

    Moving elements before that does not matter. The graph under construction then takes the real values of such an
    input. `constant` gives the values of an initializer.
    """
    codes: set[Code] = set()
    moved = [name] if dtype in ("i8", "u8") else []
    for x in moved:
        for node in graph.node:
            for i in [i for i, read in enumerate(node.input) if read == x]:
                translation = TRANSLATIONS.get((node.domain, node.op_type))
                if translation is not None and translation.codes == "keep" and i == 0 and node.op_type != "Concat":
                    moved += [out for out in node.output if out not in moved]
                    continue
                linear = node.op_type == "DequantizeLinear" or node.op_type.startswith(("QLinear", "QGemm"))
                scale, zero = (constant(n) for n in (*node.input[i + 1 : i + 3], "", "")[:2])
                if not linear or scale is None or scale.size != 1 or not 0 < scale.item() <= ABSURD_SCALE:
                    return None
                if zero is not None and zero.size != 1:
                    return None
                codes.add(Code(Quant(scale.item(), 0 if zero is None else int(zero.item())), dtype))
    return codes.pop() if len(codes) == 1 else None
