"""renode: the validation image, a platform and a script for Renode; and how a run there is read.

Renode's semihosting knows no files, so the image brings its samples and gives its trace through a UART in frames; see
templates/firmware/port_serial.c. Syntax, types of peripherals and commands are those of Renode's own platforms/ and
scripts/ and of its sources, 1.16.1.
"""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from pathlib import Path

from slm2c import process, toolchain
from slm2c.board import Board, Console, ConsoleKind
from slm2c.errors import CompileError, Problem, printable
from slm2c.resources import templates

Version = tuple[int, int, int]

OLDEST: Version = (1, 14, 0)
"""The first release with CMSDK_APB_UART and a CortexM with MPU."""

FPV5: Version = (1, 16, 1)
"""The first release that knows the instructions that FPv5 added to FPv4, by Renode's changelog."""

INSTRUCTIONS = 100_000_000_000
"""What a run may take: no student needs a tenth of it."""

TIMEOUT = 600.0
"""Seconds of real time."""

IMAGE, PLATFORM, SCRIPT, UART, LOG = "image.elf", "board.repl", "run.resc", "uart.bin", "renode.log"
"""The files of a run, all in one folder; Renode writes the last two."""

CONSOLE = "renode.resc"
"""The script for a firmware with a console."""

_OPTIONS = ("--disable-xwt", "--console", "--plain")
_TEXT, _DATA, _EXIT = 1, 2, 3  # FRAME_... of port_serial.c
_UART_BYTES = 0x1000


@dataclass(frozen=True)
class Cpu:
    """A core: its `cpuType`, and the first release that models it."""

    type: str
    since: Version = OLDEST


CPUS: Mapping[str, Cpu] = {
    "cortex-m4": Cpu("cortex-m4f"),
    "cortex-m7": Cpu("cortex-m7"),
    "cortex-m33": Cpu("cortex-m33"),
    "cortex-m55": Cpu("cortex-m55", (1, 16, 1)),
    "rv32imc": Cpu("rv32imc_zicsr"),
}
"""Boards' cores in Renode: the names of tlib's arch/arm/helper.c and of platforms/cpus; releases by the changelog."""


@dataclass(frozen=True)
class Model:
    """Renode's type for a kind of UART: how many bytes of addresses have to be stated, and what has to be set."""

    type: str
    size: int | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


UARTS: Mapping[ConsoleKind, Model] = {
    "cmsdk-uart": Model("UART.CMSDK_APB_UART"),
    "nrf-uarte": Model("UART.NRF52840_UART", attributes={"easyDMA": "true"}),
    "ns16550": Model("UART.NS16550"),
    "pl011": Model("UART.PL011"),
    "stm32-usart-v1": Model("UART.STM32_UART", size=0x100),
    "stm32-usart-v2": Model("UART.STM32F7_USART", attributes={"frequency": "{clock_hz}"}),
}

_DRIVERS: Mapping[ConsoleKind, str] = {"cmsdk-uart": "SLM_PORT_CMSDK_UART", "ns16550": "SLM_PORT_NS16550"}
"""The UARTs that port_serial.c drives, and what tells it the address."""


@dataclass(frozen=True)
class Renode:
    """An installed Renode."""

    path: str
    version: Version

    @property
    def release(self) -> str:
        """The version as Renode writes it."""
        return _dotted(self.version)


def find() -> Renode:
    """The Renode on PATH. Raises CompileError if there is none, or one that is too old."""
    path = shutil.which("renode")
    if path is None:
        remedy = "install it from https://renode.io and add it to PATH; `slm2c renode` writes what it would run"
        raise CompileError(Problem("renode", "", "not found", remedy))
    said = process.run([path, "--version"], timeout=60).output
    version = parse_version(said)
    if version is None:
        raise CompileError(Problem(path, "", f"does not say its version but {said.strip()!r}", "install it again"))
    if version < OLDEST:
        fact = f"is version {_dotted(version)}"
        raise CompileError(Problem(path, "", fact, f"install Renode {_dotted(OLDEST)} or newer"))
    return Renode(path, version)


