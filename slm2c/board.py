"""boards/*.toml -> Board: the target's core, memories, and where code, weights, arena and stack go.

The keys of a board file are the fields of the dataclasses below, and nothing else. A new board is a new file
in `boards/`, or any file given by path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from slm2c import toml_file
from slm2c.errors import CompileError, Problem
from slm2c.resources import data_dir
from slm2c.toml_file import did_you_mean

MemoryKind = Literal["flash", "sram", "tcm"]
"""flash: read in place, survives reset; sram: on the bus; tcm: beside the core, no wait states."""

Architecture = Literal["arm", "riscv"]
"""arm: an M-profile core, from Armv7-M on; riscv: RV32."""

ConsoleKind = Literal["semihosting", "cmsdk-uart", "nrf-uarte", "ns16550", "pl011", "stm32-usart-v1", "stm32-usart-v2"]
"""A driver in templates/image/: console_<kind>.c, `-` as `_`."""

NRF_BAUD_RATES = (9600, 115_200, 1_000_000)
"""Baud rates of templates/image/console_nrf_uarte.c, which takes them from a table."""

STACK_GUARD = 256
"""Bytes at the stack's low end that the start-up code makes inaccessible; see start_arm.c."""


@dataclass(frozen=True)
class MemoryRegion:
    """`size` bytes from address `origin`. `name` goes into the linker script: lower case, digits, `_`. `reserve` bytes
    of them are kept for the application around the model.
    """

    name: str
    kind: MemoryKind
    origin: int
    size: int
    reserve: int = 0

    @property
    def end(self) -> int:
        """The first address behind the region."""
        return self.origin + self.size

    @property
    def writable(self) -> bool:
        """Whether a store works, unlike in flash."""
        return self.kind != "flash"


@dataclass(frozen=True)
class Placement:
    """Names of the regions.

    `arena` names one or several, the fastest first: the arena goes to the first that holds it. .data and .bss lie
    with the stack. `hot` is a memory beside the core to which the start-up code copies the kernels that take most
    of the time; without it, or where they do not fit, they run from where `code` lies.
    """

    arena: tuple[str, ...]
    code: str
    blob: str
    stack: str
    hot: str | None = None


@dataclass(frozen=True)
class Features:
    """What the core has beyond its base architecture; checked against what the compiler makes of `flags`."""

    dsp: bool
    mve: bool
    fpu: Literal["none", "fpv4-sp-d16", "fpv5-sp-d16", "fpv5-d16"]


@dataclass(frozen=True)
class Emulator:
    """The QEMU machine that runs images for this memory map, with the core `cpu` where its own is another.

    Under `-icount shift=0` an instruction takes 1 ns of virtual time. What counts instructions is, on Arm, a device at
    address `timer` that ticks `timer_hz` times a second, hence once in `instructions_per_tick`: a CMSDK APB timer or
    the counter in the FPGAIO block of MPS boards. A RISC-V core counts itself.
    """

    machine: str
    cpu: str | None = None
    timer_kind: Literal["cmsdk-timer", "fpgaio"] = "cmsdk-timer"
    timer: int | None = None
    timer_hz: int | None = None

    @property
    def instructions_per_tick(self) -> int:
        """The resolution of the instruction counter."""
        return 1_000_000_000 // self.timer_hz if self.timer_hz else 1


@dataclass(frozen=True)
class Console:
    """Where an image prints and reads: a UART with its registers at `base`, or the debugger (semihosting).

    `clock_hz` is what feeds the UART, from which its divider makes `baud`, once `Board.setup` is done; an nRF UARTE
    has its own.
    """

    kind: ConsoleKind = "semihosting"
    base: int | None = None
    clock_hz: int | None = None
    baud: int = 115_200


@dataclass(frozen=True)
class Step:
    """One access to a register: the bits of `mask` become those of `value`, or, if `wait`, are waited for.

    A mask of all ones is a plain store. `what` says why, after the register's name, and becomes a comment of the C.
    """

    what: str
    address: int
    value: int
    mask: int = 0xFFFF_FFFF
    wait: bool = False


@dataclass(frozen=True)
class Programmer:
    """The tool that writes an image to the board; `script` is a board's file that OpenOCD brings."""

    tool: Literal["openocd", "picotool"]
    script: str | None = None


