/**
 * \file console_semihosting.c
 * \brief The debugger's or emulator's terminal ("Semihosting for AArch32 and AArch64", Arm 2.0; RISC-V takes the operations
 *        over). Without one that answers, the first byte is a fault: use a driver of a UART instead.
 */
#include "console.h"
#include "start.h"

enum {
    SYS_OPEN = 0x01,
    SYS_WRITEC = 0x03,
    SYS_READ = 0x06
};

static int32_t terminal;

void console_init(void)
{
    static const char name[] = ":tt"; /* the terminal, to be read */
    const uint32_t block[3] = {(uintptr_t)name, 0u, sizeof name - 1u};
    terminal = slm_core_request(SYS_OPEN, block);
}

void console_put(char c)
{
    (void)slm_core_request(SYS_WRITEC, &c);
}

/** SYS_READC would do, but for QEMU 7.2, which answers it with 0 always. */
int console_get(void)
{
    uint8_t byte = 0u;
    const uint32_t block[3] = {(uint32_t)terminal, (uintptr_t)&byte, 1u};
    return slm_core_request(SYS_READ, block) == 0 ? byte : CONSOLE_END; /* it answers how many bytes are missing */
}
