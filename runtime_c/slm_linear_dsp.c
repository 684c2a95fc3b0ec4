#include "slm_linear_dsp.h"

#include <stddef.h>

#if SLM_DSP

/*
 * Deviation from MISRA C:2012 Dir 4.3: functions in assembly. Compilers come to 1.0 multiplications per instruction on
 * these loops, where 1.37 are possible, because they keep fewer than 14 values in registers.
 *
 * The limit is one SMLAD a cycle, which is two multiplications. The Cortex-M7 issues two instructions at a time: a line
 * below is a cycle as llvm-mca models it, a multiplication and before it something that takes no longer. LDM and LDRD
 * are alone in theirs. What a line makes is there in the next line, for an address or from a multiplication one later.
 *
 * Three tokens: 4 words of weights take 35 instructions in 27 cycles: 24 SMLAD, and beside them 4 SXTB16, 4 LDR of
 *   weights, 3 LDM of four activations. That is 1.37 multiplications per instruction and 1.78 per cycle. Two channels
 *   times three tokens are six sums; with two pointers, a word of weights, its lower half and four activations that is
 *   14 registers, all there are. All else is on the stack, in the order in which one LDM takes it. With four tokens only
 *   two registers would be left for activations, and 12 or 13 instructions take 8 SMLAD, where here 11.7 do.
 * Two tokens: 23 instructions in 19 cycles (1.39 and 1.68), which fetch the weights four by four.
 * One token: 14 instructions in 10 cycles (1.14 and 1.60).
 * To these come 22 for a pair of channels and 36 and 28 for a block of three and of two tokens; 18 for a pair where there
 * is one token.
 *
 * LDM with write-back is free in the form of 16 bits, for r0 to r7 alone; the longer form waits until a multiplication
 * before it is done, unless another load stands between.
 *
 * A run is 64 words. A pair whose words are no whole runs enters the first one further on, and its P begins as many
 * bytes ahead of the weights. Addresses to go on at are computed once a call, and LDR to PC takes them: one instruction,
 * where a comparison and a branch are two.
 */

/* clang-format off */

#define MAC(sum, w, x)        "smlad " sum ", " w ", " x ", " sum "\n"
#define UNPACK(z, w)          "sxtb16 " z ", " w "\n"
#define LDR(r, at)            "ldr " r ", [" at "]\n"
#define STORE(str, value, at) str " " value ", [" at "]\n"
#define ADD(sum, a, b)        "add " sum ", " a ", " b "\n"
#define MOV(to, from)         "mov " to ", " from "\n"
#define NONE

#define X  "r0" /* activations */
#define A  "r1"
#define B  "r2"
#define C  "r3"
#define D  "r4"
#define H0 "r5" /* sums of 256 * h + l, and later of 256 * h */
#define H1 "r6"
#define H2 "r7"
#define L0 "r8"
#define L1 "r9"
#define L2 "r10"
#define P  "r11" /* weights */
#define W  "r12"
#define Z  "lr"

#define LOAD_X "ldm r0!, {r1, r2, r3, r4}\n"

/* ---------------------------------------------------------------- the frame: words on the stack */

#define FRAME(word)  "sp, #4*" word
#define SCALE        "0"  /* zero, zero_256, row; from here to the first W those of a pair: */
#define MULTIPLIERS  "3"  /* of l and of h; where the output goes; */
#define OUTPUT       "5"
#define SUMS         "6"  /* where H0 to L2 begin; the first P and W */
#define W_END        "14" /* of the pair's weights */
#define SKIP         "15" /* and pair_bytes */
#define THREES       "17" /* x_threes and x_end */
#define X_END        "18"
#define X_START      "19"
#define CHANNELS     "20" /* and channels_end */
#define BACK         "22"
#define ENTER_THREE  "23" /* addresses: where the first run of three tokens begins, */
#define ENTER_TWO    "24" /* that of two tokens, */
#define ENTER_PAIR   "25" /* the first block of a pair; */
#define THREE_DONE   "26" /* where runs go on to, */
#define TWO_DONE     "27"
#define W_START      "28" /* (of the pair's weights) */
#define THREE_FINISH "29" /* and where when sums are shifted */
#define TWO_FINISH   "30"
#define SHIFT        "31"
#define FRAME_WORDS  "32"

