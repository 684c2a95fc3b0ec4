#include "slm_dsp.h"
#include "slm_layernorm_row.h"

#define QUAD 4u

/* Four elements as 16 bits, 0 and 2 in `even`, 1 and 3 in `odd`; an int8 as its value times 256. */
typedef struct {
    uint32_t even;
    uint32_t odd;
} quad_t;

SLM_INLINE quad_t load_quad(const void *data, slm_type type, uint32_t mask)
{
    quad_t quad;
    if (type == SLM_S8) {
        uint32_t word = slm_load_word((const int8_t *)data);
        quad.even = word << 8 & mask;
        quad.odd = word & mask;
    } else {
        uint32_t first = slm_load_halves((const int16_t *)data);
        uint32_t second = slm_load_halves((const int16_t *)data + 2);
        quad.even = slm_pack_lower(first, second);
        quad.odd = slm_pack_upper(first, second);
    }
    return quad;
}

/* The v of whole quads, two in a word, up to v_end. */
SLM_INLINE slm_row_sums add_quads(int32_t *v, const int32_t *v_end, const slm_layernorm_params *p, const void *input,
                                  slm_type input_type, const void *residual, slm_type residual_type)
{
    const uint32_t weights = (uint32_t)p->weight | (uint32_t)p->residual_weight << 16;
    const int32_t offset = p->offset;
    const uint32_t mask = slm_in_register(0xFF00FF00u); /* ANDS shifts what it takes with a mask in a register */
    const int8_t *x_at = input;
    const int8_t *r_at = residual;
    slm_row_sums sums = {0, 0};
    for (; v != v_end; v += 2) {
        quad_t x = load_quad(x_at, input_type, mask);
        quad_t r = load_quad(r_at, residual_type, mask);
        x_at += input_type == SLM_S8 ? QUAD : 2u * QUAD;
        r_at += residual_type == SLM_S8 ? QUAD : 2u * QUAD;
        int32_t v0 = slm_smlad(slm_pack_lower(x.even, r.even), weights, offset);
        int32_t v2 = slm_smlad(slm_pack_upper(x.even, r.even), weights, offset);
        int32_t v1 = slm_smlad(slm_pack_lower(x.odd, r.odd), weights, offset);
        int32_t v3 = slm_smlad(slm_pack_upper(x.odd, r.odd), weights, offset);
        uint32_t first = slm_pack_upper((uint32_t)v0, (uint32_t)v1);
        uint32_t second = slm_pack_upper((uint32_t)v2, (uint32_t)v3);
        slm_strd((uint32_t *)v, 0, first, second);
        sums.sum = slm_smlad(first, 0x00010001u, sums.sum);
        sums.squares = slm_smlald(first, first, sums.squares);
        sums.sum = slm_smlad(second, 0x00010001u, sums.sum);
        sums.squares = slm_smlald(second, second, sums.squares);
    }
    return sums;
}

/* Outputs of whole quads. */
SLM_INLINE void normalize_quads(void *output, slm_type type, const int32_t *v, slm_row_norm norm, const int16_t *gamma,
                                const int32_t *beta, uint32_t start, uint32_t count)
{
    const uint32_t mean = slm_pack_lower((uint32_t)norm.mean, (uint32_t)norm.mean);
    const int32_t inverse = norm.inverse;
    int8_t *narrow = (int8_t *)output + start;
    int16_t *wide = (int16_t *)output + start;
    for (const int32_t *end = v + count / 2u; v != end; v += 2, gamma += QUAD, beta += QUAD) {
        int32_t first, second, b0, b1, b2, b3;
        slm_ldrd(v, 0, &first, &second);
        slm_ldrd(beta, 0, &b0, &b1);
        slm_ldrd(beta, 1, &b2, &b3);
        uint32_t g01 = slm_load_halves(gamma);
        uint32_t g23 = slm_load_halves(gamma + 2);
        uint32_t d01 = slm_ssub16((uint32_t)first, mean);
        uint32_t d23 = slm_ssub16((uint32_t)second, mean);
        int32_t y0 = slm_smmlar(slm_smulbb(d01, g01), inverse, b0);
        int32_t y1 = slm_smmlar(slm_smultt(d01, g01), inverse, b1);
        int32_t y2 = slm_smmlar(slm_smulbb(d23, g23), inverse, b2);
        int32_t y3 = slm_smmlar(slm_smultt(d23, g23), inverse, b3);
        if (type == SLM_S8) {
            slm_store_word(
                narrow, slm_pack_bytes(slm_ssat8_asr8(y0), slm_ssat8_asr8(y1), slm_ssat8_asr8(y2), slm_ssat8_asr8(y3)));
            narrow += QUAD;
        } else {
            slm_store_word(wide, slm_pack_lower((uint32_t)slm_ssat_16(y0), (uint32_t)slm_ssat_16(y1)));
            slm_store_word(wide + 2, slm_pack_lower((uint32_t)slm_ssat_16(y2), (uint32_t)slm_ssat_16(y3)));
            wide += QUAD;
        }
    }
}

void slm_layernorm_dsp(void *scratch, const slm_layernorm_params *params, const void *input, const void *residual,
                       const int16_t *gamma, const int32_t *beta, void *output, uint32_t rows, uint32_t columns,
                       uint32_t input_type, uint32_t residual_type, uint32_t output_type)
{
    const uint32_t quads = columns / QUAD * QUAD;
    const slm_type x_type = (slm_type)input_type;
    const slm_type y_type = (slm_type)output_type;
    const void *r = residual == NULL ? input : residual; /* its weight is 0 then */
    const slm_type r_type = residual == NULL ? x_type : (slm_type)residual_type;
    int16_t *v = scratch;
    const int32_t *v_end = (const int32_t *)scratch + quads / 2u;
    for (uint32_t i = 0; i < rows * columns; i += columns) {
        const int8_t *x_row = (const int8_t *)input + (x_type == SLM_S8 ? i : 2u * i);
        const int8_t *r_row = (const int8_t *)r + (r_type == SLM_S8 ? i : 2u * i);
        slm_row_sums sums;
        if (x_type == SLM_S8 && r_type == SLM_S8) {
            sums = add_quads(scratch, v_end, params, x_row, SLM_S8, r_row, SLM_S8);
        } else if (x_type == SLM_S8) {
            sums = add_quads(scratch, v_end, params, x_row, SLM_S8, r_row, SLM_S16);
        } else if (r_type == SLM_S8) {
            sums = add_quads(scratch, v_end, params, x_row, SLM_S16, r_row, SLM_S8);
        } else {
            sums = add_quads(scratch, v_end, params, x_row, SLM_S16, r_row, SLM_S16);
        }
        for (uint32_t c = quads; c < columns; c++) {
            v[c] = (int16_t)slm_layernorm_add(params, input, x_type, r, r_type, i + c);
            sums.sum += v[c];
            sums.squares += (int32_t)v[c] * v[c];
        }
        const slm_row_norm norm = slm_row_norm_of(sums, columns, params);
        if (y_type == SLM_S8) {
            normalize_quads(output, SLM_S8, scratch, norm, gamma, beta, i, quads);
        } else {
            normalize_quads(output, SLM_S16, scratch, norm, gamma, beta, i, quads);
        }
        for (uint32_t c = quads; c < columns; c++) {
            int32_t y = slm_smmlar((v[c] - norm.mean) * gamma[c], norm.inverse, beta[c]);
            slm_store(output, y_type, (int32_t)(i + c), y_type == SLM_S8 ? slm_ssat8_asr8(y) : slm_ssat_16(y));
        }
    }
}
