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
 * \brief output[r][o] = saturate(scale((sum_k x[r][k] * weights[o][k] + bias[o]) << shift) + zero_point)
 *
 * x is the input, or where there is a table x[r][k] = table[input[r][k] + 128].
 *
 * \param[in]  scratch      not used, may be null
 * \param[in]  params       requantization, see slm_linear_params
 * \param[in]  multiplier   [out_features] times 2^-32
 * \param[in]  input        [rows][in_features]
 * \param[in]  table        [256] a function of the input at -128..127, or null
 * \param[in]  weights      [out_features][in_features], in [-127, 127]
 * \param[in]  bias         [out_features], the zero point of x folded in
 * \param[out] output       [rows][output_step], of which the first out_features are written; must not overlap the input
 * \param[in]  rows         tokens, at least 1
 * \param[in]  in_features  K, at least 1
 * \param[in]  out_features N, at least 1
 * \param[in]  output_step  elements from a token's output to the next one's, at least N
 */
void slm_linear_s8(void *scratch, const slm_linear_params *params, const int32_t *multiplier, const int8_t *input,
                   const int8_t *table, const int8_t *weights, const int32_t *bias, int8_t *output, uint32_t rows,
                   uint32_t in_features, uint32_t out_features, uint32_t output_step);

/** \brief As slm_linear_s8, with an int16 output. */
void slm_linear_s8_s16(void *scratch, const slm_linear_params *params, const int32_t *multiplier, const int8_t *input,
                       const int8_t *table, const int8_t *weights, const int32_t *bias, int16_t *output, uint32_t rows,
                       uint32_t in_features, uint32_t out_features, uint32_t output_step);

/**
 * \brief As slm_linear_s8, on packed weights: two channels in each 16-bit lane, for cores with SMLAD.
 *
 * Lane k of a pair of channels is 256 * h + l, with l the weight of the even channel and h that of the odd one. A word
 * holds the lanes k and k + 2, where k is 0 or 1 modulo 4: what SXTB16 makes of four activations. SMLAD on the word sums
 * 256 * h + l, SMLAD on its SXTB16 sums l, and the difference is 256 times the sum of h.
 *
 * The sum of h is exact while it stays within 2^23, together with the bias and shifted in slm_linear_packed_*, without
 * either and in pieces of SLM_LINEAR_PIECE in slm_linear_pieces_*: always. The compiler chooses.
 *
 * \param[in]  scratch      for tile tokens: tile * K * 2 bytes, K being in_features rounded up to 8; aligned to 4
 * \param[in]  params       requantization, see slm_linear_params
 * \param[in]  channels     [pairs][4], pairs = (N + 1) / 2: multiplier of l, of h; bias of 256 * h + l modulo 2^32 (in
 *                          slm_linear_pieces_* that of h); bias of l
 * \param[in]  input        [rows][in_features]
 * \param[in]  table        [256] a function of the input at -128..127, or null
 * \param[in]  weights      [pairs][K / 2] words, 0 where a channel or a feature is missing
 * \param[out] output       [rows][output_step], of which the first out_features are written; may begin where the input
 *                          does if a token's output_step takes no more bytes than its input, else must not overlap it
 * \param[in]  rows         tokens, at least 1
 * \param[in]  in_features  at least 1
 * \param[in]  out_features N, at least 1
 * \param[in]  output_step  elements from a token's output to the next one's, at least N
 * \param[in]  tile         tokens for which the scratch has room, at least 1; all weights are read once per tile
 */
void slm_linear_packed_s8(void *scratch, const slm_linear_params *params, const int32_t *channels, const int8_t *input,
                          const int8_t *table, const uint32_t *weights, int8_t *output, uint32_t rows,
                          uint32_t in_features, uint32_t out_features, uint32_t output_step, uint32_t tile);

/** \brief As slm_linear_packed_s8, with an int16 output. */
void slm_linear_packed_s8_s16(void *scratch, const slm_linear_params *params, const int32_t *channels,
                              const int8_t *input, const int8_t *table, const uint32_t *weights, int16_t *output,
                              uint32_t rows, uint32_t in_features, uint32_t out_features, uint32_t output_step,
                              uint32_t tile);

/** Features over which no sum of weights can leave 2^23: 127 * 128 * 512 < 2^23. */
#define SLM_LINEAR_PIECE 512u

/** \brief As slm_linear_packed_s8, for any weights and biases: sums are formed in pieces of SLM_LINEAR_PIECE features. */
void slm_linear_pieces_s8(void *scratch, const slm_linear_params *params, const int32_t *channels, const int8_t *input,
                          const int8_t *table, const uint32_t *weights, int8_t *output, uint32_t rows,
                          uint32_t in_features, uint32_t out_features, uint32_t output_step, uint32_t tile);

/** \brief As slm_linear_pieces_s8, with an int16 output. */
void slm_linear_pieces_s8_s16(void *scratch, const slm_linear_params *params, const int32_t *channels,
                              const int8_t *input, const int8_t *table, const uint32_t *weights, int16_t *output,
                              uint32_t rows, uint32_t in_features, uint32_t out_features, uint32_t output_step,
                              uint32_t tile);

#endif
