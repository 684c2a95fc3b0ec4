#include "slm_attention_weigh.h"
#include "slm_attention_row.h"
#include "slm_dsp.h"
#include <stddef.h>

/* A score that weighs 0 beside any other: those are within 2^29 + 2^15. */
#define MASKED (-(INT32_C(1) << 30))

/* The larger one. */
SLM_INLINE int32_t larger(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static inline int32_t add_bias(int32_t *s, const int16_t *bias, uint32_t count)
{
    int32_t maximum = INT32_MIN;
    for (const int32_t *end = s + count; s != end; s++, bias++) {
        *s += *bias;
        maximum = larger(maximum, *s);
    }
    return maximum;
}

static inline int32_t largest(const int32_t *s, uint32_t count)
{
    const int32_t *end = s + count;
    int32_t maximum = INT32_MIN;
    for (uint32_t i = 0; i < count % 4u; i++) {
        maximum = larger(maximum, *s++);
    }
    for (; s != end; s += 4) {
        int32_t a, b, c, d;
        slm_ldrd(s, 0, &a, &b);
        slm_ldrd(s, 1, &c, &d);
        maximum = larger(larger(larger(larger(maximum, a), b), c), d);
    }
    return maximum;
}

/* slm_exp2(from - 256 - score): with one halving more, of twice as much, there is always a bit that LSRS rounds by. */
SLM_INLINE uint32_t weight(int32_t from, int32_t score)
{
    uint32_t steps = slm_usat13(from - score);
    return slm_lsr_round(slm_exp2_table[steps & 255u], steps >> 8);
}

SLM_INLINE uint32_t weights_of(int32_t from, int32_t even, int32_t odd)
{
    return slm_pack_lower(weight(from, even), weight(from, odd));
}

uint32_t slm_attention_weigh(int32_t *scores, const int16_t *bias, uint32_t visible, uint32_t *weights, uint32_t step,
                             uint32_t words)
{
    const int32_t from = 256 + (bias != NULL ? add_bias(scores, bias, visible) : largest(scores, visible));
    const int32_t *const end = scores + 2u * words;
    for (int32_t *s = scores + visible; s < end; s++) {
        *s = MASKED;
    }
    const int32_t *s = scores;
    uint32_t *w = weights;
    int32_t sum = 0;
    if (words % 2u != 0u) {
        *w = weights_of(from, s[0], s[1]);
        sum = slm_smlad(*w, 0x00010001u, sum);
        w += step;
        s += 2;
    }
    for (; s != end; s += 4) {
        int32_t a, b, c, d;
        slm_ldrd(s, 0, &a, &b);
        slm_ldrd(s, 1, &c, &d);
        uint32_t first = weights_of(from, a, b);
        uint32_t second = weights_of(from, c, d);
        sum = slm_smlad(first, 0x00010001u, sum);
        sum = slm_smlad(second, 0x00010001u, sum);
        w[0] = first;
        w[step] = second;
        w += 2u * step;
    }
    while ((uint32_t)sum >= SLM_MAX_SUM) { /* only near-uniform weights of more than 256 keys */
        w = weights;
        sum = 0;
        for (uint32_t i = 0; i < words; i++, w += step) {
            *w = *w >> 1 & 0x7FFF7FFFu;
            sum = slm_smlad(*w, 0x00010001u, sum);
        }
    }
    return (uint32_t)sum;
}
