#include "slm_dsp.h"
#include "slm_lut.h"

#define RUN 8u /* elements between two tests for the end */

void slm_lut_s8(const int8_t *input, const int8_t *table, int8_t *output, uint32_t rows, uint32_t columns)
{
    const int8_t *const zero = table + 128;
    const int8_t *const end = input + rows * columns;
    for (const int8_t *last = end - rows * columns % RUN; input != last; input += RUN, output += RUN) {
        SLM_UNROLL
        for (uint32_t i = 0; i < RUN; i++) {
            output[i] = zero[input[i]];
        }
    }
    for (; input != end; input++, output++) {
        *output = zero[*input];
    }
}

void slm_lut_s8_s16(const int8_t *input, const int16_t *table, int16_t *output, uint32_t rows, uint32_t columns)
{
    for (uint32_t i = 0; i < rows * columns; i++) {
        output[i] = table[input[i] + 128];
    }
}
