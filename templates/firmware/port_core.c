/**
 * \file port_core.c
 * \brief What is the same for every program behind slm_port.h on a bare core: reports of faults, the stack's high-water mark.
 */
#include "port_core.h"

void slm_setup(void)
{
}

void slm_print(const char *text)
{
    slm_port_print(text);
}

_Noreturn void slm_exit(int code)
{
    slm_port_exit(code);
}

uint32_t *volatile slm_stack_base;

uint32_t slm_port_stack_used(void)
{
    const volatile uint32_t *word = slm_stack_limit;
    const volatile uint32_t *const base = slm_stack_base;
    while (word < base && *word == STACK_PAINT) {
        word++;
    }
    return (uint32_t)((uintptr_t)base - (uintptr_t)word);
}
