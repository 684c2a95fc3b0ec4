/**
 * \file start.c
 * \brief What comes between reset and the program on every core: memory as C wants it.
 */
#include "start.h"

#include <string.h>

/* From the linker script. */
extern const uint8_t slm_data_load[], slm_hot_load[];
extern uint8_t slm_data_start[], slm_data_end[], slm_hot_start[], slm_hot_end[];
extern uint8_t slm_bss_start[], slm_bss_end[], slm_arena_start[], slm_arena_end[];

/** Two symbols of the linker are no array, so their difference is taken as numbers. */
static uint32_t bytes(const uint8_t *from, const uint8_t *to)
{
    return (uintptr_t)to - (uintptr_t)from;
}

__attribute__((used)) _Noreturn void slm_start(void)
{
    slm_core_init();
    slm_setup();
    if (bytes(slm_hot_start, slm_hot_end) != 0u) {
        (void)memcpy(slm_hot_start, slm_hot_load, bytes(slm_hot_start, slm_hot_end));
        slm_core_sync();
    }
    (void)memcpy(slm_data_start, slm_data_load, bytes(slm_data_start, slm_data_end));
    (void)memset(slm_bss_start, 0, bytes(slm_bss_start, slm_bss_end));
    (void)memset(slm_arena_start, 0, bytes(slm_arena_start, slm_arena_end));
    slm_core_guard();
    slm_program();
}

_Noreturn void slm_stop(int code)
{
    const uint32_t block[2] = {0x20026u, (uint32_t)code}; /* ADP_Stopped_ApplicationExit */
    for (;;) {
        (void)slm_core_request(0x20u, block); /* SYS_EXIT_EXTENDED */
    }
}

void slm_print_hex(const char *label, uint32_t value)
{
    char text[] = "0x00000000";
    for (int i = 9; value != 0u; i--, value >>= 4) {
        text[i] = "0123456789abcdef"[value & 15u];
    }
    slm_print(label);
    slm_print(text);
}
