"""Integer arithmetic shared by the quantizer and by the executable specifications of the kernels (docs/NUMERICS.md).

Everything here is exact: the C in runtime_c/slm_math.h computes the same integers.
"""

from __future__ import annotations

import numpy as np

from slm2c.ir import Array, Quant

INT_RANGE = {"i8": (-128, 127), "i16": (-32768, 32767)}


def multiplier(ratio: Array | float) -> tuple[Array, int]:
    """(int32 multipliers, shift) with ratio = multiplier * 2**(shift - 32), elementwise with one shift for all.

    The shift is 0 unless a ratio reaches 0.5: multipliers are signed 32-bit numbers, as SMMLAR takes them. Ratios
    are cut at 2**28, where one step saturates any output, so that it is at most 30.
    """
    ratio = np.asarray(ratio, dtype=np.float64)
    assert np.isfinite(ratio).all() and (ratio >= 0).all(), "requantization ratios are finite and not negative"
    ratio = np.minimum(ratio, 2.0**28)
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


def rescale(acc: Array, mult: Array | int, shift: int, zero_point: int, dtype: str) -> Array:
    """saturate((acc * mult + 2**(31 - shift) >> 32 - shift) + zero_point), for any 32-bit sum and shift in 0..30.

    The same number as `requantize` gives where that has room for the sum; costs a 64-bit shift more.
    """
    assert np.abs(acc).max(initial=0) < 2**31 and 0 <= shift <= 30, "the accumulator leaves 32 bits"
    value = acc.astype(np.int64) * np.asarray(mult, dtype=np.int64) + (1 << 31 - shift) >> 32 - shift
    return saturate(value + zero_point, dtype)


def divide_multiplier(mult: int, count: Array | int) -> Array:
    """Mult / count, to the nearest integer: makes the mean of `count` numbers of their sum."""
    return np.asarray((mult + np.asarray(count, dtype=np.int64) // 2) // count)


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


def high(a: Array, b: Array | int) -> Array:
    """Upper 32 bits of the 64-bit product of two unsigned 32-bit numbers, as UMULL gives them; uint64."""
    return np.right_shift(a.astype(np.uint64) * np.asarray(b, dtype=np.uint64), np.uint64(32))


def leading_zeros(value: Array, bits: int) -> Array:
    """How far each positive integer below 2**bits can be shifted left without leaving `bits` bits; int64."""
    assert (value > 0).all() and (value < 2**bits).all(), f"{value} in {bits} bits"
    return np.array([bits - int(v).bit_length() for v in value.ravel()], dtype=np.int64).reshape(value.shape)


def reciprocal(x: Array) -> Array:
    """About 2**62 / x for x in [2**31, 2**32), within 2**-28 of it; uint64.

    Three Newton steps r (2 - x r) in Q30 from the chord 48/17 - 32/17 x, which is off by at most 1/17.
    """
    r: Array = 3031741621 - high(x, 2021161080)
    for _ in range(3):
        r = np.right_shift(r * (2**31 - high(x, r)), np.uint64(30))
    return r


def rsqrt(x: Array) -> Array:
    """About 2**46 / sqrt(x) for x in [2**30, 2**32), within 2**-24 of it; uint64.

    Three Newton steps r (3 - x r**2) / 2 in Q30 from the chord 2.13 - 1.215 x, which is off by at most 0.087.
    """
    r: Array = 2287070085 - high(x, 1304596316)
    for _ in range(3):
        r = np.right_shift(r * (3 * 2**28 - high(x, high(r, r))), np.uint64(29))
    return r
