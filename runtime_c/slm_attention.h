/**
 * \file slm_attention.h
 * \brief Attention of all heads, one row of scores at a time; specified by slm2c/ops/attention.py.
 */
#ifndef SLM_ATTENTION_H
#define SLM_ATTENTION_H

#include <stdint.h>

/** Scales of one attention; lies in the blob. */
typedef struct {
    int32_t multiplier;   /**< of a product of q and k times 2^-32: to steps of the exponent, 256 for a factor of 2 */
    int32_t shift;        /**< left shift of that product before the multiplication, 0..30 */
    int32_t v_zero_point; /**< of v */
    int32_t scale;        /**< 0..2^31 - 1: of v in units of the output, */
    int32_t scale_shift;  /**< 32..63: times 2^(13 - scale_shift) */
    int32_t offset;       /**< 256 * zero point of the output + 128 */
} slm_attention_params;

/** Words for keys and values in 16 bits that slm_attention_dsp_s8 uses at most, if a quad of either fits. */
#define SLM_ATTENTION_CACHE 2048u

/**
 * \brief output[i] = sum over j of softmax(q[i] . k[j]) * v[j], for each head
 *
 * \param[out] scratch  [keys] int32_t
 * \param[in]  params   scales, see slm_attention_params
 * \param[in]  q        [rows][q_step], of which heads * size count; zero point 0
 * \param[in]  k        [keys][kv_heads * size]
 * \param[in]  v        [keys][kv_heads * v_size]
 * \param[out] output   [rows][output_step], of which heads * v_size are written; may be q if v_size is size and
 *                      output_step is q_step
 * \param[in]  rows     queries, at least 1
 * \param[in]  keys     1..2^16; at least rows if causal
 * \param[in]  heads    at least 1
 * \param[in]  kv_heads a divisor of heads
 * \param[in]  size     of a head of q and k, 1..2^16
 * \param[in]  v_size   of a head of v, at least 1
 * \param[in]  q_step   from one query to the next one, at least heads * size
 * \param[in]  output_step from one query's output to the next one's, at least heads * v_size
 * \param[in]  causal   1: query i is token keys - rows + i and sees the tokens up to itself; 0: it sees all
 */
void slm_attention_s8(void *scratch, const slm_attention_params *params, const int8_t *q, const int8_t *k,
                      const int8_t *v, int8_t *output, uint32_t rows, uint32_t keys, uint32_t heads, uint32_t kv_heads,
                      uint32_t size, uint32_t v_size, uint32_t q_step, uint32_t output_step, uint32_t causal);

/**
 * \brief As slm_attention_s8, with bias[h][i][j] added to the scores
 *
 * \param[in]  bias         [heads][tokens][bias_columns] or, for all heads alike, [tokens][bias_columns], in steps of the
 *                          exponent
 * \param[in]  bias_step    from one head's bias to the next one's; 0 for all heads alike
 * \param[in]  bias_columns at least keys
 */
void slm_attention_bias_s8(void *scratch, const slm_attention_params *params, const int8_t *q, const int8_t *k,
                           const int8_t *v, const int16_t *bias, int8_t *output, uint32_t rows, uint32_t keys,
                           uint32_t heads, uint32_t kv_heads, uint32_t size, uint32_t v_size, uint32_t q_step,
                           uint32_t output_step, uint32_t causal, uint32_t bias_step, uint32_t bias_columns);

/**
 * \brief As slm_attention_bias_s8, for cores with SMLAD; size and v_size must be multiples of 4, and bias may be null.
 *
 * Keys and values of a head are expanded to 16 bits once, if both fit SLM_ATTENTION_CACHE words, or else for each block
 * of four queries.
 *
 * \param[out] scratch words of 32 bits: 2 * size + 4 * columns + max(min(columns * size / 2 +
 *                     pairs * v_size, SLM_ATTENTION_CACHE), 2 * size, 4 * pairs), where columns is keys rounded up to a
 *                     multiple of 4, and pairs is keys / 2, rounded up
 */
void slm_attention_dsp_s8(void *scratch, const slm_attention_params *params, const int8_t *q, const int8_t *k,
                          const int8_t *v, const int16_t *bias, int8_t *output, uint32_t rows, uint32_t keys,
                          uint32_t heads, uint32_t kv_heads, uint32_t size, uint32_t v_size, uint32_t q_step,
                          uint32_t output_step, uint32_t causal, uint32_t bias_step, uint32_t bias_columns);

#endif