def parse_version(said: str) -> Version | None:
    """The version in what `renode --version` prints: "Renode v1.16.1", or "Renode, version 1.14.0.10829 (...)"."""
    match = re.search(r"\bv(?:ersion )?(\d+)\.(\d+)\.(\d+)", said)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))


def require_modelled(board: Board, version: Version | None = None) -> Cpu:
    """The board's core in Renode. Raises CompileError if Renode, or that version of it, does not model it."""
    cpu = CPUS.get(board.cpu)
    if cpu is None:
        remedy = f"choose a board with one of {', '.join(CPUS)}"
        raise CompileError(Problem(board.name, "", f"Renode does not model its core, {board.cpu}", remedy))
    if version is not None and version < cpu.since:
        fact = f"Renode models its core, {board.cpu}, from {_dotted(cpu.since)} on; this is {_dotted(version)}"
        raise CompileError(Problem(board.name, "", fact, "install a newer Renode"))
    return cpu


def write(
    folder: Path,
    name: str,
    sources: Iterable[Path],
    includes: Iterable[Path],
    blob: Path,
    samples: Path,
    board: Board,
    version: Version | None = None,
) -> None:
    """Put IMAGE, PLATFORM and SCRIPT into `folder`: the validation of model `name` with `samples`, for `board` in a
    Renode of `version`, or in any.

    Raises CompileError without a compiler, if the image does not fit, or if Renode does not model the core.
    """
    require_modelled(board, version)
    console = uart(board)
    toolchain.build_firmware(
        sources,
        replace(_known_core(board, version), emulator=None),
        folder / IMAGE,
        includes=includes,
        defines=["SLM_TRACE", f"{_DRIVERS[console.kind]}={console.base:#x}u"],
        blob=blob,
        samples=samples,
    )
    (folder / PLATFORM).write_text(platform(board), encoding="utf-8")
    (folder / SCRIPT).write_text(script(board, name), encoding="utf-8")


def _known_core(board: Board, version: Version | None) -> Board:
    """The board without instructions that an older Renode does not know."""
    fpu = board.features.fpu
    if not fpu.startswith("fpv5") or (version or OLDEST) >= FPV5 or require_modelled(board).since >= FPV5:
        return board
    flags = tuple("-mfpu=fpv4-sp-d16" if flag == f"-mfpu={fpu}" else flag for flag in board.flags)
    return replace(board, flags=flags, features=replace(board.features, fpu="fpv4-sp-d16"))


def uart(board: Board) -> Console:
    """The UART of the validation image: the board's own if port_serial.c drives it, else one more where nothing is."""
    if board.console.kind in _DRIVERS:
        return board.console
    taken = [(region.origin, region.end) for region in board.memory]
    taken += [(step.address, step.address + 4) for step in board.setup]
    taken += [(board.console.base, board.console.base + _UART_BYTES)] if board.console.base is not None else []
    base = next(
        base
        for base in range(0x4FFF_0000, 0x4000_0000, -0x1_0000)  # among the peripherals of an M-profile core
        if all(base >= end or start >= base + _UART_BYTES for start, end in taken)
    )
    return Console("cmsdk-uart", base)


def platform(board: Board) -> str:
    """The .repl of a board: core, every memory, UARTs, and the registers that its `setup` wants."""
    cpu, own = require_modelled(board), uart(board)
    console = board.console if board.console.base is not None and board.console != own else None
    return _render(
        "board.repl.j2",
        board=board,
        description=printable(board.description),
        since=_dotted(cpu.since),
        cpu_type=cpu.type,
        mips=_mips(board),
        models=UARTS,
        uart=own,
        console=console,
        registration=_registration,
        attributes=_attributes,
        registers=list(_registers(board)),
    )


