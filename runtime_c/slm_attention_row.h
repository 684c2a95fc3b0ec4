/**
 * \file slm_attention_row.h
 * \brief What the attention kernels share; specified by slm2c/ops/attention.py.
 */
#ifndef SLM_ATTENTION_ROW_H
#define SLM_ATTENTION_ROW_H

#include "slm_attention.h"
#include "slm_math.h"

/** Weights must add up to less than this, so that 255 times their sum fits 32 bits. */
#define SLM_MAX_SUM (UINT32_C(1) << 23)

/** Twice 32767 * 2^(-i / 256), rounded */
extern const uint16_t slm_exp2_table[256];

/** \brief 32767 * 2^(-steps / 256), rounded; 0 from 16 halvings on. */
SLM_INLINE uint32_t slm_exp2(uint32_t steps)
{
    uint32_t halvings = steps >> 8;
    if (halvings >= 16u) {
        return 0u;
    }
    return (slm_exp2_table[steps & 255u] + (1u << halvings)) >> (halvings + 1u);
}

/** output = (sum << shift) * inverse / 2^40, and the offset */
typedef struct {
    int32_t shift;
    int32_t inverse;
} slm_mean_scale;

/** \brief What divides by a sum of weights, which is not 0 and less than SLM_MAX_SUM. */
static inline slm_mean_scale slm_mean_scale_of(const slm_attention_params *p, uint32_t sum)
{
    uint32_t zeros = slm_leading_zeros(sum);
    uint32_t inverse = slm_high(slm_reciprocal(sum << zeros), (uint32_t)p->scale) >> (p->scale_shift - 32);
    return (slm_mean_scale){(int32_t)zeros - 9, (int32_t)inverse};
}

#endif
