#include "slm_linear_dsp.h"

#include <stddef.h>

#if SLM_DSP

/*
 * Deviation from MISRA C:2012 Dir 4.3: the assembly is not alone in its functions. Compilers come to 1.0 multiplications
 * per instruction on these loops, where 1.25 are possible, because they keep fewer than 14 values in registers.
 *
 * All 14 general registers are in use, so the job's address is kept on the stack; r7 is there too, as it may be the frame
 * pointer. Words of weights: w; activations: x; sums: l and h, where h is that of 256 * h + l until the end.
 */

_Static_assert(offsetof(slm_linear_job, low) == 24 && sizeof(void *) == 4, "the offsets below are from `low`");
_Static_assert(offsetof(slm_linear_job, output) == 24 + 16, "OUTPUT");
_Static_assert(offsetof(slm_linear_job, weights) == 24 + 24, "WEIGHTS");
_Static_assert(offsetof(slm_linear_job, x) == 24 + 32, "X");
_Static_assert(offsetof(slm_linear_job, channels) == 24 + 40, "CHANNELS");
_Static_assert(offsetof(slm_linear_job, first_output) == 24 + 48, "FIRST_OUTPUT");
_Static_assert(offsetof(slm_linear_job, pair_bytes) == 24 + 52, "PAIR_BYTES");
_Static_assert(offsetof(slm_linear_job, three) == 24 + 56, "THREE");

#define OUTPUT "#16"
#define WEIGHTS "#24" /* and has_short behind it */
#define HAS_SHORT "#28"
#define X "#32" /* and x_end */
#define X_END "#36"
#define CHANNELS "#40" /* and channels_end */
#define CHANNELS_END "#44"
#define FIRST_OUTPUT "#48"
#define PAIR_BYTES "#52"
#define THREE "#56"

#define MAC(sum, w, x) "smlad " sum ", " w ", " x ", " sum "\n"
#define UNPACK(w) "sxtb16 " w ", " w "\n"

/* Runs `words4`, which takes 4 words of weights, up to short_end and then eight times in a row up to end: r0, r1 and r2 of
 * the caller are on the stack as job, short_end and end. `p` is the pointer to the weights, `t` a free register that is
 * null if there is no short_end, and `skip` branches then. */
#define OVER_WORDS(words4, p, t, skip)                                                                        \
    skip " 3f\n"                                                                                              \
         "2:\n" words4 "ldr " t ", [sp, #4]\n cmp " p ", " t "\n bne 2b\n"                                    \
         "ldr " t ", [sp, #8]\n cmp " p ", " t "\n beq 4f\n"                                                  \
         "3:\n" words4 words4 words4 words4 words4 words4 words4 words4 "ldr " t ", [sp, #8]\n cmp " p ", " t \
         "\n bne 3b\n"                                                                                        \
         "4:\n"

/* 4 words, 2 tokens: 23 instructions for 32 multiplications. */
#define TWO_TOKENS                                                                                                   \
    "ldm r4!, {r6, r7, r8, r9}\n ldm r5!, {r10, r11, r12, lr}\n" MAC("r1", "r6", "r10") MAC("r3", "r6", "r11")       \
        UNPACK("r6") MAC("r1", "r7", "r12") MAC("r3", "r7", "lr") UNPACK("r7") MAC("r0", "r6", "r10")                \
            MAC("r2", "r6", "r11") MAC("r0", "r7", "r12")                                                            \
                MAC("r2", "r7", "lr") "ldm r5!, {r10, r11, r12, lr}\n" MAC("r1", "r8", "r10") MAC("r3", "r8", "r11") \
                    UNPACK("r8") MAC("r1", "r9", "r12") MAC("r3", "r9", "lr") UNPACK("r9") MAC("r0", "r8", "r10")    \
                        MAC("r2", "r8", "r11") MAC("r0", "r9", "r12") MAC("r2", "r9", "lr")

/* 2 words, 3 tokens: 17 instructions for 24 multiplications. */
#define THREE_TOKENS                                                                                                  \
    "ldm r7!, {r10, r11, r12, lr}\n ldm r6!, {r8, r9}\n" MAC("r5", "r8", "r12") MAC("r3", "r8", "r11")                \
        MAC("r1", "r8", "r10") UNPACK("r8") MAC("r1", "r9", "lr") MAC("r0", "r8", "r10")                              \
            MAC("r2", "r8", "r11") "ldm r7!, {r10, r11}\n" MAC("r5", "r9", "r11") MAC("r3", "r9", "r10") UNPACK("r9") \
                MAC("r4", "r8", "r12") MAC("r0", "r9", "lr") MAC("r2", "r9", "r10") MAC("r4", "r9", "r11")