_Static_assert(offsetof(slm_linear_job, w) == 12 && offsetof(slm_linear_job, back) == 4 * (3 + 22 - 14), "words 14 to 22");
_Static_assert(offsetof(slm_linear_job, output) == 48 && offsetof(slm_linear_job, shift) == 56, "offsets below");

/* ---------------------------------------------------------------- three tokens */

#define NEXT_W(at) "ldr.w r12, [r11, #" at "]\n" /* of one size for any offset, as ENTRY wants it */

/* Four words of weights, those from `at` on in bytes from P, of which W is the first. `p_up`, `next` and `compare` fill
 * lines. */
#define THREE_BY_4_AND(at, p_up, next, compare) \
    LOAD_X                                      \
    UNPACK(Z, W)         MAC(H0, W, A)          \
                         MAC(H1, W, B)          \
                         MAC(H2, W, C)          \
    NEXT_W(at "+4")      MAC(L0, Z, A)          \
                         MAC(L1, Z, B)          \
                         MAC(L2, Z, C)          \
    UNPACK(Z, W)         MAC(H0, W, D)          \
                         MAC(L0, Z, D)          \
    LOAD_X                                      \
                         MAC(H1, W, A)          \
                         MAC(H2, W, B)          \
    NEXT_W(at "+8")      MAC(L1, Z, A)          \
                         MAC(L2, Z, B)          \
    UNPACK(Z, W)         MAC(H0, W, C)          \
                         MAC(H1, W, D)          \
                         MAC(L0, Z, C)          \
                         MAC(L1, Z, D)          \
    LOAD_X                                      \
                         MAC(H2, W, A)          \
    NEXT_W(at "+12")     MAC(L2, Z, A)          \
    UNPACK(Z, W)         MAC(H0, W, B)          \
    p_up                 MAC(H1, W, C)          \
                         MAC(H2, W, D)          \
    next                 MAC(L0, Z, B)          \
                         MAC(L1, Z, C)          \
    compare              MAC(L2, Z, D)

#define THREE_BY_4(at)  THREE_BY_4_AND(at, NONE, NEXT_W(at "+16"), NONE)
#define THREE_BY_16(at) THREE_BY_4(at) THREE_BY_4(at "+16") THREE_BY_4(at "+32") THREE_BY_4(at "+48")
#define THREE_LAST(at)  THREE_BY_4_AND(at, "add r11, r11, #256\n", LDR(A, FRAME(W_END)), "cmp r11, r1\n")

/* ---------------------------------------------------------------- two tokens */

/* Sums in H0, H1, L0, L1; weights, and then their lower halves, in the other four registers. */

#define TWO_BY_2_AND(w, v, load, compare) \
                  MAC(H0, w, A)           \
                  MAC(H1, w, B)           \
    UNPACK(w, w)  MAC(H0, v, C)           \
                  MAC(H1, v, D)           \
    UNPACK(v, v)  MAC(L0, w, A)           \
                  MAC(L1, w, B)           \
    load          MAC(L0, v, C)           \
    compare       MAC(L1, v, D)

#define TWO_BY_4_AND(load, compare)       \
    LOAD_X                                \
    "ldm r11!, {r7, r10, r12, lr}\n"      \
    TWO_BY_2_AND("r7", "r10", NONE, NONE) \
    LOAD_X                                \
    TWO_BY_2_AND("r12", "lr", load, compare)

