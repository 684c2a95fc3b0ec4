/**
 * \file slm_dsp.h
 * \brief The DSP instructions of Armv7E-M and Armv8-M that kernels use, and the same in portable C for every other target.
 *
 * The only place where features of a core are tested. The portable versions compute the same bits, so that packed kernels
 * run, and are tested under sanitizers, on a PC. Names are those of the instructions.
 */
#ifndef SLM_DSP_H
#define SLM_DSP_H

#include "slm_math.h"

/**
 * 1 where the core has the DSP extension, may load words from any address (as it does unless CCR.UNALIGN_TRP is set or the
 * compiler is told -mno-unaligned-access), and the compiler knows GNU inline assembly.
 */
#if defined(__GNUC__) && defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_UNALIGNED) && defined(__thumb2__)
#define SLM_DSP 1
#else
#define SLM_DSP 0
#endif

/** 1 where functions are inlined, so that an argument which is a constant is one in assembly, too. */
#if SLM_DSP && defined(__OPTIMIZE__)
#define SLM_DSP_INLINED 1
#else
#define SLM_DSP_INLINED 0
#endif

/** A function whose assembly takes addresses within itself: ADR counts from a multiple of 4. */
#if SLM_DSP
#define SLM_ASSEMBLY __attribute__((noinline, aligned(4)))
#endif

/** Unroll the following short loop of constant length, so that arrays it indexes can be in registers. */
#if defined(__GNUC__) && !defined(__clang__) /* which does so unasked */
#define SLM_UNROLL _Pragma("GCC unroll 8")
#else
#define SLM_UNROLL
#endif

/** \brief Bits 15..0 of a word as a signed number. */
SLM_INLINE int32_t slm_low_half(uint32_t word)
{
    return (int32_t)((word & 0xFFFFu) ^ 0x8000u) - 0x8000;
}

/** \brief Four bytes from any address, the first in bits 7..0. */
SLM_INLINE uint32_t slm_load_word(const int8_t *bytes)
{
#if SLM_DSP
    uint32_t word;
    (void)__builtin_memcpy(&word, bytes, sizeof word); /* a library call with -ffreestanding if it were memcpy */
    return word;
#else
    return (uint32_t)(uint8_t)bytes[0] | (uint32_t)(uint8_t)bytes[1] << 8 | (uint32_t)(uint8_t)bytes[2] << 16 |
           (uint32_t)(uint8_t)bytes[3] << 24;
#endif
}

/** \brief Two elements from any address, the first in bits 15..0. */
SLM_INLINE uint32_t slm_load_halves(const int16_t *halves)
{
#if SLM_DSP
    uint32_t word;
    (void)__builtin_memcpy(&word, halves, sizeof word);
    return word;
#else
    return (uint32_t)(uint16_t)halves[0] | (uint32_t)(uint16_t)halves[1] << 16;
#endif
}

/** \brief A word to any address, bits 7..0 first. */
SLM_INLINE void slm_store_word(void *address, uint32_t word)
{
#if SLM_DSP
    (void)__builtin_memcpy(address, &word, sizeof word);
#else
    for (uint32_t i = 0; i < 4u; i++) {
        ((uint8_t *)address)[i] = (uint8_t)(word >> (8u * i));
    }
#endif
}

/** \brief A constant, which the compiler is to keep in a register. */
SLM_INLINE uint32_t slm_in_register(uint32_t constant)
{
#if SLM_DSP
    __asm("" : "+r"(constant));
#endif
    return constant;
}

/** \brief Bits 7..0 of four numbers in a word, the first in its bits 7..0: three BFI. */
SLM_INLINE uint32_t slm_pack_bytes(int32_t first, int32_t second, int32_t third, int32_t fourth)
{
#if SLM_DSP
    uint32_t word = (uint32_t)first;
    __asm("bfi %0, %1, #8, #8\n\tbfi %0, %2, #16, #8\n\tbfi %0, %3, #24, #8"
          : "+&r"(word)
          : "r"(second), "r"(third), "r"(fourth));
    return word;
#else
    return ((uint32_t)first & 0xFFu) | ((uint32_t)second & 0xFFu) << 8 | ((uint32_t)third & 0xFFu) << 16 |
           (uint32_t)fourth << 24;
#endif
}

/** \brief SXTB16: bytes 0 and 2 of a word, sign-extended to its two halves. */
SLM_INLINE uint32_t slm_sxtb16(uint32_t word)
{
#if SLM_DSP
    uint32_t result;
    __asm("sxtb16 %0, %1" : "=r"(result) : "r"(word));
    return result;
#else
    uint32_t low = (word & 0xFFu) | ((word & 0x80u) != 0u ? 0xFF00u : 0u);
    uint32_t high = (word & 0xFF0000u) | ((word & 0x800000u) != 0u ? 0xFF000000u : 0u);
    return low | high;
#endif
}

