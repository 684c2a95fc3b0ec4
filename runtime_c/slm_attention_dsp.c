#include "slm_attention.h"
#include "slm_attention_multiply.h"
#include "slm_attention_row.h"
#include "slm_attention_weigh.h"
#include "slm_dsp.h"
#include <stdbool.h>
#include <stddef.h>

#define QUAD SLM_ATTENTION_QUAD
#define BLOCK 4u /* queries whose scores are kept at a time */
#define PAIR 2u  /* queries that are multiplied together */

/* Sizes of a call, and how far apart the rows of all heads are. */
typedef struct {
    uint32_t size;
    uint32_t v_size;
    uint32_t keys;
    uint32_t columns; /* keys, rounded up to quads */
    uint32_t k_row;
    uint32_t v_row;
    uint32_t q_step;
    uint32_t output_step;
} dims_t;

/* The call's scratch memory. */
typedef struct {
    uint32_t *y;     /* queries [BLOCK / PAIR][size / 2][PAIR] */
    int32_t *scores; /* [BLOCK][columns]; later weights [BLOCK / PAIR][words][PAIR], each pair's in its first row */
    uint32_t *k;     /* keys [key_quads][size / 2][QUAD] */
    uint32_t *v;     /* values [value_quads][words][QUAD], of two keys in a word */
    uint32_t key_quads;
    uint32_t value_quads;
    bool whole; /* all keys and values of a head are there; otherwise those in use are, in the same place */
} work_t;

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Words of one query or two, two elements in each as SXTB16 gives them. */
static void expand_queries(uint32_t *out, const int8_t *q, uint32_t step, uint32_t size, uint32_t rows)
{
    const int8_t *const end = q + size;
    if (rows == PAIR) {
        for (const int8_t *other = q + step; q != end; q += QUAD, other += QUAD, out += 2u * PAIR) {
            uint32_t a = slm_load_word(q);
            uint32_t b = slm_load_word(other);
            slm_strd(out, 0, slm_sxtb16(a), slm_sxtb16(b));
            slm_strd(out, 1, slm_sxtb16_ror8(a), slm_sxtb16_ror8(b));
        }
    } else {
        for (; q != end; q += QUAD, out += 2u) {
            uint32_t quad = slm_load_word(q);
            slm_strd(out, 0, slm_sxtb16(quad), slm_sxtb16_ror8(quad));
        }
    }
}

/* Keys in quads; in place of keys behind the last one, which fill the last quad, that one is there. */
static void expand_keys(uint32_t *out, const int8_t *k, uint32_t count, const dims_t *dims)
{
    for (uint32_t j = 0; j < count; j += QUAD, k += QUAD * dims->k_row) {
        uint32_t last = smaller(count - j, QUAD) - 1u;
        const int8_t *k0 = k;
        const int8_t *k1 = k + smaller(last, 1u) * dims->k_row;
        const int8_t *k2 = k + smaller(last, 2u) * dims->k_row;
        const int8_t *k3 = k + last * dims->k_row;
        for (const int8_t *end = k0 + dims->size; k0 != end; out += 2u * QUAD) {
            uint32_t a = slm_load_word(k0);
            uint32_t b = slm_load_word(k1);
            uint32_t c = slm_load_word(k2);
            uint32_t d = slm_load_word(k3);
            slm_strd(out, 0, slm_sxtb16(a), slm_sxtb16(b));
            slm_strd(out, 1, slm_sxtb16(c), slm_sxtb16(d));
            slm_strd(out, 2, slm_sxtb16_ror8(a), slm_sxtb16_ror8(b));
            slm_strd(out, 3, slm_sxtb16_ror8(c), slm_sxtb16_ror8(d));
            k0 += QUAD;
            k1 += QUAD;
            k2 += QUAD;
            k3 += QUAD;
        }
    }
}

/* Four values of two keys, both of one value in a word. */
SLM_INLINE void pair_values(uint32_t *out, const int8_t *first, const int8_t *second)
{
    uint32_t a = slm_load_word(first);
    uint32_t b = slm_load_word(second);
    uint32_t a_odd = slm_sxtb16_ror8(a);
    uint32_t b_odd = slm_sxtb16_ror8(b);
    a = slm_sxtb16(a);
    b = slm_sxtb16(b);
    out[0] = slm_pack_lower(a, b);
    out[1] = slm_pack_lower(a_odd, b_odd);
    out[2] = slm_pack_upper(a, b);
    out[3] = slm_pack_upper(a_odd, b_odd);
}