#define TWO_BY_4  TWO_BY_4_AND(NONE, NONE)
#define TWO_BY_16 TWO_BY_4 TWO_BY_4 TWO_BY_4 TWO_BY_4
#define TWO_LAST  TWO_BY_4_AND(LDR("r7", FRAME(W_END)), "cmp r11, r7\n")

/* ---------------------------------------------------------------- from sums to outputs */

/* The sum of h by 256, then both sums to outputs: SMMLAR rounds as slm_scale does; with SMMLA the same rounding is in
 * zero_256, and 256 leaves by the shift. zero, zero_256, row in r1, r2, r3, multipliers in r4, r11, output in r12, which
 * moves on by as many rows as there are tokens. */

#define LOAD_SCALE          "ldm sp, {r1, r2, r3, r4, r11, r12}\n"
#define SHIFT_BY_R1(sum)    "lsl " sum ", " sum ", r1\n"
#define DIFFERENCE(h, l)    "sub " h ", " h ", " l "\n"
#define SCALE_L(l)          "smmlar " l ", " l ", r4, r1\n"
#define SCALE_H(h)          "smmla " h ", " h ", r11, r2\n"
#define SATURATE_L(bits, l) "ssat " l ", #" bits ", " l "\n"
#define SATURATE_H(bits, h) "ssat " h ", #" bits ", " h ", asr #8\n"

#define NEXT_PAIR                                               \
    "ldrd r1, r2, [" FRAME(CHANNELS) "]\n"                      \
    "cmp r1, r2\n"                                              \
    "bne .Lmany_pair\n"                                         \
    "b .Lmany_end\n"

#define FINISH_THREE(bits, str, one)                            \
    LOAD_SCALE                                                  \
    DIFFERENCE(H0, L0)      SCALE_L(L0)                         \
    DIFFERENCE(H1, L1)      SCALE_L(L1)                         \
    DIFFERENCE(H2, L2)      SCALE_L(L2)                         \
    SATURATE_L(bits, L0)    SCALE_H(H0)                         \
    SATURATE_L(bits, L1)    SCALE_H(H1)                         \
    SATURATE_L(bits, L2)    SCALE_H(H2)                         \
    SATURATE_H(bits, H0)    STORE(str, L0, "r12")               \
    ADD("r1", "r12", "r3")  STORE(str, L1, "r12, r3")           \
    SATURATE_H(bits, H1)    STORE(str, H0, "r12, #" one)        \
    ADD("r4", "r1", "r3")   STORE(str, L2, "r1, r3")            \
    SATURATE_H(bits, H2)    STORE(str, H1, "r1, #" one)         \
    ADD("r12", "r4", "r3")  STORE(str, H2, "r4, #" one)         \
    "ldrd r1, r2, [" FRAME(THREES) "]\n"                        \
    "cmp r0, r1\n"          STORE("str", "r12", FRAME(OUTPUT))  \
    "bne .Lmany_three\n"                                        \
    "cmp r0, r2\n"                                              \
    "bne .Lmany_two\n"                                          \
    NEXT_PAIR

#define FINISH_TWO(bits, str, one)                              \
    LOAD_SCALE                                                  \
    DIFFERENCE(H0, L0)      SCALE_L(L0)                         \
    DIFFERENCE(H1, L1)      SCALE_L(L1)                         \
    LDR("r1", FRAME(X_END)) SCALE_H(H0)                         \
    SATURATE_L(bits, L0)    SCALE_H(H1)                         \
    SATURATE_L(bits, L1)    STORE(str, L0, "r12")               \
    ADD("r4", "r12", "r3")  STORE(str, L1, "r12, r3")           \
    SATURATE_H(bits, H0)                                        \
    SATURATE_H(bits, H1)    STORE(str, H0, "r12, #" one)        \
    ADD("r12", "r4", "r3")  STORE(str, H1, "r4, #" one)         \
    "cmp r0, r1\n"          STORE("str", "r12", FRAME(OUTPUT))  \
    "bne .Lmany_two\n"                                          \
    NEXT_PAIR

