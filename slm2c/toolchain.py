"""C compilers and QEMU as subprocesses: build a program for this machine or for a board, and run it.

Every program gets templates/firmware/slm_port.h and one of its implementations.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from slm2c.board import STACK_GUARD, Architecture, Board, Placement
from slm2c.board_tools import require_flags
from slm2c.errors import CompileError, Problem
from slm2c.process import RunResult, ToolError, build, child, expect_success, run
from slm2c.resources import data_dir, templates

WARNINGS = (
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wsign-conversion",
    "-Wcast-qual",
    "-Wshadow",
    "-Wundef",
    "-Wvla",
    "-Wdouble-promotion",
    "-Werror",
)
"""What all C of this project compiles under without a word, with gcc and clang."""

SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g")

JOBS = min(4, os.cpu_count() or 1)

HOT_KERNELS = ("slm_linear", "slm_attention", "slm_matmul", "slm_conv2d")
"""How the files of runtime_c begin that hold the loops over multiply-accumulates; they go to a board's `hot` memory."""

INCBIN = """\
    .section .slm_{name}, "a", %progbits
    .global slm_{name}
    .balign 16
slm_{name}:
    .incbin "{name}.bin"
slm_{name}_end:
    .section .rodata.slm_{name}_size, "a", %progbits
    .global slm_{name}_size
    .balign 4
slm_{name}_size:
    .4byte slm_{name}_end - slm_{name}
"""
"""A file in the image: slm_NAME and slm_NAME_size of templates/firmware."""


class Misfit(CompileError):
    """An image that is larger than the board's memories: `over` holds by how many bytes which region is too small, with
    the arena in region `arena`. The placement with the least excess.
    """

    def __init__(self, board: Board, over: Mapping[str, int], arena: str) -> None:
        self.over, self.arena = dict(over), arena
        remedy = "choose a board with more memory or a smaller model"
        super().__init__(
            Problem(board.name, "", f"the image exceeds memory region '{region}' by {size:,} bytes", remedy)
            for region, size in self.over.items()
        )


@dataclass(frozen=True)
class CrossTools:
    """What builds and runs images for an architecture. `prefix` is that of the compiler's tools, which the environment
    variable `variable` overrides; packages are Debian's; `start` and `port` are its files in templates/firmware.
    """

    prefix: str
    variable: str
    packages: str
    qemu: str
    qemu_package: str
    qemu_options: tuple[str, ...]
    start: str
    port: str


TOOLS: Mapping[Architecture, CrossTools] = {
    "arm": CrossTools(
        prefix="arm-none-eabi-",
        variable="SLM2C_CROSS",
        packages="gcc-arm-none-eabi libnewlib-arm-none-eabi",
        qemu="qemu-system-arm",
        qemu_package="qemu-system-arm",
        qemu_options=(),
        start="start_arm.c",
        port="port_arm.c",
    ),
    "riscv": CrossTools(
        prefix="riscv64-unknown-elf-",
        variable="SLM2C_CROSS_RISCV",
        packages="gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
        qemu="qemu-system-riscv32",
        qemu_package="qemu-system-misc",
        qemu_options=("-bios", "none"),
        start="start_riscv.c",
        port="port_riscv.c",
    ),
}


@dataclass(frozen=True)
class Firmware:
    """A linked image. `objects` maps each source to its object, beside which lies its call graph (.ci); `placement` is
    the board's, with the one region that holds the arena, and that of hot kernels if they fit it.
    """

    elf: Path
    map: Path
    objects: Mapping[Path, Path]
    placement: Placement

    @property
    def callgraphs(self) -> tuple[Path, ...]:
        """The .ci files of all objects, for `elf.stack_bound`."""
        return tuple(path.with_suffix(".ci") for path in self.objects.values())


def host_cc() -> tuple[str, ...]:
    """The C compiler of this machine as the start of a command: $CC, else the first of cc, gcc, clang."""
    chosen = shlex.split(os.environ.get("CC", ""))
    for command in [chosen] if chosen else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return tuple(command)
    tried = shlex.join(chosen) if chosen else "cc, gcc, clang"
    raise _missing(f"C compiler ({tried})", "gcc libc6-dev", "or set CC")


