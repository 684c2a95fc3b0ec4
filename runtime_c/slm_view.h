/**
 * \file slm_view.h
 * \brief Movement of elements; specified by slm2c/ops/view.py.
 */
#ifndef SLM_VIEW_H
#define SLM_VIEW_H

#include "slm_layout.h"

/**
 * \brief output[i] = the i-th element of the input in the order of the layout
 *
 * \param[in]  input   as the layout says
 * \param[in]  layout  where the input's elements lie
 * \param[out] output  dense; must not overlap the input
 * \param[in]  tokens  n of the layout, at least 1
 */
void slm_copy_s8(const int8_t *input, const slm_layout *layout, int8_t *output, uint32_t tokens);

/** \brief As slm_copy_s8, for int16. */
void slm_copy_s16(const int16_t *input, const slm_layout *layout, int16_t *output, uint32_t tokens);

/**
 * \brief output[r][c] = input[r * row_step + index[c]], or fill[0] where index[c] is -1
 *
 * \param[in]  input    [rows][row_step], or one row if row_step is 0
 * \param[in]  index    [columns] positions in a row
 * \param[in]  fill     [1]; may be null where no index is negative
 * \param[out] output   [rows][columns]; must not overlap the input
 * \param[in]  rows     tokens, at least 1
 * \param[in]  row_step distance of rows in the input
 * \param[in]  columns  at least 1
 */
void slm_gather_s8(const int8_t *input, const int16_t *index, const int32_t *fill, int8_t *output, uint32_t rows,
                   uint32_t row_step, uint32_t columns);

/** \brief As slm_gather_s8, for int16. */
void slm_gather_s16(const int16_t *input, const int16_t *index, const int32_t *fill, int16_t *output, uint32_t rows,
                    uint32_t row_step, uint32_t columns);

/** \brief As slm_gather_s8, for positions above 32767. */
void slm_gather_large_s8(const int8_t *input, const int32_t *index, const int32_t *fill, int8_t *output, uint32_t rows,
                         uint32_t row_step, uint32_t columns);

/** \brief As slm_gather_large_s8, for int16. */
void slm_gather_large_s16(const int16_t *input, const int32_t *index, const int32_t *fill, int16_t *output,
                          uint32_t rows, uint32_t row_step, uint32_t columns);

#endif
