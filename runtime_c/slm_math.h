/**
 * \file slm_math.h
 * \brief The integer arithmetic that all kernels share; docs/NUMERICS.md states it, slm2c/fixedpoint.py specifies it.
 */
#ifndef SLM_MATH_H
#define SLM_MATH_H

#include <stdint.h>

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

#endif
