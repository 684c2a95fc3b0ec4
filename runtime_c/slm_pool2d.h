/**
 * \file slm_pool2d.h
 * \brief Pooling of images, channels last; specified by slm2c/ops/pool2d.py.
 */
#ifndef SLM_POOL2D_H
#define SLM_POOL2D_H

#include <stdint.h>

/** Scales and geometry of one layer; lies in the blob. Each window has an element in the image. */
typedef struct {
    int32_t multiplier; /**< times 2^(shift - 32) */
    int32_t shift;      /**< 0..30 */
    int32_t input_zero_point;
    int32_t zero_point; /**< of the output */
    int32_t kernel_height;
    int32_t kernel_width;
    int32_t stride_y;
    int32_t stride_x;
    int32_t pad_top;
    int32_t pad_left;
    int32_t dilation_y;
    int32_t dilation_x;
    int32_t count_padding; /**< 1 if a mean counts the elements of a window that lie in the padding */
} slm_pool2d_params;

/**
 * \brief output[y][x][c] = the greatest element of channel c in the window at (y, x), requantized
 *
 * \param[in]  params     scales and geometry, see slm_pool2d_params
 * \param[in]  input      [in_height][in_width][channels]
 * \param[out] output     [out_height][out_width][channels]; must not overlap the input
 * \param[in]  in_height  at least 1, as all that follow
 * \param[in]  in_width   columns of the input
 * \param[in]  channels   of input and output
 * \param[in]  out_height rows of the output
 * \param[in]  out_width  columns of the output
 */
void slm_pool2d_max_s8(const slm_pool2d_params *params, const int8_t *input, int8_t *output, uint32_t in_height,
                       uint32_t in_width, uint32_t channels, uint32_t out_height, uint32_t out_width);

/** \brief As slm_pool2d_max_s8, with an int16 output. */
void slm_pool2d_max_s8_s16(const slm_pool2d_params *params, const int8_t *input, int16_t *output, uint32_t in_height,
                           uint32_t in_width, uint32_t channels, uint32_t out_height, uint32_t out_width);

/** \brief As slm_pool2d_max_s8, the mean of the window. */
void slm_pool2d_average_s8(const slm_pool2d_params *params, const int8_t *input, int8_t *output, uint32_t in_height,
                           uint32_t in_width, uint32_t channels, uint32_t out_height, uint32_t out_width);

/** \brief As slm_pool2d_average_s8, with an int16 output. */
void slm_pool2d_average_s8_s16(const slm_pool2d_params *params, const int8_t *input, int16_t *output,
                               uint32_t in_height, uint32_t in_width, uint32_t channels, uint32_t out_height,
                               uint32_t out_width);

#endif
