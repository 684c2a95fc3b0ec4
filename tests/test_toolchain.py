"""Builds and runs real programs: on this machine and, where the cross tools are, on the emulated boards."""

import contextlib
import os
import re
import signal
import struct
import tempfile
import threading
import time
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from slm2c import process
from slm2c.board import Architecture, Board, load_board
from slm2c.errors import CompileError
from slm2c.resources import data_dir
from slm2c.toolchain import (
    RunResult,
    ToolError,
    build_firmware,
    build_host,
    cross_cc,
    host_cc,
    qemu,
    run_host,
    run_qemu,
    tool_versions,
)
from tests.boards import board_params

HELLO = r"""
#include "slm_port.h"
static uint32_t one = 1u, none;                   /* .data is copied, .bss is zero */
static SLM_PORT_ARENA _Alignas(16) uint8_t arena[64];
static volatile float half = 0.5f;                /* the FPU is on */
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        slm_port_print(argv[i]);
        slm_port_print(" ");
    }
    slm_port_print_int(INT64_MIN);
    slm_port_print("\n");
    half = half + half;
    return one == 1u && none == 0u && arena[63] == 0u && (uintptr_t)arena % 16u == 0u && half > 0.9f ? 7 : 1;
}
"""
GREETING = RunResult(7, "a,b c= -9223372036854775808\n", 0.0)

COPY = r"""
#include "slm_port.h"
int main(void)
{
    static uint8_t data[5000];
    const slm_port_file in = slm_port_open("in.bin", SLM_PORT_READ);
    const slm_port_file out = slm_port_open("out.bin", SLM_PORT_WRITE);
    if (in == 0 || out == 0 || slm_port_open("missing.bin", SLM_PORT_READ) != 0) {
        return 1;
    }
    const uint32_t first = slm_port_read(in, data, 1000u);
    const uint32_t rest = slm_port_read(in, data + first, 4000u);
    if (slm_port_read(in, data, 1u) != 0u || slm_port_write(out, data, first + rest) != first + rest) {
        return 2;
    }
    slm_port_print_int((int64_t)first * 10000 + rest);
    return slm_port_close(in) == 0 && slm_port_close(out) == 0 ? 0 : 3;
}
"""


def source(folder: Path, text: str, name: str = "main.c") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def same(result: RunResult, expected: RunResult) -> bool:
    return (result.exit_code, result.output) == (expected.exit_code, expected.output)


def run_on(board: Board, folder: Path, text: str, *args: str) -> RunResult:
    firmware = build_firmware([source(folder, text)], board, folder / "main.elf")
    return run_qemu(firmware.elf, board, args, cwd=folder, timeout=20)


# ---------------------------------------------------------------- this machine


@pytest.mark.parametrize("sanitize", [False, True])
def test_host_hello(host_cc: str, tmp_path: Path, sanitize: bool) -> None:
    exe = build_host([source(tmp_path, HELLO)], tmp_path / "hello", sanitize=sanitize)
    assert same(run_host(exe, ["a,b", "c="]), GREETING)


def test_host_files(host_cc: str, tmp_path: Path) -> None:
    payload = os.urandom(4321)
    (tmp_path / "in.bin").write_bytes(payload)
    exe = build_host([source(tmp_path, COPY)], tmp_path / "copy")
    assert same(run_host(exe, cwd=tmp_path), RunResult(0, "10003321", 0.0))
    assert (tmp_path / "out.bin").read_bytes() == payload


def test_includes_defines_and_equal_file_names(host_cc: str, tmp_path: Path) -> None:
    (tmp_path / "with space").mkdir()
    (tmp_path / "with space" / "answer.h").write_text("int answer(void);\n", encoding="utf-8")
    answer = source(tmp_path / "with space", '#include "answer.h"\nint answer(void) { return ANSWER; }\n')
    main = source(tmp_path, '#include "answer.h"\nint main(void) { return answer(); }\n')
    exe = build_host(
        [main, answer], tmp_path / "a,b", includes=[tmp_path / "with space"], defines=["ANSWER=42"], extra=["-g"]
    )
    assert run_host(exe).exit_code == 42


