/**
 * \file slm_port.h
 * \brief What a test or validation program needs from its surroundings; the same on a PC (port_host.c) and on a core:
 *        through semihosting (port_semihosting.c) or a UART (port_serial.c), with port_core.c, port_arm.c or port_riscv.c, and
 *        what start.h names.
 *
 * A program defines `int main(int argc, char **argv)`; what main returns is the exit code. Relative paths start at the
 * folder that the program, or the emulator, was started in. Semihosting needs a debugger or emulator that answers it;
 * without one, the first request is a fault.
 */
#ifndef SLM_PORT_H
#define SLM_PORT_H

#include "decimal.h"

#include <stdint.h>

/** Puts a static buffer into the region that the board gives to the arena. */
#if defined(__arm__) || defined(__riscv)
#define SLM_PORT_ARENA __attribute__((section(".bss.slm_arena")))
#else
#define SLM_PORT_ARENA
#endif

/** Resolution of slm_port_instructions(), in instructions. */
#ifndef SLM_PORT_TICK
#define SLM_PORT_TICK 1u
#endif

/** The blob that the image was linked with, if any: aligned to 16 bytes, in the region that the board gives to blobs. */
extern const uint8_t slm_blob[];
/** Its size in bytes. */
extern const uint32_t slm_blob_size;

/** An open file; 0 is none. */
typedef intptr_t slm_port_file;

typedef enum {
    SLM_PORT_READ, /**< the file must exist */
    SLM_PORT_WRITE /**< the file is created, or emptied */
} slm_port_mode;

/** \brief Print a string. */
void slm_port_print(const char *text);

/** \brief Open a binary file; 0 if that fails. */
slm_port_file slm_port_open(const char *path, slm_port_mode mode);

/** \brief Read up to `size` bytes. \return how many were read; fewer than `size` only at the end of the file */
uint32_t slm_port_read(slm_port_file file, void *data, uint32_t size);

/** \brief Write `size` bytes. \return how many were written */
uint32_t slm_port_write(slm_port_file file, const void *data, uint32_t size);

/** \brief Close a file. \return 0, or -1 if what was written may be lost */
int slm_port_close(slm_port_file file);

/** \brief End the program. \param[in] code 0 to 255 */
_Noreturn void slm_port_exit(int code);

/**
 * \brief Instructions executed since the start, in steps of SLM_PORT_TICK; 0 where nothing counts them.
 *
 * Exact in QEMU under `-icount shift=0`. The difference of two readings is off by less than SLM_PORT_TICK; repeat
 * what is measured SLM_PORT_TICK times to resolve single instructions.
 */
uint64_t slm_port_instructions(void);

/** \brief Paint the stack below the caller; done once before main. */
void slm_port_stack_paint(void);

/**
 * \brief The high-water mark: how many bytes below the frame that painted the stack were written since; 0 on a PC.
 *
 * A lower bound of what was reserved: words that are reserved and never written do not show.
 */
uint32_t slm_port_stack_used(void);

/** \brief Print a number in decimal. */
static inline void slm_port_print_int(int64_t value)
{
    char text[DECIMAL_BYTES];
    slm_port_print(decimal(text, value));
}

#endif
