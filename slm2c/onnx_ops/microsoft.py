"""Operators of com.microsoft that onnxruntime's optimizer fuses, taken apart again.

Attention stands in `attention`, integer operators in `quantized`.
"""

from __future__ import annotations

import numpy as np

from slm2c.ir import Array
from slm2c.onnx_ops.base import Call, Refused, Result, onnx_op
from slm2c.onnx_ops.convolution import convolve
from slm2c.onnx_ops.elementwise import swish_of
from slm2c.onnx_ops.matrix import gemm, scaled
from slm2c.onnx_ops.movement import pad, trilu
from slm2c.onnx_ops.normalization import layernorm
from slm2c.onnx_ops.quantized import real_value

_MS = "com.microsoft"

onnx_op("Trilu", domain=_MS)(trilu)
onnx_op("Pad", domain=_MS)(pad)


@onnx_op("Gelu", "FastGelu", "BiasGelu", domain=_MS)
def gelu(call: Call) -> Result:
    """FastGelu uses tanh; both it and BiasGelu add a bias first."""
    x = call.real(call.input(0))
    if call.has(1):
        x = call.op("add", x, call.real(call.inputs[1]))
    return call.op("gelu", x, approximate="tanh" if call.op_type == "FastGelu" else "none")


@onnx_op("QuickGelu", domain=_MS)
def quick_gelu(call: Call) -> Result:
    """The product x sigmoid(alpha x)."""
    return swish_of(call, call.real(call.input(0)), call.attr_float("alpha", 1.702))


@onnx_op("FusedMatMul", "TransposeMatMul", domain=_MS)
def fused_matmul(call: Call) -> Result:
    """The product alpha A' B'; transBatch moves the batch axes of an operand behind its rows first."""
    operands = []
    for i, side in enumerate("AB"):
        x = call.real(call.input(i))
        rank = len(call.shape(x))
        if call.attr_int(f"transBatch{side}") and rank > 2:
            x = call.transpose(x, [*range(1, rank - 1), 0, rank - 1])
        if call.attr_int(f"trans{side}") and rank > 1:
            x = call.transpose(x, [*range(rank - 2), rank - 1, rank - 2])
        operands.append(x)
    alpha = call.attr_float("alpha", 1.0)
    if call.builder.value(operands[1]) is not None:
        return call.matmul(operands[0], scaled(call, operands[1], alpha))
    return scaled(call, call.matmul(*operands), alpha)


def _activated(call: Call, x: str, parameters: list[float]) -> str:
    """A fused activation by name."""
    name = call.attr_str("activation")
    first, second = (*parameters, *(0.0, 0.0)[len(parameters) :])[:2]
    match name:
        case "":
            return x
        case "Relu" | "Sigmoid" | "Tanh":
            return call.op(name.lower(), x)
        case "LeakyRelu":
            return call.op("leaky_relu", x, alpha=first or 0.01)
        case "Clip":
            low, high = (call.const(v, np.float32) for v in (first, second))
            return call.op("min", call.op("max", x, low), high)
        case "HardSigmoid":
            return call.op("hard_sigmoid", x, alpha=first, beta=second)
    raise Refused(f"fused activation {name} is unsupported")


@onnx_op("FusedGemm", domain=_MS)
def fused_gemm(call: Call) -> Result:
    """Gemm and an activation."""
    y = gemm(call)
    assert isinstance(y, str)
    names = ("activation_alpha", "activation_beta")
    return _activated(call, y, [call.attr_float(n) for n in names if n in call.attrs])


@onnx_op("FusedConv", domain=_MS)
def fused_conv(call: Call) -> Result:
    """Conv, the sum with Z and an activation."""
    y = convolve(call, call.input(0), call.input(1), call.inputs[2] if call.has(2) else "")
    y = call.op("add", y, call.real(call.inputs[3])) if call.has(3) else y
    return _activated(call, y, call.attr_floats("activation_params") or [])


@onnx_op("SkipLayerNormalization", domain=_MS)
def skip_layer_normalization(call: Call) -> Result:
    """LayerNorm(input + skip + bias) with gamma and beta; output 3 is the sum."""
    return _skip_norm(call, "layernorm", beta_at=3, bias_at=4)


@onnx_op("SkipSimplifiedLayerNormalization", domain=_MS)
def skip_simplified_layer_normalization(call: Call) -> Result:
    """RMSNorm(input + skip + bias) with gamma; output 3 is the sum."""
    return _skip_norm(call, "rmsnorm", beta_at=-1, bias_at=3)