/** \brief SXTB16 with ROR 8: bytes 1 and 3 of a word, sign-extended to its two halves. */
SLM_INLINE uint32_t slm_sxtb16_ror8(uint32_t word)
{
#if SLM_DSP
    uint32_t result;
    __asm("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(word));
    return result;
#else
    return slm_sxtb16(word >> 8);
#endif
}

/** \brief SMLAD: sum + the products of both pairs of signed halves, modulo 2^32. */
SLM_INLINE int32_t slm_smlad(uint32_t a, uint32_t b, int32_t sum)
{
#if SLM_DSP
    int32_t result;
    __asm("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
#else
    uint32_t low = (uint32_t)(slm_low_half(a) * slm_low_half(b));
    uint32_t high = (uint32_t)(slm_low_half(a >> 16) * slm_low_half(b >> 16));
    return (int32_t)((uint32_t)sum + low + high);
#endif
}

/** \brief SMMLAR: slm_scale in one instruction. */
SLM_INLINE int32_t slm_smmlar(int32_t acc, int32_t multiplier, int32_t offset)
{
#if SLM_DSP
    int32_t result;
    __asm("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(acc), "r"(multiplier), "r"(offset));
    return result;
#else
    return slm_scale(acc, multiplier, offset);
#endif
}

/** \brief PKHBT: the lower halves of two words, that of `low` below. */
SLM_INLINE uint32_t slm_pack_lower(uint32_t low, uint32_t high)
{
#if SLM_DSP
    uint32_t result;
    __asm("pkhbt %0, %1, %2, lsl #16" : "=r"(result) : "r"(low), "r"(high));
    return result;
#else
    return (low & 0xFFFFu) | high << 16;
#endif
}

/** \brief PKHTB: the upper halves of two words, that of `low` below. */
SLM_INLINE uint32_t slm_pack_upper(uint32_t low, uint32_t high)
{
#if SLM_DSP
    uint32_t result;
    __asm("pkhtb %0, %1, %2, asr #16" : "=r"(result) : "r"(high), "r"(low));
    return result;
#else
    return low >> 16 | (high & 0xFFFF0000u);
#endif
}

/** \brief value >> shift, rounded half up, for shifts 1..31: LSRS, and ADC of the last bit that it shifted out. */
SLM_INLINE uint32_t slm_lsr_round(uint32_t value, uint32_t shift)
{
#if SLM_DSP
    uint32_t result;
    __asm("lsrs %0, %1, %2\n\tadc %0, %0, #0" : "=r"(result) : "r"(value), "r"(shift) : "cc");
    return result;
#else
    return (value >> shift) + (value >> (shift - 1u) & 1u);
#endif
}

/** \brief slm_lsr_round with the lower half of `high` above, of a result below 2^16: the ADC adds both. */
SLM_INLINE uint32_t slm_lsr_round_below(uint32_t value, uint32_t shift, uint32_t high)
{
#if SLM_DSP
    __asm("lsrs %0, %0, %1\n\tadc %0, %0, %2, lsl #16" : "+&r"(value) : "r"(shift), "r"(high) : "cc");
    return value;
#else
    return slm_lsr_round(value, shift) + (high << 16);
#endif
}

/** \brief USAT to 5 bits of value >> 8. */
SLM_INLINE uint32_t slm_usat5_asr8(int32_t value)
{
#if SLM_DSP
    uint32_t result;
    __asm("usat %0, #5, %1, asr #8" : "=r"(result) : "r"(value));
    return result;
#else
    return (uint32_t)slm_clamp(value >> 8, 0, 31);
#endif
}

/** \brief QSUB: a - b, limited to 32 bits. */
SLM_INLINE int32_t slm_qsub(int32_t a, int32_t b)
{
#if SLM_DSP
    int32_t result;
    __asm("qsub %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
#else
    const int64_t difference = (int64_t)a - b;
    return (int32_t)(difference < INT32_MIN ? INT32_MIN : difference > INT32_MAX ? INT32_MAX : difference);
#endif
}

/** \brief LDRD: two words, those at words[2 * pair] and behind; `pair` is a constant. */
SLM_INLINE void slm_ldrd(const int32_t *words, int32_t pair, int32_t *first, int32_t *second)
{
#if SLM_DSP_INLINED
    __asm("ldrd %0, %1, [%2, %3]"
          : "=r"(*first), "=r"(*second)
          : "r"(words), "i"(8 * pair), "m"(words[2 * pair]), "m"(words[2 * pair + 1]));
#else
    *first = words[2 * pair];
    *second = words[2 * pair + 1];
#endif
}

/** \brief LDRD: two words, and on to the ones behind. */
SLM_INLINE void slm_ldrd_next(const int32_t **words, int32_t *first, int32_t *second)
{
#if SLM_DSP
    const int32_t *from = *words;
    __asm("ldrd %0, %1, [%2], #8" : "=r"(*first), "=r"(*second), "+r"(*words) : "m"(from[0]), "m"(from[1]));
#else
    *first = (*words)[0];
    *second = (*words)[1];
    *words += 2;
#endif
}

/** \brief LDRD: four elements from an address that is a multiple of 4. */
SLM_INLINE void slm_ldrd_halves(const int16_t *halves, uint32_t *first, uint32_t *second)
{
#if SLM_DSP
    __asm("ldrd %0, %1, [%2]"
          : "=r"(*first), "=r"(*second)
          : "r"(halves), "m"(halves[0]), "m"(halves[1]), "m"(halves[2]), "m"(halves[3]));
#else
    *first = slm_load_halves(halves);
    *second = slm_load_halves(halves + 2);
#endif
}

/** \brief STRD: two words to words[2 * pair] and behind; `pair` is a constant. */
SLM_INLINE void slm_strd(uint32_t *words, int32_t pair, uint32_t first, uint32_t second)
{
#if SLM_DSP_INLINED
    __asm("strd %2, %3, [%4, %5]"
          : "=m"(words[2 * pair]), "=m"(words[2 * pair + 1])
          : "r"(first), "r"(second), "r"(words), "i"(8 * pair));
#else
    words[2 * pair] = first;
    words[2 * pair + 1] = second;
#endif
}

/** \brief SMLALD: sum + the products of both pairs of signed halves, 64 bits. */
SLM_INLINE int64_t slm_smlald(uint32_t a, uint32_t b, int64_t sum)
{
#if SLM_DSP
    __asm("smlald %Q0, %R0, %1, %2" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
#else
    return sum + slm_low_half(a) * slm_low_half(b) + (int64_t)slm_low_half(a >> 16) * slm_low_half(b >> 16);
#endif
}

/** \brief SSUB16: differences of both halves, modulo 2^16. */
SLM_INLINE uint32_t slm_ssub16(uint32_t a, uint32_t b)
{
#if SLM_DSP
    uint32_t result;
    __asm("ssub16 %0, %1, %2" : "=r"(result) : "r"(a), "r"(b) : "cc");
    return result;
#else
    return ((a - b) & 0xFFFFu) | ((a >> 16) - (b >> 16)) << 16;
#endif
}

/** \brief SMULBB: product of the lower halves. */
SLM_INLINE int32_t slm_smulbb(uint32_t a, uint32_t b)
{
#if SLM_DSP
    int32_t result;
    __asm("smulbb %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
#else
    return slm_low_half(a) * slm_low_half(b);
#endif
}

/** \brief SMULTT: product of the upper halves. */
SLM_INLINE int32_t slm_smultt(uint32_t a, uint32_t b)
{
#if SLM_DSP
    int32_t result;
    __asm("smultt %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
#else
    return slm_low_half(a >> 16) * slm_low_half(b >> 16);
#endif
}

/** \brief SSAT to 8 bits of value >> 8. */
SLM_INLINE int32_t slm_ssat8_asr8(int32_t value)
{
#if SLM_DSP
    int32_t result;
    __asm("ssat %0, #8, %1, asr #8" : "=r"(result) : "r"(value));
    return result;
#else
    return slm_clamp(value >> 8, INT8_MIN, INT8_MAX);
#endif
}

/** \brief SSAT to 8 bits. */
SLM_INLINE int32_t slm_ssat_8(int32_t value)
{
#if SLM_DSP
    int32_t result;
    __asm("ssat %0, #8, %1" : "=r"(result) : "r"(value));
    return result;
#else
    return slm_clamp(value, INT8_MIN, INT8_MAX);
#endif
}

/** \brief SSAT to 16 bits. */
SLM_INLINE int32_t slm_ssat_16(int32_t value)
{
#if SLM_DSP
    int32_t result;
    __asm("ssat %0, #16, %1" : "=r"(result) : "r"(value));
    return result;
#else
    return slm_clamp(value, INT16_MIN, INT16_MAX);
#endif
}

#endif
