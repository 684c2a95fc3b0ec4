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
        uint32_t last = (count - j < QUAD ? count - j : QUAD) - 1u;
        const int8_t *k0 = k;
        const int8_t *k1 = k + (last < 1u ? last : 1u) * dims->k_row;
        const int8_t *k2 = k + (last < 2u ? last : 2u) * dims->k_row;
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

/* Four values of two keys. */
SLM_INLINE void pack_pair(uint32_t *out, const int8_t *first, const int8_t *second)
{
    uint32_t a = slm_load_word(first);
    uint32_t b = slm_load_word(second);
    uint32_t a_odd = slm_sxtb16_ror8(a);
    uint32_t b_odd = slm_sxtb16_ror8(b);
    a = slm_sxtb16(a);
    b = slm_sxtb16(b);
    slm_strd(out, 0, slm_pack_lower(a, b), slm_pack_lower(a_odd, b_odd));
    slm_strd(out, 1, slm_pack_upper(a, b), slm_pack_upper(a_odd, b_odd));
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

/* `quads` quads of columns, one or two rows. */
static void multiply(slm_attention_product *product, uint32_t quads, uint32_t narrow, uint8_t *out, uint32_t step,
                     uint32_t rows)
{
    product->x_end = product->x + quads * product->words * QUAD;
    if (rows == PAIR) {
        slm_attention_multiply_two(product, narrow, out, out + step);
    } else {
        slm_attention_multiply_one(product, narrow, out);
    }
}

/* Scores of `rows` queries and the first `keys` keys. */
static void score(const work_t *w, const slm_attention_params *p, const int8_t *q, const int8_t *k, uint32_t rows,
                  uint32_t keys, const dims_t *dims)
{
    static const int32_t zeros[PAIR * QUAD];
    const slm_mean_scale one = {p->shift, p->multiplier};
    const slm_attention_scale scale = {{one, one}, 0};
    slm_attention_product product = {w->k, NULL, NULL, dims->size / 2u, zeros, &scale};
    for (uint32_t r = 0; r < rows; r += PAIR) {
        expand_queries(w->y + r * product.words, q + r * dims->q_step, dims->q_step, dims->size,
                       rows - r < PAIR ? 1u : PAIR);
    }
    for (uint32_t j = 0; j < keys; j += QUAD * w->key_quads) {
        uint32_t count = keys - j < QUAD * w->key_quads ? keys - j : QUAD * w->key_quads;
        if (!w->whole) {
            expand_keys(w->k, k + j * dims->k_row, count, dims);
        }
        for (uint32_t r = 0; r < rows; r += PAIR) {
            product.y = w->y + r * product.words;
            multiply(&product, (count + QUAD - 1u) / QUAD, 0u, (uint8_t *)(w->scores + r * dims->columns + j),
                     dims->columns * sizeof(int32_t), rows - r < PAIR ? 1u : PAIR);
        }
    }
}

/* Means of the values of the first `keys` keys; `sums` are those of the weights. */
static void average(const work_t *w, const slm_attention_params *p, const uint32_t *sums, const int8_t *v,
                    int8_t *output, uint32_t rows, uint32_t keys, const dims_t *dims)
{
    const uint32_t words = (keys + 1u) / 2u;
    const uint32_t stride = w->whole ? (dims->keys + 1u) / 2u : words;
    int32_t start[BLOCK][QUAD];
    slm_attention_scale scale[BLOCK / PAIR];
    for (uint32_t r = 0; r < rows; r++) {
        int32_t zero = -p->v_zero_point * (int32_t)sums[r];
        scale[r / PAIR].row[r % PAIR] = slm_mean_scale_of(p, sums[r]);
        scale[r / PAIR].offset = p->offset;
        for (uint32_t i = 0; i < QUAD; i++) {
            start[r][i] = zero;
        }
    }
    for (uint32_t d = 0; d < dims->v_size; d += QUAD * w->value_quads) {
        uint32_t left = (dims->v_size - d) / QUAD;
        uint32_t quads = left < w->value_quads ? left : w->value_quads;
        uint32_t run = stride == words ? quads : 1u;
        if (!w->whole) {
            pack_values(w->v, v + d, keys, quads, dims);
        }
        for (uint32_t r = 0; r < rows; r += PAIR) {
            slm_attention_product product = {
                w->v, NULL, (const uint32_t *)w->scores + r * dims->columns, words, start[r], &scale[r / PAIR],
            };
            for (uint32_t i = 0; i < quads; i += run) {
                multiply(&product, run, 1u, (uint8_t *)output + r * dims->output_step + d + QUAD * i, dims->output_step,
                         rows - r < PAIR ? 1u : PAIR);
                product.x += run * stride * QUAD;
            }
        }
    }
}

static uint32_t at_least_one(uint32_t count)
{
    return count == 0u ? 1u : count;
}

static work_t divide_scratch(void *scratch, const dims_t *dims)
{
    const uint32_t words = (dims->keys + 1u) / 2u;
    const uint32_t of_keys = dims->columns * dims->size / 2u;
    work_t w;
    w.y = scratch;
    w.scores = (int32_t *)scratch + BLOCK / 2u * dims->size;
    w.k = (uint32_t *)scratch + BLOCK / 2u * dims->size + BLOCK * dims->columns;
    w.whole = of_keys + words * dims->v_size <= SLM_ATTENTION_CACHE;
    if (w.whole) {
        w.v = w.k + of_keys;
        w.key_quads = dims->columns / QUAD;
        w.value_quads = dims->v_size / QUAD;
    } else {
        w.v = w.k;
        w.key_quads = at_least_one(SLM_ATTENTION_CACHE / (2u * dims->size));
        w.value_quads = at_least_one(SLM_ATTENTION_CACHE / (QUAD * words));
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
    const uint32_t first = causal != 0u ? keys - rows : 0u; /* token of the first query */
    const int8_t *held = NULL;                              /* keys of the head that is there as a whole */
    for (uint32_t h = 0; h < heads; h++) {
        uint32_t kv_head = h / (heads / kv_heads);
        const int8_t *k_head = k + kv_head * size;
        const int8_t *v_head = v + kv_head * v_size;
        if (w.whole && held != k_head) {
            held = k_head;
            expand_keys(w.k, k_head, keys, &dims);
            pack_values(w.v, v_head, keys, v_size / QUAD, &dims);
        }
        for (uint32_t i = 0; i < rows; i += BLOCK) {
            uint32_t count = rows - i < BLOCK ? rows - i : BLOCK;
            uint32_t seen = causal != 0u ? first + i + count : keys; /* by the last query */
            uint32_t sums[BLOCK];
            score(&w, params, q + i * q_step + h * size, k_head, count, seen, &dims);
            for (uint32_t r = 0; r < count; r++) {
                uint32_t token = first + i + r;
                const int16_t *bias_row = bias == NULL ? NULL : bias + h * bias_step + token * bias_columns;
                uint32_t *weights = (uint32_t *)w.scores + r / PAIR * PAIR * dims.columns + r % PAIR;
                uint32_t step = count - r / PAIR * PAIR < PAIR ? 1u : PAIR;
                sums[r] = slm_attention_weigh(w.scores + r * dims.columns, bias_row, causal != 0u ? token + 1u : keys,
                                              weights, step, (seen + 1u) / 2u);
            }
            average(&w, params, sums, v_head, output + i * output_step + h * v_size, count, seen, &dims);
        }
    }
}
