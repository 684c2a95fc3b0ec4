#include "slm_layernorm.h"
#include "slm_layout.h"
#include "slm_math.h"
#include <stddef.h>

/* What turns v into (v - mean) * inverse. */
typedef struct {
    int32_t mean;
    int32_t inverse;
} row_norm;

/* scale / sqrt(d), at most 2^31 - 1. */
static int32_t inverse_root(uint64_t d, const slm_layernorm_params *p)
{
    uint32_t half = slm_leading_zeros_64(d) / 2u;
    uint64_t product = (uint64_t)slm_rsqrt((uint32_t)(d << (2u * half) >> 32)) * (uint32_t)p->scale;
    /* r * scale has 61 or 62 bits: from 29 downwards every shift saturates. */
    uint64_t value = product >> slm_clamp(p->scale_shift - (int32_t)half, 29, 63);
    return value < INT32_MAX ? (int32_t)value : INT32_MAX;
}

static row_norm measure(const int16_t *v, uint32_t columns, const slm_layernorm_params *p)
{
    int32_t sum = 0;
    int64_t squares = 0;
    uint32_t left = columns;
    do {
        sum += *v;
        squares += (int32_t)*v * *v;
        v++;
    } while (--left != 0u);
    sum *= p->centre;
    int32_t count = (int32_t)columns;
    uint64_t d = (uint64_t)(count * squares - (int64_t)sum * sum);
    row_norm norm;
    norm.inverse = inverse_root((d >> p->square_shift) + ((uint64_t)p->epsilon << p->epsilon_shift), p);
    /* |v| <= 2^14 where the mean counts: with 2^14 added the sum is not negative and division rounds down. */
    norm.mean = (2 * sum + (1 << 15) * count + count) / (2 * count) - (1 << 14);
    return norm;
}

/* v = input + residual, 16 bits each; an int8 counts as its value times 256. */
SLM_INLINE void add_row(int16_t *v, const slm_layernorm_params *p, const void *input, slm_type input_type,
                        const void *residual, slm_type residual_type, uint32_t start, uint32_t columns)
{
    int32_t weight = p->weight * (input_type == SLM_S8 ? 256 : 1);
    int32_t residual_weight = p->residual_weight * (residual_type == SLM_S8 ? 256 : 1);
    for (uint32_t c = 0; c < columns; c++) {
        int32_t sum = p->offset + weight * slm_load(input, input_type, (int32_t)(start + c));
        if (residual != NULL) {
            sum += residual_weight * slm_load(residual, residual_type, (int32_t)(start + c));
        }
        v[c] = (int16_t)(sum >> 16);
    }
}

SLM_INLINE void normalize(void *scratch, const slm_layernorm_params *params, const void *input, slm_type input_type,
                          const void *residual, slm_type residual_type, const int16_t *gamma, const int32_t *beta,
                          void *output, slm_type output_type, uint32_t rows, uint32_t columns)
{
    int16_t *v = scratch;
    int32_t fraction = output_type == SLM_S8 ? 8 : 0;
    for (uint32_t r = 0; r < rows; r++) {
        add_row(v, params, input, input_type, residual, residual_type, r * columns, columns);
        const row_norm norm = measure(v, columns, params);
        for (uint32_t c = 0; c < columns; c++) {
            int32_t y = slm_scale((v[c] - norm.mean) * gamma[c], norm.inverse, beta[c]) >> fraction;
            slm_store(output, output_type, (int32_t)(r * columns + c), slm_saturate(y, output_type));
        }
    }
}

void slm_layernorm_s8(void *scratch, const slm_layernorm_params *params, const int8_t *input, const int8_t *residual,
                      const int16_t *gamma, const int32_t *beta, int8_t *output, uint32_t rows, uint32_t columns)
{
    normalize(scratch, params, input, SLM_S8, residual, SLM_S8, gamma, beta, output, SLM_S8, rows, columns);
}

void slm_layernorm_s8_s8_s16(void *scratch, const slm_layernorm_params *params, const int8_t *input,
                             const int8_t *residual, const int16_t *gamma, const int32_t *beta, int16_t *output,
                             uint32_t rows, uint32_t columns)
{
    normalize(scratch, params, input, SLM_S8, residual, SLM_S8, gamma, beta, output, SLM_S16, rows, columns);
}

void slm_layernorm_s8_s16_s8(void *scratch, const slm_layernorm_params *params, const int8_t *input,
                             const int16_t *residual, const int16_t *gamma, const int32_t *beta, int8_t *output,
                             uint32_t rows, uint32_t columns)
{
    normalize(scratch, params, input, SLM_S8, residual, SLM_S16, gamma, beta, output, SLM_S8, rows, columns);
}

void slm_layernorm_s8_s16_s16(void *scratch, const slm_layernorm_params *params, const int8_t *input,
                              const int16_t *residual, const int16_t *gamma, const int32_t *beta, int16_t *output,
                              uint32_t rows, uint32_t columns)
{
    normalize(scratch, params, input, SLM_S8, residual, SLM_S16, gamma, beta, output, SLM_S16, rows, columns);
}

void slm_layernorm_s16_s8_s8(void *scratch, const slm_layernorm_params *params, const int16_t *input,
                             const int8_t *residual, const int16_t *gamma, const int32_t *beta, int8_t *output,
                             uint32_t rows, uint32_t columns)
{
    normalize(scratch, params, input, SLM_S16, residual, SLM_S8, gamma, beta, output, SLM_S8, rows, columns);
}

void slm_layernorm_s16_s8_s16(void *scratch, const slm_layernorm_params *params, const int16_t *input,
                              const int8_t *residual, const int16_t *gamma, const int32_t *beta, int16_t *output,
                              uint32_t rows, uint32_t columns)
{
    normalize(scratch, params, input, SLM_S16, residual, SLM_S8, gamma, beta, output, SLM_S16, rows, columns);
}

void slm_layernorm_s16_s16_s8(void *scratch, const slm_layernorm_params *params, const int16_t *input,
                              const int16_t *residual, const int16_t *gamma, const int32_t *beta, int8_t *output,
                              uint32_t rows, uint32_t columns)
{
    normalize(scratch, params, input, SLM_S16, residual, SLM_S16, gamma, beta, output, SLM_S8, rows, columns);
}

void slm_layernorm_s16(void *scratch, const slm_layernorm_params *params, const int16_t *input, const int16_t *residual,
                       const int16_t *gamma, const int32_t *beta, int16_t *output, uint32_t rows, uint32_t columns)
{
    normalize(scratch, params, input, SLM_S16, residual, SLM_S16, gamma, beta, output, SLM_S16, rows, columns);
}
