"""Sizes against binutils, stack bounds against what an emulated core really used."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from slm2c.board import Architecture, load_board
from slm2c.elf import ASSEMBLY_STACK, LIBRARY_STACK, Sizes, elf_sizes, object_sizes, pieces, stack_bound, symbols
from slm2c.resources import data_dir
from slm2c.toolchain import Firmware, build_firmware, cross_cc, run_qemu
from tests.boards import board_params

NESTED = r"""
#include "slm_port.h"
#include <string.h>
extern int shallow(int n);
extern volatile uint8_t sink[300];
volatile uint8_t sink[300];
static const uint16_t table[5] = {1, 2, 3, 4, 5};
static uint32_t initial = 77u;
static SLM_PORT_ARENA uint8_t arena[1024];
static __attribute__((noinline)) uint32_t leaf(uint32_t n)
{
    volatile uint32_t frame[20];
    for (uint32_t i = 0u; i < 20u; i++) {
        frame[i] = n + i;
    }
    return frame[n & 15u];
}
static __attribute__((noinline)) uint32_t middle(uint32_t n)
{
    volatile uint32_t frame[6];
    for (uint32_t i = 0u; i < 6u; i++) {
        frame[i] = leaf(n + i) + initial;
    }
    return frame[n & 3u];
}
static __attribute__((noinline)) uint32_t entry(uint32_t n)
{
    volatile uint32_t frame[3];
    frame[0] = (uint32_t)shallow((int)n);
    frame[1] = middle(n) + table[n & 3u];
    frame[2] = frame[1];
    (void)memset(arena, (int)n, sizeof arena);
    return frame[n & 1u];
}
int main(int argc, char **argv)
{
    (void)argv;
    slm_port_stack_paint();
    const uint32_t before = slm_port_stack_used();
    initial = entry((uint32_t)argc);
    const uint32_t after = slm_port_stack_used();
    slm_port_print_int(before);
    slm_port_print("/"); /* the end of no other string, so that it is stored once, and here */
    slm_port_print_int(after);
    sink[argc] = 1;
    return arena[2] == argc ? 0 : 1;
}
"""
# A static function of the same name as one in the other file, with a larger frame, off the deepest path.
SHALLOW = r"""
extern int shallow(int n);
static __attribute__((noinline)) int middle(int n)
{
    volatile int frame[8];
    frame[n & 7] = n;
    return frame[3];
}
int shallow(int n)
{
    return middle(n) + middle(n + 1);
}
"""


def build(folder: Path, board: str, *texts: str) -> Firmware:
    paths = []
    for i, text in enumerate(texts):
        (folder / str(i)).mkdir(exist_ok=True)
        paths.append(folder / str(i) / "main.c")
        paths[-1].write_text(text, encoding="utf-8")
    return build_firmware(paths, load_board(board), folder / "main.elf")


def binutils(tool: str, *args: str | Path, architecture: Architecture = "arm") -> str:
    return subprocess.check_output([cross_cc(architecture).removesuffix("gcc") + tool, *map(str, args)], text=True)


@pytest.mark.parametrize("name", board_params(emulated=True))
def test_measured_stack_is_the_bound(name: str, tmp_path: Path) -> None:
    firmware = build(tmp_path, name, NESTED, SHALLOW)
    result = run_qemu(firmware.elf, load_board(name), timeout=20)
    assert result.exit_code == 0
    before, used = map(int, result.output.split("/"))
    bound = stack_bound(firmware.callgraphs, "main")
    assert [function for function, _ in bound.path] == ["main", "entry", "middle", "leaf"]
    assert (bound.bytes, bound.unbounded) == (sum(size for _, size in bound.path), ())
    assert before == 0
    # `main` had its own frame when it painted. At most the padding of the last frame, to 8 bytes, stays unwritten.
    depth = sum(size for function, size in bound.path if function != "main")
    assert depth - 8 < used <= depth
    assert dict(bound.path)["leaf"] >= 80  # its array alone


@pytest.mark.qemu
def test_a_path_may_hold_quotes(tmp_path: Path) -> None:
    plain, hostile = tmp_path / "plain", tmp_path / 'a "b" label: "c" }'
    plain.mkdir(), hostile.mkdir()
    expected, found = (
        stack_bound(build(folder, "mps2-an500", NESTED, SHALLOW).callgraphs, "main") for folder in (plain, hostile)
    )
    assert expected.bytes and found == expected


UNBOUNDED = r"""
#include "slm_port.h"
#include <math.h>
int main(int argc, char **argv);
int even(int n), odd(int n), apply(int (*f)(int), int n), grow(int n);
extern volatile int step;
volatile int step = 1;
int even(int n) { volatile int k = n; return k == 0 ? 1 : odd(k - step) + step; }
int odd(int n) { volatile int k = n; return k == 0 ? 0 : even(k - step) + step; }
int apply(int (*f)(int), int n) { return f(n) + 1; }
int grow(int n) { volatile char *p = __builtin_alloca((unsigned)n); p[0] = 1; return p[n - 1]; }
double root(double x);
double root(double x) { return cbrt(x) + 1.0; }
int main(int argc, char **argv) { (void)argv; return even(argc) + apply(odd, argc) + grow(argc) + (int)root(argc); }
"""


@pytest.mark.qemu
def test_what_has_no_bound_is_named(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(UNBOUNDED, encoding="utf-8")
    board = load_board("mps2-an500")
    firmware = build_firmware([tmp_path / "main.c"], board, tmp_path / "main.elf", extra=["-fno-inline", "-lm"])
    graphs = firmware.callgraphs
    assert stack_bound(graphs, "even").unbounded == ("recursion: even -> odd -> even",)
    assert stack_bound(graphs, "apply").unbounded == ("apply calls through a pointer",)
    assert stack_bound(graphs, "grow").unbounded == ("grow has a frame of variable size",)
    assert stack_bound(graphs, "root").unbounded == ("root calls cbrt, of which no stack figure is known",)
    everything = stack_bound(graphs, "main")
    assert everything.bytes is None
    assert len(everything.unbounded) == 4
    with pytest.raises(AssertionError, match="no call graph defines nobody"):
        stack_bound(graphs, "nobody")


LIBRARY = r"""
#include <stdint.h>
#include <string.h>
extern uint8_t a[999], b[999];
extern volatile uint64_t wide;
extern volatile int64_t wide_signed;
extern volatile uint32_t n;
uint8_t a[999], b[999];
volatile uint64_t wide = 1;
volatile int64_t wide_signed = 1;
volatile uint32_t n = 5;
int main(void)
{
    (void)memcpy(a, b, n);
    (void)memmove(a + 1, a, n);
    (void)memset(b, 1, n);
    wide = wide / n + wide % n;
    wide_signed = wide_signed / n + wide_signed % n;
    wide = wide + (uint64_t)__builtin_clz(n) + (uint64_t)__builtin_clzll(wide);
    return memcmp(a, b, n) + (int)strlen((const char *)a);
}
"""


def stack_by_disassembly(listing: str, function: str) -> int:
    """Bytes that `function` and the deepest of what it calls take from the stack, counted in straight line.

    Sound for functions without a loop around a push; an upper bound where paths exclude each other.
    """
    body = re.search(rf"^[0-9a-f]+ <{function}>:\n((?:.+\n)+)", listing, re.MULTILINE)
    assert body, function
    own, below = 0, 0
    for line in body[1].splitlines():
        text = line.split("\t", 2)[-1].split("@")[0].strip()
        assert not re.match(r"(vpush|vstmdb|blx?\tr|mov\S*\tsp,)", text), line
        if match := re.match(r"(?:push|stmdb(?:\.w)?\tsp!,)\s*(?:\.w)?\s*\{(.*)\}", text):
            assert "-" not in match[1], line
            own += 4 * len(match[1].split(","))
        elif match := re.search(r"\[sp, #-(\d+)\]!$|^sub\S*\tsp, (?:sp, )?#(\d+)|^addi?\tsp,sp,-(\d+)", text):
            own += int(match[1] or match[2] or match[3])
        elif (match := re.match(r"[bj]\S*\t.*<(\w+)>$", text)) and match[1] != function:
            below = max(below, stack_by_disassembly(listing, match[1]))
    return own + below


@pytest.mark.qemu
@pytest.mark.riscv
def test_library_figures_are_those_of_the_disassembly(tmp_path: Path) -> None:
    worst: dict[str, int] = {}
    for name in ("mps2-an386", "mps2-an500", "mps2-an505", "mps3-an547", "qemu-rv32"):
        firmware = build(tmp_path, name, LIBRARY)
        listing = binutils("objdump", "-d", firmware.elf, architecture=load_board(name).architecture)
        for function in LIBRARY_STACK:
            if f"<{function}>:" in listing:
                worst[function] = max(worst.get(function, 0), stack_by_disassembly(listing, function))
        bound = stack_bound(firmware.callgraphs, "main")
        assert bound.bytes is not None, bound.unbounded
        assert not any("unwind" in symbol.name for symbol in symbols(firmware.elf))
    assert worst.keys() == LIBRARY_STACK.keys()
    assert {function: size for function, size in worst.items() if size > LIBRARY_STACK[function]} == {}


@pytest.mark.parametrize("name", board_params())
def test_sizes_are_those_of_binutils(name: str, tmp_path: Path) -> None:
    firmware, architecture = build(tmp_path, name, NESTED, SHALLOW), load_board(name).architecture
    by_section = {
        fields[0]: int(fields[1])
        for line in binutils("size", "-A", firmware.elf, architecture=architecture).splitlines()
        if len(fields := line.split()) == 3 and fields[1].isdigit()
    }
    sizes = elf_sizes(firmware.elf)
    assert sizes == Sizes(
        code=sum(by_section.get(name, 0) for name in (".text", ".rodata", ".slm_hot")),
        blob=0,
        data=by_section[".data"],
        bss=by_section[".bss"],
        arena=1024,
        stack=load_board(name).stack_size,
    )
    assert sizes.data > 0
    assert (sizes.flash, sizes.ram) == (sizes.code + sizes.data, sizes.data + sizes.bss + 1024 + sizes.stack)

    listing = binutils("nm", "-S", firmware.elf, architecture=architecture)
    table = re.findall(r"^([0-9a-f]{8}) ([0-9a-f]{8}) \w (\S+)$", listing, re.MULTILINE)
    assert sorted((s.name, s.address, s.size) for s in symbols(firmware.elf)) == sorted(
        (symbol, int(address, 16), int(size, 16)) for address, size, symbol in table
    )


@pytest.mark.parametrize("name", board_params())
def test_regions_hold_what_the_board_says(name: str, tmp_path: Path) -> None:
    board, firmware = load_board(name), build(tmp_path, name, NESTED, SHALLOW)
    sizes, used = elf_sizes(firmware.elf), Counter[str]()
    for piece in pieces(firmware.elf, board.memory):
        used[piece.region] += piece.bytes
    assert {region for region, size in used.items() if size} == {
        board.placement.code,
        board.placement.stack,
        board.arena_region(sizes.arena, sizes.data + sizes.bss),
        *([board.placement.hot] if board.placement.hot else []),
    }
    hot = used[board.placement.hot] if board.placement.hot else 0
    ram = sum(used[region.name] for region in board.memory if region.writable)
    assert (ram, used[board.placement.code]) == (sizes.ram + hot, sizes.code + sizes.data)
    with pytest.raises(AssertionError, match="no memory at 0x"):
        pieces(firmware.elf, board.memory[1:])


@pytest.mark.qemu
def test_objects_account_for_the_image(tmp_path: Path) -> None:
    firmware = build(tmp_path, "mps2-an500", NESTED, SHALLOW)
    objects = list(firmware.objects.values())
    ours = [obj for source, obj in firmware.objects.items() if source.is_relative_to(tmp_path)]  # not start-up and port
    for path in ours:  # nothing of these is dropped by --gc-sections, so the object file has what the image has
        own = object_sizes(firmware.map, [path])
        listed = re.findall(r"^\.(text|rodata|data|bss)(\S*)\s+(\d+)", binutils("size", "-A", path), re.MULTILINE)
        assert own.code == sum(int(size) for kind, _, size in listed if kind in ("text", "rodata"))
        assert own.data == sum(int(size) for kind, _, size in listed if kind == "data")
        assert own.bss + own.arena == sum(int(size) for kind, _, size in listed if kind == "bss")
        assert own.code > 0
    total, image = object_sizes(firmware.map, objects), elf_sizes(firmware.elf)
    assert (total.data, total.arena) == (4, image.arena)
    named = {symbol.name: symbol.size for symbol in symbols(firmware.elf) if symbol.part == "code"}
    library = named["memset"] + named["memcpy"]
    assert 0 <= image.code - total.code - library < 16  # alignment gaps
    with pytest.raises(AssertionError, match=r"not linked: .*other\.o"):
        object_sizes(firmware.map, [tmp_path / "other.o"])


def test_what_our_assembly_pushes_is_counted(tmp_path: Path) -> None:
    """Each function of a file whose assembly pushes is listed with the bytes that it takes."""
    pushing = [path for path in sorted(data_dir("runtime_c").glob("*.c")) if "push {" in path.read_text("utf-8")]
    taken = {}
    for path in pushing:
        obj = tmp_path / f"{path.stem}.o"
        flags = ["-mcpu=cortex-m7", "-mthumb", "-O2", "-fstack-usage"]
        subprocess.run([cross_cc(), *flags, "-c", str(path), "-o", str(obj)], check=True)
        usage = dict(re.findall(r":(\w+)\t(\d+)\t", obj.with_suffix(".su").read_text(encoding="utf-8")))
        listing = binutils("objdump", "-d", obj)
        for function in re.findall(r"^[0-9a-f]+ <(\w+)>:$", listing, re.MULTILINE):
            own = stack_by_disassembly(listing, function) - int(usage.get(function, 0))
            taken |= {function: own} if own else {}
    assert taken == dict(ASSEMBLY_STACK)
