/**
 * \file console_stm32_usart_v1.c
 * \brief USART of STM32F1, F2, F4 and L1, polled (RM0090, Universal synchronous asynchronous receiver transmitter). Without a
 *        FIFO: what arrives while a command is being answered is lost, but for one byte.
 */
#include "board.h"
#include "console.h"

#define REGISTER(offset) (*(volatile uint32_t *)(CONSOLE_BASE + (offset)))
#define SR REGISTER(0x00u)
#define DR REGISTER(0x04u)
#define BRR REGISTER(0x08u)
#define CR1 REGISTER(0x0Cu)

#define SR_RXNE (1u << 5)
#define SR_TXE (1u << 7)
#define CR1_RE (1u << 2)
#define CR1_TE (1u << 3)
#define CR1_UE (1u << 13)

void console_init(void)
{
    BRR = (CONSOLE_CLOCK_HZ + CONSOLE_BAUD / 2u) / CONSOLE_BAUD; /* 16 samples a bit */
    CR1 = CR1_UE | CR1_TE | CR1_RE;
}

void console_put(char c)
{
    while ((SR & SR_TXE) == 0u) {
    }
    DR = (uint8_t)c;
}

int console_get(void)
{
    while ((SR & SR_RXNE) == 0u) {
    }
    return (int)(DR & 0xFFu); /* after SR, this clears an overrun, too */
}
