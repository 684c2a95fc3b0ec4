#include "slm_classify.h"

/** exp(-x) * 2^15 for x in 1/4096 nats: exp(-whole) by table, exp(-rest) by (1 - rest / 64)^64: within 0.4 % of 1. */
static int32_t exp_negative(uint64_t x)
{
    static const uint16_t whole[11] = {32768u, 12055u, 4435u, 1631u, 600u, 221u, 81u, 30u, 11u, 4u, 1u};
    if (x >= 11u * 4096u) {
        return 0;
    }
    uint32_t y = 32768u - (uint32_t)(x % 4096u) / 8u;
    for (int i = 0; i < 6; i++) {
        y = (y * y + 16384u) >> 15;
    }
    return (int32_t)((whole[x / 4096u] * y + 16384u) >> 15);
}

static uint64_t distance(int32_t top, int32_t value, int64_t multiplier)
{
    return (uint64_t)((int64_t)(top - value) * multiplier) >> 24;
}

static int32_t probability(uint32_t sum)
{
    return (int32_t)((32768u * 32768u + sum / 2u) / sum);
}

int32_t slm_top_s16(const int16_t *logits, uint32_t count, int64_t multiplier, uint32_t *index)
{
    uint32_t top = 0;
    for (uint32_t i = 1; i < count; i++) {
        top = logits[i] > logits[top] ? i : top;
    }
    uint32_t sum = 32768u; /* of the top itself */
    for (uint32_t i = 0; i < count; i++) {
        if (i != top) {
            sum += (uint32_t)exp_negative(distance(logits[top], logits[i], multiplier));
        }
    }
    *index = top;
    return probability(sum);
}
