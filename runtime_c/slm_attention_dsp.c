#include "slm_attention.h"
#include "slm_attention_row.h"
#include "slm_dsp.h"
#include <stdbool.h>
#include <stddef.h>

#define QUAD 4u     /* elements in a word of int8 */
#define MAX_ROWS 2u /* queries that go through the keys and values together */

/* Sizes of a head, and how far apart the rows of all heads are. */
typedef struct {
    uint32_t size;
    uint32_t v_size;
    uint32_t q_row;
    uint32_t k_row;
    uint32_t v_row;
    uint32_t output_row;
    uint32_t keys;  /* that are visible */
    uint32_t words; /* of weights in a row, two a word */
} head_dims;

/* The call's scratch memory. */
typedef struct {
    uint32_t *q;       /* [size / 2][MAX_ROWS] queries in 16 bits */
    int32_t *scores;   /* [MAX_ROWS][keys] */
    uint32_t *weights; /* [MAX_ROWS][words], two in a word, the one of the even key below */
} work;

/* Write a quad of elements of each query as two words of each. */
SLM_INLINE void expand_queries(uint32_t *x, const int8_t *q, const head_dims *dims, uint32_t rows)
{
    for (uint32_t c = 0; c < dims->size; c += QUAD, x += 2u * rows) {
        SLM_UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            uint32_t quad = slm_load_word(q + r * dims->q_row + c);
            x[r] = slm_sxtb16(quad);
            x[rows + r] = slm_sxtb16_ror8(quad);
        }
    }
}

/* Products of the queries with two keys. */
SLM_INLINE void dot(int32_t *first, int32_t *second, const uint32_t *x, const int8_t *k0, const int8_t *k1,
                    uint32_t size, uint32_t rows)
{
    SLM_UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        first[r] = 0;
        second[r] = 0;
    }
    for (const int8_t *end = k0 + size; k0 != end; k0 += QUAD, k1 += QUAD, x += 2u * rows) {
        uint32_t a = slm_load_word(k0);
        uint32_t b = slm_load_word(k1);
        uint32_t a_odd = slm_sxtb16_ror8(a);
        uint32_t b_odd = slm_sxtb16_ror8(b);
        a = slm_sxtb16(a);
        b = slm_sxtb16(b);
        SLM_UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            first[r] = slm_smlad(a_odd, x[rows + r], slm_smlad(a, x[r], first[r]));
            second[r] = slm_smlad(b_odd, x[rows + r], slm_smlad(b, x[r], second[r]));
        }
    }
}

/* Scores of the queries with all keys, in steps of the exponent, and the largest of each query. */
SLM_INLINE void score(const work *w, int32_t *maximum, const slm_attention_params *p, const int8_t *k,
                      const int16_t *bias, uint32_t bias_columns, const head_dims *dims, uint32_t rows)
{
    SLM_UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        maximum[r] = INT32_MIN;
    }
    for (uint32_t j = 0; j < dims->keys; j += 2u) {
        int32_t sums[2][MAX_ROWS];
        uint32_t count = j + 1u < dims->keys ? 2u : 1u;
        const int8_t *key = k + j * dims->k_row;
        dot(sums[0], sums[1], w->q, key, count == 2u ? key + dims->k_row : key, dims->size, rows);
        for (uint32_t i = 0; i < count; i++) {
            SLM_UNROLL
            for (uint32_t r = 0; r < rows; r++) {
                int32_t offset = bias == NULL ? 0 : bias[r * bias_columns + j + i];
                int32_t s = slm_smmlar(slm_shift_left(sums[i][r], p->shift), p->multiplier, offset);
                w->scores[r * dims->keys + j + i] = s;
                maximum[r] = s > maximum[r] ? s : maximum[r];
            }
        }
    }
}

/* Turns the scores of a query into weights, 0 behind the last key; returns their sum, less than SLM_MAX_SUM. */
static uint32_t weigh(uint32_t *weights, const int32_t *s, int32_t maximum, const head_dims *dims)
{
    uint32_t sum = 0u;
    uint32_t i = 0u;
    for (; i < dims->keys / 2u; i++, s += 2) {
        uint32_t even = slm_exp2((uint32_t)(maximum - s[0]));
        uint32_t odd = slm_exp2((uint32_t)(maximum - s[1]));
        weights[i] = even | odd << 16;
        sum += even + odd;
    }
    if (i < dims->words) {
        weights[i] = slm_exp2((uint32_t)(maximum - s[0]));
        sum += weights[i];
    }
    while (sum >= SLM_MAX_SUM) { /* only near-uniform weights of more than 256 keys */
        sum = 0u;
        for (i = 0u; i < dims->words; i++) {
            weights[i] = weights[i] >> 1 & 0x7FFF7FFFu;
            sum += (weights[i] & 0xFFFFu) + (weights[i] >> 16);
        }
    }
    return sum;
}

