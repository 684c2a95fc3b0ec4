"""layernorm: LayerNorm (Ba et al., arXiv 1607.06450) or RMSNorm (arXiv 1910.07467) of x or of x + residual, over rows.

float inputs: x [rows, C], residual ([rows, C] or ""), gamma [C], beta [C]; attrs: epsilon, centre (False: RMSNorm).
integer inputs: x and residual int8 or int16, gamma int16, beta int32, params. Output int8 or int16.

Per row, with x' = x for int16, 256 * x for int8, so that both are numbers of 16 bits, and all arithmetic exact:

    v_c  = (weight * x'_c + residual_weight * r'_c + offset) >> 16          |v| <= 2**14, RMSNorm: < 2**15
    m    = round(sum v_c / C), RMSNorm: 0
    D    = C * sum v_c**2 - (sum v_c)**2 + E, RMSNorm: C * sum v_c**2 + E     C**2 times the variance of v
    inv  = scale / sqrt(D), saturated to 31 bits
    y_c  = high(gamma_c * (v_c - m) * inv) + beta_c                          in LSB / 2**fraction
    output_c = saturate(y_c >> fraction)

LayerNorm is invariant to shifts and scalings of its input; so the weights are free but for their ratio, the zero points
vanish, and only E, the epsilon in units of v, knows the scale. RMSNorm needs the zero points: in `offset`.
gamma has one scale for all channels, with 15 bits for the largest; beta holds the zero point and the half that rounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from slm2c import core, fixedpoint
from slm2c.ir import Array, Graph, Node, Shape, Tensor
from slm2c.ops.base import Case, KernelCall, OpDef, Special, fields, pack_fields, rows

PARAMS = (
    "weight",
    "residual_weight",
    "offset",
    "centre",
    "square_shift",
    "epsilon",
    "epsilon_shift",
    "scale",
    "scale_shift",
)

MAX_COLUMNS = 2**14
"""Beyond, 2**15 * C, with which the mean is found, would leave 32 bits."""

FRACTION = {"i8": 8, "i16": 0}
"""Fractional bits of y before the last rounding."""


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    x, residual, gamma, beta = inputs
    assert x is not None and gamma is not None and beta is not None and len(x.shape) == 2, node.name
    assert residual is None or residual.shape == x.shape, node.name
    assert gamma.shape == beta.shape == x.shape[1:] and x.shape[1] <= MAX_COLUMNS, node.name
    return x.shape


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, residual, gamma, beta = inputs
    assert x is not None
    total = x if residual is None else x + residual
    return core.normalize(total, gamma, beta, -1, node.attrs["epsilon"], node.attrs["centre"])


def _wide_scale(tensor: Tensor) -> float:
    """The real value of one unit of x', the tensor widened to 16 bits."""
    assert tensor.quant
    return tensor.quant.scale / (256 if tensor.dtype == "i8" else 1)


def _weights(x: Tensor, residual: Tensor | None) -> tuple[int, int, float]:
    """(weight, residual_weight, real value of one unit of v); the weights add up to less than 2**15."""
    scale = _wide_scale(x)
    if residual is None:  # a power of two: v is exact for int8
        return 2**14, 0, scale * 2**16 / 2**14
    unit = (scale + _wide_scale(residual)) / (2**15 - 2)
    return round(scale / unit), round(_wide_scale(residual) / unit), unit * 2**16


