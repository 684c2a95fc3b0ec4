/**
 * \file start_riscv.c
 * \brief RV32 cores in machine mode: reset, stack guard, fault report, semihosting request ("RISC-V Semihosting" 1.0).
 *        Registers are those of "The RISC-V Instruction Set Manual, Volume II", 20211203.
 */
#include "start.h"

_Noreturn void slm_reset(void);
_Noreturn void slm_fault(void);
_Noreturn void slm_fault_report(void);

/** The debugger knows a request by these three instructions, none compressed and all in one page. */
int32_t slm_core_request(uint32_t operation, const void *parameters)
{
    register uint32_t a0 __asm("a0") = operation;
    register const void *a1 __asm("a1") = parameters;
    __asm volatile(".option push\n"
                   ".option norvc\n"
                   ".balign 16\n"
                   "slli x0, x0, 0x1f\n"
                   "ebreak\n"
                   "srai x0, x0, 7\n"
                   ".option pop\n"
                   : "+r"(a0)
                   : "r"(a1)
                   : "memory");
    return (int32_t)a0;
}

void slm_core_init(void)
{
    WRITE_CSR("mtvec", slm_fault);
#ifdef __riscv_flen
    SET_CSR("mstatus", 1u << 13); /* FS: the FPU is on */
#endif
}

void slm_core_sync(void)
{
    __asm volatile(".word 0x0000100F" ::: "memory"); /* FENCE.I, whose extension the board's -march may not name */
}

/** A fault on any access to the lowest bytes of the stack, so that an overflow is reported and corrupts nothing. */
void slm_core_guard(void)
{
    const uint32_t range = ((uintptr_t)slm_stack_guard >> 2) | (STACK_GUARD / 8u - 1u); /* NAPOT */
    WRITE_CSR("pmpaddr0", range);
    SET_CSR("pmpcfg0", 0x98u); /* L, so that it holds in machine mode too; A: NAPOT; no access */
}

__attribute__((naked, section(".vectors"), used)) _Noreturn void slm_reset(void)
{
    __asm volatile("la sp, slm_stack_top\n"
                   "tail slm_start");
}

/** Every trap comes here; the stack may be gone, so the report starts with a fresh one. */
__attribute__((naked, aligned(4))) _Noreturn void slm_fault(void)
{
    __asm volatile("la sp, slm_stack_top\n"
                   "tail slm_fault_report");
}

__attribute__((used)) _Noreturn void slm_fault_report(void)
{
    uint32_t cause, pc, address;
    READ_CSR("mcause", cause);
    READ_CSR("mepc", pc);
    READ_CSR("mtval", address);
    if ((cause == 5u || cause == 7u) && address - (uintptr_t)slm_stack_guard < STACK_GUARD) { /* a load, a store */
        slm_print("fault: stack overflow\n");
    } else {
        slm_print_hex("fault: exception ", cause);
        slm_print_hex(", pc ", pc);
        slm_print_hex(", mtval ", address);
        slm_print("\n");
    }
    slm_exit(FAULT_EXIT);
}
