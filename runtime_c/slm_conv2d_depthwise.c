#include "slm_conv2d.h"
#include "slm_layout.h"

typedef struct {
    int32_t height;
    int32_t width;
    int32_t channels;
} image_size;

/* sum plus the window of one channel whose first tap is at (top, left), times its weights */
static int32_t window(const slm_conv2d_params *p, const int8_t *image, image_size size, int32_t top, int32_t left,
                      const int8_t *weights, int32_t sum)
{
    for (int32_t ky = 0; ky < p->kernel_height; ky++) {
        const int32_t y = top + ky * p->dilation_y;
        for (int32_t kx = 0; kx < p->kernel_width; kx++) {
            const int32_t x = left + kx * p->dilation_x;
            const bool inside = y >= 0 && y < size.height && x >= 0 && x < size.width;
            sum += (inside ? image[(y * size.width + x) * size.channels] : p->input_zero_point) * *weights;
            weights++;
        }
    }
    return sum;
}

/* The same where no tap lies in the padding */
static int32_t window_inside(const slm_conv2d_params *p, const int8_t *image, image_size size, int32_t top,
                             int32_t left, const int8_t *weights, int32_t sum)
{
    const int32_t step = p->dilation_x * size.channels;
    const int32_t width = p->kernel_width;
    for (int32_t ky = 0; ky < p->kernel_height; ky++) {
        int32_t at = ((top + ky * p->dilation_y) * size.width + left) * size.channels;
        for (int32_t kx = 0; kx < width; kx++, at += step) {
            sum += image[at] * weights[kx];
        }
        weights += width;
    }
    return sum;
}

SLM_INLINE void conv2d(const slm_conv2d_params *p, const int32_t *multiplier, const int8_t *input, image_size size,
                       const int8_t *weights, const int32_t *bias, void *output, slm_type type, image_size out)
{
    const int32_t taps = p->kernel_height * p->kernel_width;
    const int32_t per_channel = out.channels / size.channels;
    int32_t i = 0;
    for (int32_t y = 0; y < out.height; y++) {
        const int32_t top = y * p->stride_y - p->pad_top;
        const int32_t bottom = top + (p->kernel_height - 1) * p->dilation_y;
        for (int32_t x = 0; x < out.width; x++) {
            const int32_t left = x * p->stride_x - p->pad_left;
            const int32_t right = left + (p->kernel_width - 1) * p->dilation_x;
            const bool inside = top >= 0 && bottom < size.height && left >= 0 && right < size.width;
            for (int32_t o = 0; o < out.channels; o++) {
                const int8_t *image = input + o / per_channel;
                const int32_t sum = inside ? window_inside(p, image, size, top, left, weights + o * taps, bias[o])
                                           : window(p, image, size, top, left, weights + o * taps, bias[o]);
                const int32_t value = slm_scale(slm_shift_left(sum, p->shift), multiplier[o], p->zero_point);
                slm_store(output, type, i, slm_clamp(value, p->minimum, p->maximum));
                i++;
            }
        }
    }
}

void slm_conv2d_depthwise_s8(void *scratch, const slm_conv2d_params *params, const int32_t *multiplier,
                             const int8_t *input, const int8_t *weights, const int32_t *bias, int8_t *output,
                             uint32_t in_height, uint32_t in_width, uint32_t in_channels, uint32_t out_height,
                             uint32_t out_width, uint32_t out_channels)
{
    (void)scratch;
    const image_size in = {(int32_t)in_height, (int32_t)in_width, (int32_t)in_channels};
    const image_size out = {(int32_t)out_height, (int32_t)out_width, (int32_t)out_channels};
    conv2d(params, multiplier, input, in, weights, bias, output, SLM_S8, out);
}

void slm_conv2d_depthwise_s8_s16(void *scratch, const slm_conv2d_params *params, const int32_t *multiplier,
                                 const int8_t *input, const int8_t *weights, const int32_t *bias, int16_t *output,
                                 uint32_t in_height, uint32_t in_width, uint32_t in_channels, uint32_t out_height,
                                 uint32_t out_width, uint32_t out_channels)
{
    (void)scratch;
    const image_size in = {(int32_t)in_height, (int32_t)in_width, (int32_t)in_channels};
    const image_size out = {(int32_t)out_height, (int32_t)out_width, (int32_t)out_channels};
    conv2d(params, multiplier, input, in, weights, bias, output, SLM_S16, out);
}