def _mantissa(value: float, bits: int) -> tuple[int, int]:
    """(m, shift) with value = m * 2**-shift and m of `bits` bits."""
    fraction, exponent = math.frexp(value)
    m = round(math.ldexp(fraction, bits))
    return (m, bits - exponent) if m < 2**bits else (m // 2, bits - exponent - 1)


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    x, out = tensors[node.inputs[0]], tensors[node.outputs[0]]
    residual = tensors[node.inputs[1]] if node.inputs[1] else None
    assert x.quant and out.quant
    columns, fraction = x.shape[1], FRACTION[out.dtype]
    weight, residual_weight, unit = _weights(x, residual)
    offset = 2**15
    if not node.attrs["centre"]:
        for share, tensor in ((weight, x), (residual_weight, residual)):
            if tensor is not None and tensor.quant is not None:
                offset -= share * tensor.quant.zero_point * (256 if tensor.dtype == "i8" else 1)
    epsilon = max(1.0, float(node.attrs["epsilon"]) / unit**2 * columns**2)
    # An epsilon far beyond any variance of x needs another unit, so that D stays within 62 bits.
    square_shift = min(62, 2 * max(0, math.frexp(epsilon)[1] - 59 >> 1))
    epsilon = min(math.ldexp(epsilon, -square_shift), 2.0**60)
    epsilon_shift = max(0, math.frexp(epsilon)[1] - 31)
    gamma, beta = (consts[name].astype(np.float64) for name in node.inputs[2:])
    peak = float(np.abs(gamma).max(initial=0.0)) or 1.0
    gamma_bits = 15 - math.frexp(peak * 32768 / 32767)[1]
    # y = gamma * (v - m) * C / sqrt(D), and the product of the integers is divided by 2**32.
    scale, scale_shift = _mantissa(math.ldexp(columns / out.quant.scale, 32 + fraction - gamma_bits), 31)
    half = 1 << fraction >> 1
    offset_beta = np.rint((beta / out.quant.scale + out.quant.zero_point) * 2**fraction) + half
    params = {
        "weight": weight,
        "residual_weight": residual_weight,
        "offset": offset,
        "centre": int(node.attrs["centre"]),
        "square_shift": square_shift,
        "epsilon": int(math.ldexp(epsilon, -epsilon_shift)),
        "epsilon_shift": epsilon_shift,
        "scale": scale,
        # 1 / sqrt(D) = r * 2**(zeros / 2 - 62), see _inverse.
        "scale_shift": scale_shift + 62 + square_shift // 2,
    }
    return {
        f"{out.name}.gamma": np.rint(np.ldexp(gamma, gamma_bits)).astype(np.int16),
        f"{out.name}.beta": np.clip(offset_beta, -(2**29), 2**29).astype(np.int32),
        f"{out.name}.params": pack_fields(params, PARAMS),
    }, {"dtype": out.dtype}


def _inverse(d: Array, p: Mapping[str, int]) -> Array:
    """The params' scale / sqrt(d), at most 2**31 - 1, for d of up to 62 bits."""
    half = fixedpoint.leading_zeros(d, 64) // 2
    r = fixedpoint.rsqrt(d.astype(np.uint64) << (2 * half).astype(np.uint64) >> np.uint64(32)).astype(np.int64)
    return np.minimum(r * p["scale"] >> np.clip(p["scale_shift"] - half, 29, 63), 2**31 - 1)


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, residual, gamma, beta, params = inputs
    assert x is not None and gamma is not None and beta is not None and params is not None
    p = fields(params, PARAMS)
    total = p["weight"] * _widen(x) + p["offset"]
    if residual is not None:
        total = total + p["residual_weight"] * _widen(residual)
    v = total >> 16
    columns = v.shape[1]
    total = p["centre"] * v.sum(axis=1, keepdims=True)
    d = columns * (v * v).sum(axis=1, keepdims=True) - total * total
    d = (d >> p["square_shift"]) + (p["epsilon"] << p["epsilon_shift"])
    v = v - (2 * total + columns) // (2 * columns)
    assert np.abs(v).max() < 2**15, "a deviation leaves 16 bits"
    dtype = str(node.attrs["dtype"])
    y = (v * gamma * _inverse(d, p) + 2**31 >> 32) + beta
    return fixedpoint.saturate(y >> FRACTION[dtype], dtype)


def _widen(x: Array) -> Array:
    return x.astype(np.int64) * (256 if x.dtype == np.int8 else 1)


_SUFFIX = {"i8": "s8", "i16": "s16"}


def _lower(node: Node, graph: Graph) -> KernelCall:
    name, residual, gamma, beta, params = node.inputs
    x, out = graph.tensors[name], graph.tensors[node.outputs[0]]
    kinds = [_SUFFIX[t.dtype] for t in (x, graph.tensors[residual] if residual else x, out)]
    symbol = "_".join(["slm_layernorm", *(kinds[:1] if len(set(kinds)) == 1 else kinds)])
    args = (Special.SCRATCH, params, name, residual or Special.NULL, gamma, beta, out.name, rows(x), x.shape[1])
    return KernelCall(symbol, args, node, scratch=2 * x.shape[1])


def _lower_dsp(node: Node, graph: Graph) -> Sequence[KernelCall]:
    name, residual, *_ = node.inputs
    call = _lower(node, graph)
    if graph.tensors[name].shape[1] % 4:
        return ()
    tensors = (graph.tensors[x] for x in (name, residual or name, node.outputs[0]))
    types = (("i8", "i16").index(t.dtype) for t in tensors)
    return [replace(call, symbol="slm_layernorm_dsp", args=(*call.args, *types))]


def _error(node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Array | None]) -> Array:
    """Rounding of y, of v, of m, of gamma and of the inverse, in terms of the row's standard deviation in units of v.

    Unbounded for rows that differ by less than v resolves, or so little that the inverse saturates.
    """
    x, residual, gamma, beta = inputs
    out = tensors[node.outputs[0]]
    assert x is not None and gamma is not None and beta is not None and out.quant
    wide = x.astype(np.float64) + (0 if residual is None else residual)
    _, _, unit = _weights(tensors[node.inputs[0]], tensors[node.inputs[1]] if residual is not None else None)
    exact = residual is None and tensors[node.inputs[0]].dtype == "i8"
    noise = 0.0 if exact else 0.5 if residual is None else 1.0  # of v: rounding, and that of each weight
    deviation = wide - wide.mean(axis=1, keepdims=True) if node.attrs["centre"] else wide
    sigma = np.sqrt((deviation**2).mean(axis=1, keepdims=True) + node.attrs["epsilon"])
    steps = np.maximum(sigma / unit - noise, 1e-30)
    peak = np.abs(gamma).max(initial=0.0)
    z = np.abs(deviation) / sigma
    bound = np.abs(gamma) * ((2 * noise + 0.5) / steps + z * (noise / steps + 2.0**-23)) + peak * z * 2.0**-15
    fraction = FRACTION[out.dtype]
    bound = bound / out.quant.scale + z * steps / 2.0 ** (17 + fraction) + (0.51 if fraction else 1.01)
    resolved = steps > peak / out.quant.scale / 2.0 ** (13 - fraction)
    return np.where(resolved, bound, np.inf)


