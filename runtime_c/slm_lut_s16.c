#include "slm_lut.h"
#include "slm_math.h"

/* 128 times the function: |sum| <= 128 * 2^15. */
static int32_t interpolate(const int16_t *table, int32_t x)
{
    int32_t position = x + 32768;
    int32_t fraction = position & 127;
    const int16_t *left = table + (position >> 7);
    return left[0] * (128 - fraction) + left[1] * fraction;
}

void slm_lut_s16(const int16_t *input, const int16_t *table, int16_t *output, uint32_t rows, uint32_t columns)
{
    for (uint32_t i = 0; i < rows * columns; i++) {
        output[i] = (int16_t)((interpolate(table, input[i]) + 64) >> 7);
    }
}

void slm_lut_s16_s8(const int16_t *input, const int16_t *table, int8_t *output, uint32_t rows, uint32_t columns)
{
    for (uint32_t i = 0; i < rows * columns; i++) {
        output[i] = (int8_t)slm_clamp((interpolate(table, input[i]) + (1 << 14)) >> 15, INT8_MIN, INT8_MAX);
    }
}
