/**
 * \file slm_classify.h
 * \brief From scores to an answer.
 */
#ifndef SLM_CLASSIFY_H
#define SLM_CLASSIFY_H

#include <stdint.h>

/**
 * \brief The class with the highest score, and its softmax probability.
 *
 * \param[in]  logits      [count]
 * \param[in]  count       classes, at least 1
 * \param[in]  multiplier  scale of the logits times 2^36, 0 to 2^46: steps of 2^-12 nats after a right shift by 24
 * \param[out] index       the first of the highest
 * \return probability in 1/32768, 1 to 32768; within 1 % of the real-valued softmax of the dequantized logits
 */
int32_t slm_top_s16(const int16_t *logits, uint32_t count, int64_t multiplier, uint32_t *index);

#endif