/* ---------------------------------------------------------------- all pairs of channels */

#define PUSH_REGISTERS "push {r4, r5, r6, r7, r8, r9, r10, r11, lr}\n"
#define POP_REGISTERS  "pop {r4, r5, r6, r7, r8, r9, r10, r11, pc}\n"

/* Where in a run, whose first and second four words begin at `first` and `second`, r11 times four words are behind. */
#define ENTRY(entry, first, second)      \
    "adr.w " entry ", " first "+1\n"     \
    "adr.w r12, " second "+1\n"          \
    "sub r12, r12, " entry "\n"          \
    "mla " entry ", r11, r12, " entry "\n"

__attribute__((naked, aligned(4))) void slm_linear_many(const slm_linear_job *job __attribute__((unused)))
{
    __asm volatile(
        PUSH_REGISTERS
        "b.w .Lmany_set_up\n" /* in the middle, from where everything is within reach of ADR */

        ".Lmany_three:\n"
        "add r1, " FRAME(SUMS) "\n"
        "ldm r1, {r5, r6, r7, r8, r9, r10, r11, r12}\n"
        LDR("pc", FRAME(ENTER_THREE))
        ".Lmany_three_again:\n"
        LDR(W, P)
        ".Lmany_three_run:\n"
        THREE_BY_4("0")
        ".Lmany_three_second:\n"
        THREE_BY_4("16")
        THREE_BY_4("32")
        THREE_BY_4("48")
        THREE_BY_16("64")
        THREE_BY_16("128")
        THREE_BY_4("192")
        THREE_BY_4("208")
        THREE_BY_4("224")
        THREE_LAST("240")
        "bne .Lmany_three_again\n"
        LDR("pc", FRAME(THREE_DONE))

        ".Lmany_set_up:\n"
        "ldr r11, [r0, #16]\n"      /* skip */
        "ldrd r5, r6, [r0, #24]\n"  /* x_threes, x_end */
        "ldr r4, [r0, #32]\n"       /* x */
        "ldrd r10, r9, [r0, #52]\n" /* wide, shift */
        "lsr r11, r11, #4\n"
        ENTRY("r1", ".Lmany_three_run", ".Lmany_three_second")
        ENTRY("r2", ".Lmany_two_run", ".Lmany_two_second")
        "mov r3, r1\n"
        "cmp r5, r4\n"
        "it eq\n"
        "adreq.w r3, .Lmany_two+1\n"
        "adr.w r7, .Lmany_three_s8+1\n"
        "adr.w r8, .Lmany_two_s8+1\n"
        "cmp r10, #0\n"
        "itt ne\n"
        "adrne.w r7, .Lmany_three_s16+1\n"
        "adrne.w r8, .Lmany_two_s16+1\n"
        "mov r4, r7\n"
        "mov r5, r8\n"
        "cmp r9, #0\n"
        "itt ne\n"
        "adrne.w r4, .Lmany_three_shift+1\n"
        "adrne.w r5, .Lmany_two_shift+1\n"
        "push {r1, r2, r3, r4, r5, r6, r7, r8, r9}\n"
        "ldm r0, {r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12}\n"
        "push {r4, r5, r6, r7, r8, r9, r10, r11, r12}\n"
        "sub sp, sp, #44\n"
        "push {r1, r2, r3}\n"
        "ldr r1, [r0, #48]\n" /* output */
        "add r12, r12, r1\n"

        /* A pair of channels. r12 is behind the last pair's outputs; the biases are where the sums begin. */
        ".Lmany_pair:\n"
        LDR("r1", FRAME(CHANNELS))      LDR("r6", FRAME(BACK))
        LDR("r11", FRAME(W_END))        "sub r4, r12, r6\n"
        "ldm r1!, {r2, r3, r5, r8}\n"
        "ldrd r6, r7, [" FRAME(SKIP) "]\n"
        LDR(W, P)                       STORE("str", "r1", FRAME(CHANNELS))
        ADD("r7", "r11", "r7")          STORE("str", "r11", FRAME(W_START))
        "sub r11, r11, r6\n"            STORE("str", "r7", FRAME(W_END))
        LDR(X, FRAME(X_START))          "add r1, " FRAME(MULTIPLIERS) "\n"
        MOV(H1, H0)                     MOV(H2, H0)
        MOV(L1, L0)                     MOV(L2, L0)
        "stm r1, {r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12}\n"
        LDR("pc", FRAME(ENTER_PAIR))

        ".Lmany_three_shift:\n"
        LDR("r1", FRAME(SHIFT))
        SHIFT_BY_R1(H0) SHIFT_BY_R1(H1) SHIFT_BY_R1(H2) SHIFT_BY_R1(L0) SHIFT_BY_R1(L1) SHIFT_BY_R1(L2)
        LDR("pc", FRAME(THREE_FINISH))
        ".Lmany_three_s16:\n"
        FINISH_THREE("16", "strh", "2")
        ".Lmany_three_s8:\n"
        FINISH_THREE("8", "strb", "1")

        ".Lmany_two:\n"
        "add r1, " FRAME(SUMS) "\n"
        "ldm r1, {r5, r6, r7, r8, r9}\n"
        LDR(P, FRAME(W_START))
        LDR("pc", FRAME(ENTER_TWO))
        ".Lmany_two_run:\n"
        TWO_BY_4
        ".Lmany_two_second:\n"
        TWO_BY_4
        TWO_BY_4
        TWO_BY_4
        TWO_BY_16
        TWO_BY_16
        TWO_BY_4
        TWO_BY_4
        TWO_BY_4
        TWO_LAST
        "bne .Lmany_two_run\n"
        LDR("pc", FRAME(TWO_DONE))
        ".Lmany_two_shift:\n"
        LDR("r1", FRAME(SHIFT))
        SHIFT_BY_R1(H0) SHIFT_BY_R1(H1) SHIFT_BY_R1(L0) SHIFT_BY_R1(L1)
        LDR("pc", FRAME(TWO_FINISH))
        ".Lmany_two_s16:\n"
        FINISH_TWO("16", "strh", "2")
        ".Lmany_two_s8:\n"
        FINISH_TWO("8", "strb", "1")

        ".Lmany_end:\n"
        "add sp, " FRAME(FRAME_WORDS) "\n"
        POP_REGISTERS);
}

