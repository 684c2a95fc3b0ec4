"""board_check: what a board file may say beyond its types: ranges, names, overlaps, placement, baud rates.

Each check yields faults, what is wrong and what helps. What only a compiler or an emulator knows is in board_tools.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace

from slm2c.board import (
    NRF_BAUD_RATES,
    STACK_GUARD,
    Board,
    Console,
    Emulator,
    MemoryRegion,
    Placement,
    Programmer,
    Step,
    list_boards,
    load_board,
)
from slm2c.toml_file import Fault, did_you_mean, shown

_WORD = 0xFFFF_FFFF
_NAME_BYTES = 31

_ARM_CORES = r"cortex-m(3|4|7|33|35p|52|55|85)"
"""M-profile from Armv7-M on."""

_LINKER_WORDS = ("l", "len", "o", "org")
"""What GNU ld reads as LENGTH and ORIGIN."""

_ALIGNMENT = STACK_GUARD
"""Of a memory's origin: that of the stack's guard, and more than vector table and blob want."""

BAUD_TOLERANCE = 0.02
"""How far off a baud rate may be: with ten bits a frame, half a bit is 5 %, for both ends together."""

_BAUD_RATES = (1200, 2400, 4800, 9600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 921_600, 1_000_000)


def faults(board: Board) -> Iterator[Fault]:
    """All that is wrong with a board."""
    yield from _check_core(board)
    yield from _check_memory(board.memory)
    yield from _check_placement(board)
    yield from _check_console(board.console)
    for key, address in _registers(board):
        yield from _check_register(key, address, board.memory)
    for i, step in enumerate(board.setup):
        yield from _check_step(f"setup[{i}]", step)
    for i, word in enumerate(board.boot_block):
        if not 0 <= word <= _WORD:
            yield f"boot_block[{i}]: {word:#x} is not a 32-bit word", "give one from 0 to 0xffff_ffff"
    if board.programmer is not None:
        yield from _check_programmer(board.programmer)
    if board.emulator is not None:
        yield from _check_emulator(board.emulator, riscv=board.architecture == "riscv")
    if board.emulated_by is not None:
        yield from _check_emulated_by(board, board.emulated_by)


def _word(key: str, word: str) -> Iterator[Fault]:
    """What stands in a command or a file's name as it is."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", word):
        yield f"{key}: {shown(word)} may hold letters, digits, '.', '_' and '-' only", "write it so"


def _positive(key: str, number: int) -> Iterator[Fault]:
    if number <= 0:
        yield f"{key}: {number} is not greater than 0", "give what the data sheet says"
    elif number > _WORD:
        yield f"{key}: {number:,} is more than 32 bits hold", "give what the data sheet says"


def _check_core(board: Board) -> Iterator[Fault]:
    yield from _word("the file's name", board.name)
    yield from _positive("clock_hz", board.clock_hz)
    if not board.description.isprintable() or not board.description.strip():
        yield f"description: {shown(board.description)} is not a line of text", "say what the board is, in one line"
    for flag in board.flags:
        if not re.fullmatch(r"-m[a-z0-9.+=_-]+", flag):
            yield f"flags: {shown(flag)} does not select a machine (-m...)", "leave it out"
    if board.architecture == "riscv":
        option = "-march="
        if not re.fullmatch(r"rv32i[a-z0-9_]*", board.cpu):
            yield f"cpu: {shown(board.cpu)} has no 32-bit base with 32 registers", "write one like 'rv32imc'"
        if board.features.dsp or board.features.mve:
            yield "features: dsp and mve are Arm's", "write false"
    else:
        option = "-mcpu="
        if not re.fullmatch(_ARM_CORES, board.cpu):
            remedy = "write one from Armv7-M on, like 'cortex-m7', or a RISC-V base, like 'rv32imc'"
            yield f"cpu: {shown(board.cpu)} is no core that slm2c knows", remedy
    for flag in board.flags:
        if flag.startswith(option) and re.split(r"[+_]", flag.removeprefix(option))[0] != board.cpu.split("_")[0]:
            yield f"flags: {shown(flag)} is for another core than cpu, {shown(board.cpu)}", "correct one of them"