/* 4 words, 1 token: 14 instructions for 16 multiplications. */
#define ONE_TOKEN                                                                                                  \
    "ldm r2!, {r4, r5, r6, r7}\n ldm r3!, {r8, r9, r10, r11}\n" MAC("r1", "r4", "r8") UNPACK("r4")                 \
        MAC("r1", "r5", "r9") UNPACK("r5") MAC("r1", "r6", "r10") UNPACK("r6") MAC("r1", "r7", "r11") UNPACK("r7") \
            MAC("r0", "r4", "r8") MAC("r0", "r5", "r9") MAC("r0", "r6", "r10") MAC("r0", "r7", "r11")

/* The sum of h by 256, then both sums to outputs: SMMLAR rounds as slm_scale does; with SMMLA the same rounding is in
 * zero_256, and 256 leaves by the shift. `m` is the first of four registers with low, high, zero, zero_256. */
#define DIFFERENCE(l, h) "sub " h ", " h ", " l "\n"
#define SCALE(l, h, ml, mh, z, z256) "smmlar " l ", " l ", " ml ", " z "\n smmla " h ", " h ", " mh ", " z256 "\n"
#define SATURATE(l, h, bits) "ssat " l ", #" bits ", " l "\n ssat " h ", #" bits ", " h ", asr #8\n"

/* The next pair of channels: its biases to `start`, multipliers to `low` and `high`, and where its outputs go. */
#define BEGIN_PAIR(twice)                                                                                     \
    "ldr lr, [sp]\n ldr r10, [lr, " CHANNELS "]\n ldm r10!, {r0, r1, r6, r7}\n str r10, [lr, " CHANNELS "]\n" \
    "add r1, r0, r1, lsl #8\n mov r2, r0\n mov r3, r1\n mov r4, r0\n mov r5, r1\n"                            \
    "stmdb lr, {r0, r1, r2, r3, r4, r5}\n strd r6, r7, [lr]\n"                                                \
    "ldr r10, [lr, " FIRST_OUTPUT "]\n str r10, [lr, " OUTPUT "]\n"                                           \
    "add r10, r10, #" twice "\n str r10, [lr, " FIRST_OUTPUT "]\n"

/* Weights, short_end and end move on to the next pair; the branch is taken after the last one. */
#define NEXT_PAIR(done)                                                                  \
    "ldr lr, [sp]\n ldrd r0, r1, [lr, " CHANNELS "]\n cmp r0, r1\n beq " done "\n"       \
    "ldr r2, [lr, " PAIR_BYTES "]\n ldr r3, [lr, " WEIGHTS "]\n ldrd r4, r5, [sp, #4]\n" \
    "add r3, r3, r2\n add r4, r4, r2\n add r5, r5, r2\n str r3, [lr, " WEIGHTS "]\n strd r4, r5, [sp, #4]\n"

#define LOAD_SCALE "ldr lr, [sp]\n ldm lr, {r6, r7, r8, r9, r10, r11}\n"
#define FINISH(l, h, bits) DIFFERENCE(l, h) SCALE(l, h, "r6", "r7", "r8", "r9") SATURATE(l, h, bits)
#define STORE(l, h, store, next) store " " l ", [r10]\n " store " " h ", [r10, #" next "]\n add r10, r10, r11\n"

