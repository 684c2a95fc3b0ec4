#include "slm_mul.h"

SLM_INLINE void mul(const slm_mul_params *params, const slm_layout *layout, const int8_t *x, const void *y,
                    slm_type y_type, void *output, slm_type output_type, uint32_t tokens)
{
    const slm_mul_params p = *params;
    slm_walk walk;
    slm_walk_begin(&walk, layout, tokens);
    const int32_t length = walk.length;
    const int32_t step = walk.step;
    int32_t i = 0;
    do {
        int32_t at = walk.at;
        for (const int32_t end = i + length; i < end; i++, at += step) {
            const int32_t product = (x[i] - p.x_zero_point) * (slm_load(y, y_type, at) - p.y_zero_point);
            const int32_t value = slm_scale(slm_shift_left_saturate(product, p.shift), p.multiplier, p.zero_point);
            slm_store(output, output_type, i, slm_saturate(value, output_type));
        }
    } while (slm_walk_next(&walk));
}

void slm_mul_s8(const slm_mul_params *params, const slm_layout *layout, const int8_t *x, const int8_t *y,
                int8_t *output, uint32_t tokens)
{
    mul(params, layout, x, y, SLM_S8, output, SLM_S8, tokens);
}

void slm_mul_s8_s8_s16(const slm_mul_params *params, const slm_layout *layout, const int8_t *x, const int8_t *y,
                       int16_t *output, uint32_t tokens)
{
    mul(params, layout, x, y, SLM_S8, output, SLM_S16, tokens);
}

void slm_mul_s8_s16_s8(const slm_mul_params *params, const slm_layout *layout, const int8_t *x, const int16_t *y,
                       int8_t *output, uint32_t tokens)
{
    mul(params, layout, x, y, SLM_S16, output, SLM_S8, tokens);
}

void slm_mul_s8_s16_s16(const slm_mul_params *params, const slm_layout *layout, const int8_t *x, const int16_t *y,
                        int16_t *output, uint32_t tokens)
{
    mul(params, layout, x, y, SLM_S16, output, SLM_S16, tokens);
}
