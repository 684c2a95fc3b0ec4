/**
 * \file port_serial.c
 * \brief slm_port.h on a bare core without a debugger: the one file that can be read, "samples.bin", is linked into the
 *        image; what is printed, and what is written to the one other file, "trace.bin", leaves through a UART.
 *
 * It leaves in frames, each uint32 kind, uint32 size, and as many bytes, little-endian. The last one holds the exit code.
 * Then the image calls firmware_done(), for an emulator to stop at; where it does not, semihosting ends the run.
 */
#include "port_core.h"

#include <string.h>

/* From the toolchain. */
extern const uint8_t slm_samples[];
extern const uint32_t slm_samples_size;

enum {
    FRAME_TEXT = 1,
    FRAME_DATA = 2,
    FRAME_EXIT = 3
};
enum {
    SAMPLES = 1,
    TRACE = 2
};

int main(int argc, char **argv);
_Noreturn void firmware_done(int code);

#if defined(SLM_PORT_CMSDK_UART) /* CMSDK APB UART, Arm DDI 0479: DATA, STATE, CTRL, INTSTATUS, BAUDDIV */

#define REGISTER(offset) (*(volatile uint32_t *)(SLM_PORT_CMSDK_UART + (offset)))

static void start_uart(void)
{
    REGISTER(0x10u) = 16u; /* the fastest; emulators take no time */
    REGISTER(0x8u) = 1u;   /* TX enable */
}

static void put(uint8_t byte)
{
    while ((REGISTER(0x4u) & 1u) != 0u) { /* TX buffer full */
    }
    REGISTER(0x0u) = byte;
}

#elif defined(SLM_PORT_NS16550) /* 16550: THR at 0, LSR at 5, of one byte each */

#define REGISTER(offset) (*(volatile uint8_t *)(SLM_PORT_NS16550 + (offset)))

static void start_uart(void)
{
}

static void put(uint8_t byte)
{
    while ((REGISTER(5u) & 0x20u) == 0u) { /* THR not empty */
    }
    REGISTER(0u) = byte;
}

#else
#error "port_serial.c: define SLM_PORT_CMSDK_UART or SLM_PORT_NS16550 as the UART's address"
#endif

static void put_all(const void *data, uint32_t size)
{
    const uint8_t *bytes = data;
    for (uint32_t i = 0u; i < size; i++) {
        put(bytes[i]);
    }
}

static void frame(uint32_t kind, const void *data, uint32_t size)
{
    const uint32_t head[2] = {kind, size};
    put_all(head, sizeof head);
    put_all(data, size);
}

void slm_port_print(const char *text)
{
    frame(FRAME_TEXT, text, strlen(text));
}

slm_port_file slm_port_open(const char *path, slm_port_mode mode)
{
    if (mode == SLM_PORT_READ) {
        return strcmp(path, "samples.bin") == 0 ? SAMPLES : 0;
    }
    return strcmp(path, "trace.bin") == 0 ? TRACE : 0;
}

uint32_t slm_port_read(slm_port_file file, void *data, uint32_t size)
{
    static uint32_t at;
    const uint32_t rest = file == SAMPLES ? slm_samples_size - at : 0u;
    const uint32_t count = size < rest ? size : rest;
    (void)memcpy(data, &slm_samples[at], count);
    at += count;
    return count;
}

uint32_t slm_port_write(slm_port_file file, const void *data, uint32_t size)
{
    if (file != TRACE) {
        return 0u;
    }
    frame(FRAME_DATA, data, size);
    return size;
}

int slm_port_close(slm_port_file file)
{
    return file == SAMPLES || file == TRACE ? 0 : -1;
}

__attribute__((noinline)) _Noreturn void firmware_done(int code)
{
    slm_stop(code);
}

_Noreturn void slm_port_exit(int code)
{
    frame(FRAME_EXIT, &code, sizeof code);
    firmware_done(code);
}

_Noreturn void slm_program(void)
{
    static char *argv[1];
    start_uart();
    slm_port_start_counter();
    slm_port_stack_paint();
    slm_port_exit(main(0, argv));
}
