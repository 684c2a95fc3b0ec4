"""boards/*.toml -> Board: the target's core, memories, and where code, weights, arena and stack go.

The keys of a board file are the fields of the dataclasses below, and nothing else. A new board is a new file
in `boards/`, or any file given by path.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from slm2c.errors import CompileError, Problem
from slm2c.resources import data_dir

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MemoryKind = Literal["flash", "sram", "tcm"]
"""flash: read in place, survives reset; sram: on the bus; tcm: beside the core, no wait states."""

Architecture = Literal["arm", "riscv"]
"""arm: an M-profile core, from Armv7-M on; riscv: RV32."""

ConsoleKind = Literal["semihosting", "cmsdk-uart", "nrf-uarte", "ns16550", "pl011", "stm32-usart-v1", "stm32-usart-v2"]
"""A driver in templates/image/: console_<kind>.c, `-` as `_`."""

_WORD = 0xFFFF_FFFF

NRF_BAUD_RATES = (9600, 115_200, 1_000_000)
"""Baud rates of templates/image/console_nrf_uarte.c, which takes them from a table."""

BAUD_TOLERANCE = 0.02
"""How far off a baud rate may be: with ten bits a frame, half a bit is 5 %, for both ends together."""

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
    mask: int = _WORD
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
            raise CompileError(Problem(text, "", "unknown board" + _did_you_mean(text, list_boards()), remedy))
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CompileError(Problem(str(path), "", f"cannot read the board file: {error.strerror}")) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CompileError(Problem(str(path), "", f"not a TOML file: {error}")) from error
    if "name" in table:
        raise CompileError(Problem(str(path), "", "name: unknown key; the file's name is the board's"))
    return board_from_table({**table, "name": path.stem}, str(path))


def board_from_table(table: Mapping[str, Any], source: str) -> Board:
    """The board of a table with the keys of a board file and `name`; None stands for an absent key.

    Raises CompileError with every problem of the table, each naming `source` and key.
    """
    if not isinstance(table, Mapping):
        raise CompileError(Problem(source, "", "does not describe a board"))
    found: list[str] = []
    board: Board = _read(Board, table, "", found)
    if not found:
        found.extend(_check(board))
    if found:
        raise CompileError(Problem(source, "", message) for message in found)
    return board


def emulated(board: Board) -> Board | None:
    """The board to build for so that `board`'s code runs in QEMU: itself, or its core on another.

    None if it names no emulator. Raises CompileError if the other board's core is not the same.
    """
    if board.emulator is not None:
        return board
    if board.emulated_by is None:
        return None
    host = load_board(board.emulated_by)
    if host.emulator is None or host.cpu != board.cpu:
        reason = f"emulated_by: '{host.name}' does not emulate a {board.cpu}"
        remedy = "name a board with an [emulator] table and the same cpu"
        raise CompileError(Problem(board.name, "", reason, remedy))
    return replace(host, flags=board.flags, features=board.features, clock_hz=board.clock_hz)


def with_reserve(board: Board, reserve: Mapping[str, int]) -> Board:
    """The board with so many bytes of its regions kept for the application. Raises CompileError for regions that it
    does not have, or that are smaller.
    """
    names = tuple(region.name for region in board.memory)
    found = [
        Problem(
            board.name, "", f"has no memory region '{x}'{_did_you_mean(x, names)}", f"its regions: {', '.join(names)}"
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


def _did_you_mean(word: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _read(kind: Any, value: Any, key: str, found: list[str]) -> Any:
    """`value`, as TOML gives it, as an instance of the type `kind`. What does not fit is added to `found`."""
    if is_dataclass(kind) and isinstance(value, Mapping):
        return _read_table(kind, value, key, found)
    if get_origin(kind) is tuple and type(value) is get_args(kind)[0]:
        value = [value]  # a list of one, without brackets
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_read(get_args(kind)[0], item, f"{key}[{i}]", found) for i, item in enumerate(value))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            found.append(f"{key}: {value!r} is not one of {', '.join(get_args(kind))}")
        return value
    if get_origin(kind) is UnionType:  # X | None: TOML has no null, so a key that is there holds an X
        return _read(get_args(kind)[0], value, key, found)
    if type(value) is not kind:
        expected = "table" if is_dataclass(kind) else "list" if get_origin(kind) is tuple else kind.__name__
        found.append(f"{key}: expected {expected}, got {type(value).__name__} {value!r}")
    return value


def _read_table(kind: Any, table: Mapping[str, Any], key: str, found: list[str]) -> Any:
    prefix = f"{key}." if key else ""
    table = {name: value for name, value in table.items() if value is not None}
    types = get_type_hints(kind)
    required = [field.name for field in fields(kind) if field.default is MISSING]
    before = len(found)
    found.extend(
        f"{prefix}{name}: unknown key{_did_you_mean(name, tuple(types))}" for name in table if name not in types
    )
    found.extend(f"{prefix}{name}: missing" for name in required if name not in table)
    values = {
        name: _read(types[name], value, f"{prefix}{name}", found) for name, value in table.items() if name in types
    }
    return kind(**values) if len(found) == before else None


def _check(board: Board) -> list[str]:
    """What the types cannot say: ranges, names, overlaps, placement."""
    found: list[str] = []
    words = [("the file's name", board.name), ("cpu", board.cpu)]
    numbers = [("clock_hz", board.clock_hz)]
    numbers += [(f"memory[{i}].size", region.size) for i, region in enumerate(board.memory)]
    if board.emulator:
        words.append(("emulator.machine", board.emulator.machine))
        words.append(("emulator.cpu", board.emulator.cpu or "-"))
        numbers.append(("emulator.timer_hz", 1 if board.emulator.timer_hz is None else board.emulator.timer_hz))
    found.extend(
        f"{key}: {word!r} may hold letters, digits, '.', '_' and '-' only"
        for key, word in words
        if not re.fullmatch(r"[A-Za-z0-9._-]+", word)
    )
    found.extend(f"{key}: {number} is not greater than 0" for key, number in numbers if number <= 0)
    found.extend(
        f"flags: {flag!r} does not select a machine (-m...)"
        for flag in board.flags
        if not re.fullmatch(r"-m[a-z0-9.+=-]+", flag)
    )
    found.extend(
        f"boot_block[{i}]: {word:#x} is not a 32-bit word"
        for i, word in enumerate(board.boot_block)
        if not 0 <= word <= _WORD
    )
    found.extend(_check_console(board.console))
    found.extend(f"setup[{i}].{fact}" for i, step in enumerate(board.setup) for fact in _check_step(step))
    found.extend(_check_programmer(board.programmer))
    if board.stack_size % STACK_GUARD or board.stack_size <= STACK_GUARD:
        found.append(f"stack_size: {board.stack_size} is not a multiple of {STACK_GUARD} above {STACK_GUARD}")
    found.extend(_check_architecture(board))
    names = [region.name for region in board.memory]
    for i, region in enumerate(board.memory):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", region.name):
            found.append(f"memory[{i}].name: {region.name!r} may hold a-z, 0-9 and '_' only")
        if region.name in names[:i]:
            found.append(f"memory[{i}].name: a second region {region.name!r}")
        if not 0 <= region.reserve < region.size:
            found.append(f"memory[{i}].reserve: {region.reserve} of {region.name}'s {region.size} bytes")
        if region.origin < 0 or region.end > 1 << 32:
            found.append(f"memory[{i}]: {region.name} lies outside the 32-bit address space")
        found.extend(
            f"memory[{i}]: {region.name} overlaps {other.name}"
            for other in board.memory[:i]
            if region.origin < other.end and other.origin < region.end
        )
    for key, name in _placed(board.placement):
        writable = not key.startswith(("code", "blob"))
        if name not in names:
            found.append(f"placement.{key}: no memory region {name!r} among {', '.join(names)}")
        elif board.region(name).writable != writable:
            found.append(
                f"placement.{key}: {name} is {board.region(name).kind}, which "
                + ("cannot be written" if writable else "is empty after a reset; it must be flash")
            )
        elif key == "stack" and board.region(name).size < board.stack_size:
            found.append(f"placement.stack: {name} is smaller than stack_size, {board.stack_size}")
    if not board.placement.arena:
        found.append("placement.arena: names no memory region")
    elif len(set(board.placement.arena)) < len(board.placement.arena):
        found.append("placement.arena: names a region twice")
    return found


def _check_architecture(board: Board) -> list[str]:
    """What holds for one kind of core only."""
    found: list[str] = []
    timer = {} if board.emulator is None else {key: getattr(board.emulator, key) for key in ("timer", "timer_hz")}
    if board.architecture == "riscv":
        if not board.cpu.startswith("rv32"):
            found.append(f"cpu: {board.cpu!r} has no 32-bit base; write one like 'rv32imc'")
        if board.features.dsp or board.features.mve:
            found.append("features: dsp and mve are Arm's; write false")
        found.extend(f"emulator.{key}: a RISC-V core counts itself; leave it out" for key, x in timer.items() if x)
    else:
        asked = {"timer": "the address of a device that counts", "timer_hz": "its ticks a second"}
        found.extend(f"emulator.{key}: missing; {asked[key]}" for key, x in timer.items() if x is None)
    if (hz := timer.get("timer_hz")) and hz > 0 and 1_000_000_000 % hz:
        found.append("emulator.timer_hz: a tick must be a whole number of nanoseconds")
    return found


def baud_rate(console: Console) -> float | None:
    """What a driver that divides `clock_hz` makes of `baud`; None if the clock is too slow for it."""
    clock, parts, least = console.clock_hz or 0, 1.0, 16
    if console.kind == "pl011":
        parts, least = 4, 64  # in 64ths of 16 cycles
    elif console.kind == "ns16550":
        parts, least = 1 / 16, 1
    divisor = int(clock * parts / console.baud + 0.5)
    return clock * parts / divisor if divisor >= least else None


def _check_console(console: Console) -> Iterator[str]:
    """A UART needs an address and a clock; a debugger has neither."""
    semihosting, own_clock = console.kind == "semihosting", console.kind in ("semihosting", "nrf-uarte")
    for key, absent in (("base", semihosting), ("clock_hz", own_clock)):
        value = getattr(console, key)
        if absent and value is not None:
            yield f"console.{key}: {console.kind} has none; leave it out"
        elif not absent and value is None:
            yield f"console.{key}: missing; a {console.kind} needs it"
    if console.base is not None and (console.base % 4 or not 0 <= console.base <= _WORD):
        yield f"console.base: {console.base:#x} is not the address of a 32-bit register"
    if console.baud <= 0:
        yield f"console.baud: {console.baud} is not greater than 0"
    elif console.kind == "nrf-uarte":
        if console.baud not in NRF_BAUD_RATES:
            rates = ", ".join(map(str, NRF_BAUD_RATES))
            yield f"console.baud: {console.baud} is not one of {rates}"
    elif console.clock_hz is not None:
        rate = baud_rate(console)
        if rate is None or abs(rate / console.baud - 1) > BAUD_TOLERANCE:
            got = "too fast" if rate is None else f"{rate:,.0f} at best"
            yield f"console.baud: {console.baud} is {got} for {console.kind} at this clock"


def _check_step(step: Step) -> Iterator[str]:
    """Words, at the address of one; and a remark that stays in its comment."""
    if step.address % 4 or not 0 <= step.address <= _WORD:
        yield f"address: {step.address:#x} is not the address of a 32-bit register"
    if not 0 < step.mask <= _WORD:
        yield f"mask: {step.mask:#x} is not a 32-bit word with a bit set"
    elif step.value & ~step.mask:
        yield f"value: {step.value:#x} has bits outside the mask {step.mask:#x}"
    if not re.fullmatch(r"[ -~]+", step.what) or re.search(r"\*/|/\*|\\|\?\?", step.what):
        yield f"what: {step.what!r} is not one line of plain text, fit for a C comment"


def _check_programmer(programmer: Programmer | None) -> Iterator[str]:
    if programmer is None:
        return
    if (programmer.tool == "openocd") != (programmer.script is not None):
        yield "programmer.script: openocd needs one, such as board/st_nucleo_f7.cfg; other tools have none"
    elif programmer.script is not None and not re.fullmatch(r"[A-Za-z0-9_./-]+", programmer.script):
        yield f"programmer.script: {programmer.script!r} may hold letters, digits, '.', '_', '/' and '-' only"


def _placed(placement: Placement) -> Iterator[tuple[str, str]]:
    """Key and region name of all that is placed."""
    for field in fields(Placement):
        value = getattr(placement, field.name)
        if isinstance(value, tuple) and len(value) > 1:
            yield from ((f"{field.name}[{i}]", name) for i, name in enumerate(value))
        elif value is not None:
            yield from ((field.name, name) for name in (value if isinstance(value, tuple) else (value,)))
