#include "slm_dsp.h"
#include "slm_layernorm_row.h"
#include "slm_layout.h"
#include <stdbool.h>
#include <stddef.h>

#define QUAD 4u
#define ONES 0x00010001u

/* Four elements as 16 bits, 0 and 2 in `even`, 1 and 3 in `odd`; an int8 as its value times 256. */
typedef struct {
    uint32_t even;
    uint32_t odd;
} quad_t;

SLM_INLINE quad_t load_quad(const int8_t *at, slm_type type, uint32_t mask)
{
    quad_t quad;
    if (type == SLM_S8) {
        uint32_t word = slm_load_word(at);
        quad.even = word << 8 & mask;
        quad.odd = word & mask;
    } else {
        uint32_t first = slm_load_word(at);
        uint32_t second = slm_load_word(at + QUAD);
        quad.even = slm_pack_lower(first, second);
        quad.odd = slm_pack_upper(first, second);
    }
    return quad;
}

/* The v of a row, two in a word, up to v_end. */
SLM_INLINE slm_row_sums add_row(int32_t *v, const int32_t *v_end, const slm_layernorm_params *p, const int8_t *x,
                                slm_type x_type, const int8_t *r, slm_type r_type)
{
    const uint32_t weights = (uint32_t)p->weight | (uint32_t)p->residual_weight << 16;
    const int32_t offset = p->offset;
    const uint32_t mask = slm_in_register(0xFF00FF00u); /* only with that, AND shifts its other operand */
    slm_row_sums sums = {0, 0};
    for (; v != v_end; v += 2) {
        quad_t a = load_quad(x, x_type, mask);
        quad_t b = load_quad(r, r_type, mask);
        x += x_type == SLM_S8 ? QUAD : 2u * QUAD;
        r += r_type == SLM_S8 ? QUAD : 2u * QUAD;
        int32_t v0 = slm_smlad(slm_pack_lower(a.even, b.even), weights, offset);
        int32_t v2 = slm_smlad(slm_pack_upper(a.even, b.even), weights, offset);
        int32_t v1 = slm_smlad(slm_pack_lower(a.odd, b.odd), weights, offset);
        int32_t v3 = slm_smlad(slm_pack_upper(a.odd, b.odd), weights, offset);
        uint32_t first = slm_pack_upper((uint32_t)v0, (uint32_t)v1);
        uint32_t second = slm_pack_upper((uint32_t)v2, (uint32_t)v3);
        slm_strd((uint32_t *)v, 0, first, second);
        sums.sum = slm_smlad(first, ONES, sums.sum);
        sums.squares = slm_smlald(first, first, sums.squares);
        sums.sum = slm_smlad(second, ONES, sums.sum);
        sums.squares = slm_smlald(second, second, sums.squares);
    }
    return sums;
}

/* The outputs of a row. */
SLM_INLINE void normalize_row(int8_t *y, slm_type type, const int32_t *v, const int32_t *v_end, slm_row_norm norm,
                              const int16_t *gamma, const int32_t *beta)
{
    const uint32_t mean = slm_pack_lower((uint32_t)norm.mean, (uint32_t)norm.mean);
    const int32_t inverse = norm.inverse;
    for (; v != v_end; v += 2, gamma += QUAD, beta += QUAD) {
        int32_t first, second, b0, b1, b2, b3;
        uint32_t g01, g23;
        slm_ldrd(v, 0, &first, &second);
        slm_ldrd_halves(gamma, &g01, &g23);
        slm_ldrd(beta, 0, &b0, &b1);
        slm_ldrd(beta, 1, &b2, &b3);
        uint32_t d01 = slm_ssub16((uint32_t)first, mean);
        uint32_t d23 = slm_ssub16((uint32_t)second, mean);
        int32_t y0 = slm_smmlar(slm_smulbb(d01, g01), inverse, b0);
        int32_t y1 = slm_smmlar(slm_smultt(d01, g01), inverse, b1);
        int32_t y2 = slm_smmlar(slm_smulbb(d23, g23), inverse, b2);
        int32_t y3 = slm_smmlar(slm_smultt(d23, g23), inverse, b3);
        if (type == SLM_S8) {
            slm_store_word(
                y, slm_pack_bytes(slm_ssat8_asr8(y0), slm_ssat8_asr8(y1), slm_ssat8_asr8(y2), slm_ssat8_asr8(y3)));
            y += QUAD;
        } else {
            slm_store_word(y, slm_pack_lower((uint32_t)slm_ssat_16(y0), (uint32_t)slm_ssat_16(y1)));
            slm_store_word(y + QUAD, slm_pack_lower((uint32_t)slm_ssat_16(y2), (uint32_t)slm_ssat_16(y3)));
            y += 2u * QUAD;
        }
    }
}

void slm_layernorm_dsp(void *scratch, const slm_layernorm_params *params, const void *input, const void *residual,
                       const int16_t *gamma, const int32_t *beta, void *output, uint32_t rows, uint32_t columns,
                       uint32_t input_type, uint32_t residual_type, uint32_t output_type)
{
    int32_t *const v = scratch;
    const int32_t *const v_end = v + columns / 2u;
    const bool x_narrow = input_type == SLM_S8;
    const bool r_narrow = residual == NULL ? x_narrow : residual_type == SLM_S8;
    const bool y_narrow = output_type == SLM_S8;
    const int8_t *x = input;
    const int8_t *r = residual == NULL ? input : residual; /* its weight is 0 then */
    int8_t *y = output;
    for (uint32_t i = 0; i < rows; i++) {
        slm_row_sums sums;
        if (x_narrow && r_narrow) {
            sums = add_row(v, v_end, params, x, SLM_S8, r, SLM_S8);
        } else if (x_narrow) {
            sums = add_row(v, v_end, params, x, SLM_S8, r, SLM_S16);
        } else if (r_narrow) {
            sums = add_row(v, v_end, params, x, SLM_S16, r, SLM_S8);
        } else {
            sums = add_row(v, v_end, params, x, SLM_S16, r, SLM_S16);
        }
        const slm_row_norm norm = slm_row_norm_of(sums, columns, params);
        if (y_narrow) {
            normalize_row(y, SLM_S8, v, v_end, norm, gamma, beta);
        } else {
            normalize_row(y, SLM_S16, v, v_end, norm, gamma, beta);
        }
        x += x_narrow ? columns : 2u * columns;
        r += r_narrow ? columns : 2u * columns;
        y += y_narrow ? columns : 2u * columns;
    }
}
