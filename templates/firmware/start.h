/**
 * \file start.h
 * \brief From reset to the program: what start.c, the file of an architecture (start_arm.c or start_riscv.c) and the program
 *        take from each other.
 *
 * Reset -> slm_reset (architecture) -> slm_start (start.c) -> slm_setup -> slm_program (the program).
 */
#ifndef START_H
#define START_H

#include <stdint.h>

/** The stack, from the linker script: the guard's lowest byte, the lowest that may be used, the first behind it. */
extern uint32_t slm_stack_guard[], slm_stack_limit[], slm_stack_top[];

#define STACK_GUARD 256u /* as in the linker script */

/** Exit code of a program that ended in a fault, after a line "fault: ...". */
#define FAULT_EXIT 99

/* ---------------------------------------------------------------- the program's */

/** \brief What has to be done before memory is touched: clocks, pins, a flash to be mapped. May use the stack only. */
void slm_setup(void);

/** \brief The program, with all memory in place. */
_Noreturn void slm_program(void);

/** \brief Print the report of a fault. */
void slm_print(const char *text);

/** \brief End the program. \param[in] code 0 to 255 */
_Noreturn void slm_exit(int code);

/* ---------------------------------------------------------------- start.c's */

/** \brief Everything behind reset. Needs a stack pointer and nothing else. */
_Noreturn void slm_start(void);

/** \brief Tell the debugger or emulator, by semihosting, that the program has ended. */
_Noreturn void slm_stop(int code);

/** \brief Print a label and a number in hexadecimal. */
void slm_print_hex(const char *label, uint32_t value);

/* ---------------------------------------------------------------- the architecture's */

/** \brief What has to be on before any other code runs. */
void slm_core_init(void);

/** \brief Let the core see instructions that were stored as data. */
void slm_core_sync(void);

/** \brief Guard the stack, with all memory in place. */
void slm_core_guard(void);

/** \brief One semihosting request. \param[in] operation SYS_... \param[in] parameters its block, or as it says */
int32_t slm_core_request(uint32_t operation, const void *parameters);

#ifdef __riscv
/* Control and status registers. Assemblers want to be told of the extension, which every core with machine mode has. */
#define CSR(text) ".option push\n .option arch, +zicsr\n " text "\n .option pop"
#define READ_CSR(name, value) __asm volatile(CSR("csrr %0, " name) : "=r"(value))
#define WRITE_CSR(name, value) __asm volatile(CSR("csrw " name ", %0")::"r"(value) : "memory")
#define SET_CSR(name, bits) __asm volatile(CSR("csrs " name ", %0")::"r"(bits) : "memory")
#endif

#endif
