/**
 * \file slm_linear.h
 * \brief Fully connected layers; specified by slm2c/ops/linear.py.
 */
#ifndef SLM_LINEAR_H
#define SLM_LINEAR_H

#include <stdint.h>

/** Requantization of one layer; lies in the blob. */
typedef struct {
    int32_t shift;      /**< left shift of the accumulator before the multiplication, 0..30 */
    int32_t zero_point; /**< of the output */
    int32_t minimum;    /**< lower limit of the output: the type's, or the zero point for a ReLU */
    int32_t maximum;    /**< upper limit of the output */
} slm_linear_params;

/**
 * \brief output[r][o] = saturate(scale((sum_k input[r][k] * weights[o][k] + bias[o]) << shift) + zero_point)
 *
 * \param[in]  scratch      not used, may be null
 * \param[in]  params       requantization, see slm_linear_params
 * \param[in]  multiplier   [out_features] times 2^-32
 * \param[in]  input        [rows][in_features]
 * \param[in]  weights      [out_features][in_features], in [-127, 127]
 * \param[in]  bias         [out_features], the input's zero point folded in
 * \param[out] output       [rows][out_features]; must not overlap the input
 * \param[in]  rows         tokens, at least 1
 * \param[in]  in_features  K, at least 1
 * \param[in]  out_features N, at least 1
 */
void slm_linear_s8(void *scratch, const slm_linear_params *params, const int32_t *multiplier, const int8_t *input,
                   const int8_t *weights, const int32_t *bias, int8_t *output, uint32_t rows, uint32_t in_features,
                   uint32_t out_features);

/** \brief As slm_linear_s8, with an int16 output. */
void slm_linear_s8_s16(void *scratch, const slm_linear_params *params, const int32_t *multiplier, const int8_t *input,
                       const int8_t *weights, const int32_t *bias, int16_t *output, uint32_t rows,
                       uint32_t in_features, uint32_t out_features);

#endif
