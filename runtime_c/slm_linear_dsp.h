/**
 * \file slm_linear_dsp.h
 * \brief The loops of slm_linear_packed.c in assembly, for cores with the DSP extension; that file says what they compute.
 */
#ifndef SLM_LINEAR_DSP_H
#define SLM_LINEAR_DSP_H

#include "slm_dsp.h"

/** What the loops work on; the assembly knows the order. */
typedef struct {
    int32_t zero;             /**< zero point of the output */
    int32_t zero_256;         /**< 256 * zero + 128: rounds to the nearest where SMMLA and ASR 8 round down */
    uint32_t row;             /**< bytes from a token's output to the next one's */
    const uint32_t *w;        /**< weights of the first pair */
    uint32_t skip;            /**< bytes by which the words of a pair fall short of whole runs */
    uint32_t pair_bytes;      /**< from the weights of a pair to those of the next one */
    const uint32_t *x_threes; /**< end of the tokens that go three by three */
    const uint32_t *x_end;    /**< end of all, the rest of which go two by two */
    const uint32_t *x;        /**< their activations */
    const int32_t *channels;  /**< as slm_linear_packed_s8 takes them */
    const int32_t *channels_end;
    uint32_t back;  /**< bytes from behind the last token's output to the first token's of the next pair */
    void *output;   /**< the first pair's of the first token */
    uint32_t wide;  /**< whether outputs are int16 */
    uint32_t shift; /**< left shift of sums */
} slm_linear_job;

/** Words of a run, which is what the loops do without a branch. Pairs have a multiple of 4. */
#define SLM_LINEAR_RUN 64u

/** \brief All pairs of channels of at least two tokens: x[tokens / 3][words][3], then x[...][words][2]. */
void slm_linear_many(const slm_linear_job *job);

/** \brief All pairs of channels of one token, x[words]. */
void slm_linear_one(const slm_linear_job *job);

/** \brief Features of a token up to `end`, of which there are a multiple of eight, to 16 bits: x[words]. */
void slm_linear_expand_one(uint32_t *x, const int8_t *input, const int8_t *end);

/** \brief The same of three tokens, each of which has `features`: x[words][3]. */
void slm_linear_expand_three(uint32_t *x, const int8_t *input, const int8_t *end, uint32_t features);

/** \brief As slm_linear_expand_three, of table[input + 128]. */
void slm_linear_look_up_three(uint32_t *x, const int8_t *input, const int8_t *end, uint32_t features,
                              const int8_t *table);

#endif