def script(board: Board, name: str) -> str:
    """The .resc that runs IMAGE on PLATFORM until firmware_done()."""
    seconds = -(-INSTRUCTIONS // (_mips(board) * 1_000_000))
    return _render("run.resc.j2", board=board, name=name, vectors=_vectors(board), limit=INSTRUCTIONS, seconds=seconds)


def write_console(folder: Path, board: Board, name: str) -> None:
    """Put PLATFORM and CONSOLE into the firmware `folder` of model `name`, for Renode to run its image; nothing where
    Renode does not model the core, or the console is no UART.
    """
    if board.cpu not in CPUS or board.console.base is None:
        return
    console = "uart" if uart(board) == board.console else "console"
    (folder / PLATFORM).write_text(platform(board), encoding="utf-8")
    text = _render("console.resc.j2", board=board, name=name, vectors=_vectors(board), console=console)
    (folder / CONSOLE).write_text(text, encoding="utf-8")


def run(folder: Path, renode: Renode) -> process.RunResult:
    """Run SCRIPT of `folder` and leave trace.bin and LOG there; exit code and text are those of the image.

    Raises CompileError, with the log's place, if Renode warns, fails or takes too long, or the image does not end.
    """
    log = folder / LOG
    (folder / UART).unlink(missing_ok=True)
    try:
        # The script does not quit, so that someone who opens it can look around.
        result = process.run([renode.path, *_OPTIONS, SCRIPT, "-e", "quit"], cwd=folder, timeout=TIMEOUT)
    except process.ToolError as late:
        log.write_text(late.output, encoding="utf-8")
        raise _failed(f"did not end within {TIMEOUT:g} s", log) from None
    log.write_text(result.output, encoding="utf-8")
    if result.exit_code != 0:
        raise _failed(f"ended with code {result.exit_code}", log)
    if complaints := re.findall(r"^.*\[(?:WARNING|ERROR)\] *(.*)", result.output, re.MULTILINE):
        raise _failed(f"complains {len(complaints)} times, first of {complaints[0]!r}", log)
    output = (folder / UART).read_bytes() if (folder / UART).is_file() else b""
    text, trace, code = read_frames(output)
    if code is None:
        said = f" after it printed {text.strip()!r}" if text.strip() else ""
        raise _failed(f"ran an image that did not come to its end{said}; {len(output):,} bytes left its UART", log)
    (folder / "trace.bin").write_bytes(trace)
    return process.RunResult(code, text, result.seconds)


def read_frames(data: bytes) -> tuple[str, bytes, int | None]:
    """Text, trace and exit code of what port_serial.c sent; no exit code if it broke off."""
    text, trace, at = bytearray(), bytearray(), 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<2I", data, at)
        body = data[at + 8 : at + 8 + size]
        at += 8 + size
        if kind == _TEXT:
            text += body
        elif kind == _DATA:
            trace += body
        elif kind == _EXIT and at == len(data) and size == 4:
            return text.decode("utf-8", "replace"), bytes(trace), struct.unpack("<i", body)[0]
        else:
            break
    return text.decode("utf-8", "replace"), bytes(trace), None


@dataclass(frozen=True)
class _Register:
    """A register of a board's `setup`, and what it holds whatever is written, if the start-up code waits for that."""

    what: str
    address: int
    polled: int | None


def _registers(board: Board) -> Iterator[_Register]:
    base = board.console.base
    for address in dict.fromkeys(step.address for step in board.setup):
        if base is not None and base <= address < base + _UART_BYTES:
            continue  # the UART's model has it
        steps = [step for step in board.setup if step.address == address]
        waits = [step.value for step in steps if step.wait]
        yield _Register(steps[0].what.split(":")[0], address, reduce(or_, waits) if waits else None)


def _mips(board: Board) -> int:
    """Renode's instructions a microsecond: one a cycle."""
    return max(1, round(board.clock_hz / 1e6))


def _vectors(board: Board) -> str:
    """Where the vector table is, which begins the code."""
    return f"{board.region(board.placement.code).origin:#010x}"


def _registration(console: Console) -> str:
    size = UARTS[console.kind].size
    return f"{console.base:#010x}" if size is None else f"<{console.base:#010x}, +{size:#x}>"


def _attributes(console: Console) -> list[tuple[str, str]]:
    found = UARTS[console.kind].attributes
    return [(name, value.format(clock_hz=console.clock_hz)) for name, value in found.items()]


def _render(template: str, **values: object) -> str:
    """templates/renode/`template`."""
    return templates().get_template(f"renode/{template}").render(**values)


def _failed(fact: str, log: Path) -> CompileError:
    return CompileError(Problem("renode", "", fact, f"what it said is in {log}"))


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
