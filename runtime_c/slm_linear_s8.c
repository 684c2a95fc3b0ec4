#include "slm_linear.h"
#include "slm_math.h"
#include <stddef.h>

static int32_t dot(const int8_t *a, const int8_t *table, const int8_t *b, uint32_t count, int32_t sum)
{
    if (table == NULL) {
        for (uint32_t k = 0; k < count; k++) {
            sum += (int32_t)a[k] * b[k];
        }
    } else {
        for (uint32_t k = 0; k < count; k++) {
            sum += (int32_t)table[a[k] + 128] * b[k];
        }
    }
    return sum;
}

static int32_t requantize(int32_t acc, int32_t multiplier, const slm_linear_params *p)
{
    return slm_clamp(slm_scale(slm_shift_left(acc, p->shift), multiplier, p->zero_point), p->minimum, p->maximum);
}

void slm_linear_s8(void *scratch, const slm_linear_params *params, const int32_t *multiplier, const int8_t *input,
                   const int8_t *table, const int8_t *weights, const int32_t *bias, int8_t *output, uint32_t rows,
                   uint32_t in_features, uint32_t out_features, uint32_t output_step)
{
    (void)scratch;
    for (uint32_t r = 0; r < rows; r++, input += in_features, output += output_step) {
        for (uint32_t o = 0; o < out_features; o++) {
            int32_t acc = dot(input, table, weights + o * in_features, in_features, bias[o]);
            output[o] = (int8_t)requantize(acc, multiplier[o], params);
        }
    }
}

void slm_linear_s8_s16(void *scratch, const slm_linear_params *params, const int32_t *multiplier, const int8_t *input,
                       const int8_t *table, const int8_t *weights, const int32_t *bias, int16_t *output, uint32_t rows,
                       uint32_t in_features, uint32_t out_features, uint32_t output_step)
{
    (void)scratch;
    for (uint32_t r = 0; r < rows; r++, input += in_features, output += output_step) {
        for (uint32_t o = 0; o < out_features; o++) {
            int32_t acc = dot(input, table, weights + o * in_features, in_features, bias[o]);
            output[o] = (int16_t)requantize(acc, multiplier[o], params);
        }
    }
}
