/**
 * \file slm_attention_multiply.h
 * \brief The products of slm_attention_dsp.c: of queries with keys, and of weights with values.
 */
#ifndef SLM_ATTENTION_MULTIPLY_H
#define SLM_ATTENTION_MULTIPLY_H

#include "slm_attention_row.h"

/** Columns of x that are multiplied together. */
#define SLM_ATTENTION_QUAD 4u

/** Where the sums of one or two rows begin, and what becomes of them: slm_scale(sum << shift, inverse, offset). */
typedef struct {
    slm_mean_scale row[2]; /**< the assembly knows this order */
    int32_t offset;
    int32_t start[2][SLM_ATTENTION_QUAD]; /**< four times the same for a row */
} slm_attention_terms;

/** One or two rows times quads of columns. */
typedef struct {
    const uint32_t *x;     /**< [columns / 4][words][4], two elements of 16 bits in a word */
    const uint32_t *x_end; /**< behind at least one quad of columns */
    const uint32_t *y;     /**< [words][rows] */
    uint32_t words;        /**< at least 1 */
    const slm_attention_terms *terms;
} slm_attention_product;

/**
 * \brief out0[c] = slm_scale(start + sum over w of x[c / 4][w][c % 4] . y[w] << shift, ...) for all columns c
 *
 * \param[in]  product what is multiplied, of one row
 * \param[in]  narrow  0: out is int32_t; 1: it is int8_t, the results divided by 256 and saturated
 * \param[out] out0    [columns]
 */
void slm_attention_multiply_one(const slm_attention_product *product, uint32_t narrow, void *out0);

/** \brief As slm_attention_multiply_one, of two rows: to out0 and out1. */
void slm_attention_multiply_two(const slm_attention_product *product, uint32_t narrow, void *out0, void *out1);

#endif
