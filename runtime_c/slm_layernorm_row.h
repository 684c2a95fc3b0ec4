/**
 * \file slm_layernorm_row.h
 * \brief What the kernels of slm_layernorm.h share; specified by slm2c/ops/layernorm.py.
 */
#ifndef SLM_LAYERNORM_ROW_H
#define SLM_LAYERNORM_ROW_H

#include "slm_layernorm.h"
#include "slm_math.h"

/** Of the v of a row. */
typedef struct {
    int32_t sum;
    int64_t squares;
} slm_row_sums;

/** What turns v into (v - mean) * inverse. */
typedef struct {
    int32_t mean;
    int32_t inverse;
} slm_row_norm;

/** \brief scale / sqrt(d), at most 2^31 - 1. */
static inline int32_t slm_inverse_root(uint64_t d, const slm_layernorm_params *p)
{
    uint32_t half = slm_leading_zeros_64(d) / 2u;
    uint64_t product = (uint64_t)slm_rsqrt((uint32_t)(d << (2u * half) >> 32)) * (uint32_t)p->scale;
    /* r * scale has 61 or 62 bits: from 29 downwards every shift saturates. */
    uint64_t value = product >> slm_clamp(p->scale_shift - (int32_t)half, 29, 63);
    return value < INT32_MAX ? (int32_t)value : INT32_MAX;
}

/** \brief Mean and deviation of a row. */
static inline slm_row_norm slm_row_norm_of(slm_row_sums sums, uint32_t columns, const slm_layernorm_params *p)
{
    int32_t sum = sums.sum * p->centre;
    int32_t count = (int32_t)columns;
    uint64_t d = (uint64_t)(count * sums.squares - (int64_t)sum * sum);
    slm_row_norm norm;
    norm.inverse = slm_inverse_root((d >> p->square_shift) + ((uint64_t)p->epsilon << p->epsilon_shift), p);
    /* |v| <= 2^14 where the mean counts: with 2^14 added the sum is not negative and division rounds down. */
    norm.mean = (2 * sum + (1 << 15) * count + count) / (2 * count) - (1 << 14);
    return norm;
}

#endif
