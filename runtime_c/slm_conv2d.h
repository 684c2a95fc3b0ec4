/**
 * \file slm_conv2d.h
 * \brief Convolutions of images, channels last; specified by slm2c/ops/conv2d.py.
 */
#ifndef SLM_CONV2D_H
#define SLM_CONV2D_H

#include <stdint.h>

/** Requantization and geometry of one layer; lies in the blob. */
typedef struct {
    int32_t shift;            /**< left shift of the accumulator before the multiplication, 0..30 */
    int32_t zero_point;       /**< of the output */
    int32_t minimum;          /**< lower limit of the output: the type's, or the zero point for a ReLU */
    int32_t maximum;          /**< upper limit of the output */
    int32_t input_zero_point; /**< what the padding holds */
    int32_t kernel_height;
    int32_t kernel_width;
    int32_t stride_y;
    int32_t stride_x;
    int32_t pad_top;
    int32_t pad_left;
    int32_t dilation_y;
    int32_t dilation_x;
    int32_t group; /**< divides both numbers of channels; that of the input for a depthwise convolution */
} slm_conv2d_params;

/**
 * \brief output[y][x][o] = saturate(scale((sum of the window at (y, x) times weights[o] + bias[o]) << shift) + zero_point)
 *
 * \param[in]  scratch      not used, may be null
 * \param[in]  params       requantization and geometry, see slm_conv2d_params
 * \param[in]  multiplier   [out_channels] times 2^-32
 * \param[in]  input        [in_height][in_width][in_channels]
 * \param[in]  weights      [out_channels][kernel_height][kernel_width][in_channels / group], in [-127, 127]
 * \param[in]  bias         [out_channels], the input's zero point folded in
 * \param[out] output       [out_height][out_width][out_channels]; must not overlap the input
 * \param[in]  in_height    at least 1, as all that follow
 * \param[in]  in_width     columns of the input
 * \param[in]  in_channels  C
 * \param[in]  out_height   rows of the output
 * \param[in]  out_width    columns of the output
 * \param[in]  out_channels M
 */
void slm_conv2d_s8(void *scratch, const slm_conv2d_params *params, const int32_t *multiplier, const int8_t *input,
                   const int8_t *weights, const int32_t *bias, int8_t *output, uint32_t in_height, uint32_t in_width,
                   uint32_t in_channels, uint32_t out_height, uint32_t out_width, uint32_t out_channels);

/** \brief As slm_conv2d_s8, with an int16 output. */
void slm_conv2d_s8_s16(void *scratch, const slm_conv2d_params *params, const int32_t *multiplier, const int8_t *input,
                       const int8_t *weights, const int32_t *bias, int16_t *output, uint32_t in_height,
                       uint32_t in_width, uint32_t in_channels, uint32_t out_height, uint32_t out_width,
                       uint32_t out_channels);

/** \brief As slm_conv2d_s8, where each channel of the output sees one of the input: group = in_channels. */
void slm_conv2d_depthwise_s8(void *scratch, const slm_conv2d_params *params, const int32_t *multiplier,
                             const int8_t *input, const int8_t *weights, const int32_t *bias, int8_t *output,
                             uint32_t in_height, uint32_t in_width, uint32_t in_channels, uint32_t out_height,
                             uint32_t out_width, uint32_t out_channels);

/** \brief As slm_conv2d_depthwise_s8, with an int16 output. */
void slm_conv2d_depthwise_s8_s16(void *scratch, const slm_conv2d_params *params, const int32_t *multiplier,
                                 const int8_t *input, const int8_t *weights, const int32_t *bias, int16_t *output,
                                 uint32_t in_height, uint32_t in_width, uint32_t in_channels, uint32_t out_height,
                                 uint32_t out_width, uint32_t out_channels);

#endif
