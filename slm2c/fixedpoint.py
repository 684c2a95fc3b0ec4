"""Integer arithmetic shared by the quantizer and by the executable specifications of the kernels (docs/NUMERICS.md).

Everything here is exact: the C in runtime_c/slm_math.h computes the same integers.
"""

from __future__ import annotations

import numpy as np

from slm2c.ir import Array, Quant

INT_RANGE = {"i8": (-128, 127), "i16": (-32768, 32767)}


def multiplier(ratio: Array | float) -> tuple[Array, int]:
    """(int32 multipliers, shift) with ratio = multiplier * 2**(shift - 32), elementwise with one shift for all.

    The shift is 0 unless a ratio reaches 0.5: multipliers are signed 32-bit numbers, as SMMLAR takes them.
    """
    ratio = np.asarray(ratio, dtype=np.float64)
    assert np.isfinite(ratio).all() and (ratio >= 0).all(), "requantization ratios are finite and not negative"
    largest = float(ratio.max(initial=0.0))
    shift = max(0, int(np.floor(np.log2(largest))) + 2) if largest > 0 else 0
    scaled = np.rint(np.ldexp(ratio, 32 - shift))
    return np.minimum(scaled, 2**31 - 1).astype(np.int32), shift


def requantize(acc: Array, mult: Array | int, shift: int, zero_point: int, dtype: str) -> Array:
    """saturate(((acc << shift) * mult + 2**31 >> 32) + zero_point): round half up, as Arm's SMMLAR and SSAT do."""
    wide = acc.astype(np.int64) << shift
    assert np.abs(wide).max(initial=0) < 2**31, "the accumulator leaves 32 bits"
    value = (wide * np.asarray(mult, dtype=np.int64) + 2**31 >> 32) + zero_point
    return saturate(value, dtype)


def saturate(value: Array, dtype: str) -> Array:
    """Clamp to the range of an IR integer type and convert to it."""
    low, high = INT_RANGE[dtype]
    return np.clip(value, low, high).astype(np.int8 if dtype == "i8" else np.int16)


def quantize(real: Array, quant: Quant, dtype: str) -> Array:
    """Nearest integers of `real`, ties to even, saturated."""
    return saturate(np.rint(np.asarray(real, np.float64) / quant.scale) + quant.zero_point, dtype)


def dequantize(q: Array, quant: Quant) -> Array:
    """The real values that the integers stand for, float32."""
    return ((q.astype(np.float64) - quant.zero_point) * quant.scale).astype(np.float32)


def matmul(a: Array, b: Array) -> Array:
    """Exact integer product of integer arrays, as int64: by float64 BLAS, exact while sums stay below 2**53."""
    return np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64)