def test_sanitizers_stop_the_program(host_cc: str, tmp_path: Path) -> None:
    text = "int main(int argc, char **argv) { volatile int a[2] = {0}; (void)argv; return a[argc + 1]; }\n"
    exe = build_host([source(tmp_path, text)], tmp_path / "bad", sanitize=True)
    result = run_host(exe)
    assert result.exit_code != 0
    assert "out of bounds" in result.output or "stack-buffer-overflow" in result.output


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_every_warning_is_an_error_and_is_shown(compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler)
    try:
        host_cc()
    except CompileError:
        pytest.skip(f"{compiler} not found")
    build_host([source(tmp_path, HELLO)], tmp_path / "hello")
    text = "signed char narrow(int x);\nsigned char narrow(int x) { return x; }\nint main(void) { return 0; }\n"
    with pytest.raises(ToolError, match=r"-Werror,?.*conversion") as caught:
        build_host([source(tmp_path, text)], tmp_path / "narrow")
    assert "return x" in caught.value.output
    assert caught.value.command[0] == compiler
    assert isinstance(caught.value, AssertionError)


SLEEP = r"""
#include "slm_port.h"
#include <stdio.h>
int main(void)
{
    puts("waiting");
    fflush(stdout);
    for (volatile int i = 1; i != 0;) {
    }
    return 0;
}
"""


def test_what_does_not_end_is_killed(host_cc: str, tmp_path: Path) -> None:
    exe = build_host([source(tmp_path, SLEEP)], tmp_path / "sleep")
    start = time.monotonic()
    with pytest.raises(ToolError, match=r"sleep did not end within 0\.5 s") as caught:
        run_host(exe, timeout=0.5)
    assert time.monotonic() - start < 10
    assert caught.value.output == "waiting\n"
    assert not running(exe)


def test_ctrl_c_kills_the_child(host_cc: str, tmp_path: Path) -> None:
    exe = build_host([source(tmp_path, SLEEP)], tmp_path / "sleep")
    main, start = threading.main_thread().ident, time.monotonic()
    assert main is not None
    timer = threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_host(exe, timeout=30)
    timer.join()
    assert time.monotonic() - start < 10
    assert not running(exe)


@pytest.mark.parametrize("target, where", [("out/x.o", "out"), ("out/cc1.s", "tmp"), ("tmp/slm2c-x/x.o", "tmp")])
def test_the_disk_that_a_compiler_found_full_is_named(
    target: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was to write or, if it complains of another file, its own; not a folder that is gone by then."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    output = tmp_path / target if "x.o" in target else tmp_path / "out" / "x.o"
    said = f"as: can't write to {tmp_path / target}: No space left on device"
    expected = f"'{tmp_path / where}': is full: No space left on device; make room there"
    with pytest.raises(CompileError, match=re.escape(expected)) as caught:
        process.build(["sh", "-c", f'echo "{said}"; exit 1', "-o", str(output)])
    assert ("TMPDIR" in str(caught.value)) == (where == "tmp")


def test_a_tool_that_is_killed_leaves_no_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GCC removes its own when it ends, which a kill does not let it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = ["sh", "-c", 'echo .text >"$TMPDIR/ccX.s"; ls "$TMPDIR"; sleep 30']
    with pytest.raises(ToolError, match=r"did not end within 1 s") as caught:
        process.run(command, timeout=1)
    assert caught.value.output == "ccX.s\n"
    assert not list(tmp_path.iterdir())


def running(exe: Path) -> bool:
    """Whether a process runs `exe`; without /proc it cannot be told."""
    if not Path("/proc/self/exe").exists():
        pytest.skip("no /proc")
    for link in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):  # of another user, or gone
            if os.readlink(link) == str(exe):
                return True
    return False


