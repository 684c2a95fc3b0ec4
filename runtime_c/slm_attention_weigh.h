/**
 * \file slm_attention_weigh.h
 * \brief From scores to weights: what a softmax is in slm_attention_dsp.c.
 */
#ifndef SLM_ATTENTION_WEIGH_H
#define SLM_ATTENTION_WEIGH_H

#include <stdint.h>

/** Added to scores: they are within 2^29 + 2^15. */
#define SLM_SCORE_OFFSET (INT32_C(1) << 30)

/**
 * \brief Turns the scores of a query into weights, two in a word, the one of the even key below.
 *
 * \param[in,out] scores  [2 * words] SLM_SCORE_OFFSET + steps of the exponent; those behind the visible keys do not count
 * \param[in]     bias    [visible] what is added to the scores, or null
 * \param[in]     visible keys, at least 1
 * \param[out]    weights [words], 0 behind the visible keys; may be the scores, or lie below them
 * \param[in]     step    words from a weight to the next one, at most 2
 * \param[in]     words   at least visible / 2
 *
 * \return the sum of the weights, at least 1 and less than SLM_MAX_SUM
 */
uint32_t slm_attention_weigh(int32_t *scores, const int16_t *bias, uint32_t visible, uint32_t *weights, uint32_t step,
                             uint32_t words);

#endif
