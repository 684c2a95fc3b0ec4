#include "slm_attention_weigh.h"
#include "slm_attention_row.h"
#include "slm_dsp.h"
#include <stddef.h>

/*
 * A maximum in two instructions: the largest score so far is kept less 2^31, so that QSUB of a score saturates at -2^31
 * unless that score is smaller. Hence scores must not be negative.
 */
#define NO_SCORE INT32_MIN

/* A score that weighs 0 beside any other. Not 0: for that, compilers call memset. */
#define MASKED 1

SLM_INLINE int32_t larger(int32_t largest, int32_t score)
{
    return score + slm_qsub(largest, score);
}

static inline int32_t add_bias(int32_t *s, const int16_t *bias, uint32_t count)
{
    int32_t largest = NO_SCORE;
    for (const int32_t *end = s + count; s != end; s++, bias++) {
        *s += *bias;
        largest = larger(largest, *s);
    }
    return largest;
}

/* Of the even and the odd ones apart: QSUB has a latency. */
static inline int32_t largest_of(const int32_t *s, const int32_t *end, uint32_t odd)
{
    int32_t even_largest = NO_SCORE;
    int32_t odd_largest = NO_SCORE;
    int32_t a, b, c, d;
    if (odd != 0u) {
        slm_ldrd_next(&s, &a, &b);
        even_largest = larger(even_largest, a);
        odd_largest = larger(odd_largest, b);
    }
    while (s != end) {
        slm_ldrd_next(&s, &a, &b);
        slm_ldrd_next(&s, &c, &d);
        even_largest = larger(larger(even_largest, a), c);
        odd_largest = larger(larger(odd_largest, b), d);
    }
    return larger(even_largest, (int32_t)((uint32_t)odd_largest ^ (UINT32_C(1) << 31)));
}

/*
 * The weights of two scores, `from` being the largest one + 256: with one halving more, of twice as much, there is always
 * a bit that LSRS rounds by. 31 halvings leave 0, whatever the steps between them.
 */
SLM_INLINE uint32_t weights_of(int32_t from, int32_t even, int32_t odd)
{
    const int32_t below = from - even;
    const int32_t above = from - odd;
    const uint32_t high = slm_lsr_round(slm_exp2_table[(uint32_t)above & 255u], slm_usat5_asr8(above));
    return slm_lsr_round_below(slm_exp2_table[(uint32_t)below & 255u], slm_usat5_asr8(below), high);
}

uint32_t slm_attention_weigh(int32_t *scores, const int16_t *bias, uint32_t visible, uint32_t *weights, uint32_t step,
                             uint32_t words)
{
    int32_t *const end = scores + 2u * words;
    for (int32_t *s = scores + visible; s < end; s++) {
        *s = MASKED;
    }
    const int32_t largest = bias != NULL ? add_bias(scores, bias, visible) : largest_of(scores, end, words % 2u);
    const int32_t from = (int32_t)((uint32_t)largest + (UINT32_C(1) << 31) + 256u);
    const int32_t *s = scores;
    uint32_t *w = weights;
    int32_t sum = 0;
    int32_t a, b, c, d;
    if (words % 2u != 0u) {
        slm_ldrd_next(&s, &a, &b);
        *w = weights_of(from, a, b);
        sum = slm_smlad(*w, 0x00010001u, sum);
        w += step;
    }
    while (s != end) {
        slm_ldrd_next(&s, &a, &b);
        slm_ldrd_next(&s, &c, &d);
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
