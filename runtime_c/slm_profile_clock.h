/**
 * \file slm_profile_clock.h
 * \brief slm_profile_clock() in cycles of the core, for one file of the application to include.
 *
 * Armv7-M and Armv8-M with the Main Extension: the cycle counter of the DWT, where the chip has one. RISC-V: mcycle.
 * Call slm_profile_clock_start() once before the first run.
 */
#ifndef SLM_PROFILE_CLOCK_H
#define SLM_PROFILE_CLOCK_H

#include "slm_profile.h"

#if defined(__ARM_ARCH_7M__) || defined(__ARM_ARCH_7EM__) || defined(__ARM_ARCH_8M_MAIN__) || \
    defined(__ARM_ARCH_8_1M_MAIN__)

#define SLM_PROFILE_REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

/** \brief Let the counter run. \return 0; -1 if the chip has none, and all times will be 0 */
static inline int slm_profile_clock_start(void)
{
    SLM_PROFILE_REGISTER(0xE000EDFCu) |= 1u << 24;   /* DEMCR.TRCENA: the DWT is on */
    SLM_PROFILE_REGISTER(0xE0001FB0u) = 0xC5ACCE55u; /* DWT_LAR: unlocks a Cortex-M7's; others ignore it */
    SLM_PROFILE_REGISTER(0xE0001004u) = 0u;          /* DWT_CYCCNT */
    SLM_PROFILE_REGISTER(0xE0001000u) |= 1u;         /* DWT_CTRL.CYCCNTENA */
    return (SLM_PROFILE_REGISTER(0xE0001000u) & (1u << 25)) == 0u ? 0 : -1; /* DWT_CTRL.NOCYCCNT */
}

uint32_t slm_profile_clock(void)
{
    return SLM_PROFILE_REGISTER(0xE0001004u);
}

#elif defined(__riscv)

/** \brief Let the counter run. \return 0 */
static inline int slm_profile_clock_start(void)
{
    __asm volatile(".option push\n .option arch, +zicsr\n csrci mcountinhibit, 1\n .option pop");
    return 0;
}

uint32_t slm_profile_clock(void)
{
    uint32_t cycles;
    __asm volatile(".option push\n .option arch, +zicsr\n csrr %0, mcycle\n .option pop" : "=r"(cycles));
    return cycles;
}

#else
#error "no cycle counter is known for this core: define slm_profile_clock() yourself, see slm_profile.h"
#endif

#endif