def test_missing_tools_are_the_users_to_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CompileError, match=r"cc, gcc, clang.*apt-get install gcc"):
        host_cc()
    with pytest.raises(CompileError, match=r"apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi"):
        cross_cc()
    with pytest.raises(CompileError, match=r"apt-get install qemu-system-arm"):
        qemu()
    with pytest.raises(CompileError, match=r"apt-get install gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf"):
        cross_cc("riscv")
    with pytest.raises(CompileError, match=r"'qemu-system-riscv32': not found; .* qemu-system-misc"):
        qemu("riscv")
    assert tool_versions() == {"host_cc": None, "cross_cc": None, "qemu": None}
    monkeypatch.setenv("CC", "nonesuch -m32")
    with pytest.raises(CompileError, match=r"nonesuch -m32"):
        host_cc()
    monkeypatch.setenv("SLM2C_CROSS", "/opt/none/arm-")
    with pytest.raises(CompileError, match=r"'/opt/none/arm-gcc': not found"):
        cross_cc()
    monkeypatch.setenv("SLM2C_CROSS_RISCV", "/opt/none/rv-")
    with pytest.raises(CompileError, match=r"'/opt/none/rv-gcc': not found.* or set SLM2C_CROSS_RISCV"):
        cross_cc("riscv")


def test_an_old_cross_compiler_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "old-gcc").write_text("#!/bin/sh\necho 9.2.1\n", encoding="utf-8")
    (tmp_path / "old-gcc").chmod(0o755)
    monkeypatch.setenv("SLM2C_CROSS", str(tmp_path / "old-"))
    with pytest.raises(CompileError, match=r"old-gcc': is GCC 9\.2\.1; install GCC 10 or newer"):
        cross_cc()


# ---------------------------------------------------------------- the emulated boards

BOARDS = board_params(emulated=True)


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize("opt", ["-O0", "-O3"])
def test_firmware_hello(name: str, opt: str, tmp_path: Path) -> None:
    board = load_board(name)
    firmware = build_firmware([source(tmp_path, HELLO)], board, tmp_path / "hello.elf", opt=opt)
    assert same(run_qemu(firmware.elf, board, ["a,b", "c="], timeout=20), GREETING)


@pytest.mark.parametrize("name", BOARDS)
def test_firmware_files(name: str, tmp_path: Path) -> None:
    payload = os.urandom(4321)
    (tmp_path / "in.bin").write_bytes(payload)
    assert same(run_on(load_board(name), tmp_path, COPY), RunResult(0, "10003321", 0.0))
    assert (tmp_path / "out.bin").read_bytes() == payload


FAULTS = r"""
#include "slm_port.h"
int deep(volatile int *above);
int deep(volatile int *above)
{
    volatile int frame[20];
    frame[0] = above[0] + 1;
    return frame[0] < 0 ? 0 : deep(frame) + frame[0];
}
int main(int argc, char **argv)
{
    volatile int zero = 0;
    (void)argc;
    if (argv[1][0] == 'o') {
        return deep(&zero);
    }
#ifdef __riscv
    __asm volatile("unimp");
#else
    __asm volatile("udf #0");
#endif
    return 0;
}
"""


@pytest.mark.parametrize("name", BOARDS)
def test_a_fault_is_reported_and_ends_the_program(name: str, tmp_path: Path) -> None:
    board = load_board(name)
    firmware = build_firmware([source(tmp_path, FAULTS)], board, tmp_path / "faults.elf")
    result = run_qemu(firmware.elf, board, ["udf"], timeout=20)
    expected: dict[Architecture, str] = {
        "arm": r"fault: exception 0x00000003, pc 0x(\w{8}), cfsr 0x00010000\n",  # UNDEFINSTR, escalated to a HardFault
        "riscv": r"fault: exception 0x00000002, pc 0x(\w{8}), mtval 0x\w{8}\n",  # illegal instruction
    }
    report = re.fullmatch(expected[board.architecture], result.output)
    assert result.exit_code == 99
    assert report, result.output
    with firmware.elf.open("rb") as file:
        main = ELFFile(file).get_section_by_name(".symtab").get_symbol_by_name("main")[0]
    assert 0 <= int(report[1], 16) - (main["st_value"] & ~1) < main["st_size"]