#define DEFINE_MANY(name, bits, store, next)                                                                           \
    void name(slm_linear_job *job)                                                                                     \
    {                                                                                                                  \
        register void *r0 __asm("r0") = &job->low;                                                                     \
        register const uint32_t *r1 __asm("r1") = job->short_end;                                                      \
        register const uint32_t *r2 __asm("r2") = job->end;                                                            \
        __asm volatile("push {r0, r1, r2, r7}\n"                                                                       \
                       "5:\n" BEGIN_PAIR(                                                                              \
                           "2*" next) "ldrd r5, r6, [lr, " X "]\n cmp r5, r6\n beq 6f\n"                               \
                                      "1:\n"                                                                           \
                                      "ldr lr, [sp]\n ldmdb lr, {r0, r1, r2, r3}\n ldrd r4, r6, [lr, " WEIGHTS         \
                                      "]\n" OVER_WORDS(TWO_TOKENS, "r4", "r6", "cbz r6,") LOAD_SCALE FINISH(           \
                                          "r0", "r1", bits) FINISH("r2", "r3", bits) STORE("r0", "r1", store, next)    \
                                          STORE("r2", "r3", store,                                                     \
                                                next) "str r10, [lr, " OUTPUT "]\n ldr r6, [lr, " X_END                \
                                                      "]\n cmp r5, r6\n bne 1b\n"                                      \
                                                      "6:\n"                                                           \
                                                      "ldr r6, [lr, " THREE "]\n cmp r6, #0\n beq 7f\n"                \
                                                      "mov r7, r5\n ldrd r6, r8, [lr, " WEIGHTS                        \
                                                      "]\n ldmdb lr, {r0, r1, r2, r3, r4, r5}\n" OVER_WORDS(           \
                                                          THREE_TOKENS THREE_TOKENS, "r6", "r8", "cmp r8, #0\n beq")   \
                                                          LOAD_SCALE FINISH("r0", "r1", bits) FINISH("r2", "r3", bits) \
                                                              FINISH("r4", "r5", bits) STORE("r0", "r1", store, next)  \
                                                                  STORE("r2", "r3", store, next)                       \
                                                                      STORE("r4", "r5", store, next) "7:\n" NEXT_PAIR( \
                                                                          "8f") "b 5b\n"                               \
                                                                                "8: pop {r0, r1, r2, r7}\n"            \
                       : "+r"(r0), "+r"(r1), "+r"(r2)                                                                  \
                       :                                                                                               \
                       : "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory");               \
    }

/* `short_end` and `end` are those of the activations here; the weights of all pairs are one run. */
#define DEFINE_ONE(name, bits, store, next)                                                                        \
    void name(slm_linear_job *job)                                                                                 \
    {                                                                                                              \
        register void *r0 __asm("r0") = &job->low;                                                                 \
        register const uint32_t *r1 __asm("r1") = job->short_end;                                                  \
        register const uint32_t *r2 __asm("r2") = job->end;                                                        \
        __asm volatile("push {r0, r1, r2, r7}\n"                                                                   \
                       "mov lr, r0\n mov r12, r2\n ldr r2, [lr, " WEIGHTS "]\n"                                    \
                       "1:\n"                                                                                      \
                       "ldr r3, [lr, " X "]\n ldr r4, [lr, " HAS_SHORT "]\n ldr r5, [lr, " CHANNELS                \
                       "]\n ldrd r0, r1, [r5]\n"                                                                   \
                       "add r1, r0, r1, lsl #8\n"                                                                  \
                       "cbz r4, 3f\n"                                                                              \
                       "2:\n" ONE_TOKEN "ldr r4, [sp, #4]\n cmp r3, r4\n bne 2b\n"                                 \
                       "cmp r3, r12\n beq 4f\n"                                                                    \
                       "3:\n" ONE_TOKEN ONE_TOKEN ONE_TOKEN ONE_TOKEN ONE_TOKEN ONE_TOKEN ONE_TOKEN ONE_TOKEN      \
                       "cmp r3, r12\n bne 3b\n"                                                                    \
                       "4:\n"                                                                                      \
                       "ldr r5, [lr, " CHANNELS "]\n ldrd r6, r7, [r5, #8]\n ldrd r8, r9, [lr, #8]\n"              \
                       "adds r5, r5, #16\n str r5, [lr, " CHANNELS "]\n" DIFFERENCE("r0", "r1")                    \
                           SCALE("r0", "r1", "r6", "r7", "r8", "r9")                                               \
                               SATURATE("r0", "r1", bits) "ldr r10, [lr, " OUTPUT "]\n ldr r6, [lr, " CHANNELS_END \
                                                          "]\n" store " r1, [r10, #" next "]\n " store             \
                                                          " r0, [r10], #2*" next "\n str r10, [lr, " OUTPUT "]\n"  \
                                                          "cmp r5, r6\n bne 1b\n"                                  \
                                                          "str r2, [lr, " WEIGHTS "]\n"                            \
                                                          "pop {r0, r1, r2, r7}\n"                                 \
                       : "+r"(r0), "+r"(r1), "+r"(r2)                                                              \
                       :                                                                                           \
                       : "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", "lr", "cc", "memory");           \
    }

DEFINE_MANY(slm_linear_many_s8, "8", "strb", "1")
DEFINE_MANY(slm_linear_many_s16, "16", "strh", "2")
DEFINE_ONE(slm_linear_one_s8, "8", "strb", "1")
DEFINE_ONE(slm_linear_one_s16, "16", "strh", "2")

#else
typedef int slm_linear_dsp_is_empty; /* ISO C wants a declaration in every file */
#endif
