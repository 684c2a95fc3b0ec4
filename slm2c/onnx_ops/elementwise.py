"""Element by element: arithmetic, comparison, logic, activations and casts."""

from __future__ import annotations

from functools import reduce

import numpy as np

from slm2c.onnx_file import type_name
from slm2c.onnx_ops.base import IR_TYPES, Call, Refused, Result, onnx_op

_UNARY_FLOAT = {
    "Sqrt": "sqrt",
    "Reciprocal": "reciprocal",
    "Exp": "exp",
    "Log": "log",
    "Sin": "sin",
    "Cos": "cos",
    "Erf": "erf",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "IsNaN": "isnan",
    "HardSwish": "hard_swish",
}
_UNARY_ANY = {"Neg": "neg", "Abs": "abs", "Sign": "sign", "Relu": "relu"}
_ARITHMETIC = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Max": "max", "Min": "min", "Sum": "add"}
_COMPARE = {
    "Equal": "equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
}
_LOGIC = {"And": "and", "Or": "or", "Xor": "xor", "Not": "not"}


def _numbers(call: Call) -> list[str]:
    """The inputs, none of them boolean."""
    call.input(0)
    if any(call.dtype(x) == "bool" for x in call.inputs if x):
        raise Refused("needs numbers, but reads bool")
    return [x for x in call.inputs if x]


@onnx_op(*_UNARY_FLOAT)
def unary_float(call: Call) -> Result:
    """Defined for floats alone."""
    return call.op(_UNARY_FLOAT[call.op_type], call.real(call.input(0)))


@onnx_op(*_UNARY_ANY)
def unary(call: Call) -> Result:
    """Defined for all numbers."""
    return call.op(_UNARY_ANY[call.op_type], _numbers(call)[0])


def _legacy_broadcast(call: Call, a: str, b: str) -> str:
    """`b` as opset 6 and older align it with `a`: at attribute `axis` instead of at the last axis."""
    if "axis" not in call.attrs:
        return b
    axis = call.axis(call.attr_int("axis"), len(call.shape(a)))
    missing = len(call.shape(a)) - axis - len(call.shape(b))
    if missing < 0:
        raise Refused(f"axis {axis} does not align {list(call.shape(b))} with {list(call.shape(a))}")
    return call.reshape(b, (*call.shape(b), *(1,) * missing))


@onnx_op(*_ARITHMETIC)
def arithmetic(call: Call) -> Result:
    """Max, Min and Sum take any number of operands."""
    first, *rest = _numbers(call)
    if call.op_type not in ("Max", "Min", "Sum"):
        if len(rest) != 1:
            raise Refused(f"has {len(rest) + 1} operands instead of two")
        rest = [_legacy_broadcast(call, first, rest[0])]
    return reduce(lambda a, b: call.op(_ARITHMETIC[call.op_type], a, b), rest, first)


@onnx_op("Mean")
def mean(call: Call) -> Result:
    """Of any number of tensors."""
    parts = [call.real(x) for x in _numbers(call)]
    total = reduce(lambda a, b: call.op("add", a, b), parts)
    return call.op("div", total, call.const(len(parts), np.float32))


@onnx_op(*_COMPARE)
def compare(call: Call) -> Result:
    """Equal also takes booleans."""
    return call.op(_COMPARE[call.op_type], call.input(0), _legacy_broadcast(call, call.input(0), call.input(1)))


@onnx_op(*_LOGIC)
def logic(call: Call) -> Result:
    """Booleans alone."""
    operands = [call.input(i) for i in range(1 if call.op_type == "Not" else 2)]
    if any(call.dtype(x) != "bool" for x in operands):
        raise Refused(f"needs booleans, but reads {' and '.join(call.dtype(x) for x in operands)}")
    return call.op(_LOGIC[call.op_type], *operands)


@onnx_op("Where")
def where(call: Call) -> Result:
    """Condition, then, else."""
    if call.dtype(call.input(0)) != "bool":
        raise Refused(f"the condition is {call.dtype(call.inputs[0])} instead of bool")
    return call.op("where", call.input(0), call.input(1), call.input(2))