@pytest.mark.parametrize("name", BOARDS)
def test_a_stack_overflow_is_reported(name: str, tmp_path: Path) -> None:
    assert same(run_on(load_board(name), tmp_path, FAULTS, "overflow"), RunResult(99, "fault: stack overflow\n", 0.0))


# Loops of ten instructions in a straight line, and of the kinds of instruction that a translator might count wrongly.
COUNT = r"""
#include "slm_port.h"
static uint32_t words[4];
#ifdef __riscv
#define NEXT "addi %0, %0, -1\n bnez %0, 1b\n"
#define CLOBBERED "t0", "t1", "t2", "ra"
#elif defined(__ARM_FEATURE_MVE)
#define NEXT "subs %0, %0, #1\n bne 1b\n"
#define CLOBBERED "cc", "r4", "r5", "r6", "r7", "lr", "q0", "q1"
#else
#define NEXT "subs %0, %0, #1\n bne 1b\n"
#define CLOBBERED "cc", "r4", "r5", "r6", "r7", "lr", "s0", "s1"
#endif
#define LOOP(body, count)                                                                                              \
    do {                                                                                                               \
        uint32_t left = (count);                                                                                       \
        const uint64_t start = slm_port_instructions();                                                                \
        __asm volatile("1: " body "\n " NEXT : "+r"(left) : "r"(words) : CLOBBERED);                                   \
        slm_port_print_int((int64_t)(slm_port_instructions() - start));                                                \
        slm_port_print(" ");                                                                                           \
    } while (0)
int main(void)
{
    LOOP("nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop", 1000u);
    LOOP("nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop", 1000000u);
#ifdef __riscv
    LOOP("mul t0, t1, t2", 100000u);
    LOOP("lw t0, 0(%1)", 100000u);
    LOOP("div t0, t1, t2", 100000u);
    LOOP("beq t0, t0, 2f\n nop\n 2: nop\n nop", 100000u);
    LOOP("jal ra, 2f\n j 3f\n 2: ret\n 3: nop", 100000u);
#else
    LOOP("smlad r4, r5, r6, r4", 100000u);
    LOOP("ldm %1, {r4-r7}", 100000u);
#ifdef __ARM_FEATURE_MVE
    LOOP("vmladava.s8 r4, q0, q1", 100000u);
#else
    LOOP("vmla.f32 s0, s1, s1", 100000u);
#endif
    LOOP("cmp r4, r4\n ite eq\n moveq r5, #1\n movne r5, #2", 100000u);
    LOOP("bl 2f\n b 3f\n 2: bx lr\n 3: nop", 100000u);
#endif
    slm_port_print_int(SLM_PORT_TICK);
    return 0;
}
"""


@pytest.mark.parametrize("name", BOARDS)
def test_instructions_are_counted_exactly(name: str, tmp_path: Path) -> None:
    board = load_board(name)
    assert board.emulator is not None
    result = run_on(board, tmp_path, COUNT)
    *counts, tick = map(int, result.output.split())
    assert tick == board.emulator.instructions_per_tick
    jumps = 500_000 if board.architecture == "riscv" else 600_000  # where the branch that is taken leaves one out
    expected = [10_000, 10_000_000, 300_000, 300_000, 300_000, jumps, 600_000]
    # Reading the counter costs less than a tick of Arm's timers, which is what a reading may be off by.
    assert [count - want for count, want in zip(counts, expected, strict=True)] == [
        pytest.approx(0, abs=max(tick, 25)) for _ in expected
    ]
    assert same(run_on(board, tmp_path, COUNT), result)