SLM_INLINE void pack_pair(uint32_t *out, const int8_t *first, const int8_t *second)
{
    uint32_t values[QUAD];
    pair_values(values, first, second);
    slm_strd(out, 0, values[0], values[1]);
    slm_strd(out, 1, values[2], values[3]);
}

/* `quads` quads of the values of `keys` keys. */
static void pack_values(uint32_t *out, const int8_t *v, uint32_t keys, uint32_t quads, const dims_t *dims)
{
    const uint32_t step = dims->v_row;
    for (uint32_t d = 0; d < quads; d++) {
        const int8_t *value = v + QUAD * d;
        for (const int8_t *end = value + keys / 2u * 2u * step; value != end; value += 2u * step, out += QUAD) {
            pack_pair(out, value, value + step);
        }
        if (keys % 2u != 0u) {
            pack_pair(out, value, value); /* the weight of the second one is 0 */
            out += QUAD;
        }
    }
}

/* `product` for up to four rows, whose y is `y_step` apart for a pair, terms `terms_step`, and outputs `step` bytes for
 * each. */
static void multiply(const slm_attention_product *first, uint32_t y_step, uint32_t terms_step, uint32_t rows,
                     uint32_t narrow, uint8_t *out, uint32_t step)
{
    slm_attention_product product = *first;
    for (; rows >= PAIR; rows -= PAIR) {
        slm_attention_multiply_two(&product, narrow, out, out + step);
        product.y += y_step;
        product.terms += terms_step;
        out += PAIR * step;
    }
    if (rows != 0u) {
        slm_attention_multiply_one(&product, narrow, out);
    }
}

/* Scores of `rows` queries and the first `keys` keys. */
static void score(const work_t *w, const slm_attention_terms *terms, const int8_t *q, const int8_t *k, uint32_t rows,
                  uint32_t keys, const dims_t *dims)
{
    slm_attention_product product = {w->k, NULL, w->y, dims->size / 2u, terms};
    for (uint32_t r = 0; r < rows; r += PAIR) {
        expand_queries(w->y + r * product.words, q + r * dims->q_step, dims->q_step, dims->size,
                       smaller(rows - r, PAIR));
    }
    for (uint32_t j = 0; j < keys; j += QUAD * w->key_quads) {
        uint32_t count = smaller(keys - j, QUAD * w->key_quads);
        if (!w->whole) {
            expand_keys(w->k, k + j * dims->k_row, count, dims);
        }
        product.x_end = product.x + (count + QUAD - 1u) / QUAD * QUAD * product.words;
        multiply(&product, PAIR * product.words, 0u, rows, 0u, (uint8_t *)(w->scores + j),
                 dims->columns * sizeof(int32_t));
    }
}

/* Scores of a query that no other one shares the keys with: expanding them would cost more than it saves. */
static void score_one(const work_t *w, const slm_attention_terms *terms, const int8_t *q, const int8_t *k,
                      uint32_t keys, const dims_t *dims)
{
    const slm_mean_scale scale = terms->row[0];
    expand_queries(w->y, q, 0u, dims->size, 1u);
    for (uint32_t j = 0; j < keys; j += 2u) {
        const int8_t *first = k + j * dims->k_row;
        const int8_t *second = j + 1u < keys ? first + dims->k_row : first;
        int32_t sums[2] = {0, 0};
        const int32_t *y = (const int32_t *)w->y;
        for (const int32_t *end = y + dims->size / 2u; y != end; y += 2, first += QUAD, second += QUAD) {
            int32_t even, odd;
            slm_ldrd(y, 0, &even, &odd);
            uint32_t a = slm_load_word(first);
            uint32_t b = slm_load_word(second);
            sums[0] = slm_smlad(slm_sxtb16(a), (uint32_t)even, sums[0]);
            sums[1] = slm_smlad(slm_sxtb16(b), (uint32_t)even, sums[1]);
            sums[0] = slm_smlad(slm_sxtb16_ror8(a), (uint32_t)odd, sums[0]);
            sums[1] = slm_smlad(slm_sxtb16_ror8(b), (uint32_t)odd, sums[1]);
        }
        w->scores[j] = slm_smmlar(slm_shift_left(sums[0], scale.shift), scale.inverse, SLM_SCORE_OFFSET);
        w->scores[j + 1u] = slm_smmlar(slm_shift_left(sums[1], scale.shift), scale.inverse, SLM_SCORE_OFFSET);
    }
}

