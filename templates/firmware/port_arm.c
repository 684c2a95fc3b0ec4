/**
 * \file port_arm.c
 * \brief slm_port.h on a bare Armv7-M or Armv8-M core with Arm semihosting ("Semihosting for AArch32 and AArch64", Arm
 *        2.0): vector table, start-up, files, instruction counter, stack paint, fault report.
 */
#include "slm_port.h"

#include <stddef.h>
#include <string.h>

/* From firmware.ld. */
extern const uint8_t slm_data_load[], slm_hot_load[];
extern uint8_t slm_data_start[], slm_data_end[], slm_hot_start[], slm_hot_end[];
extern uint8_t slm_bss_start[], slm_bss_end[], slm_arena_start[], slm_arena_end[];
extern uint32_t slm_stack_guard[], slm_stack_limit[], slm_stack_top[];

/* System control block, Armv7-M Architecture Reference Manual (DDI 0403) B3.2. */
#define REGISTER(address) (*(volatile uint32_t *)(address))
#define CPACR REGISTER(0xE000ED88u)
#define ICSR REGISTER(0xE000ED04u)
#define CFSR REGISTER(0xE000ED28u)
#define MMFAR REGISTER(0xE000ED34u)
#define MPU_CTRL REGISTER(0xE000ED94u)
#define MPU_RNR REGISTER(0xE000ED98u)
#define MPU_RBAR REGISTER(0xE000ED9Cu)
#define MPU_RASR REGISTER(0xE000EDA0u)

#define STACK_PAINT 0xC5A3C5A3u
#define STACK_GUARD 256u /* as in firmware.ld */
#define MAX_ARGS 16

int main(int argc, char **argv);
_Noreturn void slm_reset(void);
_Noreturn void slm_start(void);
_Noreturn void slm_fault(void);
_Noreturn void slm_fault_report(const uint32_t *frame);

enum {
    SYS_OPEN = 0x01,
    SYS_CLOSE = 0x02,
    SYS_WRITE0 = 0x04,
    SYS_WRITE = 0x05,
    SYS_READ = 0x06,
    SYS_GET_CMDLINE = 0x15,
    SYS_EXIT_EXTENDED = 0x20
};
enum {
    OPEN_RB = 1,
    OPEN_WB = 5
};
enum {
    ADP_STOPPED_APPLICATION_EXIT = 0x20026
};

