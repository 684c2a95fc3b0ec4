/**
 * \file port_host.c
 * \brief slm_port.h on a hosted C library.
 */
#include "slm_port.h"

#include <stdio.h>
#include <stdlib.h>

void slm_port_print(const char *text)
{
    (void)fputs(text, stdout);
}

slm_port_file slm_port_open(const char *path, slm_port_mode mode)
{
    return (slm_port_file)fopen(path, mode == SLM_PORT_READ ? "rb" : "wb");
}

uint32_t slm_port_read(slm_port_file file, void *data, uint32_t size)
{
    return (uint32_t)fread(data, 1u, size, (FILE *)file);
}

uint32_t slm_port_write(slm_port_file file, const void *data, uint32_t size)
{
    return (uint32_t)fwrite(data, 1u, size, (FILE *)file);
}

int slm_port_close(slm_port_file file)
{
    return fclose((FILE *)file) == 0 ? 0 : -1;
}

_Noreturn void slm_port_exit(int code)
{
    exit(code);
}

uint64_t slm_port_instructions(void)
{
    return 0u;
}

void slm_port_stack_paint(void)
{
}

uint32_t slm_port_stack_used(void)
{
    return 0u;
}
