"""image: what a linked image takes of each memory region, and for what: from the ELF and from the linker's map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slm2c import elf
from slm2c.board import Board
from slm2c.elf import Piece
from slm2c.sections import SECTIONS, purpose
from slm2c.toolchain import Firmware


@dataclass(frozen=True)
class Image:
    """A linked image.

    pieces: its sections, in the order of their addresses, each with the memory region that it is in
    own: bytes of each section that model and runtime have, without C library, start-up code and test program
    files: bytes of code and constants of each source file of these, the largest first
    """

    pieces: tuple[Piece, ...]
    own: Mapping[str, int]
    files: Mapping[str, int]

    @property
    def code(self) -> int:
        """Instructions and constants of model and runtime."""
        return sum(self.files.values())


def read(firmware: Firmware, board: Board, folder: Path) -> Image:
    """The image of the C in the output `folder`. Raises AssertionError for what lies in no memory of the board."""
    own = {
        source: obj
        for source, obj in firmware.objects.items()
        if source.is_relative_to(folder) and source.relative_to(folder).parts[0] != "test"
    }
    sizes = {
        source.relative_to(folder).as_posix(): elf.object_sizes(firmware.map, [obj]).code for source, obj in own.items()
    }
    return Image(
        elf.pieces(firmware.elf, board.memory),
        elf.object_sections(firmware.map, own.values()),
        dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))),
    )


def used(image: Image, board: Board, caller: int) -> dict[str, dict[str, int]]:
    """Bytes of each region that the image reaches into, by purpose; `caller` of them hold inputs and outputs.

    The sum is how far the image reaches, what alignment leaves free between sections included, and what the application
    keeps of the region.
    """
    found: dict[str, Counter[str]] = {}
    for region in board.memory:
        at, purposes = region.origin, Counter[str]()
        for piece in (piece for piece in image.pieces if piece.region == region.name):
            purposes[purpose(piece.section, piece.load)] += piece.bytes
            purposes["alignment"] += piece.address - at
            at = piece.address + piece.bytes
        if purposes:
            found[region.name] = purposes
    own = image.own.get(".text", 0) + image.own.get(".rodata", 0)
    code, variables = found[board.placement.code], found[board.placement.stack]
    code["start-up and C library"], code["code"] = code["code"] - own, own
    variables["variables"] -= caller
    variables["inputs and outputs"] = caller
    for name, purposes in found.items():
        purposes["application"] = board.region(name).reserve
    others = ("start-up and C library", "inputs and outputs", "alignment", "application")
    known = [purpose(name, load) for name in SECTIONS for load in (False, True)]
    return {
        region: {what: purposes[what] for what in dict.fromkeys([*known, *purposes, *others]) if purposes[what]}
        for region, purposes in found.items()
    }