def _cases(rng: np.random.Generator) -> list[Case]:
    found = []
    for n, columns, residual, centre, epsilon, spread in [
        (1, 1, False, True, 1e-5, 1.0),
        (3, 17, False, True, 1e-12, 1.0),
        (17, 33, True, True, 1e-5, 0.1),
        (33, 3, True, True, 1e-2, 30.0),
        (9, 128, True, True, 1e-12, 1.0),
        (3, 17, False, False, 1e-6, 1.0),
        (17, 33, True, False, 1e-6, 8.0),
        (1, MAX_COLUMNS, True, True, 1e-5, 1.0),
        (2, 513, False, False, 1.0, 1e-3),
    ]:
        name = f"{'layernorm' if centre else 'rmsnorm'}_{n}_{columns}{'_residual' if residual else ''}"
        node = Node(
            "layernorm", name, ("x", "r" if residual else "", "g", "b"), ("y",), {"epsilon": epsilon, "centre": centre}
        )
        consts = {
            "g": rng.normal(1, 0.3, columns).astype(np.float32),
            "b": rng.normal(0, 0.3, columns).astype(np.float32),
        }
        feeds = {"x": (rng.normal(0.3, 1, (n, columns)) * spread).astype(np.float32)}
        if residual:
            feeds["r"] = (rng.normal(-0.2, 3, (n, columns)) * spread).astype(np.float32)
        tensors = {k: Tensor(k, (n, columns), "f32", 0) for k in (*feeds, "y")}
        tensors |= {k: Tensor(k, (columns,), "f32") for k in consts}
        found.append(Case(node, tensors, consts, feeds))
    return found


OP = OpDef(
    name="layernorm",
    kernel="slm_layernorm",
    onnx=("LayerNormalization", "SkipLayerNormalization", "RMSNormalization", "ReduceMean", "Sqrt", "Div", "Add"),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    lower_dsp=_lower_dsp,
    cases=_cases,
    rowwise=lambda node, graph: True,
    inputs=(("i8", "i16"),),
    outputs=("i8", "i16"),
    inplace=(0, 1),
    error=_error,
)
