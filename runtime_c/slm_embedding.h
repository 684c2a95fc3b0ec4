/**
 * \file slm_embedding.h
 * \brief Sums of table rows by token ids; specified by slm2c/ops/embedding.py.
 */
#ifndef SLM_EMBEDDING_H
#define SLM_EMBEDDING_H

#include <stdint.h>

/** Scales of the tables in units of 2^-shift of the output's; lies in the blob. */
typedef struct {
    int32_t weights[3];  /**< of each lookup's table, 0..2^15 - 1 */
    int32_t rows_weight; /**< of the positions' rows, 0..2^15 - 1; 0 without */
    int32_t offset;      /**< zero point of the output, and one half for rounding */
    int32_t shift;       /**< 0..24 */
} slm_embedding_params;

/**
 * \brief output[i] = table0[ids0[i]] + rows[i]
 *
 * \param[in]  params  weights, see slm_embedding_params
 * \param[in]  ids0    [count] token ids, each a row of the table
 * \param[in]  table0  [vocabulary][columns]
 * \param[in]  rows    [at least count][columns], or null
 * \param[out] output  [count][columns]
 * \param[in]  count   tokens, at least 1
 * \param[in]  columns at least 1
 */
void slm_embedding_s8(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0, const int8_t *rows,
                      int8_t *output, uint32_t count, uint32_t columns);

/** \brief As slm_embedding_s8, with an int16 output. */
void slm_embedding_s16(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                       const int8_t *rows, int16_t *output, uint32_t count, uint32_t columns);

/** \brief As slm_embedding_s8, the sum of two lookups: output[i] = table0[ids0[i]] + table1[ids1[i]] + rows[i]. */
void slm_embedding2_s8(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                       const int32_t *ids1, const int8_t *table1, const int8_t *rows, int8_t *output, uint32_t count,
                       uint32_t columns);

/** \brief As slm_embedding2_s8, with an int16 output. */
void slm_embedding2_s16(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                        const int32_t *ids1, const int8_t *table1, const int8_t *rows, int16_t *output, uint32_t count,
                        uint32_t columns);

/** \brief As slm_embedding2_s8, the sum of three lookups. */
void slm_embedding3_s8(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                       const int32_t *ids1, const int8_t *table1, const int32_t *ids2, const int8_t *table2,
                       const int8_t *rows, int8_t *output, uint32_t count, uint32_t columns);

/** \brief As slm_embedding3_s8, with an int16 output. */
void slm_embedding3_s16(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                        const int32_t *ids1, const int8_t *table1, const int32_t *ids2, const int8_t *table2,
                        const int8_t *rows, int16_t *output, uint32_t count, uint32_t columns);

#endif
