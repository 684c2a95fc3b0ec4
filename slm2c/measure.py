"""measure: what the generated C takes on a board, from an image that was linked for it, and from QEMU."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slm2c import elf, toolchain
from slm2c.board import Board
from slm2c.elf import Sizes, StackBound
from slm2c.toolchain import Firmware

_LINE_BYTES = 256  # LINE_BYTES of test/cost.c


@dataclass(frozen=True)
class Footprint:
    """Bytes on a board, as linked.

    code: instructions and constants of the model and its runtime, without C library and start-up
    stack: of the entry point that needs the most, from the compiler's call graph
    image: everything, test program and start-up included
    compiler: the first line that it says of its version
    hot: the memory region beside the core that holds the hot kernels, if one does
    """

    code: int
    stack: StackBound
    image: Sizes
    compiler: str
    hot: str | None


@dataclass(frozen=True)
class Run:
    """What a run took on an emulated core: instructions, from text to label where there is text, and bytes of stack.

    index, score: the class that was answered and its probability, of a text model
    """

    instructions: int
    stack: int
    index: int = 0
    score: float = 0.0


def footprint(folder: Path, name: str, board: Board, entries: Sequence[str]) -> Footprint:
    """Link test/cost.c of the output `folder` for `board` and measure the image.

    Raises CompileError without a cross compiler, or if the image does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="slm2c-") as work:
        firmware = _build(folder, name, board, Path(work))
        own = [
            obj
            for source, obj in firmware.objects.items()
            if source.is_relative_to(folder / "slm") or source == folder / f"{name}.c"
        ]
        bounds = [elf.stack_bound(firmware.callgraphs, entry) for entry in entries]
        worst = max(bounds, key=lambda b: (b.bytes is None, b.bytes or 0))
        return Footprint(
            elf.object_sizes(firmware.map, own).code,
            worst,
            elf.elf_sizes(firmware.elf),
            toolchain.tool_versions(board.architecture)["cross_cc"] or "",
            firmware.hot,
        )


def runs(folder: Path, name: str, board: Board, texts: Sequence[str] = ()) -> list[Run]:
    """Run the C of the output `folder` in QEMU, as `board`, which must have an emulator.

    A text model classifies each of `texts`; any other runs once at its full length. Raises CompileError without cross
    compiler or QEMU.
    """
    lines = [text.replace("\n", " ").encode() + b"\n" for text in texts]
    assert all(len(line) <= _LINE_BYTES for line in lines), f"a text is longer than {_LINE_BYTES} bytes"
    with tempfile.TemporaryDirectory(prefix="slm2c-") as work:
        firmware = _build(folder, name, board, Path(work))
        (Path(work) / "texts.txt").write_bytes(b"".join(lines))
        result = toolchain.run_qemu(firmware.elf, board, cwd=Path(work))
        if result.exit_code != 0:
            raise toolchain.ToolError(f"test/cost.c ended with code {result.exit_code}", [board.name], result.output)
    rows = [[int(word) for word in line.split()] for line in result.output.splitlines()]
    assert len(rows) == max(1, len(texts)), result.output
    return [Run(row[0], row[1], *((row[2], row[3] / 32768) if texts else ())) for row in rows]


def _build(folder: Path, name: str, board: Board, work: Path) -> Firmware:
    sources = [folder / f"{name}.c", folder / "test" / "cost.c", *sorted((folder / "slm").glob("*.c"))]
    return toolchain.build_firmware(
        sources, board, work / "cost.elf", includes=[folder, folder / "slm"], blob=folder / f"{name}_blob.bin"
    )
