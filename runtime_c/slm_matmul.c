#include "slm_matmul.h"

SLM_INLINE void matmul(const slm_matmul_params *params, const int8_t *a, const int8_t *b, void *output, slm_type type,
                       uint32_t rows, uint32_t inner, uint32_t columns, uint32_t tokens)
{
    const int32_t zero_a = params->a_zero_point;
    const int32_t zero_b = params->b_zero_point;
    slm_walk left;
    slm_walk right;
    slm_walk_begin(&left, &params->a_matrices, tokens);
    slm_walk_begin(&right, &params->b_matrices, tokens);
    int32_t i = 0;
    do {
        const int8_t *row = a + left.at;
        for (uint32_t r = 0; r < rows; r++, row += inner) {
            for (uint32_t c = 0; c < columns; c++) {
                const int8_t *column = b + right.at + c;
                int32_t sum = 0;
                for (uint32_t k = 0; k < inner; k++) {
                    sum += (row[k] - zero_a) * (column[k * columns] - zero_b);
                }
                const int32_t value = slm_scale(slm_shift_left_saturate(sum, params->shift), params->multiplier,
                                                params->zero_point);
                slm_store(output, type, i, slm_saturate(value, type));
                i++;
            }
        }
    } while (slm_walk_next(&left) && slm_walk_next(&right)); /* both visit every matrix of the output */
}

void slm_matmul_s8(const slm_matmul_params *params, const int8_t *a, const int8_t *b, int8_t *output, uint32_t rows,
                   uint32_t inner, uint32_t columns, uint32_t tokens)
{
    matmul(params, a, b, output, SLM_S8, rows, inner, columns, tokens);
}

void slm_matmul_s8_s16(const slm_matmul_params *params, const int8_t *a, const int8_t *b, int16_t *output,
                       uint32_t rows, uint32_t inner, uint32_t columns, uint32_t tokens)
{
    matmul(params, a, b, output, SLM_S16, rows, inner, columns, tokens);
}
