#include "slm_concat.h"

SLM_INLINE void append(const slm_concat_part *part, int32_t zero_point, const void *input, slm_type input_type,
                       int32_t start, int32_t length, void *output, slm_type output_type, int32_t at)
{
    const slm_concat_part p = *part;
    for (int32_t i = 0; i < length; i++) {
        const int32_t x = slm_load(input, input_type, start + i) - p.zero_point;
        const int32_t value = slm_scale(slm_shift_left_saturate(x, p.shift), p.multiplier, zero_point);
        slm_store(output, output_type, at + i, slm_saturate(value, output_type));
    }
}

SLM_INLINE void concat(const slm_concat_params *params, const void *const *inputs, uint32_t count, void *output,
                       slm_type type, uint32_t tokens)
{
    const int32_t outer = slm_extent_at(params->outer, tokens);
    int32_t at = 0;
    for (int32_t o = 0; o < outer; o++) {
        for (uint32_t k = 0; k < count; k++) {
            const slm_concat_part *part = &params->part[k];
            const int32_t length = slm_extent_at(part->length, tokens);
            const int32_t start = o * length;
            if (part->copy != 0) {
                for (int32_t i = 0; i < length; i++) {
                    slm_store(output, type, at + i, slm_load(inputs[k], type, start + i));
                }
            } else if (part->wide != 0) {
                append(part, params->zero_point, inputs[k], SLM_S16, start, length, output, type, at);
            } else {
                append(part, params->zero_point, inputs[k], SLM_S8, start, length, output, type, at);
            }
            at += length;
        }
    }
}

static void concat_s8(const slm_concat_params *params, const void *const *inputs, uint32_t count, int8_t *output,
                      uint32_t tokens)
{
    concat(params, inputs, count, output, SLM_S8, tokens);
}

static void concat_s16(const slm_concat_params *params, const void *const *inputs, uint32_t count, int16_t *output,
                       uint32_t tokens)
{
    concat(params, inputs, count, output, SLM_S16, tokens);
}

void slm_concat2_s8(const slm_concat_params *params, const void *a, const void *b, int8_t *output, uint32_t tokens)
{
    const void *const inputs[] = {a, b};
    concat_s8(params, inputs, 2u, output, tokens);
}

void slm_concat2_s16(const slm_concat_params *params, const void *a, const void *b, int16_t *output, uint32_t tokens)
{
    const void *const inputs[] = {a, b};
    concat_s16(params, inputs, 2u, output, tokens);
}

void slm_concat3_s8(const slm_concat_params *params, const void *a, const void *b, const void *c, int8_t *output,
                    uint32_t tokens)
{
    const void *const inputs[] = {a, b, c};
    concat_s8(params, inputs, 3u, output, tokens);
}

void slm_concat3_s16(const slm_concat_params *params, const void *a, const void *b, const void *c, int16_t *output,
                     uint32_t tokens)
{
    const void *const inputs[] = {a, b, c};
    concat_s16(params, inputs, 3u, output, tokens);
}

void slm_concat4_s8(const slm_concat_params *params, const void *a, const void *b, const void *c, const void *d,
                    int8_t *output, uint32_t tokens)
{
    const void *const inputs[] = {a, b, c, d};
    concat_s8(params, inputs, 4u, output, tokens);
}

void slm_concat4_s16(const slm_concat_params *params, const void *a, const void *b, const void *c, const void *d,
                     int16_t *output, uint32_t tokens)
{
    const void *const inputs[] = {a, b, c, d};
    concat_s16(params, inputs, 4u, output, tokens);
}
