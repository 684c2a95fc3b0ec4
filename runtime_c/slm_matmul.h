/**
 * \file slm_matmul.h
 * \brief Products of two activations; specified by slm2c/ops/matmul.py.
 */
#ifndef SLM_MATMUL_H
#define SLM_MATMUL_H

#include "slm_layout.h"

/** Scales and shapes of one product; lies in the blob. */
typedef struct {
    int32_t multiplier; /**< times 2^(shift - 32) */
    int32_t shift;      /**< 0..30 */
    int32_t a_zero_point;
    int32_t b_zero_point;
    int32_t zero_point;    /**< of the output */
    slm_layout a_matrices; /**< where the left factor of each matrix of the output starts, in runs of one */
    slm_layout b_matrices; /**< where the right factor starts */
} slm_matmul_params;

/**
 * \brief output[..][r][c] = saturate(rescale(sum_k (a[..][r][k] - a_zero_point) * (b[..][k][c] - b_zero_point)) + zero_point)
 *
 * \param[in]  params  scales and layouts, see slm_matmul_params
 * \param[in]  a       [..][rows][inner]
 * \param[in]  b       [..][inner][columns]
 * \param[out] output  [..][rows][columns]; must not overlap an input
 * \param[in]  rows    M, at least 1
 * \param[in]  inner   K, 1..33025, so that no sum leaves 32 bits
 * \param[in]  columns N, at least 1
 * \param[in]  tokens  n of the layouts, at least 1
 */
void slm_matmul_s8(const slm_matmul_params *params, const int8_t *a, const int8_t *b, int8_t *output, uint32_t rows,
                   uint32_t inner, uint32_t columns, uint32_t tokens);

/** \brief As slm_matmul_s8, with an int16 output. */
void slm_matmul_s8_s16(const slm_matmul_params *params, const int8_t *a, const int8_t *b, int16_t *output,
                       uint32_t rows, uint32_t inner, uint32_t columns, uint32_t tokens);

#endif
