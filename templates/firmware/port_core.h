/**
 * \file port_core.h
 * \brief What the files behind slm_port.h take from each other on a bare core: port_core.c, port_arm.c or port_riscv.c, and
 *        port_semihosting.c or port_serial.c.
 */
#ifndef PORT_CORE_H
#define PORT_CORE_H

#include "slm_port.h"
#include "start.h"

/** The stack pointer of whoever painted the stack; slm_port_stack_paint() sets it. */
extern uint32_t *volatile slm_stack_base;

#define STACK_PAINT 0xC5A3C5A3u

/** \brief Start what slm_port_instructions() reads. */
void slm_port_start_counter(void);

#endif
