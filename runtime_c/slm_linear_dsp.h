/**
 * \file slm_linear_dsp.h
 * \brief The loops of slm_linear_packed.c in assembly, for cores with the DSP extension; that file says what they compute.
 */
#ifndef SLM_LINEAR_DSP_H
#define SLM_LINEAR_DSP_H

#include "slm_dsp.h"

/** What the loops work on. The assembly knows the offsets; `low` is where it points. */
typedef struct {
    int32_t start[6]; /**< bias of l, bias of 256 * h + l: three times */
    int32_t low;      /**< multiplier of l */
    int32_t high;     /**< multiplier of h */
    int32_t zero;     /**< zero point of the output */
    int32_t zero_256; /**< 256 * zero + 128: rounds to the nearest where SMMLA and ASR 8 round down */
    void *output;
    uint32_t row; /**< bytes from a token's output to the next one's */
    const uint32_t *weights;
    const uint32_t *short_end; /**< end of the words before the runs of 16, null if there are none */
    const uint32_t *end;       /**< end of the weights of a pair */
    const uint32_t *x;
    const uint32_t *x_end;   /**< end of the activations of a loop's tokens */
    const int32_t *channels; /**< slm_linear_packed_s8's, of the current pair */
    const int32_t *channels_end;
    uint32_t reserve[4]; /**< not used: stands for the words that the assembly pushes on the stack */
} slm_linear_job;

/* For one pair of channels: tokens two by two, from x to x_end. Moves x and output behind them. */
void slm_linear_two_s8(slm_linear_job *job);
void slm_linear_two_s16(slm_linear_job *job);

/* For one pair of channels: three tokens, at x. Moves neither. */
void slm_linear_three_s8(slm_linear_job *job);
void slm_linear_three_s16(slm_linear_job *job);

/* For one token: all pairs of channels, from channels to channels_end. `x` and `x_end` are those of the token. */
void slm_linear_one_s8(slm_linear_job *job);
void slm_linear_one_s16(slm_linear_job *job);

#endif