BLOB = r"""
#include "slm_port.h"
int main(void)
{
    uint32_t sum = 0u;
    for (uint32_t i = 0u; i < slm_blob_size; i++) {
        sum = sum * 31u + slm_blob[i];
    }
    slm_port_print_int(slm_blob_size);
    slm_port_print(" ");
    slm_port_print_int(sum);
    slm_port_print(" ");
    slm_port_print_int((int64_t)(uintptr_t)slm_blob);
    return 0;
}
"""


@pytest.mark.parametrize("name", BOARDS)
def test_the_blob_lies_where_the_board_says(name: str, tmp_path: Path) -> None:
    board = load_board(name)
    payload = os.urandom(100_001)
    (tmp_path / "in.blob").write_bytes(payload)
    firmware = build_firmware([source(tmp_path, BLOB)], board, tmp_path / "blob.elf", blob=tmp_path / "in.blob")
    size, total, address = map(int, run_qemu(firmware.elf, board).output.split())
    expected = 0
    for byte in payload:
        expected = (expected * 31 + byte) % 2**32
    assert (size, total) == (len(payload), expected)
    region = board.region(board.placement.blob)
    assert address % 16 == 0
    assert region.origin <= address <= region.end - size
    assert board.placement.blob == board.placement.code or address == region.origin


FAST = """
[[memory]]
name = "itcm"
kind = "tcm"
origin = 0x2030_0000
size = 0x0001_0000

[[memory]]
name = "dtcm"
kind = "tcm"
origin = 0x2038_0000
size = 0x0001_0000

[placement]
hot = "itcm"
arena = ["dtcm", "ssram23"]
"""
KERNEL = r"""
int slm_kernel(int (*f)(int), int x);
int slm_kernel(int (*f)(int), int x)
{
    __asm volatile("b.w 1f\n .space %c0\n .balign 4\n 1:" ::"i"(SPACE));
    return f(x) + 1;
}
"""
CALLER = r"""
#include "slm_port.h"
static SLM_PORT_ARENA volatile uint8_t arena[SIZE];
int slm_kernel(int (*f)(int), int x);
static int twice(int x)
{
    return 2 * x;
}
int main(void)
{
    slm_port_print_int((int64_t)(uintptr_t)slm_kernel);
    slm_port_print(" ");
    slm_port_print_int((int64_t)(uintptr_t)arena);
    return slm_kernel(twice, 3 + arena[SIZE - 1]) == 7 ? 0 : 1;
}
"""


@pytest.mark.qemu
@pytest.mark.parametrize(
    "kernel, size, hot, region",
    [
        ("slm_linear_any.c", 65536, "itcm", "dtcm"),
        ("slm_linear_any.c", 65537, "itcm", "ssram23"),
        ("slm_blob.c", 16, "ssram1", "dtcm"),  # not one of those that take the time
        ("slm_linear_large.c", 16, "ssram1", "dtcm"),  # does not fit beside the core
    ],
)
def test_hot_code_and_arena_lie_beside_the_core(kernel: str, size: int, hot: str, region: str, tmp_path: Path) -> None:
    """Carved out of the memory of an emulated board, so that they can run."""
    text = (data_dir("boards") / "mps2-an500.toml").read_text(encoding="utf-8").replace('arena = "ssram23"\n', "")
    text = text.replace("origin = 0x2000_0000\nsize = 0x0040_0000", "origin = 0x2000_0000\nsize = 0x0030_0000")
    (tmp_path / "fast.toml").write_text(text.replace("[placement]\n", FAST.lstrip()), encoding="utf-8")
    board = load_board(tmp_path / "fast.toml")
    paths = [source(tmp_path, KERNEL, kernel), source(tmp_path, CALLER)]
    defines = [f"SIZE={size}", f"SPACE={70_000 if 'large' in kernel else 4}"]
    firmware = build_firmware(paths, board, tmp_path / "main.elf", defines=defines)
    result = run_qemu(firmware.elf, board, timeout=20)
    assert result.exit_code == 0, result.output
    for address, name in zip(map(int, result.output.split()), (hot, region), strict=True):
        assert board.region(name).origin < (address | 1) < board.region(name).end


