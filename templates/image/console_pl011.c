/**
 * \file console_pl011.c
 * \brief PL011, polled, with its FIFOs (PrimeCell UART PL011 TRM, DDI 0183; RP2350 datasheet, UART).
 */
#include "board.h"
#include "console.h"

#define REGISTER(offset) (*(volatile uint32_t *)(CONSOLE_BASE + (offset)))
#define UARTDR REGISTER(0x00u)
#define UARTFR REGISTER(0x18u)
#define UARTIBRD REGISTER(0x24u)
#define UARTFBRD REGISTER(0x28u)
#define UARTLCR_H REGISTER(0x2Cu)
#define UARTCR REGISTER(0x30u)

#define FR_RXFE (1u << 4)
#define FR_TXFF (1u << 5)
#define LCR_FEN (1u << 4)
#define LCR_WLEN_8 (3u << 5)
#define CR_UARTEN (1u << 0)
#define CR_TXE (1u << 8)
#define CR_RXE (1u << 9)

void console_init(void)
{
    const uint32_t divisor = (4u * CONSOLE_CLOCK_HZ + CONSOLE_BAUD / 2u) / CONSOLE_BAUD; /* in 1/64 of 16 cycles */
    UARTCR = 0u;
    UARTIBRD = divisor >> 6;
    UARTFBRD = divisor & 63u;
    UARTLCR_H = LCR_WLEN_8 | LCR_FEN; /* the write that takes the divisor over, too */
    UARTCR = CR_UARTEN | CR_TXE | CR_RXE;
}

void console_put(char c)
{
    while ((UARTFR & FR_TXFF) != 0u) {
    }
    UARTDR = (uint8_t)c;
}

int console_get(void)
{
    while ((UARTFR & FR_RXFE) != 0u) {
    }
    return (int)(UARTDR & 0xFFu);
}
