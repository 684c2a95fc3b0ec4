"""measure: what the generated C takes on a board, from an image that was linked for it, and from QEMU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slm2c import elf, image, process, toolchain
from slm2c.board import Board, Placement, emulated
from slm2c.board_tools import blaming
from slm2c.elf import StackBound
from slm2c.emit import LINE_BYTES
from slm2c.errors import CompileError
from slm2c.folders import scratch
from slm2c.image import Image
from slm2c.toolchain import Firmware


@dataclass(frozen=True)
class Run:
    """What a call of an entry point took on an emulated core: instructions, and bytes of stack below its caller.

    tokens: of the run, of the text; 0 where there are none
    index, score: the class that was answered and its probability, of a text
    """

    entry: str
    tokens: int
    instructions: int
    stack: int
    index: int = 0
    score: float = 0.0


@dataclass(frozen=True)
class Emulated:
    """What was counted in QEMU, and where: `core` names the emulated board, `emulator` is what QEMU says of its
    version.
    """

    core: str
    emulator: str
    runs: tuple[Run, ...]

    def stack(self, entry: str) -> int | None:
        """The high-water mark of all calls of an entry point."""
        return max((run.stack for run in self.runs if run.entry == entry), default=None)

    def instructions(self, tokens: int) -> int | None:
        """Of a run on so many tokens."""
        return next((run.instructions for run in self.runs if (run.entry, run.tokens) == ("run", tokens)), None)


@dataclass(frozen=True)
class Footprint:
    """Bytes on a board, as linked, and what runs in QEMU took.

    placement: the board's, with the one region that holds the arena, and that of hot kernels if they fit it
    stacks: the bound of each entry point, from the compiler's call graph
    compiler: the first line that it says of its version
    emulated: or why nothing was emulated
    """

    image: Image
    placement: Placement
    stacks: Mapping[str, StackBound]
    compiler: str
    emulated: Emulated | str

    @property
    def stack(self) -> StackBound:
        """The bound of the entry point that needs the most."""
        return max(self.stacks.values(), key=lambda b: (b.bytes is None, b.bytes or 0))


def footprint(
    folder: Path, name: str, board: Board, entries: Sequence[str], tokens: Sequence[int], text: str = ""
) -> Footprint:
    """Link test/cost.c of the output `folder` for `board`, measure the image, and run it in QEMU: with each number of
    `tokens`, and, of a text model, on `text`.

    A board that QEMU does not have is measured on one with the same core. Raises CompileError without a cross
    compiler, or if the image does not fit.
    """
    with scratch() as work:
        firmware = image_of(folder, name, board, work)
        stacks = {entry: elf.stack_bound(firmware.callgraphs, entry) for entry in entries}
        found = image.read(firmware, board, folder)
        versions = toolchain.tool_versions(board.architecture)
        try:
            toolchain.qemu(board.architecture)
            host = emulated(board)
            if host is None:
                counted: Emulated | str = f"QEMU has no {board.cpu} that {board.name} names"
            else:
                same = firmware if host == board else image_of(folder, name, host, work / "emulated")
                texts = [text] if text else []
                counted = Emulated(host.name, versions["qemu"] or "", tuple(_run(same, host, tokens, texts)))
        except CompileError as error:
            counted = str(error)
        except process.ToolError as error:  # an emulator that is too old, or slow: what is linked counts all the same
            counted = error.fact
        return Footprint(found, firmware.placement, stacks, versions["cross_cc"] or "", counted)


def runs(
    folder: Path, name: str, board: Board, tokens: Sequence[int] = (), texts: Sequence[str] = ()
) -> tuple[Run, ...]:
    """Run the C of the output `folder` in QEMU, as `board`, which must have an emulator: `<name>_init`, then a run on
    each number of `tokens`, then each of `texts`, if the model takes text. Raises CompileError without cross compiler
    or QEMU.
    """
    with scratch() as work, blaming(board):
        return tuple(_run(image_of(folder, name, board, work), board, tokens, texts))


def _run(firmware: Firmware, board: Board, tokens: Sequence[int], texts: Sequence[str]) -> list[Run]:
    lines = [text.replace("\n", " ").encode() + b"\n" for text in texts]
    assert all(len(line) <= LINE_BYTES for line in lines), f"a text is longer than {LINE_BYTES} bytes"
    work = firmware.elf.parent
    (work / "texts.txt").write_bytes(b"".join(lines))
    result = toolchain.run_qemu(firmware.elf, board, [str(n) for n in tokens], cwd=work)
    if result.exit_code != 0:
        raise process.ToolError(f"test/cost.c ended with code {result.exit_code}", [board.name], result.output)
    found = []
    for entry, *words in (line.split() for line in result.output.splitlines()):
        count, instructions, stack, index, score = [*map(int, words), 0, 0][:5]
        found.append(Run(entry, count, instructions, stack, index, score / 32768))
    return found


def image_of(folder: Path, name: str, board: Board, work: Path) -> Firmware:
    """test/cost.c of the output `folder`, linked for `board` in the folder `work`. Raises CompileError without a cross
    compiler, Misfit if it does not fit.
    """
    work.mkdir(exist_ok=True)
    sources = [folder / f"{name}.c", folder / "test" / "cost.c", *sorted((folder / "slm").glob("*.c"))]
    with blaming(board):
        return toolchain.build_firmware(
            sources, board, work / "cost.elf", includes=[folder, folder / "slm"], blob=folder / f"{name}_blob.bin"
        )