@pytest.mark.qemu
def test_a_boot_block_follows_the_vectors(tmp_path: Path) -> None:
    board = load_board("rp2350-pico2")
    main = source(tmp_path, "int main(void) { return 0; }\n")
    with build_firmware([main], board, tmp_path / "main.elf").elf.open("rb") as file:
        text = ELFFile(file).get_section_by_name(".text")
        assert text["sh_addr"] == board.region("flash").origin
        words = struct.unpack_from("<21I", text.data())
    assert words[:2] == (board.region("sram").origin + board.stack_size, words[1] | 1)  # stack pointer, Thumb code
    assert words[16:] == board.boot_block


@pytest.mark.qemu
def test_what_does_not_fit_says_by_how_much(tmp_path: Path) -> None:
    board = load_board("generic-m7-512k-4m")
    text = "static SLM_PORT_ARENA volatile uint8_t arena[SIZE];\nint main(void) { return arena[1]; }\n"
    main = source(tmp_path, '#include "slm_port.h"\n' + text)
    over = []
    for size in (board.arena_limit, board.arena_limit + 1600):
        with pytest.raises(CompileError, match=r"memory region 'sram' by [\d,]+ bytes; choose") as caught:
            build_firmware([main], board, tmp_path / "big.elf", defines=[f"SIZE={size}"])
        over.append(int(re.findall(r"([\d,]+) bytes", str(caught.value))[0].replace(",", "")))
    assert over[1] - over[0] == 1600
    build_firmware([main], board, tmp_path / "big.elf", defines=[f"SIZE={board.arena_limit - over[0] // 16 * 16 - 16}"])

    (tmp_path / "big.blob").write_bytes(bytes(4 << 20))
    with pytest.raises(CompileError, match=r"memory region 'flash' by [\d,]+ bytes"):
        build_firmware([main], board, tmp_path / "big.elf", defines=["SIZE=16"], blob=tmp_path / "big.blob")


@pytest.mark.qemu
def test_there_is_no_heap(tmp_path: Path) -> None:
    main = source(tmp_path, "#include <stdlib.h>\nvoid *p;\nint main(void) { p = malloc(9); return p == NULL; }\n")
    with pytest.raises(ToolError, match="undefined reference to `_sbrk'"):
        build_firmware([main], load_board("mps2-an500"), tmp_path / "heap.elf")


@pytest.mark.qemu
def test_firmware_that_does_not_end_is_killed(tmp_path: Path) -> None:
    board = load_board("mps2-an500")
    text = '#include "slm_port.h"\nint main(void) { slm_port_print("on"); for (volatile int i = 1; i;) {} return 0; }\n'
    firmware = build_firmware([source(tmp_path, text)], board, tmp_path / "loop.elf")
    with pytest.raises(ToolError, match=r"qemu-system-arm did not end within 1 s") as caught:
        run_qemu(firmware.elf, board, timeout=1)
    assert caught.value.output == "on"


@pytest.mark.parametrize("said, code, fault", [("warning: old", 0, None), ("no such machine", 1, "no such machine")])
def test_qemu_may_warn(
    said: str, code: int, fault: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "qemu-system-arm"
    tool.write_text(f"#!/bin/sh\necho 'qemu-system-arm: {said}'\necho done\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    board = load_board("mps2-an500")
    if fault is None:
        assert run_qemu(tmp_path / "none.elf", board).exit_code == code
    else:
        with pytest.raises(CompileError, match=rf"'mps2-an500': QEMU refuses it: {fault}; correct \[emulator\]"):
            run_qemu(tmp_path / "none.elf", board)


def test_a_board_without_emulator_does_not_run(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "boards" / "mps2-an500.toml").read_text(encoding="utf-8")
    (tmp_path / "bare.toml").write_text(text[: text.index("[emulator]")], encoding="utf-8")
    with pytest.raises(CompileError, match=r"'bare': QEMU does not emulate this board; name one with the same core"):
        run_qemu(tmp_path / "none.elf", load_board(tmp_path / "bare.toml"))
