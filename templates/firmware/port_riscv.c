/**
 * \file port_riscv.c
 * \brief RV32 cores: the instruction counter, the stack's paint.
 */
#include "port_core.h"

void slm_port_start_counter(void)
{
}

uint64_t slm_port_instructions(void)
{
    uint32_t high, low, again;
    do {
        READ_CSR("minstreth", high);
        READ_CSR("minstret", low);
        READ_CSR("minstreth", again);
    } while (high != again);
    return ((uint64_t)high << 32) | low;
}

__attribute__((naked)) void slm_port_stack_paint(void)
{
    __asm volatile("la t0, slm_stack_limit\n"
                   "li t1, %0\n"
                   "la t2, slm_stack_base\n"
                   "sw sp, 0(t2)\n"
                   "1: bgeu t0, sp, 2f\n"
                   "sw t1, 0(t0)\n"
                   "addi t0, t0, 4\n"
                   "j 1b\n"
                   "2: ret\n" ::"i"(STACK_PAINT));
}