@dataclass(frozen=True)
class Board:
    """One target.

    `name` is the file's, without `.toml`. `cpu` is a name of Arm's (cortex-m7) or a base and its extensions (rv32imc).
    `flags` select the core for GCC and clang. `stack_size` bytes of
    the stack's region are kept for the stack, of which the lowest STACK_GUARD catch an overflow. A board that
    QEMU does not have names in `emulated_by` one with the same core on which its code can run. `boot_block` are words
    behind the vector table, without which a boot ROM does not start an image. `setup` is what the start-up code does
    before it touches a memory: clocks and pins of the console, a serial flash that is to be read in place.
    """

    name: str
    description: str
    cpu: str
    clock_hz: int
    flags: tuple[str, ...]
    stack_size: int
    features: Features
    memory: tuple[MemoryRegion, ...]
    placement: Placement
    emulator: Emulator | None = None
    emulated_by: str | None = None
    boot_block: tuple[int, ...] = ()
    console: Console = Console()
    setup: tuple[Step, ...] = ()
    programmer: Programmer | None = None

    @property
    def architecture(self) -> Architecture:
        """What decides on compiler, emulator and start-up code."""
        return "riscv" if self.cpu.startswith("rv") else "arm"

    def region(self, name: str) -> MemoryRegion:
        """The memory region `name`, which must exist."""
        return next(region for region in self.memory if region.name == name)

    @property
    def flash_bytes(self) -> int:
        """Size of all flash."""
        return sum(region.size for region in self.memory if not region.writable)

    @property
    def ram_bytes(self) -> int:
        """Size of all memory that can be written."""
        return sum(region.size for region in self.memory if region.writable)

    @property
    def arena_limit(self) -> int:
        """The largest arena in bytes that one of its regions holds."""
        return max(self.arena_room(name) for name in self.placement.arena)

    def arena_room(self, name: str, data: int = 0) -> int:
        """Bytes for an arena in region `name`: less what is reserved, and where it lies there the stack with `data`
        bytes.
        """
        shared = self.stack_size + data if name == self.placement.stack else 0
        return self.region(name).size - self.region(name).reserve - shared

    def arena_region(self, size: int, data: int = 0) -> str:
        """The name of the first of the arena's regions that holds `size` bytes; if none does, of the roomiest."""
        fits = (name for name in self.placement.arena if self.arena_room(name, data) >= size)
        return next(fits, max(self.placement.arena, key=lambda name: self.arena_room(name, data)))


def list_boards() -> tuple[str, ...]:
    """The names of the boards that come with slm2c, sorted."""
    return tuple(sorted(path.stem for path in data_dir("boards").glob("*.toml")))


def load_board(name_or_path: str | Path) -> Board:
    """The board `name`, or the one in a file: whatever ends in .toml or has a path separator is a path.

    Raises CompileError with every problem of the file, each naming file and key.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text or "\\" in text:
        path = Path(name_or_path)
    else:
        path = data_dir("boards") / f"{text}.toml"
        if text not in list_boards():
            remedy = f"known boards: {', '.join(list_boards())}; or give the path of a .toml file"
            fact = "unknown board" + did_you_mean(text, list_boards()) if text else "no board has an empty name"
            raise CompileError(Problem(text, "", fact, remedy))
    table = toml_file.load(path)
    if "name" in table:
        raise CompileError(Problem(str(path), "", "name: unknown key", "leave it out: the file's name is the board's"))
    return board_from_table({**table, "name": path.stem}, str(path))


def board_from_table(table: Mapping[str, Any], source: str) -> Board:
    """The board of a table with the keys of a board file and `name`; None stands for an absent key.

    Raises CompileError with every problem of the table, each naming `source` and key.
    """
    from slm2c import board_check  # which knows what is defined here

    if not isinstance(table, Mapping):
        raise CompileError(Problem(source, "", "does not describe a board", "build the folder again"))
    board = toml_file.record(Board, table, source)
    toml_file.refuse(source, board_check.faults(board))
    return board


def emulated(board: Board) -> Board | None:
    """The board to build for so that `board`'s code runs in QEMU: itself, or its core on another.

    None if it names no emulator.
    """
    if board.emulator is not None:
        return board
    if board.emulated_by is None:
        return None
    host = load_board(board.emulated_by)
    return replace(host, flags=board.flags, features=board.features, clock_hz=board.clock_hz)


def with_reserve(board: Board, reserve: Mapping[str, int]) -> Board:
    """The board with so many bytes of its regions kept for the application. Raises CompileError for regions that it
    does not have, or that are smaller.
    """
    names = tuple(region.name for region in board.memory)
    found = [
        Problem(
            board.name, "", f"has no memory region '{x}'{did_you_mean(x, names)}", f"its regions: {', '.join(names)}"
        )
        for x in reserve
        if x not in names
    ]
    found += [
        Problem(board.name, "", f"'{r.name}' has {r.size:,} bytes, {reserve[r.name]:,} are to be kept", "keep less")
        for r in board.memory
        if reserve.get(r.name, 0) >= r.size
    ]
    if found:
        raise CompileError(found)
    return replace(board, memory=tuple(replace(r, reserve=reserve.get(r.name, r.reserve)) for r in board.memory))
