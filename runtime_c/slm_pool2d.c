#include "slm_pool2d.h"
#include "slm_layout.h"

typedef enum {
    MAX,
    AVERAGE
} pooling;

/* The taps of a window along one axis that lie in the image: first <= k < end, at start + k * dilation */
typedef struct {
    int32_t start;
    int32_t first;
    int32_t end;
} span;

static span span_in(int32_t start, int32_t kernel, int32_t dilation, int32_t size)
{
    const int32_t end = (size - start + dilation - 1) / dilation;
    const span found = {start, start < 0 ? (dilation - 1 - start) / dilation : 0, end < kernel ? end : kernel};
    return found;
}

SLM_INLINE void pool2d(pooling kind, const slm_pool2d_params *p, const int8_t *input, void *output, slm_type type,
                       int32_t in_height, int32_t in_width, int32_t channels, int32_t out_height, int32_t out_width)
{
    int32_t i = 0;
    for (int32_t y = 0; y < out_height; y++) {
        const span rows = span_in(y * p->stride_y - p->pad_top, p->kernel_height, p->dilation_y, in_height);
        for (int32_t x = 0; x < out_width; x++) {
            const span columns = span_in(x * p->stride_x - p->pad_left, p->kernel_width, p->dilation_x, in_width);
            const int32_t inside = (rows.end - rows.first) * (columns.end - columns.first);
            const int32_t count = p->count_padding != 0 ? p->kernel_height * p->kernel_width : inside;
            const int32_t multiplier = slm_divide_multiplier(p->multiplier, kind == AVERAGE ? (uint32_t)count : 1u);
            const int32_t zero = kind == AVERAGE ? p->input_zero_point * inside : p->input_zero_point;
            for (int32_t c = 0; c < channels; c++) {
                int32_t value = kind == AVERAGE ? 0 : INT8_MIN;
                for (int32_t ky = rows.first; ky < rows.end; ky++) {
                    const int8_t *row = input + (rows.start + ky * p->dilation_y) * in_width * channels + c;
                    for (int32_t kx = columns.first; kx < columns.end; kx++) {
                        const int32_t element = row[(columns.start + kx * p->dilation_x) * channels];
                        value = kind == AVERAGE ? value + element : element > value ? element : value;
                    }
                }
                value = slm_rescale(value - zero, multiplier, p->shift, p->zero_point);
                slm_store(output, type, i, slm_saturate(value, type));
                i++;
            }
        }
    }
}

void slm_pool2d_max_s8(const slm_pool2d_params *params, const int8_t *input, int8_t *output, uint32_t in_height,
                       uint32_t in_width, uint32_t channels, uint32_t out_height, uint32_t out_width)
{
    pool2d(MAX, params, input, output, SLM_S8, (int32_t)in_height, (int32_t)in_width, (int32_t)channels,
           (int32_t)out_height, (int32_t)out_width);
}

void slm_pool2d_max_s8_s16(const slm_pool2d_params *params, const int8_t *input, int16_t *output, uint32_t in_height,
                           uint32_t in_width, uint32_t channels, uint32_t out_height, uint32_t out_width)
{
    pool2d(MAX, params, input, output, SLM_S16, (int32_t)in_height, (int32_t)in_width, (int32_t)channels,
           (int32_t)out_height, (int32_t)out_width);
}

void slm_pool2d_average_s8(const slm_pool2d_params *params, const int8_t *input, int8_t *output, uint32_t in_height,
                           uint32_t in_width, uint32_t channels, uint32_t out_height, uint32_t out_width)
{
    pool2d(AVERAGE, params, input, output, SLM_S8, (int32_t)in_height, (int32_t)in_width, (int32_t)channels,
           (int32_t)out_height, (int32_t)out_width);
}

void slm_pool2d_average_s8_s16(const slm_pool2d_params *params, const int8_t *input, int16_t *output,
                               uint32_t in_height, uint32_t in_width, uint32_t channels, uint32_t out_height,
                               uint32_t out_width)
{
    pool2d(AVERAGE, params, input, output, SLM_S16, (int32_t)in_height, (int32_t)in_width, (int32_t)channels,
           (int32_t)out_height, (int32_t)out_width);
}
