#include "slm_layout.h"
#include "slm_linear.h"
#include "slm_linear_dsp.h"
#include <stddef.h>

#define LANES 2u      /* in a word */
#define QUAD 4u       /* features that SXTB16 takes at once, in two words */
#define ALIGNED_TO 8u /* features: what the rows of packed weights are filled up to */
#define SHORT_RUN 16u /* words: the assembly goes through the weights in runs of 16, what is left over comes first */
#define MAX_TOKENS 3u /* in a block */
#define PIECE_WORDS (SLM_LINEAR_PIECE / LANES)

/* The layer, and the tokens that are expanded in x. */
typedef struct {
    const slm_linear_params *params;
    const int32_t *channels;
    const uint32_t *weights;
    const uint32_t *x;
    uint32_t words; /* of weights in a pair of channels, of activations in a token */
    uint32_t out_features;
    slm_type type;
    bool pieces;
} layer;

/* Tokens in the next block: two, but three at the end of an odd number. */
static uint32_t block_size(uint32_t tokens)
{
    return tokens == MAX_TOKENS || tokens == 1u ? tokens : 2u;
}

/* Four features of each token of a block, in 16 bits, as two words of the block. */
SLM_INLINE void expand_quad(uint32_t *x, const uint32_t *quad, uint32_t tokens)
{
    SLM_UNROLL
    for (uint32_t t = 0; t < tokens; t++) {
        x[t] = slm_sxtb16(quad[t]);
        x[tokens + t] = slm_sxtb16_ror8(quad[t]);
    }
}

/* The tokens of a block in 16 bits, word by word: x[words][tokens], for a constant number of tokens. */
SLM_INLINE void expand_block(uint32_t *x, const int8_t *input, uint32_t tokens, uint32_t features, uint32_t words)
{
    uint32_t quad[MAX_TOKENS] = {0u, 0u, 0u};
    const uint32_t *end = x + words * tokens;
    const int8_t *full = input + features / QUAD * QUAD;
    for (; input != full; input += QUAD, x += LANES * tokens) {
        SLM_UNROLL
        for (uint32_t t = 0; t < tokens; t++) {
            quad[t] = slm_load_word(input + t * features);
        }
        expand_quad(x, quad, tokens);
    }
    for (uint32_t left = features % QUAD; x != end; left = 0u, x += LANES * tokens) {
        SLM_UNROLL
        for (uint32_t t = 0; t < tokens; t++) {
            int8_t last[QUAD] = {0, 0, 0, 0};
            for (uint32_t i = 0; i < left; i++) {
                last[i] = input[t * features + i];
            }
            quad[t] = slm_load_word(last);
        }
        expand_quad(x, quad, tokens);
    }
}

static void expand(uint32_t *x, const int8_t *input, uint32_t tokens, uint32_t features, uint32_t words)
{
    if (tokens == 1u) {
        expand_block(x, input, 1u, features, words);
    } else if (tokens == 2u) {
        expand_block(x, input, 2u, features, words);
    } else {
        expand_block(x, input, 3u, features, words);
    }
}

