#include "slm_attention.h"
#include "slm_math.h"
#include <stddef.h>

/* Weights must add up to less than this, so that 255 times their sum fits 32 bits. */
#define MAX_SUM (UINT32_C(1) << 23)

/* 32767 * 2^(-i / 256) */
static const int16_t exp2_table[256] = {
    32767, 32678, 32590, 32502, 32414, 32326, 32239, 32152, 32065, 31978, 31892, 31805, 31719, 31634, 31548, 31463,
    31378, 31293, 31208, 31124, 31040, 30956, 30872, 30789, 30705, 30622, 30540, 30457, 30375, 30293, 30211, 30129,
    30047, 29966, 29885, 29804, 29724, 29643, 29563, 29483, 29404, 29324, 29245, 29166, 29087, 29008, 28930, 28852,
    28774, 28696, 28618, 28541, 28464, 28387, 28310, 28233, 28157, 28081, 28005, 27929, 27854, 27778, 27703, 27628,
    27554, 27479, 27405, 27331, 27257, 27183, 27110, 27036, 26963, 26890, 26818, 26745, 26673, 26601, 26529, 26457,
    26385, 26314, 26243, 26172, 26101, 26031, 25960, 25890, 25820, 25750, 25681, 25611, 25542, 25473, 25404, 25335,
    25267, 25198, 25130, 25062, 24995, 24927, 24860, 24792, 24725, 24659, 24592, 24525, 24459, 24393, 24327, 24261,
    24196, 24130, 24065, 24000, 23935, 23870, 23806, 23741, 23677, 23613, 23549, 23486, 23422, 23359, 23296, 23233,
    23170, 23107, 23045, 22982, 22920, 22858, 22796, 22735, 22673, 22612, 22551, 22490, 22429, 22368, 22308, 22248,
    22187, 22127, 22068, 22008, 21948, 21889, 21830, 21771, 21712, 21653, 21595, 21536, 21478, 21420, 21362, 21304,
    21247, 21189, 21132, 21075, 21018, 20961, 20904, 20848, 20791, 20735, 20679, 20623, 20568, 20512, 20456, 20401,
    20346, 20291, 20236, 20181, 20127, 20072, 20018, 19964, 19910, 19856, 19802, 19749, 19696, 19642, 19589, 19536,
    19483, 19431, 19378, 19326, 19274, 19221, 19169, 19118, 19066, 19014, 18963, 18912, 18861, 18810, 18759, 18708,
    18657, 18607, 18557, 18506, 18456, 18406, 18357, 18307, 18258, 18208, 18159, 18110, 18061, 18012, 17963, 17915,
    17866, 17818, 17770, 17722, 17674, 17626, 17578, 17531, 17483, 17436, 17389, 17342, 17295, 17248, 17202, 17155,
    17109, 17063, 17016, 16970, 16925, 16879, 16833, 16788, 16742, 16697, 16652, 16607, 16562, 16517, 16472, 16428};

/* Sizes of a head, and how far apart the rows of all heads are. */
typedef struct {
    uint32_t size;
    uint32_t v_size;
    uint32_t k_row;
    uint32_t v_row;
} head_dims;

/* s[j] = score of key j in steps of the exponent; returns the largest. */
static int32_t score_row(int32_t *s, const slm_attention_params *p, const int8_t *q, const int8_t *k,
                         const int16_t *bias, uint32_t keys, const head_dims *dims)
{
    int32_t maximum = INT32_MIN;
    for (uint32_t j = 0; j < keys; j++, k += dims->k_row) {
        int32_t dot = 0;
        for (uint32_t c = 0; c < dims->size; c++) {
            dot += (int32_t)q[c] * k[c];
        }
        s[j] = slm_scale(slm_shift_left(dot, p->shift), p->multiplier, bias == NULL ? 0 : bias[j]);
        maximum = s[j] > maximum ? s[j] : maximum;
    }
    return maximum;
}

/* Turns scores into weights; returns their sum, from 32767 >> 9 to MAX_SUM - 1 for up to 2^17 keys. */
static uint32_t weigh_row(int32_t *s, int32_t maximum, uint32_t keys)
{
    uint32_t sum = 0u;
    for (uint32_t j = 0; j < keys; j++) {
        uint32_t t = (uint32_t)(maximum - s[j]);
        uint32_t halvings = t >> 8;
        uint32_t e = 0u;
        if (halvings < 16u) {
            e = ((uint32_t)exp2_table[t & 255u] + (1u << halvings >> 1)) >> halvings;
        }
        s[j] = (int32_t)e;
        sum += e;
    }
    while (sum >= MAX_SUM) { /* only near-uniform weights of more than 256 keys */
        sum = 0u;
        for (uint32_t j = 0; j < keys; j++) {
            s[j] >>= 1;
            sum += (uint32_t)s[j];
        }
    }
    return sum;
}

/* output = weighted mean of the rows of v */
static void average(int8_t *output, const slm_attention_params *p, const int32_t *weights, uint32_t sum,
                    const int8_t *v, uint32_t keys, const head_dims *dims)
{
    uint32_t zeros = slm_leading_zeros(sum);
    uint64_t product = (uint64_t)slm_reciprocal(sum << zeros) * (uint32_t)p->scale;
    int32_t inverse = (int32_t)(product >> p->scale_shift);
    for (uint32_t d = 0; d < dims->v_size; d++) {
        int32_t acc = -p->v_zero_point * (int32_t)sum;
        const int8_t *value = v + d;
        for (uint32_t j = 0; j < keys; j++, value += dims->v_row) {
            acc += weights[j] * *value;
        }
        /* |acc| < 2^(40 - zeros) */
        int32_t y = slm_scale(slm_shift_left(acc, (int32_t)zeros - 9), inverse, p->offset);
        output[d] = (int8_t)slm_clamp(y >> 8, INT8_MIN, INT8_MAX);
    }
}

void slm_attention_bias_s8(void *scratch, const slm_attention_params *params, const int8_t *q, const int8_t *k,
                           const int8_t *v, const int16_t *bias, int8_t *output, uint32_t rows, uint32_t keys,
                           uint32_t heads, uint32_t kv_heads, uint32_t size, uint32_t v_size, uint32_t causal,
                           uint32_t bias_step, uint32_t bias_columns)
{
    int32_t *s = scratch;
    const head_dims dims = {size, v_size, kv_heads * size, kv_heads * v_size};
    for (uint32_t h = 0; h < heads; h++) {
        uint32_t kv_head = h / (heads / kv_heads);
        for (uint32_t i = 0; i < rows; i++) {
            uint32_t token = causal != 0u ? keys - rows + i : i;
            uint32_t visible = causal != 0u ? token + 1u : keys;
            const int16_t *bias_row = bias == NULL ? NULL : bias + h * bias_step + token * bias_columns;
            int32_t maximum = score_row(s, params, q + (i * heads + h) * size, k + kv_head * size, bias_row, visible,
                                        &dims);
            uint32_t sum = weigh_row(s, maximum, visible);
            average(output + (i * heads + h) * v_size, params, s, sum, v + kv_head * v_size, visible, &dims);
        }
    }
}

void slm_attention_s8(void *scratch, const slm_attention_params *params, const int8_t *q, const int8_t *k,
                      const int8_t *v, int8_t *output, uint32_t rows, uint32_t keys, uint32_t heads, uint32_t kv_heads,
                      uint32_t size, uint32_t v_size, uint32_t causal)
{
    slm_attention_bias_s8(scratch, params, q, k, v, NULL, output, rows, keys, heads, kv_heads, size, v_size, causal, 0u,
                          0u);
}
