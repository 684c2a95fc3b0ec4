#include "slm_add.h"

SLM_INLINE void add(const slm_add_params *params, const slm_layout *layout, const void *x, slm_type x_type,
                    const void *y, slm_type y_type, void *output, slm_type output_type, uint32_t tokens)
{
    const slm_add_params p = *params;
    slm_walk walk;
    slm_walk_begin(&walk, layout, tokens);
    const int32_t length = walk.length;
    const int32_t step = walk.step;
    int32_t i = 0;
    do {
        int32_t at = walk.at;
        for (const int32_t end = i + length; i < end; i++, at += step) {
            const int32_t sum = p.a * slm_load(x, x_type, i) + p.b * slm_load(y, y_type, at) + p.c;
            slm_store(output, output_type, i, slm_clamp(sum >> p.shift, p.minimum, p.maximum));
        }
    } while (slm_walk_next(&walk));
}

void slm_add_s8(const slm_add_params *params, const slm_layout *layout, const int8_t *x, const int8_t *y,
                int8_t *output, uint32_t tokens)
{
    add(params, layout, x, SLM_S8, y, SLM_S8, output, SLM_S8, tokens);
}

void slm_add_s8_s8_s16(const slm_add_params *params, const slm_layout *layout, const int8_t *x, const int8_t *y,
                       int16_t *output, uint32_t tokens)
{
    add(params, layout, x, SLM_S8, y, SLM_S8, output, SLM_S16, tokens);
}

void slm_add_s8_s16_s8(const slm_add_params *params, const slm_layout *layout, const int8_t *x, const int16_t *y,
                       int8_t *output, uint32_t tokens)
{
    add(params, layout, x, SLM_S8, y, SLM_S16, output, SLM_S8, tokens);
}

void slm_add_s8_s16_s16(const slm_add_params *params, const slm_layout *layout, const int8_t *x, const int16_t *y,
                        int16_t *output, uint32_t tokens)
{
    add(params, layout, x, SLM_S8, y, SLM_S16, output, SLM_S16, tokens);
}

void slm_add_s16_s8_s8(const slm_add_params *params, const slm_layout *layout, const int16_t *x, const int8_t *y,
                       int8_t *output, uint32_t tokens)
{
    add(params, layout, x, SLM_S16, y, SLM_S8, output, SLM_S8, tokens);
}

void slm_add_s16_s8_s16(const slm_add_params *params, const slm_layout *layout, const int16_t *x, const int8_t *y,
                        int16_t *output, uint32_t tokens)
{
    add(params, layout, x, SLM_S16, y, SLM_S8, output, SLM_S16, tokens);
}

void slm_add_s16_s16_s8(const slm_add_params *params, const slm_layout *layout, const int16_t *x, const int16_t *y,
                        int8_t *output, uint32_t tokens)
{
    add(params, layout, x, SLM_S16, y, SLM_S16, output, SLM_S8, tokens);
}

void slm_add_s16(const slm_add_params *params, const slm_layout *layout, const int16_t *x, const int16_t *y,
                 int16_t *output, uint32_t tokens)
{
    add(params, layout, x, SLM_S16, y, SLM_S16, output, SLM_S16, tokens);
}