SLM_INLINE void add_pair(int32_t *sums, uint32_t weights, const int8_t *first, const int8_t *second)
{
    uint32_t values[QUAD];
    pair_values(values, first, second);
    SLM_UNROLL
    for (uint32_t i = 0; i < QUAD; i++) {
        sums[i] = slm_smlad(values[i], weights, sums[i]);
    }
}

/* The weighted mean of the values for one query. */
static void average_one(const work_t *w, const slm_attention_terms *terms, const int8_t *v, int8_t *output,
                        uint32_t keys, const dims_t *dims)
{
    const slm_mean_scale scale = terms->row[0];
    for (uint32_t d = 0; d < dims->v_size; d += QUAD) {
        const uint32_t *weights = (const uint32_t *)w->scores;
        const int8_t *value = v + d;
        int32_t sums[QUAD];
        SLM_UNROLL
        for (uint32_t i = 0; i < QUAD; i++) {
            sums[i] = terms->start[0][i];
        }
        for (const uint32_t *end = weights + keys / 2u; weights != end; weights++, value += 2u * dims->v_row) {
            add_pair(sums, *weights, value, value + dims->v_row);
        }
        if (keys % 2u != 0u) {
            add_pair(sums, *weights, value, value); /* the weight of the second one is 0 */
        }
        SLM_UNROLL
        for (uint32_t i = 0; i < QUAD; i++) {
            int32_t y = slm_smmlar(slm_shift_left(sums[i], scale.shift), scale.inverse, terms->offset);
            output[d + i] = (int8_t)slm_ssat8_asr8(y);
        }
    }
}

/* What divides by the sum of weights. */
SLM_INLINE void set_terms(slm_mean_scale *scale, int32_t *start, const slm_attention_params *p, uint32_t sum)
{
    *scale = slm_mean_scale_of(p, sum);
    start[0] = -p->v_zero_point * (int32_t)sum;
    start[1] = start[0];
    start[2] = start[0];
    start[3] = start[0];
}

/* Weights of `rows` queries, of which the first one sees `visible` keys, and each one `more` than the one before. */
static void weigh(const work_t *w, slm_attention_terms *terms, const slm_attention_params *p, const int16_t *bias,
                  uint32_t bias_columns, uint32_t rows, uint32_t visible, uint32_t more, const dims_t *dims)
{
    const uint32_t words = (visible + (rows - 1u) * more + 1u) / 2u;
    int32_t *scores = w->scores;
    uint32_t *weights = (uint32_t *)scores;
    for (uint32_t left = rows; left != 0u; left--) {
        const uint32_t second = (rows - left) % PAIR;
        const uint32_t step = second + left == 1u ? 1u : PAIR;
        uint32_t sum = slm_attention_weigh(scores, bias, visible, weights + second, step, words);
        set_terms(&terms->row[second], terms->start[second], p, sum);
        terms->offset = p->offset;
        terms += second;
        weights += second * PAIR * dims->columns;
        scores += dims->columns;
        visible += more;
        bias = bias == NULL ? NULL : bias + bias_columns;
    }
}

