#include "slm_layout.h"
#include "slm_linear.h"
#include "slm_linear_dsp.h"
#include <stddef.h>

#define LANES 2u      /* in a word */
#define QUAD 4u       /* features that SXTB16 takes at once, in two words */
#define MAX_TOKENS 3u /* in a block */
#define ALIGNED_TO 8u /* features: what rows of packed weights are filled up to */
#define PIECE_WORDS (SLM_LINEAR_PIECE / LANES)

/* The layer. */
typedef struct {
    const slm_linear_params *params;
    const int32_t *channels;
    const int8_t *table;
    const uint32_t *weights;
    uint32_t in_features;
    uint32_t out_features;
    uint32_t output_step;
    uint32_t words; /* of weights in a pair of channels, of activations in a token */
    slm_type type;
    bool pieces;
} layer;

/* Tokens in the next block, of `left` that remain: three, but two at the end where that leaves no single one. */
static uint32_t block_size(uint32_t left)
{
    return left == 1u ? 1u : left == 2u || left == 4u ? 2u : 3u;
}

/* Four features in 16 bits, as two words `step` apart, and the table looked up if there is one. */
SLM_INLINE void expand_quad(uint32_t *x, const int8_t *quad, uint32_t step, const int8_t *table)
{
    if (table == NULL) {
        uint32_t word = slm_load_word(quad);
        x[0] = slm_sxtb16(word);
        x[step] = slm_sxtb16_ror8(word);
    } else {
        const int8_t *middle = table + 128;
        x[0] = slm_pack_lower((uint32_t)middle[quad[0]], (uint32_t)middle[quad[2]]);
        x[step] = slm_pack_lower((uint32_t)middle[quad[1]], (uint32_t)middle[quad[3]]);
    }
}

/* The features up to `end` of a block's tokens, four by four: x[words][tokens], for a constant number of tokens. */
SLM_INLINE void expand_quads(uint32_t *x, const int8_t *input, const int8_t *end, uint32_t features, uint32_t tokens,
                             const int8_t *table)
{
    for (; input != end; input += QUAD, x += LANES * tokens) {
        SLM_UNROLL
        for (uint32_t t = 0; t < tokens; t++) {
            expand_quad(x + t, input + t * features, tokens, table);
        }
    }
}

#if SLM_DSP
/* expand_quads in assembly, where that pays; whether it is done. */
static bool assembly_expands(uint32_t *x, const int8_t *input, const int8_t *end, uint32_t features, uint32_t tokens,
                             const int8_t *table)
{
    if (input == end || tokens == 2u || (tokens == 1u && table != NULL)) {
        return false;
    }
    if (tokens == 1u) {
        slm_linear_expand_one(x, input, end);
    } else if (table == NULL) {
        slm_linear_expand_three(x, input, end, features);
    } else {
        slm_linear_look_up_three(x, input, end, features, table);
    }
    return true;
}
#else
static bool assembly_expands(uint32_t *x, const int8_t *input, const int8_t *end, uint32_t features, uint32_t tokens,
                             const int8_t *table)
{
    (void)x;
    (void)input;
    (void)end;
    (void)features;
    (void)tokens;
    (void)table;
    return false;
}
#endif

static void expand_block(const layer *l, uint32_t *x, const int8_t *input, uint32_t tokens)
{
    const uint32_t features = l->in_features;
    const uint32_t whole = features / (2u * QUAD) * (2u * QUAD);
    const int8_t *end = input + whole;
    if (!assembly_expands(x, input, end, features, tokens, l->table)) {
        if (tokens == 2u && l->table == NULL) {
            expand_quads(x, input, end, features, 2u, NULL);
        } else {
            expand_quads(x, input, end, features, tokens, l->table);
        }
    }
    /* What of the last words is beyond the features meets weights of 0. */
    for (uint32_t k = whole; k < LANES * l->words; k += QUAD) {
        for (uint32_t t = 0; t < tokens; t++) {
            int8_t last[QUAD] = {0, 0, 0, 0};
            for (uint32_t i = 0; i < QUAD && k + i < features; i++) {
                last[i] = input[t * features + k + i];
            }
            expand_quad(x + tokens * (k / LANES) + t, last, tokens, l->table);
        }
    }
}