/* ---------------------------------------------------------------- one token */

/* Sums in r0 (h) and r1 (l), weights from r2 on, activations from r3 on, r12 the pair's channels, lr x_end. */

#define ONE_BY_4                               \
    "ldm r2!, {r4, r5, r6, r7}\n"              \
    "ldm r3!, {r8, r9, r10, r11}\n"            \
                        MAC("r0", "r4", "r8")  \
    UNPACK("r4", "r4")  MAC("r0", "r5", "r9")  \
    UNPACK("r5", "r5")  MAC("r0", "r6", "r10") \
    UNPACK("r6", "r6")  MAC("r0", "r7", "r11") \
    UNPACK("r7", "r7")  MAC("r1", "r4", "r8")  \
                        MAC("r1", "r5", "r9")  \
                        MAC("r1", "r6", "r10") \
                        MAC("r1", "r7", "r11")

#define ONE_BY_16 ONE_BY_4 ONE_BY_4 ONE_BY_4 ONE_BY_4

/* Words on the stack: zero, zero_256, output, channels_end, x, addresses of where the first run begins, of what follows
 * runs, and of what follows when sums are shifted; shift. */

#define FINISH_ONE(bits, str, one, two)                       \
    "ldm sp, {r6, r7, r8, r9}\n"                              \
    "ldrd r4, r5, [r12], #16\n"                               \
    DIFFERENCE("r0", "r1")    "smmlar r1, r1, r4, r6\n"       \
                              "smmla r0, r0, r5, r7\n"        \
    SATURATE_L(bits, "r1")                                    \
    SATURATE_H(bits, "r0")    str " r1, [r8], #" two "\n"     \
    "cmp r12, r9\n"           STORE("str", "r8", FRAME("2"))  \
                              str " r0, [r8, #-" one "]\n"    \
    "bne .Lone_pair\n"

