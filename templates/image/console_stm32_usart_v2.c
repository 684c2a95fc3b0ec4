/**
 * \file console_stm32_usart_v2.c
 * \brief USART of STM32F0, F3, F7, G, H7, L and later, polled (RM0385 and RM0433, Universal synchronous asynchronous receiver
 *        transmitter). Its FIFO, where there is one, is off: what arrives while a command is being answered is lost, but
 *        for one byte.
 */
#include "board.h"
#include "console.h"

#define REGISTER(offset) (*(volatile uint32_t *)(CONSOLE_BASE + (offset)))
#define CR1 REGISTER(0x00u)
#define BRR REGISTER(0x0Cu)
#define ISR REGISTER(0x1Cu)
#define ICR REGISTER(0x20u)
#define RDR REGISTER(0x24u)
#define TDR REGISTER(0x28u)

#define CR1_UE (1u << 0)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define ISR_RXNE (1u << 5)
#define ISR_TXE (1u << 7)
#define ICR_ORECF (1u << 3)

void console_init(void)
{
    BRR = (CONSOLE_CLOCK_HZ + CONSOLE_BAUD / 2u) / CONSOLE_BAUD; /* 16 samples a bit */
    CR1 = CR1_UE | CR1_TE | CR1_RE;
}

void console_put(char c)
{
    while ((ISR & ISR_TXE) == 0u) {
    }
    TDR = (uint8_t)c;
}

int console_get(void)
{
    while ((ISR & ISR_RXNE) == 0u) {
        ICR = ICR_ORECF; /* after an overrun nothing is received until it is acknowledged */
    }
    return (int)(RDR & 0xFFu);
}
