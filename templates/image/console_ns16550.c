/**
 * \file console_ns16550.c
 * \brief NS16550A with registers of one byte side by side, polled (National Semiconductor PC16550D datasheet; QEMU
 *        hw/char/serial.c).
 */
#include "board.h"
#include "console.h"

#define REGISTER(offset) (*(volatile uint8_t *)(CONSOLE_BASE + (offset)))
#define RBR_THR REGISTER(0u) /* DLL while DLAB is set */
#define IER REGISTER(1u)     /* DLM while DLAB is set */
#define FCR REGISTER(2u)
#define LCR REGISTER(3u)
#define LSR REGISTER(5u)

#define FCR_ENABLE (1u << 0)
#define LCR_WORD_8 3u
#define LCR_DLAB (1u << 7)
#define LSR_DATA_READY (1u << 0)
#define LSR_THR_EMPTY (1u << 5)

void console_init(void)
{
    const uint32_t divisor = (CONSOLE_CLOCK_HZ / 16u + CONSOLE_BAUD / 2u) / CONSOLE_BAUD;
    IER = 0u;
    LCR = LCR_DLAB | LCR_WORD_8;
    RBR_THR = (uint8_t)divisor;
    IER = (uint8_t)(divisor >> 8);
    LCR = LCR_WORD_8;
    FCR = FCR_ENABLE;
}

void console_put(char c)
{
    while ((LSR & LSR_THR_EMPTY) == 0u) {
    }
    RBR_THR = (uint8_t)c;
}

int console_get(void)
{
    while ((LSR & LSR_DATA_READY) == 0u) {
    }
    return RBR_THR;
}