def _check_memory(memory: tuple[MemoryRegion, ...]) -> Iterator[Fault]:
    for i, region in enumerate(memory):
        key, name = f"memory[{i}]", shown(region.name)[1:-1]
        if not re.fullmatch(r"[a-z][a-z0-9_]*", region.name) or len(region.name) > _NAME_BYTES:
            fact = f"{key}.name: {shown(region.name)} may hold a-z, 0-9 and '_' only"
            yield fact, f"begin with a letter, and take {_NAME_BYTES} at most"
        if region.name in _LINKER_WORDS:
            yield f"{key}.name: '{name}' is a word of the linker's", "choose another name"
        if region.name in (other.name for other in memory[:i]):
            yield f"{key}.name: a second region '{name}'", "choose another name"
        if region.size <= 0:
            yield f"{key}.size: {region.size} is not greater than 0", "give it in bytes"
        elif not 0 <= region.reserve < region.size:
            yield f"{key}.reserve: {region.reserve} of {name}'s {region.size} bytes", "keep less than it has, or 0"
        if region.origin < 0 or region.end > _WORD + 1:
            yield f"{key}: {name} lies outside the 32-bit address space", "correct origin or size"
        if region.origin % _ALIGNMENT:
            yield f"{key}.origin: {region.origin:#x} is not a multiple of {_ALIGNMENT}", "begin the region behind it"
        for other in memory[:i]:
            if region.origin < other.end and other.origin < region.end:
                yield f"{key}: {name} overlaps {shown(other.name)[1:-1]}", "correct origin or size of one"


def _check_placement(board: Board) -> Iterator[Fault]:
    regions = {region.name: region for region in board.memory}
    names, place = ", ".join(shown(name)[1:-1] for name in regions), board.placement
    if board.stack_size % STACK_GUARD or board.stack_size <= STACK_GUARD:
        fact = f"stack_size: {board.stack_size} is not a multiple of {STACK_GUARD} above {STACK_GUARD}"
        yield fact, f"the lowest {STACK_GUARD} bytes are its guard"
    for key, name in _placed(place):
        writable = not key.startswith(("code", "blob"))
        if name not in regions:
            yield f"placement.{key}: no memory region {shown(name)}", f"name one of {names}"
        elif regions[name].writable != writable:
            fact = "cannot be written" if writable else "is empty after a reset"
            yield (
                f"placement.{key}: {name} is {regions[name].kind}, which {fact}",
                f"name a memory that is {'not ' if writable else ''}flash",
            )
        elif key == "stack" and regions[name].size < board.stack_size:
            yield f"placement.stack: {name} is smaller than stack_size, {board.stack_size}", "name a larger one"
    if not place.arena:
        yield "placement.arena: names no memory region", f"name one of {names}"
    elif len(set(place.arena)) < len(place.arena):
        yield "placement.arena: names a region twice", "name each once"


def _placed(placement: Placement) -> Iterator[tuple[str, str]]:
    """Key and region name of all that is placed."""
    for field in fields(Placement):
        value = getattr(placement, field.name)
        if isinstance(value, tuple) and len(value) > 1:
            yield from ((f"{field.name}[{i}]", name) for i, name in enumerate(value))
        elif value is not None:
            yield from ((field.name, name) for name in (value if isinstance(value, tuple) else (value,)))


def _registers(board: Board) -> Iterator[tuple[str, int]]:
    """Key and address of each register, the first one of a device's."""
    if board.console.base is not None:
        yield "console.base", board.console.base
    if board.emulator is not None and board.emulator.timer is not None:
        yield "emulator.timer", board.emulator.timer
    yield from ((f"setup[{i}].address", step.address) for i, step in enumerate(board.setup))


def _check_register(key: str, address: int, memory: tuple[MemoryRegion, ...]) -> Iterator[Fault]:
    if address % 4 or not 0 <= address <= _WORD:
        yield f"{key}: {address:#x} is not the address of a 32-bit register", "give what the manual says"
    for region in memory:
        if region.origin <= address < region.end:
            yield f"{key}: {address:#x} lies in memory {shown(region.name)[1:-1]}", "correct one of them"


def _check_step(key: str, step: Step) -> Iterator[Fault]:
    """Words; and a remark that stays in its comment."""
    if not 0 < step.mask <= _WORD:
        yield f"{key}.mask: {step.mask:#x} is not a 32-bit word with a bit set", "leave it out to store the whole word"
    elif step.value & ~step.mask:
        yield f"{key}.value: {step.value:#x} has bits outside the mask {step.mask:#x}", "correct one of them"
    if not re.fullmatch(r"[ -~]+", step.what) or re.search(r"\*/|/\*|\\|\?\?", step.what):
        yield f"{key}.what: {shown(step.what)} is not one line of plain text, fit for a C comment", "shorten it"