/* sums[r][0..3] += weights times four elements of the values, two keys at a time. */
SLM_INLINE void add_values(int32_t (*sums)[QUAD], const uint32_t *weights, const int8_t *v, const head_dims *dims,
                           uint32_t rows)
{
    const uint32_t *const end = weights + dims->words;
    const uint32_t *const last = dims->keys % 2u != 0u ? end - 1 : end;
    for (; weights != end; weights++, v += 2u * dims->v_row) {
        uint32_t a = slm_load_word(v);
        uint32_t b = slm_load_word(weights == last ? v : v + dims->v_row); /* its weight is 0 */
        uint32_t a_odd = slm_sxtb16_ror8(a);
        uint32_t b_odd = slm_sxtb16_ror8(b);
        a = slm_sxtb16(a);
        b = slm_sxtb16(b);
        const uint32_t pairs[QUAD] = {slm_pack_lower(a, b), slm_pack_lower(a_odd, b_odd), slm_pack_upper(a, b),
                                      slm_pack_upper(a_odd, b_odd)};
        SLM_UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            uint32_t weight = weights[r * dims->words];
            SLM_UNROLL
            for (uint32_t i = 0; i < QUAD; i++) {
                sums[r][i] = slm_smlad(pairs[i], weight, sums[r][i]);
            }
        }
    }
}

/* Weighted means of the values. */
SLM_INLINE void average(int8_t *output, const work *w, const slm_attention_params *p, const uint32_t *sum,
                        const int8_t *v, const head_dims *dims, uint32_t rows)
{
    slm_mean_scale scale[MAX_ROWS];
    SLM_UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        scale[r] = slm_mean_scale_of(p, sum[r]);
    }
    for (uint32_t d = 0; d < dims->v_size; d += QUAD) {
        int32_t sums[MAX_ROWS][QUAD];
        SLM_UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            SLM_UNROLL
            for (uint32_t i = 0; i < QUAD; i++) {
                sums[r][i] = -p->v_zero_point * (int32_t)sum[r];
            }
        }
        add_values(sums, w->weights, v + d, dims, rows);
        SLM_UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            SLM_UNROLL
            for (uint32_t i = 0; i < QUAD; i++) {
                int32_t y = slm_smmlar(slm_shift_left(sums[r][i], scale[r].shift), scale[r].inverse, p->offset);
                output[r * dims->output_row + d + i] = (int8_t)slm_clamp(y >> 8, INT8_MIN, INT8_MAX);
            }
        }
    }
}

/* One head of `rows` queries, a constant, which see the same keys. */
SLM_INLINE void attend(const work *w, const slm_attention_params *p, const int8_t *q, const int8_t *k, const int8_t *v,
                       const int16_t *bias, uint32_t bias_columns, int8_t *output, const head_dims *dims, uint32_t rows)
{
    int32_t maximum[MAX_ROWS];
    uint32_t sum[MAX_ROWS];
    expand_queries(w->q, q, dims, rows);
    score(w, maximum, p, k, bias, bias_columns, dims, rows);
    SLM_UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        sum[r] = weigh(w->weights + r * dims->words, w->scores + r * dims->keys, maximum[r], dims);
    }
    average(output, w, p, sum, v, dims, rows);
}

void slm_attention_dsp_s8(void *scratch, const slm_attention_params *params, const int8_t *q, const int8_t *k,
                          const int8_t *v, const int16_t *bias, int8_t *output, uint32_t rows, uint32_t keys,
                          uint32_t heads, uint32_t kv_heads, uint32_t size, uint32_t v_size, uint32_t causal,
                          uint32_t bias_step, uint32_t bias_columns)
{
    head_dims dims = {size, v_size, heads * size, kv_heads * size, kv_heads * v_size, heads * v_size, keys, 0u};
    work w = {scratch, NULL, NULL};
    w.scores = (int32_t *)scratch + size / 2u * MAX_ROWS;
    w.weights = (uint32_t *)scratch + size / 2u * MAX_ROWS + keys * MAX_ROWS;
    for (uint32_t h = 0; h < heads; h++) {
        uint32_t kv_head = h / (heads / kv_heads);
        const int8_t *k_head = k + kv_head * size;
        const int8_t *v_head = v + kv_head * v_size;
        for (uint32_t i = 0; i < rows;) {
            uint32_t token = causal != 0u ? keys - rows + i : i;
            const int8_t *query = q + (i * heads + h) * size;
            const int16_t *bias_row = bias == NULL ? NULL : bias + h * bias_step + token * bias_columns;
            int8_t *out = output + (i * heads + h) * v_size;
            dims.keys = causal != 0u ? token + 1u : keys;
            dims.words = (dims.keys + 1u) / 2u;
            if (causal != 0u || i + 1u == rows) {
                attend(&w, params, query, k_head, v_head, bias_row, bias_columns, out, &dims, 1u);
                i += 1u;
            } else {
                attend(&w, params, query, k_head, v_head, bias_row, bias_columns, out, &dims, 2u);
                i += 2u;
            }
        }
    }
}