/* Sums of l and of 256 * h + l over `words`, for a constant number of the `size` tokens of a block. */
SLM_INLINE void add_words(int32_t *low, int32_t *both, const uint32_t *w, const uint32_t *x, uint32_t words,
                          uint32_t size, uint32_t tokens)
{
    for (uint32_t i = 0; i < words; i++, x += size) {
        SLM_UNROLL
        for (uint32_t t = 0; t < tokens; t++) {
            both[t] = slm_smlad(w[i], x[t], both[t]);
            low[t] = slm_smlad(slm_sxtb16(w[i]), x[t], low[t]);
        }
    }
}

/* The sum of h, of less than 2^23. */
static int32_t high_sum(int32_t both, int32_t low)
{
    return (int32_t)((uint32_t)both - (uint32_t)low) >> 8;
}

/* Both sums of a pair of channels with their biases, in low and high, as add_words. */
SLM_INLINE void dot(const layer *l, int32_t *low, int32_t *high, uint32_t pair, const uint32_t *x, uint32_t size,
                    uint32_t tokens)
{
    const int32_t *channel = l->channels + 4u * pair;
    const uint32_t *w = l->weights + l->words * pair;
    const uint32_t piece = l->pieces ? PIECE_WORDS : l->words;
    for (uint32_t t = 0; t < tokens; t++) {
        low[t] = channel[3];
        high[t] = l->pieces ? channel[2] : high_sum(channel[2], channel[3]);
    }
    for (uint32_t i = 0; i < l->words; i += piece) {
        int32_t piece_low[MAX_TOKENS] = {0, 0, 0};
        int32_t piece_both[MAX_TOKENS] = {0, 0, 0};
        uint32_t count = l->words - i < piece ? l->words - i : piece;
        add_words(piece_low, piece_both, w + i, x + i * size, count, size, tokens);
        for (uint32_t t = 0; t < tokens; t++) {
            low[t] += piece_low[t];
            high[t] += high_sum(piece_both[t], piece_low[t]);
        }
    }
}

static int32_t requantize(int32_t acc, int32_t multiplier, const slm_linear_params *p)
{
    return slm_clamp(slm_scale(slm_shift_left(acc, p->shift), multiplier, p->zero_point), p->minimum, p->maximum);
}

/* One pair of channels and one block of tokens; the last pair has one channel if their number is odd. */
static void block(const layer *l, uint32_t pair, const uint32_t *x, uint32_t tokens, void *output, uint32_t row)
{
    int32_t low[MAX_TOKENS];
    int32_t high[MAX_TOKENS];
    const int32_t *multiplier = l->channels + 4u * pair;
    if (tokens == MAX_TOKENS) {
        dot(l, low, high, pair, x, MAX_TOKENS, MAX_TOKENS);
    } else {
        for (uint32_t t = 0; t < tokens; t++) {
            dot(l, &low[t], &high[t], pair, x + t, tokens, 1u);
        }
    }
    for (uint32_t t = 0; t < tokens; t++) {
        int32_t at = (int32_t)((row + t) * l->output_step + 2u * pair);
        slm_store(output, l->type, at, requantize(low[t], multiplier[0], l->params));
        if (2u * pair + 1u < l->out_features) {
            slm_store(output, l->type, at + 1, requantize(high[t], multiplier[1], l->params));
        }
    }
}

static void portable_pairs(const layer *l, uint32_t first, const uint32_t *x, uint32_t tokens, void *output)
{
    for (uint32_t pair = first; pair < (l->out_features + 1u) / 2u; pair++) {
        uint32_t size;
        for (uint32_t t = 0; t < tokens; t += size) {
            size = block_size(tokens - t);
            block(l, pair, x + l->words * t, size, output, t);
        }
    }
}

#if SLM_DSP
/* Tokens that go three by three, of at least two. */
static uint32_t in_threes(uint32_t tokens)
{
    return tokens - (6u - 2u * (tokens % 3u)) % 6u;
}

/* The assembly saturates to the type; a ReLU may want less. */
static void limit_outputs(const layer *l, uint32_t channels, uint32_t tokens, void *output)
{
    const int32_t minimum = l->params->minimum;
    const int32_t maximum = l->params->maximum;
    const slm_type type = l->type;
    if (minimum == slm_saturate(INT32_MIN, type) && maximum == slm_saturate(INT32_MAX, type)) {
        return;
    }
    for (uint32_t t = 0; t < tokens; t++) {
        for (uint32_t c = 0; c < channels; c++) {
            int32_t at = (int32_t)(t * l->output_step + c);
            slm_store(output, type, at, slm_clamp(slm_load(output, type, at), minimum, maximum));
        }
    }
}

