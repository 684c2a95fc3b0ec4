/**
 * \file port_arm.c
 * \brief Armv7-M and Armv8-M cores: the instruction counter of an emulated board, the stack's paint.
 */
#include "port_core.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#if defined(SLM_PORT_CMSDK_TIMER) /* CMSDK APB timer: CTRL, VALUE, RELOAD; it counts down */

void slm_port_start_counter(void)
{
    REGISTER(SLM_PORT_CMSDK_TIMER + 8u) = 0xFFFFFFFFu;
    REGISTER(SLM_PORT_CMSDK_TIMER + 4u) = 0xFFFFFFFFu;
    REGISTER(SLM_PORT_CMSDK_TIMER) = 1u;
}

uint64_t slm_port_instructions(void)
{
    return (uint64_t)~REGISTER(SLM_PORT_CMSDK_TIMER + 4u) * SLM_PORT_TICK; /* not read across a wrap */
}

#elif defined(SLM_PORT_FPGAIO) /* MPS2 and MPS3 FPGAIO: COUNTER counts up */

void slm_port_start_counter(void)
{
    REGISTER(SLM_PORT_FPGAIO + 0x18u) = 0u;
}

uint64_t slm_port_instructions(void)
{
    return (uint64_t)REGISTER(SLM_PORT_FPGAIO + 0x18u) * SLM_PORT_TICK; /* not read across a wrap */
}

#else

void slm_port_start_counter(void)
{
}

uint64_t slm_port_instructions(void)
{
    return 0u;
}

#endif

__attribute__((naked)) void slm_port_stack_paint(void)
{
    __asm volatile("ldr r0, =slm_stack_limit\n"
                   "ldr r1, =%c0\n"
                   "ldr r2, =slm_stack_base\n"
                   "mov r3, sp\n"
                   "str r3, [r2]\n"
                   "1: cmp r0, r3\n"
                   "it lo\n"
                   "strlo r1, [r0], #4\n"
                   "blo 1b\n"
                   "bx lr\n" ::"i"(STACK_PAINT));
}
