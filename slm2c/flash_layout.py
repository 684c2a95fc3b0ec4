"""flash_layout: where everything of a linked image lies in the memories of its board, read from the ELF."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.descriptions import describe_e_type
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from slm2c import blob, elf, seal, toolchain
from slm2c.board import STACK_GUARD, Board, MemoryRegion
from slm2c.errors import CompileError, Problem, printable
from slm2c.firmware import FOLDER
from slm2c.folders import scratch
from slm2c.output import Output
from slm2c.sections import section
from slm2c.text import table

_LETTERS = {
    "vectors": "V", "text": "T", "rodata": "R", "hot": "H", "blob": "B", "data": "D", "bss": "Z", "arena": "A",
    "stack": "S", "guard": "G",
}  # fmt: skip
_BAR = 64


@dataclass(frozen=True)
class Part:
    """`bytes` from `address` for one purpose; `parts` are those of the blob.

    `load`: whether it is what the start-up code copies to where it runs or changes.
    """

    name: str
    address: int
    bytes: int
    what: str
    load: bool = False
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Region:
    """A memory of the board and what lies in it, in order of address; `used` leaves out what is free between parts."""

    name: str
    kind: str
    origin: int
    bytes: int
    used: int
    parts: tuple[Part, ...] = field(default=())


@dataclass(frozen=True)
class Layout:
    """The memories of `board` with an image in them."""

    board: str
    elf: str
    regions: tuple[Region, ...]

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def layout(output: Output, path: Path | None = None) -> Layout:
    """Of the image that firmware/ of an output folder makes, or of the ELF at `path`, linked for the same board.

    Raises CompileError without make or a cross compiler, if the folder does not build, or if `path` is none or lies
    outside the board's memories.
    """
    if path is not None:
        return read(path, output.board, path.name)
    with scratch() as work, seal.blaming(output.folder, output.files):
        made = toolchain.make_image(output.folder / FOLDER, output.board.architecture, work)
        return read(made / f"{output.name}.elf", output.board, f"{output.name}.elf")


def read(path: Path, board: Board, name: str) -> Layout:
    """The layout of an ELF that was linked with firmware.ld, or with sections of the same names."""
    try:
        with path.open("rb") as file:
            image = ELFFile(file)
            _require_machine(image, path, board)
            parts = sorted(_parts(image), key=lambda part: (part.address, -part.bytes))
    except (OSError, ELFError) as error:
        fact = error.strerror if isinstance(error, OSError) else f"not an ELF file: {error}"
        raise CompileError(Problem(str(path), "", f"cannot be read: {fact}")) from error
    lost = [part for part in parts if not any(_holds(region, part) for region in board.memory)]
    if lost:
        remedy = "name an image that was linked for this board"
        raise CompileError(
            Problem(str(path), "", f"{part.name} at {part.address:#010x} is in no memory of {board.name}", remedy)
            for part in lost
        )
    regions = []
    for region in board.memory:
        inside = tuple(part for part in parts if _holds(region, part))
        used = sum(part.bytes for part in inside)
        regions.append(Region(region.name, region.kind, region.origin, region.size, used, inside))
    return Layout(board.name, name, tuple(regions))


def _require_machine(image: ELFFile, path: Path, board: Board) -> None:
    """Raises CompileError for an ELF that is no program for the board's architecture."""
    machine = {"arm": "EM_ARM", "riscv": "EM_RISCV"}[board.architecture]

    def said(bits: int, little: bool, kind: str, machine: object) -> str:
        return f"{bits}-bit {'little' if little else 'big'}-endian {describe_e_type(kind, image)} for {machine}"

    found = said(image.elfclass, image.little_endian, image["e_type"], image["e_machine"])
    expected = said(32, True, "ET_EXEC", machine)
    if found != expected:
        remedy = f"name an image that was linked for {board.name}: {expected}"
        raise CompileError(Problem(str(path), "", f"holds a {found}", remedy))


def _holds(region: MemoryRegion, part: Part) -> bool:
    return region.origin <= part.address and part.address + part.bytes <= region.end


def _parts(image: ELFFile) -> Iterator[Part]:
    """What is allocated, at the address where it is used, and again where it is loaded from."""
    symbols = image.get_section_by_name(".symtab")
    found = symbols.get_symbol_by_name("slm_code_start") if isinstance(symbols, SymbolTableSection) else None
    for held, address, load in elf.allocated(image):
        size, called = held["sh_size"], section(held.name)
        if load:
            yield Part(called.name, address, size, f"what {called.name} starts as", load=True)
        elif held.name == ".text":
            code = found[0]["st_value"] if found else address
            if code > address:
                yield Part("vectors", address, code - address, "what a reset starts with, and a boot ROM wants")
            yield Part(called.name, code, address + size - code, called.what)
        elif held.name == ".slm_blob":
            yield Part(called.name, address, size, called.what, parts=tuple(_blob_parts(address, held.data())))
        elif held.name == ".slm_stack":
            yield Part("guard", address, STACK_GUARD, "below the stack: an access is a fault")
            yield Part(called.name, address + STACK_GUARD, size - STACK_GUARD, called.what)
        else:
            yield Part(called.name, address, size, called.what)


def _blob_parts(address: int, data: bytes) -> Iterator[Part]:
    """The sections of a blob; nothing of what is none, as in an image with another blob's place reserved."""
    try:
        taken = blob.unpack(data)
    except ValueError:
        return
    first = min(taken.offsets.values(), default=len(data))
    yield Part("header", address, first, "version, structure, checksums")
    for kind, content in taken.sections.items():
        yield Part(blob.SECTION_NAMES.get(kind, f"section {kind}"), address + taken.offsets[kind], len(content), "")


def render(found: Layout) -> str:
    """Each memory as a bar, a letter for what takes most of a column, and a table of what lies where."""
    return "\n\n".join([f"{found.elf} on {found.board}", *(_render_region(region) for region in found.regions)])


def _render_region(region: Region) -> str:
    share = region.used / region.bytes
    head = f"{region.name} ({region.kind}): {region.used:,} of {region.bytes:,} bytes, {share:.1%}"
    rows: list[tuple[object, ...]] = []
    at, end = region.origin, region.origin + region.bytes
    for part in region.parts:
        rows += _free(at, part.address)
        letter = _LETTERS.get(part.name, "?")
        label = f"{part.name} (load image)" if part.load else part.name
        rows.append((f"{part.address:#010x}", letter, printable(label), part.bytes, printable(part.what)))
        rows += [(f"{p.address:#010x}", "", f"  {p.name}", p.bytes, p.what) for p in part.parts]
        at = part.address + part.bytes
    rows += _free(at, end)
    return f"{head}\n  [{_bar(region)}]\n{table(rows, 'lllrl')}"


def _free(start: int, end: int) -> list[tuple[object, ...]]:
    return [(f"{start:#010x}", ".", "free", end - start, "")] if end > start else []


def _bar(region: Region) -> str:
    """The region from its first to its last byte, a letter for what takes most of a column."""
    cells = ""
    for i in range(_BAR):
        low = region.origin + region.bytes * i // _BAR
        high = region.origin + region.bytes * (i + 1) // _BAR
        taken = Counter({".": high - low})
        for part in region.parts:
            inside = max(0, min(high, part.address + part.bytes) - max(low, part.address))
            taken[_LETTERS.get(part.name, "?")] += inside
            taken["."] -= inside
        cells += taken.most_common(1)[0][0]
    return cells


__all__ = ["Layout", "Part", "Region", "layout", "read", "render"]
