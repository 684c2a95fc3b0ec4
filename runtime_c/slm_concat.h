/**
 * \file slm_concat.h
 * \brief Tensors one behind the other; specified by slm2c/ops/concat.py.
 */
#ifndef SLM_CONCAT_H
#define SLM_CONCAT_H

#include "slm_layout.h"

#define SLM_CONCAT_MAX_PARTS 4u

/** One input of a concatenation. */
typedef struct {
    int32_t multiplier; /**< times 2^(shift - 32) */
    int32_t shift;      /**< 0..30 */
    int32_t zero_point; /**< of the input */
    int32_t wide;       /**< 1 for int16, 0 for int8 */
    int32_t copy;       /**< 1 if type and scale are the output's */
    slm_extent length;  /**< elements of the input in each of the outer blocks */
} slm_concat_part;

/** Scales and shapes of one concatenation; lies in the blob. */
typedef struct {
    int32_t zero_point; /**< of the output */
    slm_extent outer;   /**< how often the parts alternate */
    slm_concat_part part[SLM_CONCAT_MAX_PARTS];
} slm_concat_params;

/**
 * \brief output = a0, b0, a1, b1, ...: a block of each input after the other, requantized
 *
 * \param[in]  params scales and lengths, see slm_concat_params
 * \param[in]  a      int8 or int16 as params say, dense
 * \param[in]  b      int8 or int16 as params say, dense
 * \param[out] output dense; must not overlap an input
 * \param[in]  tokens n of the lengths, at least 1
 */
void slm_concat2_s8(const slm_concat_params *params, const void *a, const void *b, int8_t *output, uint32_t tokens);

/** \brief As slm_concat2_s8, with an int16 output. */
void slm_concat2_s16(const slm_concat_params *params, const void *a, const void *b, int16_t *output, uint32_t tokens);

/** \brief As slm_concat2_s8, of three inputs. */
void slm_concat3_s8(const slm_concat_params *params, const void *a, const void *b, const void *c, int8_t *output,
                    uint32_t tokens);

/** \brief As slm_concat3_s8, with an int16 output. */
void slm_concat3_s16(const slm_concat_params *params, const void *a, const void *b, const void *c, int16_t *output,
                     uint32_t tokens);

/** \brief As slm_concat2_s8, of four inputs. */
void slm_concat4_s8(const slm_concat_params *params, const void *a, const void *b, const void *c, const void *d,
                    int8_t *output, uint32_t tokens);

/** \brief As slm_concat4_s8, with an int16 output. */
void slm_concat4_s16(const slm_concat_params *params, const void *a, const void *b, const void *c, const void *d,
                     int16_t *output, uint32_t tokens);

#endif
