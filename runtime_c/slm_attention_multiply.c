#include "slm_attention_multiply.h"
#include "slm_dsp.h"

#if SLM_DSP

#include <stddef.h>

/*
 * Deviation from MISRA C:2012 Dir 4.3: the assembly is not alone in its functions. Eight sums, two pointers and what is
 * loaded take all 14 general registers, which compilers do not manage. The rest is kept on the stack, in the order of
 * the push; r7 is there too, as it may be the frame pointer.
 *
 * The words of a quad of columns are multiplied eight in a row; the first round is entered so late that the last one ends
 * with them. So every number of words costs only what it has.
 */

_Static_assert(offsetof(slm_attention_terms, offset) == 16, "the assembly loads the scale");

#define UNROLL 8u

/* clang-format off */

#define MAC(sum, y, x)             "smlad " sum ", " y ", " x ", " sum "\n"
#define SCALE(sum, shift, inverse) "lsl.w " sum ", " sum ", " shift "\n smmlar " sum ", " sum ", " inverse ", lr\n"
#define STORE(sum, out)            "ssat " sum ", #8, " sum ", asr #8\n strb " sum ", [" out "], #1\n"
#define EIGHT(word)                word word word word word word word word

/* A word of two rows and 4 columns: 11 instructions of 4 bytes for 16 multiplications. */
#define TWO_BYTES 44u
#define TWO_WORD                                            \
    "ldrd r10, r11, [r0], #8\n"                             \
    "ldrd r12, lr, [r1], #8\n"                              \
    MAC("r2", "r10", "r12")        MAC("r6", "r11", "r12")  \
    MAC("r3", "r10", "lr")         MAC("r7", "r11", "lr")   \
    "ldrd r12, lr, [r1], #8\n"                              \
    MAC("r4", "r10", "r12")        MAC("r8", "r11", "r12")  \
    MAC("r5", "r10", "lr")         MAC("r9", "r11", "lr")

/* A word of one row and 4 columns: 6 instructions of 4 bytes for 8 multiplications. */
#define ONE_BYTES 24u
#define ONE_WORD                                            \
    "ldr.w r10, [r0], #4\n"                                 \
    "ldm.w r1!, {r6, r8, r9, r12}\n"                        \
    MAC("r2", "r10", "r6")         MAC("r3", "r10", "r8")   \
    MAC("r4", "r10", "r9")         MAC("r5", "r10", "r12")

/* clang-format on */

/* Bytes of the first round that are left out. */
static inline uint32_t skipped(uint32_t words, uint32_t bytes)
{
    return (UNROLL - 1u - (words - 1u) % UNROLL) * bytes;
}

/* All values are computed ahead of the first register variable: what computes one could change another. */

SLM_ASSEMBLY void slm_attention_multiply_two(const slm_attention_product *product, uint32_t narrow, void *out0,
                                             void *out1)
{
    const uint32_t *const x = product->x;
    const uint32_t *const x_end = product->x_end;
    const uint32_t *const y = product->y;
    const uint32_t *const y_end = y + 2u * product->words;
    const slm_attention_terms *const terms = product->terms;
    const int32_t *const start = terms->start[0];
    const uint32_t skip = skipped(product->words, TWO_BYTES);
    register const uint32_t *r0 __asm("r0") = y;
    register const uint32_t *r1 __asm("r1") = x;
    register const uint32_t *r2 __asm("r2") = y_end;
    register const uint32_t *r3 __asm("r3") = x_end;
    register const int32_t *r4 __asm("r4") = start;
    register uint32_t r5 __asm("r5") = skip;
    register const slm_attention_terms *r6 __asm("r6") = terms;
    register void *r8 __asm("r8") = out0;
    register void *r9 __asm("r9") = out1;
    register uint32_t r10 __asm("r10") = narrow;
    /* clang-format off */
    __asm volatile(
        "adr.w lr, 2f\n"
        "add r5, r5, lr\n"
        "orr r5, r5, #1\n"
        "push {r0, r2, r3, r4, r5, r6, r7, r8, r9, r10}\n"
        "1:\n"
        "ldr r10, [sp, #12]\n"
        "ldr r0, [sp]\n"
        "ldm r10, {r2, r3, r4, r5, r6, r7, r8, r9}\n"
        "ldr pc, [sp, #16]\n"
        "2:\n"
        EIGHT(TWO_WORD)
        "ldr r10, [sp, #4]\n"
        "cmp r0, r10\n"
        "bne 2b\n"
        "ldr r10, [sp, #20]\n"
        "ldm r10, {r0, r10, r11, r12, lr}\n"
        SCALE("r2", "r0", "r10")  SCALE("r3", "r0", "r10")  SCALE("r4", "r0", "r10")  SCALE("r5", "r0", "r10")
        SCALE("r6", "r11", "r12") SCALE("r7", "r11", "r12") SCALE("r8", "r11", "r12") SCALE("r9", "r11", "r12")
        "ldr r0, [sp, #36]\n"
        "ldrd r10, r11, [sp, #28]\n"
        "cbz r0, 3f\n"
        STORE("r2", "r10") STORE("r3", "r10") STORE("r4", "r10") STORE("r5", "r10")
        STORE("r6", "r11") STORE("r7", "r11") STORE("r8", "r11") STORE("r9", "r11")
        "b 4f\n"
        "3:\n"
        "stm r10!, {r2, r3, r4, r5}\n"
        "stm r11!, {r6, r7, r8, r9}\n"
        "4:\n"
        "strd r10, r11, [sp, #28]\n"
        "ldr r12, [sp, #8]\n"
        "cmp r1, r12\n"
        "bne 1b\n"
        "pop {r0, r2, r3, r4, r5, r6, r7, r8, r9, r10}\n"
        : "+r"(r0), "+r"(r1), "+r"(r2), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6), "+r"(r8), "+r"(r9), "+r"(r10)
        :
        : "r11", "r12", "lr", "cc", "memory");
    /* clang-format on */
}