def _check_programmer(programmer: Programmer) -> Iterator[Fault]:
    key, script = "programmer.script", programmer.script
    if (programmer.tool == "openocd") != (script is not None):
        yield f"{key}: openocd needs one, other tools have none", "for openocd, name a file of its, board/NAME.cfg"
    elif script is not None and not re.fullmatch(r"[A-Za-z0-9_./-]+", script):
        yield f"{key}: {shown(script)} may hold letters, digits, '.', '_', '/' and '-' only", "write it so"


def _check_emulator(emulator: Emulator, *, riscv: bool) -> Iterator[Fault]:
    yield from _word("emulator.machine", emulator.machine)
    if emulator.cpu is not None:
        yield from _word("emulator.cpu", emulator.cpu)
    asked = {"timer": "the address of a device that counts", "timer_hz": "its ticks a second"}
    for key, what in asked.items():
        given = getattr(emulator, key)
        if riscv and given is not None:
            yield f"emulator.{key}: a RISC-V core counts itself", "leave it out"
        elif not riscv and given is None:
            yield f"emulator.{key}: missing", f"give {what}"
    if emulator.timer_hz is not None and (emulator.timer_hz <= 0 or 1_000_000_000 % emulator.timer_hz):
        fact = f"emulator.timer_hz: a tick must be a whole number of nanoseconds, which {emulator.timer_hz} Hz is not"
        yield fact, "choose another timer of the machine"


def _check_emulated_by(board: Board, name: str) -> Iterator[Fault]:
    if name not in list_boards():
        yield f"emulated_by: no known board {shown(name)}{did_you_mean(name, list_boards())}", _emulators(board.cpu)
        return
    host = load_board(name)
    if host.emulator is None or host.cpu != board.cpu:
        yield f"emulated_by: '{name}' does not emulate a {shown(board.cpu)[1:-1]}", _emulators(board.cpu)


def _emulators(cpu: str) -> str:
    hosts = [x.name for x in map(load_board, list_boards()) if x.emulator and x.cpu == cpu]
    return f"name one of {', '.join(hosts)}" if hosts else "leave it out: none of the boards emulates that core"


def _check_console(console: Console) -> Iterator[Fault]:
    """A UART needs an address, and a clock from which it makes its baud rate; a debugger has neither."""
    semihosting, own_clock = console.kind == "semihosting", console.kind in ("semihosting", "nrf-uarte")
    for key, absent in (("base", semihosting), ("clock_hz", own_clock)):
        value = getattr(console, key)
        if absent and value is not None:
            yield f"console.{key}: {console.kind} has none", "leave it out"
        elif not absent and value is None:
            yield f"console.{key}: missing", f"a {console.kind} needs it"
    if console.clock_hz is not None:
        yield from _positive("console.clock_hz", console.clock_hz)
    if not 0 < console.baud <= _WORD:
        yield from _positive("console.baud", console.baud)
    elif console.kind == "nrf-uarte" and console.baud not in NRF_BAUD_RATES:
        yield f"console.baud: {console.baud} is none of its", f"rates that work: {_listed(NRF_BAUD_RATES)}"
    elif not own_clock and console.clock_hz is not None and 0 < console.clock_hz <= _WORD and not _makes(console):
        rate = baud_rate(console)
        got = f"is {rate:,.0f} at best" if rate is not None else "does not fit the divisor's register"
        rates = [baud for baud in _BAUD_RATES if _makes(replace(console, baud=baud))]
        remedy = f"rates that work: {_listed(rates)}" if rates else "no usual rate works; correct clock_hz"
        yield f"console.baud: {console.baud} {got} for a {console.kind} at {console.clock_hz:,} Hz", remedy


def _listed(rates: list[int] | tuple[int, ...]) -> str:
    return ", ".join(map(str, rates))


def _makes(console: Console) -> bool:
    rate = baud_rate(console)
    return rate is not None and abs(rate / console.baud - 1) <= BAUD_TOLERANCE


def baud_rate(console: Console) -> float | None:
    """The rate that a console's driver makes of `baud`, computed in 32 bits as there; None if its divisor does not fit
    the register.
    """
    clock, least, most = console.clock_hz or 0, 16, 0xFFFF  # stm32: BRR, with 16 samples a bit
    if console.kind == "cmsdk-uart":
        most = 0xF_FFFF  # BAUDDIV
    elif console.kind == "pl011":
        clock, least, most = 4 * clock, 1 << 6, 0xFFFF << 6  # IBRD and FBRD: 64ths of 16 cycles
    elif console.kind == "ns16550":
        clock, least = clock // 16, 1  # DLM and DLL
    if clock + console.baud // 2 > _WORD:
        return None
    divisor = (clock + console.baud // 2) // console.baud
    return clock / divisor if least <= divisor <= most else None
