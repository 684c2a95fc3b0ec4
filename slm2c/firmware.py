"""firmware: the folder firmware/ of a build: a program for the board that boots, with all that it takes to build it.

Everything is generated from templates/image/ and templates/firmware/, for one board: start-up code, linker script,
driver of the console, main program, Makefile and CMakeLists.txt. Neither needs Python.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from slm2c import budget, toolchain
from slm2c.board import Board, Placement
from slm2c.compile import Compiled
from slm2c.emit import classifies_text
from slm2c.identifiers import comment_text
from slm2c.lower import Lowered
from slm2c.resources import data_dir, templates

FOLDER = "firmware"
"""Of an output folder."""

_RENDERED = ("Makefile", "CMakeLists.txt", "toolchain.cmake", "README.md", "board.c", "board.h")
_KERNEL = "*/{}*.o* *:{}*.o*"
"""How the linker knows an object of a kernel: as make names it; in the library that CMake makes."""


def write(folder: Path, compiled: Compiled, placement: Placement | None) -> None:
    """Add firmware/ to the output `folder`, which has the model's own part (main.c) already.

    `placement` is what was linked, with one region for the arena; None where nothing could be linked, to expect it.
    """
    board, lowered = compiled.board, compiled.lowered
    target, source = folder / FOLDER, data_dir("templates")
    text = classifies_text(lowered.program.graph, lowered.texts)
    copied = [
        source / "firmware" / name
        for name in ("decimal.h", "start.h", "start.c", toolchain.TOOLS[board.architecture].start)
    ]
    copied += [source / "image" / name for name in ("console.h", "console.c", driver(board))]
    copied += [] if text else [source / "image" / "sample.S"]
    target.mkdir(exist_ok=True)
    for path in copied:
        shutil.copyfile(path, target / path.name)
    sources = ["main.c", "board.c", *(path.name for path in copied if path.suffix in (".c", ".S"))]
    facts = _facts(board, compiled.name) | {
        "runtime": _c_files(lowered.emitted.runtime),
        "sources": sources,
        "text": text,
    }
    jinja = templates()
    made = {name: jinja.get_template(f"image/{name}.j2").render(facts) for name in _RENDERED}
    placed = replace(board, placement=placement or _expected(board, lowered))
    made["firmware.ld"] = toolchain.linker_script(placed, f"{compiled.name} with a console", _KERNEL)
    for name, content in made.items():
        (target / name).write_text(content, encoding="utf-8", newline="\n")


def _expected(board: Board, lowered: Lowered) -> Placement:
    beside = budget.caller_bytes(lowered.program.graph, lowered.texts) + budget.DATA_BYTES
    return replace(board.placement, arena=(board.arena_region(lowered.emitted.arena_bytes, beside),))


def driver(board: Board) -> str:
    """The file in templates/image/ that drives the board's console."""
    return f"console_{board.console.kind.replace('-', '_')}.c"


def _c_files(runtime: tuple[str, ...]) -> list[str]:
    return [name for name in runtime if name.endswith(".c")]


def _facts(board: Board, name: str) -> dict[str, Any]:
    """What the templates show of a board."""
    place, blob = board.placement, board.region(board.placement.blob)
    return {
        "name": name,
        "board": board,
        "description": comment_text(board.description),
        "riscv": board.architecture == "riscv",
        "semihosting": board.console.kind == "semihosting",
        "tools": toolchain.TOOLS[board.architecture],
        "driver": driver(board),
        "split": place.blob != place.code,
        "blob_address": f"{blob.origin:#010x}",
        "qemu": qemu_command(board),
        "flash": _flash_command(board),
    }


def qemu_command(board: Board) -> str:
    """QEMU with the console on its terminal, without the image; "" if it does not emulate the board."""
    emulator, tools = board.emulator, toolchain.TOOLS[board.architecture]
    if emulator is None:
        return ""
    command = [
        tools.qemu,
        "-M",
        emulator.machine,
        *(("-cpu", emulator.cpu) if emulator.cpu else ()),
        *tools.qemu_options,
    ]
    if board.console.kind != "semihosting":
        return " ".join([*command, "-nographic"])
    # Without a chardev for it: in QEMU 7.2 a program that waits for one hangs.
    devices = ["-display", "none", "-monitor", "none", "-serial", "none"]
    return " ".join([*command, *devices, "-semihosting-config", "enable=on,target=native"])


def _flash_command(board: Board) -> str:
    """What writes the image, `$<`, to the board and starts it; "" if the board's file names no tool."""
    if board.programmer is None:
        return ""
    if board.programmer.tool == "picotool":
        return "picotool load -v -x $<"
    return f'openocd -f {board.programmer.script} -c "program $< verify reset exit"'


__all__ = ["FOLDER", "driver", "qemu_command", "write"]