/* Sums of l and of 256 * h + l over `words`, for a constant number of tokens. */
SLM_INLINE void add_words(int32_t *low, int32_t *both, const uint32_t *w, const uint32_t *x, uint32_t words,
                          uint32_t tokens)
{
    for (uint32_t i = 0; i < words; i++, x += tokens) {
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

/* The bias of 256 * h + l, modulo 2^32. */
static int32_t both_bias(const int32_t *channel)
{
    return (int32_t)(((uint32_t)channel[1] << 8) + (uint32_t)channel[0]);
}

/* Both sums of a pair of channels with their biases, in low and high. */
SLM_INLINE void dot(int32_t *low, int32_t *high, const int32_t *channel, const uint32_t *w, const uint32_t *x,
                    uint32_t words, uint32_t tokens, bool pieces)
{
    SLM_UNROLL
    for (uint32_t t = 0; t < tokens; t++) {
        low[t] = channel[0];
        high[t] = pieces ? channel[1] : both_bias(channel);
    }
    if (!pieces) {
        add_words(low, high, w, x, words, tokens);
        SLM_UNROLL
        for (uint32_t t = 0; t < tokens; t++) {
            high[t] = high_sum(high[t], low[t]);
        }
        return;
    }
    for (uint32_t i = 0; i < words; i += PIECE_WORDS) {
        int32_t piece_low[MAX_TOKENS] = {0, 0, 0};
        int32_t piece_both[MAX_TOKENS] = {0, 0, 0};
        uint32_t count = words - i < PIECE_WORDS ? words - i : PIECE_WORDS;
        add_words(piece_low, piece_both, w + i, x + i * tokens, count, tokens);
        SLM_UNROLL
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
    const int32_t *channel = l->channels + 4u * pair;
    const uint32_t *w = l->weights + l->words * pair;
    if (tokens == 1u) {
        dot(low, high, channel, w, x, l->words, 1u, l->pieces);
    } else if (tokens == 2u) {
        dot(low, high, channel, w, x, l->words, 2u, l->pieces);
    } else {
        dot(low, high, channel, w, x, l->words, 3u, l->pieces);
    }
    for (uint32_t t = 0; t < tokens; t++) {
        int32_t at = (int32_t)((row + t) * l->out_features + 2u * pair);
        slm_store(output, l->type, at, requantize(low[t], channel[2], l->params));
        if (2u * pair + 1u < l->out_features) {
            slm_store(output, l->type, at + 1, requantize(high[t], channel[3], l->params));
        }
    }
}

static void portable_pairs(const layer *l, uint32_t first, uint32_t tokens, void *output)
{
    for (uint32_t pair = first; pair < (l->out_features + 1u) / 2u; pair++) {
        uint32_t size;
        for (uint32_t t = 0; t < tokens; t += size) {
            size = block_size(tokens - t);
            block(l, pair, l->x + l->words * t, size, output, t);
        }
    }
}

#if SLM_DSP
/* All full pairs in assembly, where the requantization is what it does; the number of pairs done. */
static uint32_t assembly_pairs(const layer *l, uint32_t tokens, void *output)
{
    const slm_linear_params *p = l->params;
    bool s8 = l->type == SLM_S8;
    if (l->pieces || p->shift != 0 || p->minimum != (s8 ? INT8_MIN : INT16_MIN) ||
        p->maximum != (s8 ? INT8_MAX : INT16_MAX)) {
        return 0u;
    }
    uint32_t pairs = l->out_features / 2u;
    if (pairs == 0u) {
        return 0u;
    }
    uint32_t width = s8 ? 1u : 2u;
    uint32_t rest = l->words % SLM_LINEAR_RUN;
    const uint32_t *first = tokens == 1u ? l->x : l->weights;
    uint32_t by_two = tokens % 2u == 0u ? tokens : tokens < MAX_TOKENS ? 0u : tokens - MAX_TOKENS;
    slm_linear_job job = {
        .zero = p->zero_point,
        .zero_256 = slm_shift_left(p->zero_point, 8) + 128,
        .output = output,
        .row = width * l->out_features,
        .weights = l->weights,
        .has_short = rest,
        .x = l->x,
        .x_end = l->x + l->words * by_two,
        .channels = l->channels,
        .channels_end = l->channels + 4u * pairs,
        .first_output = output,
        .pair_bytes = l->words * 4u,
        .three = tokens - by_two,
        .short_end = first + rest,
        .end = first + l->words,
    };
    /* Direct calls: through a pointer, no bound of the stack could be computed. */
    if (tokens == 1u && s8) {
        slm_linear_one_s8(&job);
    } else if (tokens == 1u) {
        slm_linear_one_s16(&job);
    } else if (s8) {
        slm_linear_many_s8(&job);
    } else {
        slm_linear_many_s16(&job);
    }
    return pairs;
}
#else
static uint32_t assembly_pairs(const layer *l, uint32_t tokens, void *output)
{
    (void)l;
    (void)tokens;
    (void)output;
    return 0u;
}
#endif

/* Tiles of equal size, expanded and multiplied one after the other. */
static void run(layer *l, uint32_t *x, const int8_t *input, void *output, uint32_t rows, uint32_t in_features,
                uint32_t tile)
{
    uint32_t tiles = (rows + tile - 1u) / tile;
    l->x = x;
    l->words = (in_features + ALIGNED_TO - 1u) / ALIGNED_TO * (ALIGNED_TO / LANES);
    for (; tiles != 0u; tiles--) {
        uint32_t tokens = (rows + tiles - 1u) / tiles;
        uint32_t size;
        for (uint32_t t = 0; t < tokens; t += size) {
            size = block_size(tokens - t);
            expand(x + l->words * t, input + in_features * t, size, in_features, l->words);
        }
        portable_pairs(l, assembly_pairs(l, tokens, output), tokens, output);
        input += in_features * tokens;
        output = (uint8_t *)output + tokens * l->out_features * (l->type == SLM_S8 ? 1u : 2u);
        rows -= tokens;
    }
}

void slm_linear_packed_s8(void *scratch, const slm_linear_params *params, const int32_t *channels, const int8_t *input,
                          const uint32_t *weights, int8_t *output, uint32_t rows, uint32_t in_features,
                          uint32_t out_features, uint32_t tile)
{
    layer l = {params, channels, weights, NULL, 0u, out_features, SLM_S8, false};
    run(&l, scratch, input, output, rows, in_features, tile);
}

void slm_linear_packed_s8_s16(void *scratch, const slm_linear_params *params, const int32_t *channels,
                              const int8_t *input, const uint32_t *weights, int16_t *output, uint32_t rows,
                              uint32_t in_features, uint32_t out_features, uint32_t tile)
{
    layer l = {params, channels, weights, NULL, 0u, out_features, SLM_S16, false};
    run(&l, scratch, input, output, rows, in_features, tile);
}

void slm_linear_pieces_s8(void *scratch, const slm_linear_params *params, const int32_t *channels, const int8_t *input,
                          const uint32_t *weights, int8_t *output, uint32_t rows, uint32_t in_features,
                          uint32_t out_features, uint32_t tile)
{
    layer l = {params, channels, weights, NULL, 0u, out_features, SLM_S8, true};
    run(&l, scratch, input, output, rows, in_features, tile);
}

void slm_linear_pieces_s8_s16(void *scratch, const slm_linear_params *params, const int32_t *channels,
                              const int8_t *input, const uint32_t *weights, int16_t *output, uint32_t rows,
                              uint32_t in_features, uint32_t out_features, uint32_t tile)
{
    layer l = {params, channels, weights, NULL, 0u, out_features, SLM_S16, true};
    run(&l, scratch, input, output, rows, in_features, tile);
}
