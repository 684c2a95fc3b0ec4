/**
 * \file start_arm.c
 * \brief Armv7-M and Armv8-M cores: vector table, reset, stack guard, fault report, semihosting request.
 */
#include "start.h"

/* System control block, Armv7-M Architecture Reference Manual (DDI 0403) B3.2. */
#define REGISTER(address) (*(volatile uint32_t *)(address))
#define CPACR REGISTER(0xE000ED88u)
#define ICSR REGISTER(0xE000ED04u)
#define VTOR REGISTER(0xE000ED08u)
#define CFSR REGISTER(0xE000ED28u)
#define MMFAR REGISTER(0xE000ED34u)
#define MPU_CTRL REGISTER(0xE000ED94u)
#define MPU_RNR REGISTER(0xE000ED98u)
#define MPU_RBAR REGISTER(0xE000ED9Cu)
#define MPU_RASR REGISTER(0xE000EDA0u)

_Noreturn void slm_reset(void);
_Noreturn void slm_fault(void);
_Noreturn void slm_fault_report(const uint32_t *frame);

/** M-profile cores ask with BKPT 0xAB. */
int32_t slm_core_request(uint32_t operation, const void *parameters)
{
    register uint32_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = parameters;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

typedef void (*vector)(void);
static const vector vectors[16];

void slm_core_init(void)
{
    VTOR = (uintptr_t)vectors;
    CPACR |= 0xFu << 20; /* full access to FPU and MVE; no effect without them */
    __asm volatile("dsb\n isb" ::: "memory");
}

void slm_core_sync(void)
{
    __asm volatile("dsb\n isb" ::: "memory");
}

/** A fault on any access to the lowest bytes of the stack, so that an overflow is reported and corrupts nothing. */
void slm_core_guard(void)
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

/** The core has loaded the stack pointer; a boot loader or debugger that jumps here may not have. */
__attribute__((naked)) _Noreturn void slm_reset(void)
{
    __asm volatile(
#if __ARM_ARCH >= 8
        "movs r0, #0\n"
        "msr msplim, r0\n"
#endif
        "ldr r0, =slm_stack_top\n"
        "mov sp, r0\n"
        "b slm_start");
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
        slm_print("fault: stack overflow\n");
    } else {
        slm_print_hex("fault: exception ", ICSR & 0x1FFu);
        slm_print_hex(", pc ", frame[6]);
        slm_print_hex(", cfsr ", cfsr);
        slm_print("\n");
    }
    slm_exit(FAULT_EXIT);
}

/** No interrupt is enabled, so the table ends with the system exceptions. */
__attribute__((section(".vectors"), used, aligned(128))) static const vector vectors[16] = {
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
