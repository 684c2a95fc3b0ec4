/**
 * \file slm_reduce.h
 * \brief Means, sums and extremes over axes; specified by slm2c/ops/reduce.py.
 */
#ifndef SLM_REDUCE_H
#define SLM_REDUCE_H

#include "slm_layout.h"

/** Scales and shapes of one reduction; lies in the blob. */
typedef struct {
    int32_t multiplier; /**< times 2^(shift - 32) */
    int32_t shift;      /**< 0..30 */
    int32_t input_zero_point;
    int32_t zero_point; /**< of the output */
    slm_layout kept;    /**< where the first elements of what is reduced to each element of the output lie */
    slm_layout reduced; /**< the others, from there */
} slm_reduce_params;

/**
 * \brief output[i] = the mean of the input over the reduced axes, the division by their actual size included
 *
 * \param[in]  params scales and layouts, see slm_reduce_params
 * \param[in]  input  dense
 * \param[out] output dense; must not overlap the input
 * \param[in]  tokens n of the layouts, at least 1
 */
void slm_reduce_mean_s8(const slm_reduce_params *params, const int8_t *input, int8_t *output, uint32_t tokens);
void slm_reduce_mean_s8_s16(const slm_reduce_params *params, const int8_t *input, int16_t *output, uint32_t tokens);
void slm_reduce_mean_s16_s8(const slm_reduce_params *params, const int16_t *input, int8_t *output, uint32_t tokens);
void slm_reduce_mean_s16(const slm_reduce_params *params, const int16_t *input, int16_t *output, uint32_t tokens);

/** \brief As slm_reduce_mean_s8, the sum of the input over the reduced axes. */
void slm_reduce_sum_s8(const slm_reduce_params *params, const int8_t *input, int8_t *output, uint32_t tokens);
void slm_reduce_sum_s8_s16(const slm_reduce_params *params, const int8_t *input, int16_t *output, uint32_t tokens);
void slm_reduce_sum_s16_s8(const slm_reduce_params *params, const int16_t *input, int8_t *output, uint32_t tokens);
void slm_reduce_sum_s16(const slm_reduce_params *params, const int16_t *input, int16_t *output, uint32_t tokens);

/** \brief As slm_reduce_mean_s8, the greatest input over the reduced axes. */
void slm_reduce_max_s8(const slm_reduce_params *params, const int8_t *input, int8_t *output, uint32_t tokens);
void slm_reduce_max_s8_s16(const slm_reduce_params *params, const int8_t *input, int16_t *output, uint32_t tokens);
void slm_reduce_max_s16_s8(const slm_reduce_params *params, const int16_t *input, int8_t *output, uint32_t tokens);
void slm_reduce_max_s16(const slm_reduce_params *params, const int16_t *input, int16_t *output, uint32_t tokens);

/** \brief As slm_reduce_mean_s8, the least input over the reduced axes. */
void slm_reduce_min_s8(const slm_reduce_params *params, const int8_t *input, int8_t *output, uint32_t tokens);
void slm_reduce_min_s8_s16(const slm_reduce_params *params, const int8_t *input, int16_t *output, uint32_t tokens);
void slm_reduce_min_s16_s8(const slm_reduce_params *params, const int16_t *input, int8_t *output, uint32_t tokens);
void slm_reduce_min_s16(const slm_reduce_params *params, const int16_t *input, int16_t *output, uint32_t tokens);

#endif