/* Weighted means of the values of the first `keys` keys. */
static void average(const work_t *w, const slm_attention_terms *terms, const int8_t *v, int8_t *output, uint32_t rows,
                    uint32_t keys, const dims_t *dims)
{
    const uint32_t words = (keys + 1u) / 2u;
    const uint32_t stride = w->whole ? (dims->keys + 1u) / 2u : words;
    slm_attention_product product = {w->v, NULL, (const uint32_t *)w->scores, words, terms};
    for (uint32_t d = 0; d < dims->v_size; d += QUAD * w->value_quads) {
        uint32_t quads = smaller((dims->v_size - d) / QUAD, w->value_quads);
        uint32_t run = stride == words ? quads : 1u;
        if (!w->whole) {
            pack_values(w->v, v + d, keys, quads, dims);
        }
        product.x = w->v;
        for (uint32_t i = 0; i < quads; i += run) {
            product.x_end = product.x + run * QUAD * words;
            multiply(&product, PAIR * dims->columns, 1u, rows, 1u, (uint8_t *)output + d + QUAD * i, dims->output_step);
            product.x += run * QUAD * stride;
        }
    }
}

static work_t divide_scratch(void *scratch, const dims_t *dims)
{
    const uint32_t words = (dims->keys + 1u) / 2u;
    const uint32_t of_keys = dims->columns * dims->size / 2u;
    work_t w;
    w.y = scratch;
    w.scores = (int32_t *)scratch + BLOCK / 2u * dims->size;
    w.k = (uint32_t *)w.scores + BLOCK * dims->columns;
    w.whole = of_keys + words * dims->v_size <= SLM_ATTENTION_CACHE;
    if (w.whole) {
        w.v = w.k + of_keys;
        w.key_quads = dims->columns / QUAD;
        w.value_quads = dims->v_size / QUAD;
    } else {
        w.v = w.k;
        w.key_quads = larger(SLM_ATTENTION_CACHE / (2u * dims->size), 1u);
        w.value_quads = larger(SLM_ATTENTION_CACHE / (QUAD * words), 1u);
    }
    return w;
}

void slm_attention_dsp_s8(void *scratch, const slm_attention_params *params, const int8_t *q, const int8_t *k,
                          const int8_t *v, const int16_t *bias, int8_t *output, uint32_t rows, uint32_t keys,
                          uint32_t heads, uint32_t kv_heads, uint32_t size, uint32_t v_size, uint32_t q_step,
                          uint32_t output_step, uint32_t causal, uint32_t bias_step, uint32_t bias_columns)
{
    const dims_t dims = {
        size, v_size, keys, (keys + QUAD - 1u) / QUAD * QUAD, kv_heads * size, kv_heads * v_size, q_step, output_step,
    };
    const work_t w = divide_scratch(scratch, &dims);
    const slm_mean_scale scale = {params->shift, params->multiplier};
    const slm_attention_terms of_scores = {{scale, scale}, SLM_SCORE_OFFSET, {{0}}};
    const uint32_t first = causal != 0u ? keys - rows : 0u; /* token of the first query */
    const int8_t *held = NULL;                              /* keys of the head that is there as a whole */
    for (uint32_t h = 0; h < heads; h++) {
        uint32_t kv_head = h / (heads / kv_heads);
        const int8_t *k_head = k + kv_head * size;
        const int8_t *v_head = v + kv_head * v_size;
        if (w.whole && rows > 1u && held != k_head) {
            held = k_head;
            expand_keys(w.k, k_head, keys, &dims);
            pack_values(w.v, v_head, keys, v_size / QUAD, &dims);
        }
        for (uint32_t i = 0; i < rows; i += BLOCK) {
            const uint32_t count = smaller(rows - i, BLOCK);
            const uint32_t seen = causal != 0u ? first + i + count : keys; /* by the last query */
            const bool alone = rows == 1u || (count == 1u && !w.whole);
            const int8_t *query = q + i * q_step + h * size;
            int8_t *out = output + i * output_step + h * v_size;
            slm_attention_terms terms[BLOCK / PAIR];
            if (alone) {
                score_one(&w, &of_scores, query, k_head, seen, &dims);
            } else {
                score(&w, &of_scores, query, k_head, count, seen, &dims);
            }
            weigh(&w, terms, params, bias == NULL ? NULL : bias + h * bias_step + (first + i) * bias_columns,
                  bias_columns, count, causal != 0u ? first + i + 1u : keys, causal != 0u ? 1u : 0u, &dims);
            if (alone) {
                average_one(&w, terms, v_head, out, seen, &dims);
            } else {
                average(&w, terms, v_head, out, count, seen, &dims);
            }
        }
    }
}
