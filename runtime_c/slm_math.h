/**
 * \file slm_math.h
 * \brief The integer arithmetic that all kernels share; docs/NUMERICS.md states it, slm2c/fixedpoint.py specifies it.
 */
#ifndef SLM_MATH_H
#define SLM_MATH_H

#include <stdint.h>

/** A function that is inlined into each of its callers, so that an argument which is constant there costs nothing. */
#if defined(__GNUC__)
#define SLM_INLINE static inline __attribute__((always_inline))
#else
#define SLM_INLINE static inline
#endif

/** \brief (acc * multiplier + 2^31 >> 32) + offset: what SMMLAR computes. Relies on arithmetic right shifts. */
static inline int32_t slm_scale(int32_t acc, int32_t multiplier, int32_t offset)
{
    return (int32_t)(((int64_t)acc * multiplier + INT64_C(0x80000000)) >> 32) + offset;
}

/** \brief value limited to [low, high]. */
static inline int32_t slm_clamp(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/** \brief acc << shift without undefined behaviour on negative numbers; the compiler proved that it fits. */
static inline int32_t slm_shift_left(int32_t acc, int32_t shift)
{
    return (int32_t)((uint32_t)acc << (uint32_t)shift);
}

/**
 * \brief As slm_shift_left, limited to 32 bits.
 *
 * A normalized multiplier is at least 2^30 where shift is not 0, so that slm_scale of what was cut saturates any output.
 */
static inline int32_t slm_shift_left_saturate(int32_t acc, int32_t shift)
{
    const int32_t limit = INT32_MAX >> shift;
    return slm_shift_left(slm_clamp(acc, -limit, limit), shift);
}

/** \brief As slm_scale(slm_shift_left(acc, shift), ...) for any sum, multiplier and shift in 0..30; limited to 32 bits. */
static inline int32_t slm_rescale(int32_t acc, int32_t multiplier, int32_t shift, int32_t offset)
{
    const int64_t value = ((int64_t)acc * multiplier + (INT64_C(1) << (31 - shift))) >> (32 - shift);
    const int64_t limit = INT32_MAX / 2;
    return (int32_t)(value < -limit ? -limit : value > limit ? limit : value) + offset;
}

/** \brief multiplier / count, to the nearest integer, of a multiplier that is not negative. */
static inline int32_t slm_divide_multiplier(int32_t multiplier, uint32_t count)
{
    return (int32_t)(((uint32_t)multiplier + count / 2u) / count);
}

/** \brief Upper 32 bits of the product. */
static inline uint32_t slm_high(uint32_t a, uint32_t b)
{
    return (uint32_t)(((uint64_t)a * b) >> 32);
}

/** \brief How many of the upper bits are 0; value is not 0. */
static inline uint32_t slm_leading_zeros(uint32_t value)
{
#if defined(__GNUC__)
    return (uint32_t)__builtin_clz(value);
#else
    uint32_t count = 0u;
    while ((value << count >> 31) == 0u) {
        count++;
    }
    return count;
#endif
}

/** \brief As slm_leading_zeros, of 64 bits. */
static inline uint32_t slm_leading_zeros_64(uint64_t value)
{
    uint32_t upper = (uint32_t)(value >> 32);
    return upper != 0u ? slm_leading_zeros(upper) : 32u + slm_leading_zeros((uint32_t)value);
}

/** \brief About 2^62 / x for x >= 2^31, within 2^-28 of it: three Newton steps in Q30 from the chord 48/17 - 32/17 x. */
static inline uint32_t slm_reciprocal(uint32_t x)
{
    uint32_t r = 3031741621u - slm_high(x, 2021161080u);
    for (uint32_t i = 0; i < 3u; i++) {
        r = (uint32_t)((uint64_t)r * ((1u << 31) - slm_high(x, r)) >> 30);
    }
    return r;
}

/** \brief About 2^46 / sqrt(x) for x >= 2^30, within 2^-24 of it: Newton steps in Q30 from the chord 2.13 - 1.215 x. */
static inline uint32_t slm_rsqrt(uint32_t x)
{
    uint32_t r = 2287070085u - slm_high(x, 1304596316u);
    for (uint32_t i = 0; i < 3u; i++) {
        r = (uint32_t)((uint64_t)r * ((3u << 28) - slm_high(x, slm_high(r, r))) >> 29);
    }
    return r;
}

#endif
