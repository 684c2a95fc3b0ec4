#include "slm_reduce.h"

typedef enum {
    MEAN,
    SUM,
    MAX,
    MIN
} reduction;

SLM_INLINE int32_t combine(reduction kind, int32_t a, int32_t b)
{
    switch (kind) {
    case MAX:
        return a > b ? a : b;
    case MIN:
        return a < b ? a : b;
    default:
        return a + b;
    }
}

SLM_INLINE void reduce(reduction kind, const slm_reduce_params *params, const void *input, slm_type input_type,
                       void *output, slm_type output_type, uint32_t tokens)
{
    const bool sums = kind == MEAN || kind == SUM;
    const uint32_t count = slm_layout_size(&params->reduced, tokens);
    const int32_t multiplier = slm_divide_multiplier(params->multiplier, kind == MEAN ? count : 1u);
    const int32_t zero = sums ? params->input_zero_point * (int32_t)count : params->input_zero_point;
    slm_walk kept;
    slm_walk reduced;
    slm_walk_begin(&kept, &params->kept, tokens);
    slm_walk_begin(&reduced, &params->reduced, tokens);
    int32_t i = 0;
    do {
        for (int32_t j = 0; j < kept.length; j++, i++) {
            const int32_t start = kept.at + j * kept.step;
            int32_t value = sums ? 0 : slm_load(input, input_type, start);
            do {
                int32_t at = start + reduced.at;
                for (int32_t k = 0; k < reduced.length; k++, at += reduced.step) {
                    value = combine(kind, value, slm_load(input, input_type, at));
                }
            } while (slm_walk_next(&reduced));
            value = slm_rescale(value - zero, multiplier, params->shift, params->zero_point);
            slm_store(output, output_type, i, slm_saturate(value, output_type));
        }
    } while (slm_walk_next(&kept));
}

void slm_reduce_mean_s8(const slm_reduce_params *params, const int8_t *input, int8_t *output, uint32_t tokens)
{
    reduce(MEAN, params, input, SLM_S8, output, SLM_S8, tokens);
}

void slm_reduce_mean_s8_s16(const slm_reduce_params *params, const int8_t *input, int16_t *output, uint32_t tokens)
{
    reduce(MEAN, params, input, SLM_S8, output, SLM_S16, tokens);
}

void slm_reduce_mean_s16_s8(const slm_reduce_params *params, const int16_t *input, int8_t *output, uint32_t tokens)
{
    reduce(MEAN, params, input, SLM_S16, output, SLM_S8, tokens);
}

void slm_reduce_mean_s16(const slm_reduce_params *params, const int16_t *input, int16_t *output, uint32_t tokens)
{
    reduce(MEAN, params, input, SLM_S16, output, SLM_S16, tokens);
}

void slm_reduce_sum_s8(const slm_reduce_params *params, const int8_t *input, int8_t *output, uint32_t tokens)
{
    reduce(SUM, params, input, SLM_S8, output, SLM_S8, tokens);
}

void slm_reduce_sum_s8_s16(const slm_reduce_params *params, const int8_t *input, int16_t *output, uint32_t tokens)
{
    reduce(SUM, params, input, SLM_S8, output, SLM_S16, tokens);
}

void slm_reduce_sum_s16_s8(const slm_reduce_params *params, const int16_t *input, int8_t *output, uint32_t tokens)
{
    reduce(SUM, params, input, SLM_S16, output, SLM_S8, tokens);
}

void slm_reduce_sum_s16(const slm_reduce_params *params, const int16_t *input, int16_t *output, uint32_t tokens)
{
    reduce(SUM, params, input, SLM_S16, output, SLM_S16, tokens);
}

void slm_reduce_max_s8(const slm_reduce_params *params, const int8_t *input, int8_t *output, uint32_t tokens)
{
    reduce(MAX, params, input, SLM_S8, output, SLM_S8, tokens);
}

void slm_reduce_max_s8_s16(const slm_reduce_params *params, const int8_t *input, int16_t *output, uint32_t tokens)
{
    reduce(MAX, params, input, SLM_S8, output, SLM_S16, tokens);
}

void slm_reduce_max_s16_s8(const slm_reduce_params *params, const int16_t *input, int8_t *output, uint32_t tokens)
{
    reduce(MAX, params, input, SLM_S16, output, SLM_S8, tokens);
}

void slm_reduce_max_s16(const slm_reduce_params *params, const int16_t *input, int16_t *output, uint32_t tokens)
{
    reduce(MAX, params, input, SLM_S16, output, SLM_S16, tokens);
}

void slm_reduce_min_s8(const slm_reduce_params *params, const int8_t *input, int8_t *output, uint32_t tokens)
{
    reduce(MIN, params, input, SLM_S8, output, SLM_S8, tokens);
}

void slm_reduce_min_s8_s16(const slm_reduce_params *params, const int8_t *input, int16_t *output, uint32_t tokens)
{
    reduce(MIN, params, input, SLM_S8, output, SLM_S16, tokens);
}

void slm_reduce_min_s16_s8(const slm_reduce_params *params, const int16_t *input, int8_t *output, uint32_t tokens)
{
    reduce(MIN, params, input, SLM_S16, output, SLM_S8, tokens);
}

void slm_reduce_min_s16(const slm_reduce_params *params, const int16_t *input, int16_t *output, uint32_t tokens)
{
    reduce(MIN, params, input, SLM_S16, output, SLM_S16, tokens);
}