__attribute__((naked, aligned(4))) void slm_linear_one(const slm_linear_job *job __attribute__((unused)))
{
    __asm volatile(
        PUSH_REGISTERS
        "ldr r11, [r0, #16]\n"      /* skip */
        "ldrd r10, r9, [r0, #52]\n" /* wide, shift */
        "lsr r11, r11, #4\n"
        ENTRY("r6", ".Lone_run", ".Lone_second")
        "adr.w r8, .Lone_s8+1\n"
        "cmp r10, #0\n"
        "it ne\n"
        "adrne.w r8, .Lone_s16+1\n"
        "mov r7, r8\n"
        "cmp r9, #0\n"
        "it ne\n"
        "adrne.w r7, .Lone_shift+1\n"
        "ldrd r1, r2, [r0]\n"       /* zero, zero_256 */
        "ldr r3, [r0, #48]\n"       /* output */
        "ldrd r12, r4, [r0, #36]\n" /* channels, channels_end */
        "ldrd lr, r5, [r0, #28]\n"  /* x_end, x */
        "push {r1, r2, r3, r4, r5, r6, r7, r8, r9}\n"
        "ldr r2, [r0, #12]\n"       /* w */

        ".Lone_pair:\n"
        "ldrd r0, r1, [r12, #8]\n"
        LDR("r3", FRAME("4"))
        LDR("pc", FRAME("5"))
        ".Lone_run:\n"
        ONE_BY_4
        ".Lone_second:\n"
        ONE_BY_4
        ONE_BY_4
        ONE_BY_4
        ONE_BY_16
        ONE_BY_16
        ONE_BY_16
        "cmp r3, lr\n"
        "bne .Lone_run\n"
        LDR("pc", FRAME("6"))
        ".Lone_shift:\n"
        LDR("r8", FRAME("8"))
        "lsl r0, r0, r8\n"
        "lsl r1, r1, r8\n"
        LDR("pc", FRAME("7"))
        ".Lone_s16:\n"
        FINISH_ONE("16", "strh", "2", "4")
        "b .Lone_end\n"
        ".Lone_s8:\n"
        FINISH_ONE("8", "strb", "1", "2")
        ".Lone_end:\n"
        "add sp, sp, #36\n"
        POP_REGISTERS);
}

/* ---------------------------------------------------------------- activations */

__attribute__((naked, aligned(4))) void slm_linear_expand_one(uint32_t *x __attribute__((unused)),
                                                              const int8_t *input __attribute__((unused)),
                                                              const int8_t *end __attribute__((unused)))
{
    __asm volatile(
        "push {r4, r5, r6, r7}\n"
        "1:\n"
        "ldr r4, [r1], #4\n"
        "ldr r6, [r1], #4\n"
        "sxtb16 r5, r4, ror #8\n"
        "sxtb16 r4, r4\n"
        "sxtb16 r7, r6, ror #8\n"
        "sxtb16 r6, r6\n"
        "cmp r1, r2\n"
        "stm r0!, {r4, r5, r6, r7}\n"
        "bne 1b\n"
        "pop {r4, r5, r6, r7}\n"
        "bx lr\n");
}