SLM_ASSEMBLY void slm_attention_multiply_one(const slm_attention_product *product, uint32_t narrow, void *out0)
{
    const uint32_t *const x = product->x;
    const uint32_t *const x_end = product->x_end;
    const uint32_t *const y = product->y;
    const uint32_t *const y_end = y + product->words;
    const slm_attention_terms *const terms = product->terms;
    const int32_t *const start = terms->start[0];
    const uint32_t skip = skipped(product->words, ONE_BYTES);
    register const uint32_t *r0 __asm("r0") = y;
    register const uint32_t *r1 __asm("r1") = x;
    register const uint32_t *r2 __asm("r2") = y;
    register const uint32_t *r3 __asm("r3") = x_end;
    register const int32_t *r4 __asm("r4") = start;
    register uint32_t r5 __asm("r5") = skip;
    register const slm_attention_terms *r6 __asm("r6") = terms;
    register uint32_t r8 __asm("r8") = narrow;
    register void *r11 __asm("r11") = out0;
    register const uint32_t *lr __asm("lr") = y_end;
    /* clang-format off */
    __asm volatile(
        "adr.w r12, 2f\n"
        "add r5, r5, r12\n"
        "orr r5, r5, #1\n"
        "push {r2, r3, r4, r5, r6, r8, lr}\n"
        "1:\n"
        "ldr r10, [sp, #8]\n"
        "ldr r0, [sp]\n"
        "ldm r10, {r2, r3, r4, r5}\n"
        "ldr pc, [sp, #12]\n"
        "2:\n"
        EIGHT(ONE_WORD)
        "ldr r10, [sp, #24]\n"
        "cmp r0, r10\n"
        "bne 2b\n"
        "ldr r10, [sp, #16]\n"
        "ldrd r0, r6, [r10]\n"
        "ldr lr, [r10, #16]\n"
        SCALE("r2", "r0", "r6") SCALE("r3", "r0", "r6") SCALE("r4", "r0", "r6") SCALE("r5", "r0", "r6")
        "ldr r0, [sp, #20]\n"
        "cbz r0, 3f\n"
        STORE("r2", "r11") STORE("r3", "r11") STORE("r4", "r11") STORE("r5", "r11")
        "b 4f\n"
        "3:\n"
        "stm r11!, {r2, r3, r4, r5}\n"
        "4:\n"
        "ldr r12, [sp, #4]\n"
        "cmp r1, r12\n"
        "bne 1b\n"
        "pop {r2, r3, r4, r5, r6, r8, lr}\n"
        : "+r"(r0), "+r"(r1), "+r"(r2), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6), "+r"(r8), "+r"(r11), "+r"(lr)
        :
        : "r9", "r10", "r12", "cc", "memory");
    /* clang-format on */
}

#else

/* Row r of `rows`. */
static void multiply(const slm_attention_product *p, uint32_t narrow, void *out, uint32_t r, uint32_t rows)
{
    const slm_mean_scale scale = p->terms->row[r];
    const uint32_t *x = p->x;
    for (uint32_t i = 0; x != p->x_end; i += SLM_ATTENTION_QUAD, x += p->words * SLM_ATTENTION_QUAD) {
        for (uint32_t c = 0; c < SLM_ATTENTION_QUAD; c++) {
            int32_t sum = p->terms->start[r][c];
            for (uint32_t w = 0; w < p->words; w++) {
                sum = slm_smlad(x[w * SLM_ATTENTION_QUAD + c], p->y[w * rows + r], sum);
            }
            sum = slm_smmlar(slm_shift_left(sum, scale.shift), scale.inverse, p->terms->offset);
            if (narrow != 0u) {
                ((int8_t *)out)[i + c] = (int8_t)slm_clamp(sum >> 8, INT8_MIN, INT8_MAX);
            } else {
                ((int32_t *)out)[i + c] = sum;
            }
        }
    }
}

void slm_attention_multiply_one(const slm_attention_product *product, uint32_t narrow, void *out0)
{
    multiply(product, narrow, out0, 0u, 1u);
}

void slm_attention_multiply_two(const slm_attention_product *product, uint32_t narrow, void *out0, void *out1)
{
    multiply(product, narrow, out0, 0u, 2u);
    multiply(product, narrow, out1, 1u, 2u);
}

#endif
