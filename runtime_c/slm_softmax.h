/**
 * \file slm_softmax.h
 * \brief Softmax over rows; specified by slm2c/ops/softmax.py.
 */
#ifndef SLM_SOFTMAX_H
#define SLM_SOFTMAX_H

#include <stdint.h>

/**
 * \brief output[r][c] = exp(input[r][c]) / sum over c of exp(input[r][c]), in 1/256 with zero point -128
 *
 * \param[in]  input   [rows][columns]
 * \param[in]  table   [256] exp(-t * scale of the input) * 2^30
 * \param[out] output  [rows][columns]; may be the input
 * \param[in]  rows    at least 1
 * \param[in]  columns 1 to 2^29
 */
void slm_softmax_s8(const int8_t *input, const int32_t *table, int8_t *output, uint32_t rows, uint32_t columns);

/** \brief As slm_softmax_s8, in 1/32768; the output must not overlap the input. */
void slm_softmax_s8_s16(const int8_t *input, const int32_t *table, int16_t *output, uint32_t rows, uint32_t columns);

#endif