/* Four features of three tokens; `up1`, `up2`, `up3` fill lines. */
#define EXPAND_QUAD(at, up1, up2, up3)                \
    LDR("r4", "r1, #" at)      LDR("r5", "r12, #" at) \
    "sxtb16 r7, r4, ror #8\n"  LDR("r6", "r3, #" at)  \
    "sxtb16 r8, r5, ror #8\n"  up1                    \
    "sxtb16 r9, r6, ror #8\n"  up2                    \
    "sxtb16 r4, r4\n"          up3                    \
    "sxtb16 r5, r5\n"                                 \
    "sxtb16 r6, r6\n"                                 \
    "stm r0!, {r4, r5, r6, r7, r8, r9}\n"

__attribute__((naked, aligned(4))) void slm_linear_expand_three(uint32_t *x __attribute__((unused)),
                                                                const int8_t *input __attribute__((unused)),
                                                                const int8_t *end __attribute__((unused)),
                                                                uint32_t features __attribute__((unused)))
{
    __asm volatile(
        "push {r4, r5, r6, r7, r8, r9}\n"
        "add r12, r1, r3\n" /* the second token, and the third */
        "add r3, r12, r3\n"
        "1:\n"
        EXPAND_QUAD("0", NONE, NONE, NONE)
        EXPAND_QUAD("4", "add r1, r1, #8\n", "add r12, r12, #8\n", "add r3, r3, #8\n")
        "cmp r1, r2\n"
        "bne 1b\n"
        "pop {r4, r5, r6, r7, r8, r9}\n"
        "bx lr\n");
}

/* Two features of a token, what the table at r3 has for two, and half of what a word takes of four. */
#define INDEX(a, b, input, at) "ldrsb " a ", [" input ", #" at "]\n" "ldrsb " b ", [" input ", #" at "+1]\n"
#define LOOK_UP(a, b)          "ldrsb " a ", [r3, " a "]\n"         "ldrsb " b ", [r3, " b "]\n"
#define PACK(word, low, high)  "pkhbt " word ", " low ", " high ", lsl #16\n"

/* Four features of three tokens. */
#define LOOK_UP_QUAD(at, behind)            \
    INDEX("r4", "r7", "r1", at)             \
    INDEX("r10", "lr", "r1", behind)        \
    INDEX("r5", "r8", "r11", at)            \
    LOOK_UP("r4", "r7")                     \
    LOOK_UP("r10", "lr")                    \
    INDEX("r6", "r9", "r11", behind)        \
    LOOK_UP("r5", "r8")                     \
    PACK("r4", "r4", "r10")                 \
    PACK("r7", "r7", "lr")                  \
    LOOK_UP("r6", "r9")                     \
    INDEX("r10", "lr", "r12", at)           \
    PACK("r5", "r5", "r6")                  \
    PACK("r8", "r8", "r9")                  \
    INDEX("r6", "r9", "r12", behind)        \
    LOOK_UP("r10", "lr")                    \
    LOOK_UP("r6", "r9")                     \
    PACK("r6", "r10", "r6")                 \
    PACK("r9", "lr", "r9")                  \
    "stm r0!, {r4, r5, r6, r7, r8, r9}\n"

__attribute__((naked, aligned(4))) void slm_linear_look_up_three(uint32_t *x __attribute__((unused)),
                                                                 const int8_t *input __attribute__((unused)),
                                                                 const int8_t *end __attribute__((unused)),
                                                                 uint32_t features __attribute__((unused)),
                                                                 const int8_t *table __attribute__((unused)))
{
    __asm volatile(
        PUSH_REGISTERS
        "add r11, r1, r3\n" /* the second token, and the third */
        "add r12, r11, r3\n"
        "ldr r3, [sp, #36]\n" /* table */
        "add r3, r3, #128\n"
        "1:\n"
        LOOK_UP_QUAD("0", "2")
        LOOK_UP_QUAD("4", "6")
        "add r1, r1, #8\n"
        "add r11, r11, #8\n"
        "add r12, r12, #8\n"
        "cmp r1, r2\n"
        "bne 1b\n"
        POP_REGISTERS);
}

/* clang-format on */

#else
typedef int slm_linear_dsp_is_empty; /* ISO C wants a declaration in every file */
#endif