@onnx_op("Pow")
def power(call: Call) -> Result:
    """The result has the type of the base."""
    base, exponent = _numbers(call)[:2] if call.has(1) else (call.input(0), call.input(1))
    if call.dtype(base) == "f32" or call.dtype(exponent) == "f32":
        return call.cast(call.op("pow", call.cast(base, "f32"), call.cast(exponent, "f32")), call.dtype(base))
    if call.builder.value(exponent) is not None and (call.array(1, "exponent") < 0).any():
        raise Refused("integer power with a negative exponent")
    return call.op("pow", base, call.cast(exponent, call.dtype(base)))


@onnx_op("Mod")
def modulo(call: Call) -> Result:
    """Of the sign of the divisor, as in Python, or with fmod=1 of the dividend, as in C."""
    call.input(1)
    return call.op("fmod" if call.attr_int("fmod") else "mod", *_numbers(call)[:2])


@onnx_op("Clip")
def clip(call: Call) -> Result:
    """Bounds as attributes before opset 11, as optional inputs since."""
    x = _numbers(call)[0]
    for name, index, op in (("min", 1, "max"), ("max", 2, "min")):
        if call.has(index):
            x = call.op(op, x, call.input(index))
        elif name in call.attrs:
            x = call.op(op, x, call.scalar_like(x, call.attr_float(name)))
    return x


def cast(call: Call) -> Result:
    """Cast between types that the IR knows; all floats are one. Stored integers: slm2c.onnx_ops.quantized."""
    to = call.attr_int("to")
    if to not in IR_TYPES:
        raise Refused(f"cast to {type_name(to)} is unsupported")
    return call.cast(call.input(0), IR_TYPES[to])


@onnx_op("CastLike")
def cast_like(call: Call) -> Result:
    """To the type of the second input."""
    return call.cast(call.input(0), call.dtype(call.input(1)))


@onnx_op("IsInf")
def is_inf(call: Call) -> Result:
    """Either sign can be left out."""
    x = call.real(call.input(0))
    positive, negative = call.attr_int("detect_positive", 1), call.attr_int("detect_negative", 1)
    if positive and negative:
        return call.op("isinf", x)
    if not positive and not negative:
        return call.expand(call.const(False), call.shape(x))
    sign = call.op("greater" if positive else "less", x, call.const(0, np.float32))
    return call.op("and", call.op("isinf", x), sign)


@onnx_op("Tan", "Sinh", "Cosh", "Asin", "Acos", "Atan", "Asinh", "Acosh", "Atanh")
def rare_trigonometry(call: Call) -> Result:
    """Tangent and hyperbolic functions by identities; the inverse ones only of constants."""
    x = call.real(call.input(0))
    if call.op_type == "Tan":
        return call.op("div", call.op("sin", x), call.op("cos", x))
    if call.op_type in ("Sinh", "Cosh"):
        sign = "sub" if call.op_type == "Sinh" else "add"
        both = call.op(sign, call.op("exp", x), call.op("exp", call.op("neg", x)))
        return call.op("mul", both, call.const(0.5, np.float32))
    value = call.builder.value(x)
    if value is None:
        raise Refused("inverse trigonometric functions are unsupported")
    function = getattr(np, "arc" + call.op_type.lower()[1:])
    with np.errstate(invalid="ignore", divide="ignore"):
        return call.const(function(value))


@onnx_op("LeakyRelu")
def leaky_relu(call: Call) -> Result:
    """Times alpha below zero."""
    return call.op("leaky_relu", call.real(call.input(0)), alpha=call.attr_float("alpha", 0.01))


@onnx_op("Elu")
def elu(call: Call) -> Result:
    """Below zero alpha (e^x - 1), arXiv 1511.07289."""
    return call.op("elu", call.real(call.input(0)), alpha=call.attr_float("alpha", 1.0))


@onnx_op("Celu")
def celu(call: Call) -> Result:
    """ELU(x / alpha) times alpha, arXiv 1704.07483."""
    alpha = call.const(call.attr_float("alpha", 1.0), np.float32)
    x = call.real(call.input(0))
    return call.op("mul", call.op("elu", call.op("div", x, alpha), alpha=1.0), alpha)


@onnx_op("Selu")
def selu(call: Call) -> Result:
    """Klambauer et al., arXiv 1706.02515."""
    return call.op(
        "selu",
        call.real(call.input(0)),
        alpha=call.attr_float("alpha", 1.67326319217681884765625),
        gamma=call.attr_float("gamma", 1.05070102214813232421875),
    )


