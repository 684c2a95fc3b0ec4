/**
 * \file slm_add.h
 * \brief Weighted sums of two tensors; specified by slm2c/ops/add.py.
 */
#ifndef SLM_ADD_H
#define SLM_ADD_H

#include "slm_layout.h"

/** Weights of one sum in units of 2^-shift of the output's scale; lies in the blob. No sum leaves 32 bits. */
typedef struct {
    int32_t a;       /**< weight of x */
    int32_t b;       /**< weight of y */
    int32_t c;       /**< zero points of all three, and one half for rounding */
    int32_t shift;   /**< 0..30 */
    int32_t minimum; /**< lower limit of the output: the type's, or the zero point for a ReLU */
    int32_t maximum; /**< upper limit of the output */
} slm_add_params;

/**
 * \brief output = saturate((a * x + b * y + c) >> shift), element by element.
 *
 * \param[in]  params   weights, see slm_add_params
 * \param[in]  layout   where the y for each element of x lies: y may be broadcast
 * \param[in]  x        dense
 * \param[in]  y        as the layout says
 * \param[out] output   dense; may be x, or y if that is dense and as wide
 * \param[in]  tokens   n of the layout, at least 1
 */
void slm_add_s8(const slm_add_params *params, const slm_layout *layout, const int8_t *x, const int8_t *y,
                int8_t *output, uint32_t tokens);

/** \brief As slm_add_s8, for the types x, y and output of its name. */
void slm_add_s8_s8_s16(const slm_add_params *params, const slm_layout *layout, const int8_t *x, const int8_t *y,
                       int16_t *output, uint32_t tokens);
void slm_add_s8_s16_s8(const slm_add_params *params, const slm_layout *layout, const int8_t *x, const int16_t *y,
                       int8_t *output, uint32_t tokens);
void slm_add_s8_s16_s16(const slm_add_params *params, const slm_layout *layout, const int8_t *x, const int16_t *y,
                        int16_t *output, uint32_t tokens);
void slm_add_s16_s8_s8(const slm_add_params *params, const slm_layout *layout, const int16_t *x, const int8_t *y,
                       int8_t *output, uint32_t tokens);
void slm_add_s16_s8_s16(const slm_add_params *params, const slm_layout *layout, const int16_t *x, const int8_t *y,
                        int16_t *output, uint32_t tokens);
void slm_add_s16_s16_s8(const slm_add_params *params, const slm_layout *layout, const int16_t *x, const int16_t *y,
                        int8_t *output, uint32_t tokens);
void slm_add_s16(const slm_add_params *params, const slm_layout *layout, const int16_t *x, const int16_t *y,
                 int16_t *output, uint32_t tokens);

#endif