def _skip_norm(call: Call, op: str, *, beta_at: int, bias_at: int) -> Result:
    if any(call.used[1:3]):
        raise Refused("mean and deviation as outputs are unsupported", "export the model for inference")
    x = call.real(call.input(0))
    total = call.op("add", x, call.real(call.input(1)))
    if call.has(bias_at):
        total = call.op("add", total, call.real(call.inputs[bias_at]))
    if call.shape(total) != call.shape(x):
        raise Refused(f"skip of shape {list(call.shape(call.inputs[1]))} does not broadcast to {list(call.shape(x))}")
    beta = call.inputs[beta_at] if beta_at > 0 and call.has(beta_at) else ""
    return layernorm(call, total, call.input(2), beta, -1, call.attr_float("epsilon", 1e-12), op=op), "", "", total


def _embed(call: Call, tables: list[str], gamma: str, beta: str, mask_at: int, positions_at: int) -> Result:
    """LayerNorm of the sum of word, position and segment embeddings; output 1 counts the ones of the mask."""
    ids = call.input(0)
    if len(call.shape(ids)) != 2 or any(len(call.shape(t)) != 2 for t in tables if t):
        raise Refused(f"input_ids of shape {list(call.shape(ids))}")
    words, positions, segments = tables
    total = call.gather(words, ids, 0)
    tokens = call.shape(ids)[1]
    if call.has(positions_at):
        total = call.op("add", total, call.gather(positions, call.inputs[positions_at], 0))
    elif call.shape(positions)[0] >= tokens:
        total = call.op("add", total, call.view(positions, call.positions(positions)[:tokens]))
    else:
        raise Refused(f"{tokens} tokens, but {call.shape(positions)[0]} position embeddings")
    if call.has(1) and segments:
        total = call.op("add", total, call.gather(segments, call.inputs[1], 0))
    y = layernorm(call, total, gamma, beta, -1, call.attr_float("epsilon", 1e-12))
    if call.has(mask_at):
        lengths = call.reduce("sum", call.cast(call.inputs[mask_at], "i32"), [1], keepdims=False)
    else:
        lengths = call.const(np.zeros(call.shape(ids)[0]), np.int32)
    return y, lengths, total


@onnx_op("EmbedLayerNormalization", domain=_MS)
def embed_layer_normalization(call: Call) -> Result:
    """input_ids, segment_ids, three tables, gamma, beta, mask, position_ids."""
    tables = [call.real(call.input(2)), call.real(call.input(3)), call.inputs[4] if call.has(4) else ""]
    return _embed(call, tables, call.input(5), call.input(6), 7, 8)


@onnx_op("QEmbedLayerNormalization", domain=_MS, codes="own")
def quantized_embed_layer_normalization(call: Call) -> Result:
    """input_ids, segment_ids, three tables, gamma, beta, mask, then the scales and the zero points of these five."""
    word, position, segment, gamma, beta = (
        real_value(call, 2 + i, 8 + i, 13 + i) if call.has(2 + i) else "" for i in range(5)
    )
    return _embed(call, [word, position, segment], gamma, beta, 7, 18)


@onnx_op("MatMulNBits", domain=_MS)
def matmul_n_bits(call: Call) -> Result:
    """A times a 4-bit weight matrix of N rows, packed in blocks along K: dequantized here."""
    n, k, block, bits = (call.attr_int(a, d) for a, d in (("N", 0), ("K", 0), ("block_size", 0), ("bits", 4)))
    packed, scales = call.array(1, "the weight"), call.array(2, "the scale").astype(np.float32)
    blocks = -(-k // block) if block > 0 else 0
    fits_together = n > 0 and blocks > 0 and packed.size == n * blocks * block // 2 and scales.size == n * blocks
    if bits != 4 or not fits_together or call.has(4):
        raise Refused(f"bits={bits} with weights of {packed.size} bytes and {scales.size} scales is unsupported")
    q = _nibbles(packed, n * blocks, block)
    zero = np.full((n * blocks, 1), 8, np.float32)
    if call.has(3):
        stored = call.array(3, "the zero point")
        zero = (
            stored.reshape(-1, 1).astype(np.float32)
            if stored.dtype.kind == "f"
            else _nibbles(stored, n, -(-blocks // 2) * 2)[:, :blocks].reshape(-1, 1)
        )
    w = ((q - zero) * scales.reshape(-1, 1)).reshape(n, blocks * block)[:, :k]
    y = call.matmul(call.real(call.input(0)), call.const(np.ascontiguousarray(w.T)))
    return call.op("add", y, call.inputs[5]) if call.has(5) else y


def _nibbles(packed: Array, rows: int, width: int) -> Array:
    """4-bit values, the lower half of a byte first, as float32 [rows, width]."""
    flat = packed.astype(np.uint8).ravel()
    if flat.size * 2 != rows * width:
        raise Refused(f"{flat.size} bytes do not hold {rows} x {width} values of 4 bits")
    return np.stack([flat & 15, flat >> 4], axis=-1).reshape(rows, width).astype(np.float32)