@onnx_op("HardSigmoid")
def hard_sigmoid(call: Call) -> Result:
    """clip(alpha x + beta, 0, 1)."""
    return call.op(
        "hard_sigmoid", call.real(call.input(0)), alpha=call.attr_float("alpha", 0.2), beta=call.attr_float("beta", 0.5)
    )


@onnx_op("Gelu")
def gelu(call: Call) -> Result:
    """Hendrycks and Gimpel, arXiv 1606.08415; exact or by tanh."""
    approximate = call.attr_str("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise Refused(f"approximate={approximate} is unknown")
    return call.op("gelu", call.real(call.input(0)), approximate=approximate)


@onnx_op("Swish")
def swish(call: Call) -> Result:
    """The product x sigmoid(alpha x), arXiv 1710.05941."""
    return swish_of(call, call.real(call.input(0)), call.attr_float("alpha", 1.0))


def swish_of(call: Call, x: str, alpha: float) -> str:
    """The product x sigmoid(alpha x), also known as SiLU for alpha = 1."""
    scaled = x if alpha == 1.0 else call.op("mul", x, call.const(alpha, np.float32))
    return call.op("mul", x, call.op("sigmoid", scaled))


@onnx_op("SwiGLU")
def swiglu(call: Call) -> Result:
    """Swish of the gate times the value, arXiv 2002.05202."""
    gate = swish_of(call, call.real(call.input(0)), call.attr_float("alpha", 1.0))
    return call.op("mul", gate, call.real(call.input(1)))


@onnx_op("Mish")
def mish(call: Call) -> Result:
    """The product x tanh(softplus(x)), arXiv 1908.08681."""
    x = call.real(call.input(0))
    return call.op("mul", x, call.op("tanh", call.op("softplus", x)))


@onnx_op("PRelu")
def prelu(call: Call) -> Result:
    """Times slope below zero; before opset 7 the slope stands for channels."""
    x, slope = call.real(call.input(0)), call.real(call.input(1))
    rank = len(call.shape(x))
    if call.opset < 7 and len(call.shape(slope)) == 1 and rank > 2:
        slope = call.reshape(slope, (*call.shape(slope), *(1,) * (rank - 2)))
    return call.op("where", call.op("less", x, call.const(0, np.float32)), call.op("mul", x, slope), x)


@onnx_op("ThresholdedRelu")
def thresholded_relu(call: Call) -> Result:
    """Only what is above alpha, else zero."""
    x = call.real(call.input(0))
    above = call.op("greater", x, call.const(call.attr_float("alpha", 1.0), np.float32))
    return call.op("where", above, x, call.const(0, np.float32))


@onnx_op("Shrink")
def shrink(call: Call) -> Result:
    """Soft threshold: x + bias below -lambd, x - bias above lambd, else zero."""
    x = call.real(call.input(0))
    bias, lambd = (call.const(v, np.float32) for v in (call.attr_float("bias"), call.attr_float("lambd", 0.5)))
    below = call.op("less", x, call.op("neg", lambd))
    low = call.op("where", below, call.op("add", x, bias), call.const(0, np.float32))
    return call.op("where", call.op("greater", x, lambd), call.op("sub", x, bias), low)


@onnx_op("BitShift")
def bit_shift(call: Call) -> Result:
    """By a constant: a multiplication or division by a power of two of unsigned numbers."""
    x = call.input(0)
    amount = call.array(1, "the shift")
    if call.dtype(x) != "u8" or amount.min(initial=0) < 0 or amount.max(initial=0) > 7:
        raise Refused("only shifts of uint8 by constants of 0 to 7 are supported")
    factor = call.cast(call.const(1 << amount.astype(np.int64)), "i32")
    op = "mul" if call.attr_str("direction") == "LEFT" else "div"
    return call.cast(call.op(op, call.cast(x, "i32"), factor), "u8")


@onnx_op("BitwiseAnd", "BitwiseOr", "BitwiseXor")
def bitwise(call: Call) -> Result:
    """Of constants alone: shapes and flags."""
    a, b = call.array(0, "the operand"), call.array(1, "the operand")
    call.broadcast(call.inputs[0], call.inputs[1])
    if a.dtype != b.dtype or a.dtype.kind not in "iu":
        raise Refused(f"combines {a.dtype} and {b.dtype} bit by bit")
    function = {"BitwiseAnd": np.bitwise_and, "BitwiseOr": np.bitwise_or, "BitwiseXor": np.bitwise_xor}[call.op_type]
    return call.const(function(a, b))
