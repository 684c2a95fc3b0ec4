/**
 * \file slm_layernorm.h
 * \brief LayerNorm and RMSNorm of rows, after a residual sum; specified by slm2c/ops/layernorm.py.
 */
#ifndef SLM_LAYERNORM_H
#define SLM_LAYERNORM_H

#include <stdint.h>

/** One normalization; lies in the blob. */
typedef struct {
    int32_t weight;          /**< of the input as 16-bit numbers, 1..2^15 - 1 */
    int32_t residual_weight; /**< of the residual; both together are less than 2^15 */
    int32_t offset;          /**< one half, for RMSNorm less the weighted zero points */
    int32_t centre;          /**< 1: LayerNorm, 0: RMSNorm, which does not subtract the mean */
    int32_t square_shift;    /**< even, 0..62: columns^2 times the variance is divided by 2^square_shift, */
    int32_t epsilon;         /**< then epsilon, 1..2^31 - 1, */
    int32_t epsilon_shift;   /**< times 2^epsilon_shift, 0..30, is added */
    int32_t scale;           /**< 2^30..2^31 - 1 */
    int32_t scale_shift;     /**< of scale * 2^62 / standard deviation, see docs/NUMERICS.md */
} slm_layernorm_params;

/**
 * \brief output[r] = gamma * (v - mean(v)) / sqrt(variance(v) + epsilon) + beta, where v = input[r] + residual[r]
 *
 * \param[out] scratch  [columns] int16_t
 * \param[in]  params   weights and scale, see slm_layernorm_params
 * \param[in]  input    [rows][columns]
 * \param[in]  residual [rows][columns], or null
 * \param[in]  gamma    [columns], in [-32767, 32767]
 * \param[in]  beta     [columns] in 1/256 of the output's unit (int16: in units), with zero point and rounding
 * \param[out] output   [rows][columns]; may be the input or the residual if that is as wide
 * \param[in]  rows     at least 1
 * \param[in]  columns  1..16384
 */
void slm_layernorm_s8(void *scratch, const slm_layernorm_params *params, const int8_t *input, const int8_t *residual,
                      const int16_t *gamma, const int32_t *beta, int8_t *output, uint32_t rows, uint32_t columns);

/** \brief As slm_layernorm_s8, for the types input, residual and output of its name. */
void slm_layernorm_s8_s8_s16(void *scratch, const slm_layernorm_params *params, const int8_t *input,
                             const int8_t *residual, const int16_t *gamma, const int32_t *beta, int16_t *output,
                             uint32_t rows, uint32_t columns);
void slm_layernorm_s8_s16_s8(void *scratch, const slm_layernorm_params *params, const int8_t *input,
                             const int16_t *residual, const int16_t *gamma, const int32_t *beta, int8_t *output,
                             uint32_t rows, uint32_t columns);
void slm_layernorm_s8_s16_s16(void *scratch, const slm_layernorm_params *params, const int8_t *input,
                              const int16_t *residual, const int16_t *gamma, const int32_t *beta, int16_t *output,
                              uint32_t rows, uint32_t columns);
void slm_layernorm_s16_s8_s8(void *scratch, const slm_layernorm_params *params, const int16_t *input,
                             const int8_t *residual, const int16_t *gamma, const int32_t *beta, int8_t *output,
                             uint32_t rows, uint32_t columns);
void slm_layernorm_s16_s8_s16(void *scratch, const slm_layernorm_params *params, const int16_t *input,
                              const int8_t *residual, const int16_t *gamma, const int32_t *beta, int16_t *output,
                              uint32_t rows, uint32_t columns);
void slm_layernorm_s16_s16_s8(void *scratch, const slm_layernorm_params *params, const int16_t *input,
                              const int16_t *residual, const int16_t *gamma, const int32_t *beta, int8_t *output,
                              uint32_t rows, uint32_t columns);
void slm_layernorm_s16(void *scratch, const slm_layernorm_params *params, const int16_t *input, const int16_t *residual,
                       const int16_t *gamma, const int32_t *beta, int16_t *output, uint32_t rows, uint32_t columns);

/**
 * \brief As slm_layernorm_s8, for cores with SMLAD and for all types; columns must be a multiple of 4.
 *
 * \param[out] scratch       [columns] int16_t, at a multiple of 4 bytes
 * \param[in]  gamma         likewise
 * \param[in]  input_type    0: int8_t, 1: int16_t
 * \param[in]  residual_type likewise; not read without a residual
 * \param[in]  output_type   likewise
 */
void slm_layernorm_dsp(void *scratch, const slm_layernorm_params *params, const void *input, const void *residual,
                       const int16_t *gamma, const int32_t *beta, void *output, uint32_t rows, uint32_t columns,
                       uint32_t input_type, uint32_t residual_type, uint32_t output_type);

#endif
