/**
 * \file port_core.h
 * \brief What port_semihosting.c takes from the file of an architecture, port_arm.c or port_riscv.c, and gives to it.
 */
#ifndef PORT_CORE_H
#define PORT_CORE_H

#include "slm_port.h"

/** The stack, from firmware.ld: the guard's lowest byte, the lowest that may be used, the first behind it. */
extern uint32_t slm_stack_guard[], slm_stack_limit[], slm_stack_top[];
/** The stack pointer of whoever painted the stack; slm_port_stack_paint() sets it. */
extern uint32_t *volatile slm_stack_base;

#define STACK_PAINT 0xC5A3C5A3u
#define STACK_GUARD 256u /* as in firmware.ld */

/** \brief Everything behind reset: memory, core, main. Needs a stack pointer and nothing else. */
_Noreturn void slm_start(void);

/** \brief What has to be on before any other code runs. */
void slm_core_init(void);

/** \brief Guard the stack and start the instruction counter, with all memory in place. */
void slm_core_start(void);

/** \brief One semihosting request. \param[in] operation SYS_... \param[in] parameters its block, or as it says */
int32_t slm_core_request(uint32_t operation, const void *parameters);

/** \brief Print a label and a number in hexadecimal. */
void slm_core_print_hex(const char *label, uint32_t value);

#endif
