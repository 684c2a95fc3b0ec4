/**
 * \file slm_linear_dsp.h
 * \brief The loops of slm_linear_packed.c in assembly, for cores with the DSP extension; that file says what they compute.
 */
#ifndef SLM_LINEAR_DSP_H
#define SLM_LINEAR_DSP_H

#include "slm_dsp.h"

/** What the loops work on, and what they change; the assembly knows the offsets from `low`. */
typedef struct {
    int32_t start[6]; /**< bias of l, bias of 256 * h + l, for up to three tokens */
    int32_t low;      /**< multiplier of l */
    int32_t high;     /**< multiplier of h */
    int32_t zero;     /**< zero point of the output */
    int32_t zero_256; /**< 256 * zero + 128: rounds to the nearest where SMMLA and ASR 8 round down */
    void *output;
    uint32_t row; /**< bytes from a token's output to the next one's */
    const uint32_t *weights;
    uint32_t has_short; /**< whether there are words before the runs of SLM_LINEAR_RUN */
    const uint32_t *x;
    const uint32_t *x_end;   /**< end of the tokens that go two by two */
    const int32_t *channels; /**< as slm_linear_packed_s8 takes them, from the next pair to */
    const int32_t *channels_end;
    void *first_output;  /**< the first token's output of the next pair */
    uint32_t pair_bytes; /**< from the weights of a pair to those of the next one */
    uint32_t three;      /**< whether three more tokens follow at x_end */
    const uint32_t *short_end;
    const uint32_t *end;
    uint32_t reserve[4]; /**< not used: stands for the words that the assembly pushes on the stack */
} slm_linear_job;

/** Words that the loops take at once, after the short_end that the rest comes first up to. */
#define SLM_LINEAR_RUN 32u

/**
 * \brief All pairs of channels of at least two tokens: two by two from x to x_end, then perhaps three.
 *
 * Sets what stands before `weights`, but for zero, zero_256 and row. short_end and end are those of the first pair's weights.
 */
void slm_linear_many_s8(slm_linear_job *job);
void slm_linear_many_s16(slm_linear_job *job);

/** \brief All pairs of channels of one token; short_end and end are those of its activations. */
void slm_linear_one_s8(slm_linear_job *job);
void slm_linear_one_s16(slm_linear_job *job);

#endif
