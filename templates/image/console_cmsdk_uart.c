/**
 * \file console_cmsdk_uart.c
 * \brief CMSDK APB UART, polled (Arm Cortex-M System Design Kit TRM, DDI 0479: APB UART).
 */
#include "board.h"
#include "console.h"

#define REGISTER(offset) (*(volatile uint32_t *)(CONSOLE_BASE + (offset)))
#define DATA REGISTER(0x00u)
#define STATE REGISTER(0x04u)
#define CTRL REGISTER(0x08u)
#define BAUDDIV REGISTER(0x10u)

#define STATE_TX_FULL (1u << 0)
#define STATE_RX_FULL (1u << 1)
#define CTRL_TX_ENABLE (1u << 0)
#define CTRL_RX_ENABLE (1u << 1)

void console_init(void)
{
    BAUDDIV = (CONSOLE_CLOCK_HZ + CONSOLE_BAUD / 2u) / CONSOLE_BAUD;
    CTRL = CTRL_TX_ENABLE | CTRL_RX_ENABLE;
}

void console_put(char c)
{
    while ((STATE & STATE_TX_FULL) != 0u) {
    }
    DATA = (uint8_t)c;
}

int console_get(void)
{
    while ((STATE & STATE_RX_FULL) == 0u) {
    }
    return (int)(DATA & 0xFFu);
}
