"""What an image executes: QEMU's log, straight runs, functions, and what llvm-mca reads."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from slm2c import cycles, toolchain
from slm2c.board import load_board

LOG = """\
----------------
IN:
0x00000100:  b510       push     {r4, lr}
0x00000102:  f000 f80d  bl       #0x120

----------------
IN:
0x00000120:  4770       bx       lr

Trace 0: 0x7f1 [00000000/00000100/00000110/ff000000] start
Trace 0: 0x7f2 [00000000/00000120/00000110/ff000000] leaf
Trace 0: 0x7f1 [00000000/00000100/00000110/ff000000] start
"""


def test_the_log_says_which_blocks_were_executed() -> None:
    assert list(cycles._parse_log(iter(LOG.splitlines(True)))) == [(0x100, 0x106), (0x120, 0x122), (0x100, 0x106)]


def test_blocks_in_a_row_are_one_run_and_marks_cut() -> None:
    blocks = [(0, 4), (4, 8), (20, 24), (0, 4), (4, 8), (8, 12), (20, 24), (40, 44)]
    found = list(cycles._cut(blocks, {20: "mark", 40: "end"}))
    assert found == [
        ("mark", Counter({(0, 8): 1})),
        ("mark", Counter({(20, 24): 1, (0, 12): 1})),
        ("end", Counter({(20, 24): 1})),
    ]


def test_functions_of_a_run() -> None:
    program = cycles.Program(dict.fromkeys((0, 2, 4, 8), "nop"), {0: 2, 2: 4, 4: 8, 8: 12}, {0: "a", 4: "a", 8: "b"})
    assert program.by_function((0, 12)) == {"a": 3, "b": 1} and program.by_function((2, 4)) == {"a": 1}
    assert program.between((2, 8)) == ["nop", "nop"]


def test_instructions_as_llvm_mca_reads_them() -> None:
    given = [
        "ldr.w\tr0, [r1]",
        "ite\tne",
        "movne\tr0, #1",
        "strls\tr0, [r2]",
        "cbnz\tr3, 120 <f+0x10>",
        "bl\t200 <g>",
        "blx\tr3",
        "bls\t100 <f>",
        "bne.n\t100 <f>",
    ]
    want = ["ldr r0, [r1]", "mov r0, #1", "str r0, [r2]", "cmp r0, #0", "b #0", "bx r3", "bls #0", "bne #0"]
    assert list(cycles._assembly(given)) == want


PROGRAM = """\
#include "slm_port.h"
void twice(uint32_t n);
void mark(void);
__attribute__((naked)) void twice(uint32_t n) { (void)n; __asm volatile("1: subs r0, r0, #1\\n bne 1b\\n bx lr"); }
__attribute__((naked)) void mark(void) { __asm volatile("bx lr"); }
int main(void)
{
    mark();
    for (uint32_t n = 1u; n <= 1000u; n *= 10u) {
        twice(n);
        mark();
    }
    return 0;
}
"""


@pytest.fixture
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> list[cycles.Part]:
    (tmp_path / "p.c").write_text(PROGRAM)
    board = load_board(request.param)
    return cycles.executed(
        toolchain.build_firmware([tmp_path / "p.c"], board, tmp_path / "p.elf").elf, board, ("mark",)
    )


@pytest.mark.qemu
@pytest.mark.parametrize("parts", ["mps2-an500", "mps2-an386", "mps2-an505"], indirect=True)
def test_every_instruction_is_counted_for_its_function(parts: list[cycles.Part]) -> None:
    assert [part.functions["twice"] for part in parts[1:]] == [2 * n + 1 for n in (1, 10, 100, 1000)]
    assert all(part.mark == "mark" and part.functions["mark"] == 1 for part in parts[1:])
    assert all(part.instructions == sum(part.functions.values()) for part in parts)
    assert {tuple(sorted(part.functions)) for part in parts[1:]} == {("main", "mark", "twice")}


@pytest.mark.qemu
@pytest.mark.parametrize("parts", ["mps2-an500"], indirect=True)
def test_cycles_are_estimated_where_there_is_a_model(parts: list[cycles.Part]) -> None:
    if cycles.llvm_mca() is None:
        assert all(part.cycles is None for part in parts) and cycles.llvm_version() is None
    else:
        assert all(part.cycles and 0 < part.cycles < 4 * part.instructions for part in parts)
        assert cycles.llvm_version()


@pytest.mark.qemu
@pytest.mark.parametrize("parts", ["mps2-an386"], indirect=True)
def test_other_cores_have_no_estimate(parts: list[cycles.Part]) -> None:
    assert all(part.cycles is None for part in parts)


def test_the_newest_llvm_mca_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        shutil, "which", lambda name: name if name in ("llvm-mca", "llvm-mca-14", "llvm-mca-22") else None
    )
    assert cycles.llvm_mca() == "llvm-mca-22"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert cycles.llvm_mca() is None and cycles.llvm_version() is None
