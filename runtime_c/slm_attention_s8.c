#include "slm_attention.h"
#include "slm_attention_row.h"
#include <stddef.h>

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

/* Turns scores into weights; returns their sum, from 32767 >> 9 to SLM_MAX_SUM - 1 for up to 2^17 keys. */
static uint32_t weigh_row(int32_t *s, int32_t maximum, uint32_t keys)
{
    uint32_t sum = 0u;
    for (uint32_t j = 0; j < keys; j++) {
        uint32_t e = slm_exp2((uint32_t)(maximum - s[j]));
        s[j] = (int32_t)e;
        sum += e;
    }
    while (sum >= SLM_MAX_SUM) { /* only near-uniform weights of more than 256 keys */
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
    const slm_mean_scale scale = slm_mean_scale_of(p, sum);
    for (uint32_t d = 0; d < dims->v_size; d++) {
        int32_t acc = -p->v_zero_point * (int32_t)sum;
        const int8_t *value = v + d;
        for (uint32_t j = 0; j < keys; j++, value += dims->v_row) {
            acc += weights[j] * *value;
        }
        /* |acc| < 2^(31 - scale.shift) */
        int32_t y = slm_scale(slm_shift_left(acc, scale.shift), scale.inverse, p->offset);
        output[d] = (int8_t)slm_clamp(y >> 8, INT8_MIN, INT8_MAX);
    }
}

void slm_attention_bias_s8(void *scratch, const slm_attention_params *params, const int8_t *q, const int8_t *k,
                           const int8_t *v, const int16_t *bias, int8_t *output, uint32_t rows, uint32_t keys,
                           uint32_t heads, uint32_t kv_heads, uint32_t size, uint32_t v_size, uint32_t q_step,
                           uint32_t output_step, uint32_t causal, uint32_t bias_step, uint32_t bias_columns)
{
    int32_t *s = scratch;
    const head_dims dims = {size, v_size, kv_heads * size, kv_heads * v_size};
    for (uint32_t h = 0; h < heads; h++) {
        uint32_t kv_head = h / (heads / kv_heads);
        for (uint32_t i = 0; i < rows; i++) {
            uint32_t token = causal != 0u ? keys - rows + i : i;
            uint32_t visible = causal != 0u ? token + 1u : keys;
            const int16_t *bias_row = bias == NULL ? NULL : bias + h * bias_step + token * bias_columns;
            int32_t maximum = score_row(s, params, q + i * q_step + h * size, k + kv_head * size, bias_row, visible,
                                        &dims);
            uint32_t sum = weigh_row(s, maximum, visible);
            average(output + i * output_step + h * v_size, params, s, sum, v + kv_head * v_size, visible, &dims);
        }
    }
}

void slm_attention_s8(void *scratch, const slm_attention_params *params, const int8_t *q, const int8_t *k,
                      const int8_t *v, int8_t *output, uint32_t rows, uint32_t keys, uint32_t heads, uint32_t kv_heads,
                      uint32_t size, uint32_t v_size, uint32_t q_step, uint32_t output_step, uint32_t causal)
{
    slm_attention_bias_s8(scratch, params, q, k, v, NULL, output, rows, keys, heads, kv_heads, size, v_size, q_step,
                          output_step, causal, 0u, 0u);
}
