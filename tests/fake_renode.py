"""A stand-in for the program `renode` that tests put on PATH.

It takes the command line and the script that slm2c gives, checks the image against the platform, runs the image in QEMU
on the board that FAKE_RENODE_BOARD names, which must have the platform's memories and UART, and leaves the UART's file.
FAKE_RENODE_VERSION is what `--version` prints, FAKE_RENODE what goes wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from elftools.elf.elffile import ELFFile

from slm2c.board import load_board
from slm2c.toolchain import TOOLS
from tests.repl import Entry, parse_repl, parse_resc

VERSION = "Renode v1.16.1\n  build: 0a1b2c3d-202602161200\n  build type: Release\n  runtime: .NET 8.0.24\n"
ARGUMENTS = ["--disable-xwt", "--console", "--plain", "run.resc", "-e", "quit"]


def install(folder: Path) -> None:
    """Put the program into `folder`."""
    root = str(Path(__file__).resolve().parents[1])
    program = folder / "renode"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {root!r})\n" + _MAIN, encoding="utf-8")
    program.chmod(0o755)


_MAIN = "from tests.fake_renode import main\nsys.exit(main(sys.argv[1:]))\n"


def main(arguments: list[str]) -> int:
    """The program."""
    if arguments == ["--version"]:
        print(os.environ.get("FAKE_RENODE_VERSION", VERSION), end="")
        return 0
    assert arguments == ARGUMENTS, arguments
    wrong = os.environ.get("FAKE_RENODE", "")
    print("(monitor) i $CWD/run.resc", flush=True)
    if wrong == "crash":
        print("Fatal error: tlib abort", flush=True)
        os.abort()
    if wrong == "hang":
        time.sleep(60)
    if wrong == "refuse":
        print("There was an error executing command 'machine LoadPlatformDescription @board.repl'\nError E39: no cpu")
        return 0
    script = parse_resc(Path("run.resc").read_text(encoding="utf-8"))
    platform = parse_repl(Path(script.platform).read_text(encoding="utf-8"))
    check_image(Path(script.elf), platform, script.vectors, script.hook[0])
    output = Path(script.uart[1])
    assert not output.exists(), "Renode gives a file that is there another name"
    _emulate(script.elf, output, platform[script.uart[0]])
    data = bytearray(output.read_bytes())
    if wrong == "flip":
        data[-13 - 1] ^= 1  # the last byte before the frame with the exit code
        output.write_bytes(data)
    if wrong == "cut":
        output.write_bytes(data[:-1])
    if wrong == "warn":
        print("12:34:56.7890 [INFO] cpu: Setting initial values: PC = 0x101, SP = 0x20002000.")
        print("12:34:56.7891 [WARNING] sysbus: [cpu: 0x2A] ReadDoubleWord from non existing peripheral at 0xDEAD0000.")
    print("executed instructions:\n0x0000000000012345\n(board) quit\nRenode is quitting")
    return 0


def check_image(path: Path, platform: dict[str, Entry], vectors: int | None, hook: str | None = None) -> None:
    """What is loaded and run, and the function `hook`, is in the platform's memories."""
    memories = [e for e in platform.values() if e.type == "Memory.MappedMemory"]

    def within(start: int, size: int) -> bool:
        return any(m.address <= start and start + size <= m.address + m.size for m in memories)

    with path.open("rb") as file:
        image = ELFFile(file)
        segments = [s for s in image.iter_segments() if s["p_type"] == "PT_LOAD" and s["p_memsz"]]
        assert segments and all(within(s["p_vaddr"], s["p_memsz"]) for s in segments), "runs outside memory"
        assert all(within(s["p_paddr"], s["p_memsz"]) for s in segments), "loaded outside memory"
        loaded = sorted((s["p_paddr"], s["p_paddr"] + s["p_memsz"]) for s in segments)  # what has no bytes is cleared
        assert all(end <= start for (_, end), (start, _) in pairwise(loaded)), "loaded on top of each other"
        symbols = image.get_section_by_name(".symtab")
        if hook is not None:
            (symbol,) = symbols.get_symbol_by_name(hook)
            assert symbol["st_info"]["type"] == "STT_FUNC" and within(symbol["st_value"], 4)
        if vectors is not None:
            stack, reset = _words(segments, vectors)
            (top,) = symbols.get_symbol_by_name("slm_stack_top")
            (start,) = symbols.get_symbol_by_name("slm_reset")
            assert stack == top["st_value"] and reset == start["st_value"] and reset & 1, "not the vector table"


def _words(segments: list[object], address: int) -> tuple[int, int]:
    for s in segments:
        if s["p_paddr"] <= address < s["p_paddr"] + s["p_filesz"]:
            data = s.data()[address - s["p_paddr"] :][:8]
            return int.from_bytes(data[:4], "little"), int.from_bytes(data[4:], "little")
    raise AssertionError(f"nothing is loaded at {address:#x}")


def _emulate(elf: str, output: Path, uart: Entry) -> None:
    board = load_board(os.environ["FAKE_RENODE_BOARD"])
    assert board.emulator is not None and uart.address == board.console.base
    emulator, tools = board.emulator, TOOLS[board.architecture]
    command = [tools.qemu, "-M", emulator.machine, *tools.qemu_options, "-display", "none", "-monitor", "none"]
    command += ["-cpu", emulator.cpu] if emulator.cpu else []
    command += ["-serial", f"file:{output}", "-semihosting", "-kernel", elf]
    subprocess.run(command, timeout=60, stdin=subprocess.DEVNULL, check=False)
