#include "slm_layernorm_row.h"
#include "slm_layout.h"
#include <stddef.h>

static slm_row_norm measure(const int16_t *v, uint32_t columns, const slm_layernorm_params *p)
{
    slm_row_sums sums = {0, 0};
    uint32_t left = columns;
    do {
        sums.sum += *v;
        sums.squares += (int32_t)*v * *v;
        v++;
    } while (--left != 0u);
    return slm_row_norm_of(sums, columns, p);
}

SLM_INLINE void normalize(void *scratch, const slm_layernorm_params *params, const void *input, slm_type input_type,
                          const void *residual, slm_type residual_type, const int16_t *gamma, const int32_t *beta,
                          void *output, slm_type output_type, uint32_t rows, uint32_t columns)
{
    int16_t *v = scratch;
    /* An int8 counts as its value times 256. */
    const int32_t weight = params->weight * (input_type == SLM_S8 ? 256 : 1);
    const int32_t residual_weight = params->residual_weight * (residual_type == SLM_S8 ? 256 : 1);
    const int32_t fraction = output_type == SLM_S8 ? 8 : 0;
    for (uint32_t i = 0; i < rows * columns; i += columns) {
        for (uint32_t c = 0; c < columns; c++) {
            int32_t sum = params->offset + weight * slm_load(input, input_type, (int32_t)(i + c));
            if (residual != NULL) {
                sum += residual_weight * slm_load(residual, residual_type, (int32_t)(i + c));
            }
            v[c] = (int16_t)(sum >> 16);
        }
        const slm_row_norm norm = measure(v, columns, params);
        for (uint32_t c = 0; c < columns; c++) {
            int32_t y = slm_scale((v[c] - norm.mean) * gamma[c], norm.inverse, beta[c]) >> fraction;
            slm_store(output, output_type, (int32_t)(i + c), slm_saturate(y, output_type));
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
