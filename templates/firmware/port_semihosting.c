/**
 * \file port_semihosting.c
 * \brief slm_port.h on a bare core whose debugger or emulator answers semihosting requests ("Semihosting for AArch32 and
 *        AArch64", Arm 2.0; RISC-V takes the operations over): files, command line.
 */
#include "port_core.h"

#include <stddef.h>
#include <string.h>

#define MAX_ARGS 16

int main(int argc, char **argv);

enum {
    SYS_OPEN = 0x01,
    SYS_CLOSE = 0x02,
    SYS_WRITE0 = 0x04,
    SYS_WRITE = 0x05,
    SYS_READ = 0x06,
    SYS_GET_CMDLINE = 0x15
};
enum {
    OPEN_RB = 1,
    OPEN_WB = 5
};

void slm_port_print(const char *text)
{
    (void)slm_core_request(SYS_WRITE0, text);
}

slm_port_file slm_port_open(const char *path, slm_port_mode mode)
{
    const uint32_t block[3] = {(uintptr_t)path, mode == SLM_PORT_READ ? OPEN_RB : OPEN_WB, strlen(path)};
    const int32_t handle = slm_core_request(SYS_OPEN, block);
    return handle == -1 ? 0 : handle;
}

uint32_t slm_port_read(slm_port_file file, void *data, uint32_t size)
{
    const uint32_t block[3] = {(uint32_t)file, (uintptr_t)data, size};
    return size - (uint32_t)slm_core_request(SYS_READ, block); /* it answers how many bytes are missing */
}

uint32_t slm_port_write(slm_port_file file, const void *data, uint32_t size)
{
    const uint32_t block[3] = {(uint32_t)file, (uintptr_t)data, size};
    return size - (uint32_t)slm_core_request(SYS_WRITE, block);
}

int slm_port_close(slm_port_file file)
{
    const uint32_t block[1] = {(uint32_t)file};
    return slm_core_request(SYS_CLOSE, block) == 0 ? 0 : -1;
}

_Noreturn void slm_port_exit(int code)
{
    slm_stop(code);
}

/** Split the command line that the debugger or emulator gives, at its spaces. \return argc */
static int arguments(char *line, uint32_t size, char **argv)
{
    const uint32_t block[2] = {(uintptr_t)line, size};
    int argc = 0;
    if (slm_core_request(SYS_GET_CMDLINE, block) == 0) {
        for (char *at = line; *at != '\0' && argc < MAX_ARGS;) {
            argv[argc++] = at;
            while (*at != '\0' && *at != ' ') {
                at++;
            }
            if (*at == ' ') {
                *at++ = '\0';
            }
        }
    }
    argv[argc] = NULL;
    return argc;
}

_Noreturn void slm_program(void)
{
    static char line[512];
    static char *argv[MAX_ARGS + 1];
    slm_port_start_counter();
    const int argc = arguments(line, sizeof line, argv);
    slm_port_stack_paint();
    slm_port_exit(main(argc, argv));
}
