#include "slm_math.h"
#include "slm_softmax.h"

static int32_t row_maximum(const int8_t *row, uint32_t columns)
{
    int32_t maximum = row[0];
    for (uint32_t c = 1; c < columns; c++) {
        maximum = row[c] > maximum ? row[c] : maximum;
    }
    return maximum;
}

/* What an entry of the table is multiplied by to give a probability times 2^61. */
static uint32_t row_scale(const int8_t *row, const int32_t *table, int32_t maximum, uint32_t columns)
{
    uint64_t sum = 0u;
    for (uint32_t c = 0; c < columns; c++) {
        sum += (uint32_t)table[maximum - row[c]];
    }
    /* The maximum itself adds 2^30, so 2 * sum has at least 32 bits. */
    uint32_t shift = 32u - slm_leading_zeros_64(2u * sum);
    return slm_reciprocal((uint32_t)(2u * sum >> shift)) >> shift;
}

void slm_softmax_s8(const int8_t *input, const int32_t *table, int8_t *output, uint32_t rows, uint32_t columns)
{
    for (uint32_t r = 0; r < rows; r++, input += columns, output += columns) {
        int32_t maximum = row_maximum(input, columns);
        uint32_t scale = row_scale(input, table, maximum, columns);
        for (uint32_t c = 0; c < columns; c++) {
            int32_t p = (int32_t)slm_high((uint32_t)table[maximum - input[c]], scale);
            int32_t q = (p + (1 << 20)) >> 21;
            output[c] = (int8_t)(slm_clamp(q, 0, 255) - 128);
        }
    }
}

void slm_softmax_s8_s16(const int8_t *input, const int32_t *table, int16_t *output, uint32_t rows, uint32_t columns)
{
    for (uint32_t r = 0; r < rows; r++, input += columns, output += columns) {
        int32_t maximum = row_maximum(input, columns);
        uint32_t scale = row_scale(input, table, maximum, columns);
        for (uint32_t c = 0; c < columns; c++) {
            int32_t p = (int32_t)slm_high((uint32_t)table[maximum - input[c]], scale);
            int32_t q = (p + (1 << 13)) >> 14;
            output[c] = (int16_t)slm_clamp(q, 0, INT16_MAX);
        }
    }
}
