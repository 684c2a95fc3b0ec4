"""cycles: how long an image would run on a Cortex-M7, estimated with llvm-mca.

QEMU logs every translation block that it executes. Blocks that follow each other in memory are joined to straight runs
of instructions; llvm-mca's in-order model of the core prices each distinct run in its steady state. No cache, no bus,
no mispredicted branch: a lower bound, in the terms of that model.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slm2c import toolchain
from slm2c.board import Board
from slm2c.errors import CompileError, Problem

Run = tuple[int, int]
"""Address of the first instruction, and of what follows the last one."""

_CONDITIONS = "eq|ne|cs|cc|hs|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le"
_ITERATIONS = 20


@dataclass(frozen=True)
class Part:
    """What was executed between two marks."""

    instructions: int
    cycles: int


def llvm_mca() -> str | None:
    """The newest llvm-mca on PATH, with or without a version in its name."""
    names = ["llvm-mca", *(f"llvm-mca-{version}" for version in range(12, 40))]
    return next((name for name in reversed(names) if shutil.which(name)), None)


def estimate(elf: Path, board: Board, marks: Sequence[str]) -> list[tuple[str, Part]]:
    """(mark, what was executed since the mark before) for each time that a function of `marks` was entered.

    Raises CompileError without llvm-mca, objdump or QEMU.
    """
    program = disassemble(elf)
    addresses = {program.functions[name]: name for name in marks}
    parts: list[tuple[str, Counter[Run]]] = []
    current: Counter[Run] = Counter()
    start = end = None
    for first, behind in _blocks(elf, board):
        if first in addresses or first != end:
            if start is not None and end is not None:
                current[start, end] += 1
            start = first
        if first in addresses:
            parts.append((addresses[first], current))
            current = Counter()
        end = behind
    prices = _prices({run for _, part in parts for run in part}, program)
    lengths = {run: len(program.between(run)) for _, part in parts for run in part}
    return [
        (
            mark,
            Part(
                sum(lengths[run] * n for run, n in part.items()), round(sum(prices[run] * n for run, n in part.items()))
            ),
        )
        for mark, part in parts
    ]


@dataclass(frozen=True)
class Program:
    """Instructions by address, in order, and where functions start."""

    instructions: Mapping[int, str]
    functions: Mapping[str, int]
    following: Mapping[int, int]

    def between(self, run: Run) -> list[str]:
        """The instructions of a straight run."""
        at, end = run
        found = []
        while at < end:
            found.append(self.instructions[at])
            at = self.following[at]
        return found


def disassemble(elf: Path) -> Program:
    """The code of an image, by the objdump of the cross compiler."""
    command = [re.sub(r"gcc$", "objdump", toolchain.cross_cc()), "-d", "--no-show-raw-insn", str(elf)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    instructions: dict[int, str] = {}
    functions: dict[str, int] = {}
    for line in text.splitlines():
        if label := re.match(r"([0-9a-f]+) <(\S+)>:", line):
            functions[label[2]] = int(label[1], 16)
        elif code := re.match(r"\s+([0-9a-f]+):\s+(.*)", line):
            instructions[int(code[1], 16)] = re.split(r"[@;]", code[2])[0].strip()
    addresses = list(instructions)
    return Program(instructions, functions, dict(zip(addresses, [*addresses[1:], addresses[-1] + 4], strict=True)))


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


def _prices(runs: set[Run], program: Program) -> dict[Run, float]:
    """Cycles of each run, repeated; an instruction that llvm-mca does not read counts one."""
    tool = llvm_mca()
    if tool is None:
        raise CompileError(Problem("llvm-mca", "", "not found", "install it (Debian: apt-get install llvm)"))
    bodies = {run: list(_assembly(program.between(run))) for run in sorted(runs)}
    refused = dict.fromkeys(bodies, 0)
    command = [tool, "-mtriple=thumbv7em-none-eabihf", "-mcpu=cortex-m7", f"-iterations={_ITERATIONS}", "-"]
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
    found = re.findall(r"Code Region - (\w+)-(\w+).*?Total Cycles:\s+(\d+)", result.stdout, re.DOTALL)
    prices = {(int(a, 16), int(b, 16)): int(cycles) / _ITERATIONS for a, b, cycles in found}
    return {run: prices.get(run, 0.0) + refused[run] for run in bodies}


def _assembly(instructions: Sequence[str]) -> Iterator[str]:
    """Instructions as llvm-mca reads them: those in IT blocks as if unconditional, branches without a target."""
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
        yield re.sub(rf"^(b|bl)({_CONDITIONS})?\s+[0-9a-f]+$", r"\1\2 #0", text)
