#include "slm_conv2d.h"
#include "slm_layout.h"

typedef struct {
    int32_t height;
    int32_t width;
    int32_t channels;
} image_size;

static int32_t dot(const int8_t *a, const int8_t *b, int32_t count, int32_t sum)
{
    for (int32_t k = 0; k < count; k++) {
        sum += (int32_t)a[k] * b[k];
    }
    return sum;
}

static int32_t dot_constant(int32_t a, const int8_t *b, int32_t count, int32_t sum)
{
    for (int32_t k = 0; k < count; k++) {
        sum += a * b[k];
    }
    return sum;
}

/* sum plus the window whose first tap is at (top, left), on `depth` channels, times its weights */
static int32_t window(const slm_conv2d_params *p, const int8_t *image, image_size size, int32_t depth, int32_t top,
                      int32_t left, const int8_t *weights, int32_t sum)
{
    /* Inside the image, neighbouring taps on all channels are one run of memory. */
    const bool joined = p->dilation_x == 1 && depth == size.channels && left >= 0 &&
                        left + p->kernel_width <= size.width;
    const int32_t taps = joined ? p->kernel_width : 1;
    for (int32_t ky = 0; ky < p->kernel_height; ky++) {
        const int32_t y = top + ky * p->dilation_y;
        for (int32_t kx = 0; kx < p->kernel_width; kx += taps) {
            const int32_t x = left + kx * p->dilation_x;
            if (y >= 0 && y < size.height && x >= 0 && x < size.width) {
                sum = dot(image + (y * size.width + x) * size.channels, weights, taps * depth, sum);
            } else {
                sum = dot_constant(p->input_zero_point, weights, taps * depth, sum);
            }
            weights += taps * depth;
        }
    }
    return sum;
}

SLM_INLINE void conv2d(const slm_conv2d_params *p, const int32_t *multiplier, const int8_t *input, image_size size,
                       const int8_t *weights, const int32_t *bias, void *output, slm_type type, image_size out)
{
    const int32_t depth = size.channels / p->group;
    const int32_t taps = p->kernel_height * p->kernel_width;
    int32_t i = 0;
    for (int32_t y = 0; y < out.height; y++) {
        for (int32_t x = 0; x < out.width; x++) {
            for (int32_t o = 0; o < out.channels; o++) {
                const int8_t *image = input + o / (out.channels / p->group) * depth;
                const int32_t sum = window(p, image, size, depth, y * p->stride_y - p->pad_top,
                                           x * p->stride_x - p->pad_left, weights + o * taps * depth, bias[o]);
                const int32_t value = slm_scale(slm_shift_left(sum, p->shift), multiplier[o], p->zero_point);
                slm_store(output, type, i, slm_clamp(value, p->minimum, p->maximum));
                i++;
            }
        }
    }
}

void slm_conv2d_s8(void *scratch, const slm_conv2d_params *params, const int32_t *multiplier, const int8_t *input,
                   const int8_t *weights, const int32_t *bias, int8_t *output, uint32_t in_height, uint32_t in_width,
                   uint32_t in_channels, uint32_t out_height, uint32_t out_width, uint32_t out_channels)
{
    (void)scratch;
    const image_size in = {(int32_t)in_height, (int32_t)in_width, (int32_t)in_channels};
    const image_size out = {(int32_t)out_height, (int32_t)out_width, (int32_t)out_channels};
    conv2d(params, multiplier, input, in, weights, bias, output, SLM_S8, out);
}

void slm_conv2d_s8_s16(void *scratch, const slm_conv2d_params *params, const int32_t *multiplier, const int8_t *input,
                       const int8_t *weights, const int32_t *bias, int16_t *output, uint32_t in_height,
                       uint32_t in_width, uint32_t in_channels, uint32_t out_height, uint32_t out_width,
                       uint32_t out_channels)
{
    (void)scratch;
    const image_size in = {(int32_t)in_height, (int32_t)in_width, (int32_t)in_channels};
    const image_size out = {(int32_t)out_height, (int32_t)out_width, (int32_t)out_channels};
    conv2d(params, multiplier, input, in, weights, bias, output, SLM_S16, out);
}
