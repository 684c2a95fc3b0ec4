#include "slm_lut.h"

void slm_lut_s8(const int8_t *input, const int8_t *table, int8_t *output, uint32_t rows, uint32_t columns)
{
    for (uint32_t i = 0; i < rows * columns; i++) {
        output[i] = table[input[i] + 128];
    }
}

void slm_lut_s8_s16(const int8_t *input, const int16_t *table, int16_t *output, uint32_t rows, uint32_t columns)
{
    for (uint32_t i = 0; i < rows * columns; i++) {
        output[i] = table[input[i] + 128];
    }
}
