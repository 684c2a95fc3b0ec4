/**
 * \file slm_lut.h
 * \brief Functions of one variable as tables; specified by slm2c/ops/lut.py.
 */
#ifndef SLM_LUT_H
#define SLM_LUT_H

#include <stdint.h>

/** Entries of the table of a function of int16: its values at -32768 + 128 * i. */
#define SLM_LUT_POINTS 513

/**
 * \brief output[i] = table[input[i] + 128]
 *
 * \param[in]  input   [rows][columns]
 * \param[in]  table   [256] the function at -128..127
 * \param[out] output  [rows][columns]; may be the input
 * \param[in]  rows    at least 1
 * \param[in]  columns at least 1
 */
void slm_lut_s8(const int8_t *input, const int8_t *table, int8_t *output, uint32_t rows, uint32_t columns);

/** \brief As slm_lut_s8, with an int16 output, which must not overlap the input. */
void slm_lut_s8_s16(const int8_t *input, const int16_t *table, int16_t *output, uint32_t rows, uint32_t columns);

/**
 * \brief output[i] = the function at input[i], interpolated between the two nearest points of the table
 *
 * \param[in]  input   [rows][columns]
 * \param[in]  table   [SLM_LUT_POINTS]
 * \param[out] output  [rows][columns]; may be the input
 * \param[in]  rows    at least 1
 * \param[in]  columns at least 1
 */
void slm_lut_s16(const int16_t *input, const int16_t *table, int16_t *output, uint32_t rows, uint32_t columns);

/** \brief As slm_lut_s16, with an int8 output; the table's entries are in 1/256 of its unit. */
void slm_lut_s16_s8(const int16_t *input, const int16_t *table, int8_t *output, uint32_t rows, uint32_t columns);

#endif
