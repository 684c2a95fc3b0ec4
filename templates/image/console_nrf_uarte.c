/**
 * \file console_nrf_uarte.c
 * \brief UARTE of nRF52, nRF53 and nRF91, polled, a byte a transfer (nRF5340 Product Specification, UARTE; register names and
 *        baud rates as in Nordic's nrf5340_application.h). It waits for its own DMA, so the bytes must lie in RAM.
 */
#include "board.h"
#include "console.h"

#define REGISTER(offset) (*(volatile uint32_t *)(CONSOLE_BASE + (offset)))
#define TASKS_STARTRX REGISTER(0x000u)
#define TASKS_STARTTX REGISTER(0x008u)
#define EVENTS_ENDRX REGISTER(0x110u)
#define EVENTS_ENDTX REGISTER(0x120u)
#define ENABLE REGISTER(0x500u)
#define BAUDRATE REGISTER(0x524u)
#define RXD_PTR REGISTER(0x534u)
#define RXD_MAXCNT REGISTER(0x538u)
#define TXD_PTR REGISTER(0x544u)
#define TXD_MAXCNT REGISTER(0x548u)

#define ENABLE_UARTE 8u
#if CONSOLE_BAUD == 9600
#define BAUDRATE_VALUE 0x00275000u
#elif CONSOLE_BAUD == 115200
#define BAUDRATE_VALUE 0x01D60000u
#elif CONSOLE_BAUD == 1000000
#define BAUDRATE_VALUE 0x10000000u
#else
#error "look BAUDRATE up in the product specification"
#endif

static volatile uint8_t received, sent;

/** The DMA's bytes are memory, its registers a device: without a barrier a core may order them as it likes. */
static void barrier(void)
{
    __asm volatile("dmb" ::: "memory");
}

static void receive(void)
{
    EVENTS_ENDRX = 0u;
    TASKS_STARTRX = 1u;
}

void console_init(void)
{
    BAUDRATE = BAUDRATE_VALUE;
    ENABLE = ENABLE_UARTE;
    RXD_PTR = (uintptr_t)&received;
    RXD_MAXCNT = 1u;
    TXD_PTR = (uintptr_t)&sent;
    TXD_MAXCNT = 1u;
    receive();
}

void console_put(char c)
{
    sent = (uint8_t)c;
    barrier();
    EVENTS_ENDTX = 0u;
    TASKS_STARTTX = 1u;
    while (EVENTS_ENDTX == 0u) {
    }
}

int console_get(void)
{
    while (EVENTS_ENDRX == 0u) {
    }
    barrier();
    const int c = received;
    barrier();
    receive();
    return c;
}