/** One semihosting request; M-profile cores ask with BKPT 0xAB. */
static int32_t request(uint32_t operation, const void *parameters)
{
    register uint32_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = parameters;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

void slm_port_print(const char *text)
{
    (void)request(SYS_WRITE0, text);
}

slm_port_file slm_port_open(const char *path, slm_port_mode mode)
{
    const uint32_t block[3] = {(uintptr_t)path, mode == SLM_PORT_READ ? OPEN_RB : OPEN_WB, strlen(path)};
    const int32_t handle = request(SYS_OPEN, block);
    return handle == -1 ? 0 : handle;
}

uint32_t slm_port_read(slm_port_file file, void *data, uint32_t size)
{
    const uint32_t block[3] = {(uint32_t)file, (uintptr_t)data, size};
    return size - (uint32_t)request(SYS_READ, block); /* it answers how many bytes are missing */
}

uint32_t slm_port_write(slm_port_file file, const void *data, uint32_t size)
{
    const uint32_t block[3] = {(uint32_t)file, (uintptr_t)data, size};
    return size - (uint32_t)request(SYS_WRITE, block);
}

int slm_port_close(slm_port_file file)
{
    const uint32_t block[1] = {(uint32_t)file};
    return request(SYS_CLOSE, block) == 0 ? 0 : -1;
}

_Noreturn void slm_port_exit(int code)
{
    const uint32_t block[2] = {ADP_STOPPED_APPLICATION_EXIT, (uint32_t)code};
    for (;;) {
        (void)request(SYS_EXIT_EXTENDED, block);
    }
}

uint64_t slm_port_instructions(void)
{
#ifdef SLM_PORT_TIMER
    const volatile uint32_t *const value = (const volatile uint32_t *)(SLM_PORT_TIMER + 4u);
    return (uint64_t) ~*value * SLM_PORT_TICK; /* it counts down from 2^32 - 1, and is not read across a wrap */
#else
    return 0u;
#endif
}

/** The stack pointer of whoever painted the stack. */
uint32_t *volatile slm_stack_base;

__attribute__((naked)) void slm_port_stack_paint(void)
{
    __asm volatile("ldr r0, =slm_stack_limit\n"
                   "ldr r1, =%c0\n"
                   "ldr r2, =slm_stack_base\n"
                   "mov r3, sp\n"
                   "str r3, [r2]\n"
                   "1: cmp r0, r3\n"
                   "it lo\n"
                   "strlo r1, [r0], #4\n"
                   "blo 1b\n"
                   "bx lr\n" ::"i"(STACK_PAINT));
}

uint32_t slm_port_stack_used(void)
{
    const volatile uint32_t *word = slm_stack_limit;
    const volatile uint32_t *const base = slm_stack_base;
    while (word < base && *word == STACK_PAINT) {
        word++;
    }
    return (uint32_t)((uintptr_t)base - (uintptr_t)word);
}

/** A fault on any access to the lowest bytes of the stack, so that an overflow is reported and corrupts nothing. */
static void guard_stack(void)
{
#if __ARM_ARCH >= 8
    __asm volatile("msr msplim, %0" ::"r"(slm_stack_limit));
#else
    _Static_assert(STACK_GUARD == 1u << (7 + 1), "MPU_RASR.SIZE below");
    MPU_RNR = 0u;
    MPU_RBAR = (uintptr_t)slm_stack_guard;
    MPU_RASR = (7u << 1) | 1u; /* SIZE, ENABLE; access permission 0 is none */
    MPU_CTRL = 5u;             /* ENABLE, PRIVDEFENA: elsewhere the default map holds */
    __asm volatile("dsb\n isb" ::: "memory");
#endif
}

static void start_counter(void)
{
#ifdef SLM_PORT_TIMER
    REGISTER(SLM_PORT_TIMER) = 0u;               /* CTRL */
    REGISTER(SLM_PORT_TIMER + 8u) = 0xFFFFFFFFu; /* RELOAD */
    REGISTER(SLM_PORT_TIMER + 4u) = 0xFFFFFFFFu; /* VALUE */
    REGISTER(SLM_PORT_TIMER) = 1u;
#endif
}

/** Split the command line that the debugger or emulator gives, at its spaces. \return argc */
static int arguments(char *line, uint32_t size, char **argv)
{
    const uint32_t block[2] = {(uintptr_t)line, size};
    int argc = 0;
    if (request(SYS_GET_CMDLINE, block) == 0) {
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

/** Two symbols of the linker are no array, so their difference is taken as numbers. */
static uint32_t bytes(const uint8_t *from, const uint8_t *to)
{
    return (uintptr_t)to - (uintptr_t)from;
}

__attribute__((used)) _Noreturn void slm_start(void)
{
    static char line[512];
    static char *argv[MAX_ARGS + 1];
    CPACR |= 0xFu << 20; /* full access to the FPU; no effect without one */
    __asm volatile("dsb\n isb" ::: "memory");
    (void)memcpy(slm_hot_start, slm_hot_load, bytes(slm_hot_start, slm_hot_end));
    (void)memcpy(slm_data_start, slm_data_load, bytes(slm_data_start, slm_data_end));
    (void)memset(slm_bss_start, 0, bytes(slm_bss_start, slm_bss_end));
    (void)memset(slm_arena_start, 0, bytes(slm_arena_start, slm_arena_end));
    guard_stack();
    start_counter();
    const int argc = arguments(line, sizeof line, argv);
    slm_port_stack_paint();
    slm_port_exit(main(argc, argv));
}

__attribute__((naked)) _Noreturn void slm_reset(void)
{
    __asm volatile("b slm_start");
}

static void print_hex(const char *label, uint32_t value)
{
    char text[] = "0x00000000";
    for (int i = 9; value != 0u; i--, value >>= 4) {
        text[i] = "0123456789abcdef"[value & 15u];
    }
    slm_port_print(label);
    slm_port_print(text);
}

/** Every exception but reset comes here; the stack may be gone, so the report starts with a fresh one. */
__attribute__((naked)) _Noreturn void slm_fault(void)
{
    __asm volatile("mov r0, sp\n"
                   "ldr r1, =slm_stack_top\n"
                   "mov sp, r1\n"
                   "b slm_fault_report");
}

__attribute__((used)) _Noreturn void slm_fault_report(const uint32_t *frame)
{
    const uint32_t cfsr = CFSR;
    const uint32_t no_frame = (1u << 4) | (1u << 12) | (1u << 20); /* MSTKERR, STKERR, STKOF */
    const int at_guard = (cfsr & (1u << 7)) != 0u && MMFAR - (uintptr_t)slm_stack_guard < STACK_GUARD; /* MMARVALID */
    if ((cfsr & no_frame) != 0u || at_guard) {
        slm_port_print("fault: stack overflow\n");
    } else {
        print_hex("fault: exception ", ICSR & 0x1FFu);
        print_hex(", pc ", frame[6]);
        print_hex(", cfsr ", cfsr);
        slm_port_print("\n");
    }
    slm_port_exit(SLM_PORT_EXIT_FAULT);
}

typedef void (*vector)(void);

/** No interrupt is enabled, so the table ends with the system exceptions. */
__attribute__((section(".vectors"), used)) static const vector vectors[16] = {
    (vector)slm_stack_top, /* initial stack pointer */
    slm_reset,
    slm_fault, /* NMI */
    slm_fault, /* HardFault */
    slm_fault, /* MemManage */
    slm_fault, /* BusFault */
    slm_fault, /* UsageFault */
    slm_fault, /* SecureFault on Armv8-M */
    slm_fault, /* reserved */
    slm_fault, /* reserved */
    slm_fault, /* reserved */
    slm_fault, /* SVCall */
    slm_fault, /* DebugMonitor */
    slm_fault, /* reserved */
    slm_fault, /* PendSV */
    slm_fault, /* SysTick */
};
