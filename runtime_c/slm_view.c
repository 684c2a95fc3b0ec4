#include "slm_view.h"

SLM_INLINE void copy(const void *input, const slm_layout *layout, void *output, slm_type type, uint32_t tokens)
{
    slm_walk walk;
    slm_walk_begin(&walk, layout, tokens);
    const int32_t length = walk.length;
    const int32_t step = walk.step;
    int32_t i = 0;
    do {
        int32_t at = walk.at;
        for (const int32_t end = i + length; i < end; i++, at += step) {
            slm_store(output, type, i, slm_load(input, type, at));
        }
    } while (slm_walk_next(&walk));
}

void slm_copy_s8(const int8_t *input, const slm_layout *layout, int8_t *output, uint32_t tokens)
{
    copy(input, layout, output, SLM_S8, tokens);
}

void slm_copy_s16(const int16_t *input, const slm_layout *layout, int16_t *output, uint32_t tokens)
{
    copy(input, layout, output, SLM_S16, tokens);
}

void slm_gather_s8(const int8_t *input, const int16_t *index, const int32_t *fill, int8_t *output, uint32_t rows,
                   uint32_t row_step, uint32_t columns)
{
    for (uint32_t r = 0; r < rows; r++, input += row_step) {
        for (uint32_t c = 0; c < columns; c++) {
            *output++ = index[c] < 0 ? (int8_t)fill[0] : input[index[c]];
        }
    }
}

void slm_gather_s16(const int16_t *input, const int16_t *index, const int32_t *fill, int16_t *output, uint32_t rows,
                    uint32_t row_step, uint32_t columns)
{
    for (uint32_t r = 0; r < rows; r++, input += row_step) {
        for (uint32_t c = 0; c < columns; c++) {
            *output++ = index[c] < 0 ? (int16_t)fill[0] : input[index[c]];
        }
    }
}

void slm_gather_large_s8(const int8_t *input, const int32_t *index, const int32_t *fill, int8_t *output, uint32_t rows,
                         uint32_t row_step, uint32_t columns)
{
    for (uint32_t r = 0; r < rows; r++, input += row_step) {
        for (uint32_t c = 0; c < columns; c++) {
            *output++ = index[c] < 0 ? (int8_t)fill[0] : input[index[c]];
        }
    }
}

void slm_gather_large_s16(const int16_t *input, const int32_t *index, const int32_t *fill, int16_t *output,
                          uint32_t rows, uint32_t row_step, uint32_t columns)
{
    for (uint32_t r = 0; r < rows; r++, input += row_step) {
        for (uint32_t c = 0; c < columns; c++) {
            *output++ = index[c] < 0 ? (int16_t)fill[0] : input[index[c]];
        }
    }
}
