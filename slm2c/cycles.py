"""cycles: what an image executes, instruction by instruction, and how long a Cortex-M7 would take for it.

QEMU logs every translation block that it executes. Blocks that follow each other in memory are joined to straight runs
of instructions. Counts that come from them are exact, for each function too. llvm-mca's in-order model of the Cortex-M7
prices each distinct run in its steady state: no cache, no bus, no mispredicted branch, a lower bound in the terms of
that model, which differs between versions of LLVM.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from slm2c import toolchain
from slm2c.board import Board

Run = tuple[int, int]
"""Address of the first instruction, and of what follows the last one."""

MODELLED = "cortex-m7"
"""The core that llvm-mca is asked for."""

_CONDITIONS = "eq|ne|cs|cc|hs|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le"
_ITERATIONS = 20


@dataclass(frozen=True)
class Part:
    """What was executed before a mark, since the mark before. `functions`: instructions by the function they are in;
    `cycles`: estimated, None without an estimate.
    """

    mark: str
    instructions: int
    functions: Mapping[str, int]
    cycles: int | None


def llvm_mca() -> str | None:
    """The newest llvm-mca on PATH, with or without a version in its name."""
    names = ["llvm-mca", *(f"llvm-mca-{version}" for version in range(12, 40))]
    return next((name for name in reversed(names) if shutil.which(name)), None)


def llvm_version() -> str | None:
    """The version of `llvm_mca`, such as "22.1.8"; None without one."""
    tool = llvm_mca()
    if tool is None:
        return None
    text = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"LLVM version (\S+)", text)
    return found[1] if found else "unknown"


def executed(elf: Path, board: Board, marks: Sequence[str], core: str = MODELLED) -> list[Part]:
    """What an image executes on the emulated `board`, cut where a function of `marks` is entered; in order.

    Cycles are estimated for a board with the core `core`, which llvm-mca must know, where there is one. Raises
    CompileError without objdump or QEMU.
    """
    program = disassemble(elf)
    parts = list(_cut(_blocks(elf, board), {at: name for at, name in program.functions.items() if name in marks}))
    runs = sorted({run for _, part in parts for run in part})
    inside = {run: program.by_function(run) for run in runs}
    tool = llvm_mca() if board.cpu == core else None
    prices = {} if tool is None else _prices(tool, runs, program, core)
    found = []
    for mark, part in parts:
        functions: Counter[str] = Counter()
        for run, times in part.items():
            for name, count in inside[run].items():
                functions[name] += count * times
        cycles = round(sum(prices[run] * times for run, times in part.items())) if prices else None
        found.append(Part(mark, functions.total(), functions, cycles))
    return found


def _cut(blocks: Iterable[Run], marks: Mapping[int, str]) -> Iterator[tuple[str, Counter[Run]]]:
    """(mark, how often each straight run was executed since the mark before), for each time that a mark is entered."""
    current: Counter[Run] = Counter()
    start = end = None
    for first, behind in blocks:
        if first in marks or first != end:
            if start is not None and end is not None:
                current[start, end] += 1
            start = first
        if first in marks:
            yield marks[first], current
            current = Counter()
        end = behind


@dataclass(frozen=True)
class Program:
    """The code of an image, by address and in its order: instructions, the address after each, names of functions."""

    instructions: Mapping[int, str]
    following: Mapping[int, int]
    functions: Mapping[int, str]

    def between(self, run: Run) -> list[str]:
        """The instructions of a straight run."""
        at, end = run
        found = []
        while at < end:
            found.append(self.instructions[at])
            at = self.following[at]
        return found

    def by_function(self, run: Run) -> Counter[str]:
        """How many instructions of a straight run lie in each function."""
        found: Counter[str] = Counter()
        at, end = run
        while at < end:
            found[self.functions[self._starts[bisect(self._starts, at) - 1]]] += 1
            at = self.following[at]
        return found

    @cached_property
    def _starts(self) -> list[int]:
        return list(self.functions)


def disassemble(elf: Path) -> Program:
    """The code of an image, by the objdump of the cross compiler."""
    command = [re.sub(r"gcc$", "objdump", toolchain.cross_cc()), "-d", "--no-show-raw-insn", str(elf)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    instructions: dict[int, str] = {}
    functions: dict[int, str] = {}
    for line in text.splitlines():
        if label := re.match(r"([0-9a-f]+) <(\S+)>:", line):
            functions[int(label[1], 16)] = label[2]
        elif code := re.match(r"\s*([0-9a-f]+):\s+(.*)", line):
            instructions[int(code[1], 16)] = re.split(r"[@;]", code[2])[0].strip()
    addresses = list(instructions)
    following = dict(zip(addresses, [*addresses[1:], addresses[-1] + 4], strict=True))
    return Program(instructions, following, functions)


def _blocks(elf: Path, board: Board) -> Iterator[Run]:
    """The blocks that QEMU executes, in order."""
    assert board.emulator is not None, board.name
    with tempfile.TemporaryDirectory(prefix="slm2c-") as folder:
        log = Path(folder) / "log"
        os.mkfifo(log)
        options = f"-M {board.emulator.machine} -nographic -monitor none -serial none -d exec,nochain,in_asm".split()
        semihosting = ["-semihosting-config", "enable=on,target=native"]
        command = [toolchain.qemu(), *options, "-D", str(log), *semihosting, "-kernel", str(elf.absolute())]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as child:
            try:
                with log.open(encoding="utf-8", errors="replace") as lines:
                    yield from _parse_log(lines)
            finally:
                child.kill()


def _parse_log(lines: Iterator[str]) -> Iterator[Run]:
    ends: dict[int, int] = {}
    first: int | None = None
    for line in lines:
        if line.startswith("Trace"):
            at = int(line[line.index("[") :].split("/", 2)[1], 16)
            yield at, ends[at]
        elif line.startswith("IN:"):
            first = None
        elif code := re.match(r"0x([0-9a-f]+):\s+([0-9a-f]{4})( [0-9a-f]{4})?\s", line):
            address = int(code[1], 16)
            first = address if first is None else first
            ends[first] = address + (4 if code[3] else 2)


def _prices(tool: str, runs: Iterable[Run], program: Program, core: str) -> dict[Run, float]:
    """Cycles of each run, repeated; an instruction that llvm-mca does not read counts one."""
    bodies = {run: list(_assembly(program.between(run))) for run in runs}
    refused = dict.fromkeys(bodies, 0)
    command = [tool, "-mtriple=thumbv7em-none-eabihf", f"-mcpu={core}", f"-iterations={_ITERATIONS}", "-"]
    while True:
        lines: list[str] = []
        owners: list[tuple[Run, int] | None] = []
        for run, body in bodies.items():
            if body:
                lines += [f"# LLVM-MCA-BEGIN {run[0]:x}-{run[1]:x}", *body, f"# LLVM-MCA-END {run[0]:x}-{run[1]:x}"]
                owners += [None, *((run, i) for i in range(len(body))), None]
        result = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
        bad = sorted({int(n) - 1 for n in re.findall(r"<stdin>:(\d+):\d+: error", result.stderr)}, reverse=True)
        if not bad:
            break
        for owner in (owners[n] for n in bad):
            assert owner is not None, result.stderr
            del bodies[owner[0]][owner[1]]
            refused[owner[0]] += 1
    assert result.returncode == 0, result.stderr
    found = re.findall(r"Code Region - (\w+)-(\w+).*?Total Cycles:\s+(\d+)", result.stdout, re.DOTALL)
    prices = {(int(a, 16), int(b, 16)): int(cycles) / _ITERATIONS for a, b, cycles in found}
    assert prices.keys() == {run for run, body in bodies.items() if body}, "llvm-mca did not price every run"
    return {run: prices.get(run, 0.0) + refused[run] for run in bodies}


def _assembly(instructions: Sequence[str]) -> Iterator[str]:
    """Instructions as llvm-mca reads them: those in IT blocks as if unconditional, branches without a target, calls as
    branches, for which it would otherwise assume 100 cycles.
    """
    conditional = 0
    for text in instructions:
        text = re.sub(r"<.*", "", re.sub(r"^(\w+)\.[nw]\b", r"\1", text.replace("\t", " "))).strip()
        if block := re.match(r"i(t[te]*)\b", text):
            conditional = len(block[1])
            continue
        if conditional:
            text = re.sub(rf"^([a-z0-9]+?)({_CONDITIONS})\b", r"\1", text)
            conditional -= 1
        if re.match(r"cbn?z", text):
            text = "cmp r0, #0"
        text = re.sub(r"^blx\b", "bx", text)
        yield re.sub(rf"^bl?({_CONDITIONS})?\s+[0-9a-f]+$", r"b\1 #0", text)