/* All full pairs in assembly, where the requantization is what it does; the number of pairs done. */
static uint32_t assembly_pairs(const layer *l, const uint32_t *x, uint32_t tokens, void *output)
{
    const slm_linear_params *p = l->params;
    const uint32_t pairs = l->out_features / 2u;
    const uint32_t width = l->type == SLM_S8 ? 1u : 2u;
    if (l->pieces || pairs == 0u) {
        return 0u;
    }
    const slm_linear_job job = {
        .zero = p->zero_point,
        .zero_256 = slm_shift_left(p->zero_point, 8) + 128,
        .row = width * l->output_step,
        .w = l->weights,
        .skip = 4u * ((0u - l->words) % SLM_LINEAR_RUN),
        .pair_bytes = 4u * l->words,
        .x_threes = x + l->words * in_threes(tokens),
        .x_end = x + l->words * tokens,
        .x = x,
        .channels = l->channels,
        .channels_end = l->channels + 4u * pairs,
        .back = width * (tokens * l->output_step - 2u),
        .output = output,
        .wide = l->type == SLM_S16,
        .shift = (uint32_t)p->shift,
    };
    if (tokens == 1u) {
        slm_linear_one(&job);
    } else {
        slm_linear_many(&job);
    }
    limit_outputs(l, 2u * pairs, tokens, output);
    return pairs;
}
#else
static uint32_t assembly_pairs(const layer *l, const uint32_t *x, uint32_t tokens, void *output)
{
    (void)l;
    (void)x;
    (void)tokens;
    (void)output;
    return 0u;
}
#endif

/* Tiles of equal size, expanded and multiplied one after the other. */
static void run(const layer *l, uint32_t *x, const int8_t *input, void *output, uint32_t rows, uint32_t tile)
{
    for (uint32_t tiles = (rows + tile - 1u) / tile; tiles != 0u; tiles--) {
        uint32_t tokens = (rows + tiles - 1u) / tiles;
        uint32_t size;
        for (uint32_t t = 0; t < tokens; t += size) {
            size = block_size(tokens - t);
            expand_block(l, x + l->words * t, input + l->in_features * t, size);
        }
        portable_pairs(l, assembly_pairs(l, x, tokens, output), x, tokens, output);
        input += l->in_features * tokens;
        output = (uint8_t *)output + tokens * l->output_step * (l->type == SLM_S8 ? 1u : 2u);
        rows -= tokens;
    }
}

static uint32_t words_of(uint32_t in_features)
{
    return (in_features + ALIGNED_TO - 1u) / ALIGNED_TO * (ALIGNED_TO / LANES);
}

void slm_linear_packed_s8(void *scratch, const slm_linear_params *params, const int32_t *channels, const int8_t *input,
                          const int8_t *table, const uint32_t *weights, int8_t *output, uint32_t rows,
                          uint32_t in_features, uint32_t out_features, uint32_t output_step, uint32_t tile)
{
    const layer l = {params, channels, table, weights, in_features, out_features, output_step, words_of(in_features),
                     SLM_S8, false};
    run(&l, scratch, input, output, rows, tile);
}

void slm_linear_packed_s8_s16(void *scratch, const slm_linear_params *params, const int32_t *channels,
                              const int8_t *input, const int8_t *table, const uint32_t *weights, int16_t *output,
                              uint32_t rows, uint32_t in_features, uint32_t out_features, uint32_t output_step,
                              uint32_t tile)
{
    const layer l = {params,  channels, table, weights, in_features, out_features, output_step, words_of(in_features),
                     SLM_S16, false};
    run(&l, scratch, input, output, rows, tile);
}

void slm_linear_pieces_s8(void *scratch, const slm_linear_params *params, const int32_t *channels, const int8_t *input,
                          const int8_t *table, const uint32_t *weights, int8_t *output, uint32_t rows,
                          uint32_t in_features, uint32_t out_features, uint32_t output_step, uint32_t tile)
{
    const layer l = {params, channels, table, weights, in_features, out_features, output_step, words_of(in_features),
                     SLM_S8, true};
    run(&l, scratch, input, output, rows, tile);
}

void slm_linear_pieces_s8_s16(void *scratch, const slm_linear_params *params, const int32_t *channels,
                              const int8_t *input, const int8_t *table, const uint32_t *weights, int16_t *output,
                              uint32_t rows, uint32_t in_features, uint32_t out_features, uint32_t output_step,
                              uint32_t tile)
{
    const layer l = {params,  channels, table, weights, in_features, out_features, output_step, words_of(in_features),
                     SLM_S16, true};
    run(&l, scratch, input, output, rows, tile);
}