def cross_cc(architecture: Architecture = "arm") -> str:
    """GCC for the architecture's bare cores, 10 or newer; see CrossTools."""
    tools = TOOLS[architecture]
    command = os.environ.get(tools.variable, tools.prefix) + "gcc"
    otherwise = f"or set {tools.variable} to the prefix of yours"
    found = shutil.which(command)
    if not found:
        raise _missing(command, tools.packages, otherwise)
    version = build([found, "-dumpversion"]).strip()
    if int(version.split(".")[0]) < 10:  # -fcallgraph-info, which the stack bound needs
        raise CompileError(Problem(command, "", f"is GCC {version}", f"install GCC 10 or newer {otherwise}"))
    return os.path.abspath(found)


def make_image(folder: Path, architecture: Architecture, work: Path) -> Path:
    """`make` for `folder`, a build's firmware/, without a trace there; returns the folder of what it makes, in `work`.

    Raises CompileError without make or a cross compiler, or if what lies in the folder, which is its user's to change,
    does not build.
    """
    compiler, make = Path(cross_cc(architecture)), shutil.which("make")
    if make is None:
        raise _missing("make", "make", "or add it to PATH")
    # make takes no path with a space, a quote, a comma or a $: all that it sees is relative, to a mirror of the build.
    mirror = work / folder.name
    mirror.mkdir()
    for source, target in ((folder.parent, work), (folder, mirror)):
        for entry in source.resolve().iterdir():
            if entry.name not in (folder.name, "build"):
                (target / entry.name).symlink_to(entry)
    try:
        build(
            [make, f"-j{JOBS}", f"CROSS={compiler.name.removesuffix('gcc')}", "BUILD=build"],
            cwd=mirror,
            path=compiler.parent,
        )
    except ToolError as error:
        remedy = "`make` there shows why; `slm2c build` makes the folder anew"
        raise CompileError(Problem(str(folder), "", f"does not build: {error.complaint}", remedy)) from error
    return mirror / "build"


def qemu(architecture: Architecture = "arm") -> str:
    """The emulator of the architecture's boards, on PATH."""
    tools = TOOLS[architecture]
    if not shutil.which(tools.qemu):
        raise _missing(tools.qemu, tools.qemu_package, "or add it to PATH")
    return tools.qemu


def tool_versions(architecture: Architecture = "arm") -> dict[str, str | None]:
    """The first line that host_cc, cross_cc and qemu each say of their version; None where one is missing."""
    finders: dict[str, Callable[[], tuple[str, ...]]] = {
        "host_cc": host_cc,
        "cross_cc": lambda: (cross_cc(architecture),),
        "qemu": lambda: (qemu(architecture),),
    }
    versions: dict[str, str | None] = {}
    for name, find in finders.items():
        try:
            versions[name] = build([*find(), "--version"]).splitlines()[0]
        except CompileError:
            versions[name] = None
    return versions


def _c_library(cc: str, architecture: Architecture) -> list[str]:
    """Options that select the C library: Debian's compiler for RISC-V comes without one, and picolibc is beside it."""
    specs = "picolibc.specs"
    if architecture == "riscv" and build([cc, f"-print-file-name={specs}"]).strip() != specs:
        return [f"--specs={specs}"]
    return []


def build_host(
    sources: Iterable[Path],
    output: Path,
    *,
    includes: Iterable[Path] = (),
    defines: Iterable[str] = (),
    sanitize: bool = False,
    opt: str = "-O2",
    extra: Iterable[str] = (),
) -> Path:
    """Compile and link `sources` for this machine, under WARNINGS; returns `output`.

    Objects go to `output` + ".build". `defines` are NAME or NAME=VALUE. `extra` goes to compiler and linker,
    behind everything else. Raises CompileError without a compiler, ToolError if one refuses the code.
    """
    cc, port = host_cc(), data_dir("templates") / "firmware"
    flags, extra = [opt, *(SANITIZE if sanitize else ())], tuple(extra)
    compiler = [*cc, *WARNINGS, *flags]
    sources = [*sources, port / "port_host.c"]
    objects = _compile(compiler, sources, _build_folder(output), [port, *includes], defines, extra)
    build([*cc, *flags, *map(str, objects.values()), "-o", str(output), *extra])
    return output


