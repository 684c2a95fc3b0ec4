/**
 * \file slm_mul.h
 * \brief Products of two tensors; specified by slm2c/ops/mul.py.
 */
#ifndef SLM_MUL_H
#define SLM_MUL_H

#include "slm_layout.h"

/** Scales of one product; lies in the blob. */
typedef struct {
    int32_t multiplier; /**< times 2^(shift - 32) */
    int32_t shift;      /**< 0..30 */
    int32_t x_zero_point;
    int32_t y_zero_point; /**< 0 for int16 */
    int32_t zero_point;   /**< of the output */
} slm_mul_params;

/**
 * \brief output = saturate(rescale((x - x_zero_point) * (y - y_zero_point)) + zero_point), element by element.
 *
 * \param[in]  params   scales, see slm_mul_params
 * \param[in]  layout   where the y for each element of x lies: y may be broadcast
 * \param[in]  x        dense
 * \param[in]  y        as the layout says
 * \param[out] output   dense; may be x, or y if that is dense and as wide
 * \param[in]  tokens   n of the layout, at least 1
 */
void slm_mul_s8(const slm_mul_params *params, const slm_layout *layout, const int8_t *x, const int8_t *y,
                int8_t *output, uint32_t tokens);

/** \brief As slm_mul_s8, for the types x, y and output of its name. */
void slm_mul_s8_s8_s16(const slm_mul_params *params, const slm_layout *layout, const int8_t *x, const int8_t *y,
                       int16_t *output, uint32_t tokens);
void slm_mul_s8_s16_s8(const slm_mul_params *params, const slm_layout *layout, const int8_t *x, const int16_t *y,
                       int8_t *output, uint32_t tokens);
void slm_mul_s8_s16_s16(const slm_mul_params *params, const slm_layout *layout, const int8_t *x, const int16_t *y,
                        int16_t *output, uint32_t tokens);

#endif
