/*
 * Whether slm_attention_weigh gives the weights that slm_exp2 does: of each difference of two scores, at the ends of
 * their range, in both places of a word. An error of 1 in a weight seldom shows in an output of 8 bits.
 */
#include "slm_attention_row.h"
#include "slm_attention_weigh.h"

#include <stddef.h>

#define DIFFERENCES 9000 /* weights are 0 from 4096 on */

static int differs(int32_t largest, int32_t difference, uint32_t place)
{
    int32_t scores[2];
    uint32_t word;
    scores[place] = largest;
    scores[1u - place] = largest - difference;
    const uint32_t sum = slm_attention_weigh(scores, NULL, 2u, &word, 1u, 1u);
    const uint32_t weight = slm_exp2((uint32_t)difference);
    return sum != 32767u + weight || word != (32767u << 16u * place | weight << 16u * (1u - place));
}

int main(void)
{
    static const int32_t tops[] = {SLM_SCORE_OFFSET - (1 << 29) - 32768 + DIFFERENCES, SLM_SCORE_OFFSET + 77,
                                   SLM_SCORE_OFFSET + (1 << 29) + 32767};
    for (uint32_t i = 0; i < sizeof tops / sizeof tops[0]; i++) {
        for (int32_t difference = 0; difference < DIFFERENCES; difference++) {
            if (differs(tops[i], difference, 0u) || differs(tops[i], difference, 1u)) {
                return 1;
            }
        }
    }
    /* The largest difference that there is. */
    return differs(tops[2], (1 << 30) + 65535, 0u) || differs(tops[2], (1 << 30) + 65535, 1u);
}