def build_firmware(
    sources: Iterable[Path],
    board: Board,
    output: Path,
    *,
    includes: Iterable[Path] = (),
    defines: Iterable[str] = (),
    opt: str = "-O2",
    blob: Path | None = None,
    samples: Path | None = None,
    extra: Iterable[str] = (),
) -> Firmware:
    """Compile and link `sources` for `board` into the ELF `output`, with `blob` where the board says.

    The image reads and writes files by semihosting; with `samples`, it brings that one and writes through a UART, whose
    address is to be among `defines`: see port_serial.c.
    Objects, their call graphs, the linker script and the map go to `output` + ".build". The C library has no
    heap and no streams: what needs malloc or printf does not link. Raises CompileError without a compiler, Misfit
    if the image does not fit the board's memory, ToolError if the compiler or linker refuses the code.
    """
    cc, port, folder = cross_cc(board.architecture), data_dir("templates") / "firmware", _build_folder(output)
    require_flags(cc, board)
    flags, extra = [*board.flags, *_c_library(cc, board.architecture), opt], tuple(extra)
    timer, emulator = [], board.emulator
    if emulator is not None and emulator.timer is not None:
        name = {"cmsdk-timer": "SLM_PORT_CMSDK_TIMER", "fpgaio": "SLM_PORT_FPGAIO"}[emulator.timer_kind]
        timer = [f"{name}={emulator.timer:#x}u", f"SLM_PORT_TICK={emulator.instructions_per_tick}u"]
    compiler = [cc, *WARNINGS, *flags, "-ffunction-sections", "-fdata-sections", "-fcallgraph-info=su"]
    tools = TOOLS[board.architecture]
    files = "port_semihosting.c" if samples is None else "port_serial.c"
    own = (files, "port_core.c", tools.port, "start.c", tools.start)
    sources = [*sources, *(port / name for name in own)]
    objects = _compile(compiler, sources, folder, [port, *includes], [*timer, *defines], extra)
    inputs = [str(path) for path in objects.values()]
    for name, path in (("blob", blob), ("samples", samples)):
        if path is not None:
            shutil.copyfile(path, folder / f"{name}.bin")
            (folder / f"{name}.s").write_text(INCBIN.format(name=name), encoding="utf-8")
            build([cc, *board.flags, "-c", f"{name}.s", "-o", f"{name}.o"], cwd=folder)
            inputs.append(str(folder / f"{name}.o"))
    script, link_map = folder / "firmware.ld", folder / "firmware.map"
    # -Xlinker, because -Wl splits a path at its commas.
    layout = ["-nostartfiles", "-Wl,--gc-sections,--fatal-warnings", "-Xlinker", f"-Map={link_map}", f"-T{script}"]
    misfits = []
    for placement in _placements(board):
        placed = replace(board, placement=placement)
        text = linker_script(placed, "test and validation images", "*-{}*.o")
        script.write_text(text, encoding="utf-8")
        try:
            build([cc, *flags, *layout, *inputs, "-o", str(output), *extra])
            return Firmware(output, link_map, objects, placement)
        except ToolError as error:
            over = re.findall(r"region `(\w+)' overflowed by (\d+) bytes?", error.output)
            if not over:
                raise
            misfits.append(Misfit(board, {region: int(size) for region, size in sorted(over)}, placement.arena[0]))
    raise min(misfits, key=lambda misfit: sum(misfit.over.values()))


def _placements(board: Board) -> Iterator[Placement]:
    """The ways to place arena and hot kernels, the best first."""
    place = board.placement
    for hot in dict.fromkeys((place.hot, None)):
        for arena in place.arena:
            yield replace(place, arena=(arena,), hot=hot)


def linker_script(board: Board, what: str, kernel: str) -> str:
    """templates/firmware/firmware.ld.j2, with the arena in the first of the regions that the board's placement names.

    `kernel` is how an object is called that is compiled from a file of HOT_KERNELS, whose name stands for {}.
    """
    board = replace(board, memory=tuple(replace(r, size=r.size - r.reserve) for r in board.memory))
    kernels = " ".join(kernel.replace("{}", name) for name in HOT_KERNELS)
    template = templates().get_template("firmware/firmware.ld.j2")
    return template.render(board=board, what=what, guard=STACK_GUARD, hot_files=kernels)


def run_host(
    exe: Path, args: Sequence[str] = (), *, cwd: Path | None = None, timeout: float = 60.0, stdin: bytes = b""
) -> RunResult:
    """Run a program that `build_host` made on `stdin`; ToolError if it takes longer than `timeout` seconds."""
    return run([str(exe.absolute()), *args], cwd=cwd, timeout=timeout, stdin=stdin)


def run_qemu(
    elf: Path, board: Board, args: Sequence[str] = (), *, cwd: Path | None = None, timeout: float = 120.0
) -> RunResult:
    """Run an image in QEMU with an instruction counter that is exact and the same on every run.

    `args` become argv[1:] and may hold no space, as semihosting knows one string only. Files are relative to
    `cwd`. Raises CompileError without QEMU or if the board has no emulator, ToolError after `timeout`
    seconds.
    """
    emulator, tools = board.emulator, TOOLS[board.architecture]
    if emulator is None:
        remedy = "name one with the same core in the board file's emulated_by"
        raise CompileError(Problem(board.name, "", "QEMU does not emulate this board", remedy))
    assert all(len(arg.split()) == 1 for arg in args), f"white space in the arguments of a firmware: {args}"
    words = "".join(",arg=" + arg.replace(",", ",,") for arg in ["firmware", *args])
    machine = [*f"-M {emulator.machine} -nographic -monitor none -serial none".split(), *tools.qemu_options]
    machine += ["-cpu", emulator.cpu] if emulator.cpu else []
    counted = ["-icount", "shift=0,align=off,sleep=off"]
    semihosting = ["-semihosting-config", f"enable=on,target=native{words}"]
    command = [qemu(board.architecture), *machine, *counted, *semihosting, "-kernel", str(elf.absolute())]
    result = run(command, cwd=cwd, timeout=timeout)
    # Its first words, before any of the image; a warning of some release is none of a board's faults.
    if result.exit_code and (refused := re.match(rf"{tools.qemu}: (?!warning: )(.*)", result.output)):
        remedy = f"correct [emulator] in the board's file; `{tools.qemu} -M help` lists the machines"
        raise CompileError(Problem(board.name, "", f"QEMU refuses it: {refused[1].strip()}", remedy))
    return result


def _missing(what: str, packages: str, otherwise: str) -> CompileError:
    remedy = f"install it (Debian: apt-get install {packages}) {otherwise}"
    return CompileError(Problem(what, "", "not found", remedy))


def _build_folder(output: Path) -> Path:
    """The folder for what a build leaves beside `output`, empty of an earlier build's objects."""
    folder = output.absolute().with_name(output.name + ".build")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _compile(
    cc: Sequence[str],
    sources: Iterable[Path],
    folder: Path,
    includes: Iterable[Path],
    defines: Iterable[str],
    extra: Iterable[str],
) -> dict[Path, Path]:
    """Compile each source into `folder`, JOBS at a time; source -> object, in order."""
    objects = {source: folder / f"{i:02}-{source.stem}.o" for i, source in enumerate(dict.fromkeys(sources))}
    common = [*cc, *(f"-I{path}" for path in includes), *(f"-D{name}" for name in defines), *extra]
    commands = [[*common, "-c", str(source), "-o", str(target)] for source, target in objects.items()]
    with ExitStack() as stack:
        running: deque[tuple[list[str], subprocess.Popen[bytes]]] = deque()
        for command in commands:
            if len(running) == JOBS:
                expect_success(*running.popleft())
            running.append((command, stack.enter_context(child(command))))
        while running:
            expect_success(*running.popleft())
    return objects
