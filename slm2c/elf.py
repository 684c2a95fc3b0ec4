"""Facts of a linked image: how many bytes each part has, and how deep the stack can get.

Sizes come from the ELF (per section, per symbol) and from the linker's map (per object file); the worst-case
stack from the call graph that GCC writes beside each object under `-fcallgraph-info=su`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section, SymbolTableSection

from slm2c import sections
from slm2c.board import MemoryRegion

LIBRARY_STACK: Mapping[str, int] = MappingProxyType(
    {
        "memcpy": 0,
        "memmove": 16,
        "memset": 16,
        "memcmp": 16,
        "strlen": 8,
        "__aeabi_uldivmod": 52,
        "__aeabi_ldivmod": 52,
        "__udivdi3": 0,
        "__umoddi3": 0,
        "__divdi3": 0,
        "__moddi3": 0,
        "__clzsi2": 0,
        "__clzdi2": 0,
    }
)
"""Stack bytes of library functions, which come without a call graph: the worst over Cortex-M4, M7, M33, M55 and RV32 in
Debian 12's newlib, picolibc and libgcc (GCC 12.2), counted in their disassembly, which tests/test_elf.py does again."""


ASSEMBLY_STACK: Mapping[str, int] = MappingProxyType(
    {
        "slm_linear_many": 164,
        "slm_linear_one": 72,
        "slm_linear_expand_one": 16,
        "slm_linear_expand_three": 24,
        "slm_linear_look_up_three": 36,
        "slm_attention_multiply_two": 40,
        "slm_attention_multiply_one": 28,
    }
)
"""Stack bytes that the assembly of our own functions takes (runtime_c/slm_linear_dsp.c), as tests/test_elf.py counts
them in the disassembly; the compiler's figures are without them."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of an image or of some of its objects. `code` is instructions and constants, without the blob; `other` what
    firmware.ld does not place by name.
    """

    code: int = 0
    blob: int = 0
    data: int = 0
    bss: int = 0
    arena: int = 0
    stack: int = 0
    other: int = 0

    @property
    def flash(self) -> int:
        """What is programmed: code, blob and the initial values of .data."""
        return self.code + self.blob + self.data

    @property
    def ram(self) -> int:
        """What is reserved in writable memory."""
        return self.data + self.bss + self.arena + self.stack


@dataclass(frozen=True)
class Piece:
    """Bytes of one section in a memory region; `load`: those from which the start-up code fills it elsewhere."""

    region: str
    section: str
    address: int
    bytes: int
    load: bool


@dataclass(frozen=True)
class Symbol:
    """A function or object as linked; `size` in bytes, `part` a field of `Sizes`."""

    name: str
    part: str
    address: int
    size: int


@dataclass(frozen=True)
class StackBound:
    """The deepest call path from an entry point: (function, bytes of its frame), entry first.

    `bytes` is their sum, or None where no bound exists, for the reasons in `unbounded`. Interrupts come on
    top: up to 108 bytes of exception frame with the FPU's registers, 36 without (DDI 0403, B1.5.7), and the
    handler's own.
    """

    bytes: int | None
    path: tuple[tuple[str, int], ...]
    unbounded: tuple[str, ...] = ()


def elf_sizes(elf: Path) -> Sizes:
    """What the whole image takes, start-up code, C library and alignment gaps inside a section included."""
    total: Counter[str] = Counter()
    with elf.open("rb") as file:
        for found, _, load in allocated(ELFFile(file)):
            if not load:
                total[sections.section(found.name).part] += found["sh_size"]
    return Sizes(**total)


def pieces(elf: Path, memory: Iterable[MemoryRegion]) -> tuple[Piece, ...]:
    """What lies in the memory regions, in order of address; what the start-up code copies is in both of its places.

    Raises AssertionError for what lies in no region.
    """
    regions = tuple(memory)
    found = []
    with elf.open("rb") as file:
        for part, address, load in allocated(ELFFile(file)):
            end = address + part["sh_size"]
            home = [region.name for region in regions if region.origin <= address and end <= region.end]
            assert home, f"{elf.name}: no memory at {address:#010x}"
            found.append(Piece(home[0], part.name, address, part["sh_size"], load))
    return tuple(sorted(found, key=lambda piece: piece.address))


def allocated(image: ELFFile) -> Iterator[tuple[Section, int, bool]]:
    """(section, address, load): what takes memory where it is used, and again, with `load`, where it is loaded from."""
    moved = [s for s in image.iter_segments("PT_LOAD") if s["p_paddr"] != s["p_vaddr"] and s["p_filesz"]]
    for found in image.iter_sections():
        if not found["sh_flags"] & SH_FLAGS.SHF_ALLOC or not found["sh_size"]:
            continue
        yield found, found["sh_addr"], False
        for segment in moved:
            if segment.section_in_segment(found) and found["sh_type"] != "SHT_NOBITS":
                yield found, found["sh_addr"] + segment["p_paddr"] - segment["p_vaddr"], True


def object_sections(link_map: Path, objects: Iterable[Path]) -> dict[str, int]:
    """Bytes that the given object files have in each output section, by the linker's map; without gaps between them.

    Raises AssertionError for an object that the linker did not load. Identical strings of several objects are
    stored once, and count for the first.
    """
    text = link_map.read_text(encoding="utf-8").partition("Linker script and memory map")[2]
    loaded = set(re.findall(r"^LOAD (.*)$", text, re.MULTILINE))
    wanted = {str(path) for path in objects}
    assert wanted <= loaded, f"{link_map.name}: not linked: {sorted(wanted - loaded)}"
    total: Counter[str] = Counter()
    output = ""
    # "OUTPUT  address  size", then " INPUT  address  size object"; a long name is followed by a line break.
    line = r"^( ?)(\.\S+|COMMON|/DISCARD/)(?:\s+0x[0-9a-f]+\s+0x([0-9a-f]+)(?: (.*))?)?$"
    for indent, name, size, owner in re.findall(line, text, re.MULTILINE):
        if not indent:
            output = name
        elif output in sections.SECTIONS and owner in wanted:
            total[output] += int(size, 16)
    return dict(total)


def object_sizes(link_map: Path, objects: Iterable[Path]) -> Sizes:
    """The same by the fields of `Sizes`."""
    total: Counter[str] = Counter()
    for name, size in object_sections(link_map, objects).items():
        total[sections.section(name).part] += size
    return Sizes(**total)


def symbols(elf: Path) -> tuple[Symbol, ...]:
    """Every function and object with a size, largest first, then by address."""
    found = set()
    with elf.open("rb") as file:
        image = ELFFile(file)
        table = image.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection), f"{elf.name} is stripped"
        for symbol in table.iter_symbols():
            index, size, kind = symbol["st_shndx"], symbol["st_size"], symbol["st_info"]["type"]
            if isinstance(index, int) and size and kind in ("STT_FUNC", "STT_OBJECT"):
                # Bit 0 of a function's address says that it is Thumb code.
                address = symbol["st_value"] & ~1 if kind == "STT_FUNC" else symbol["st_value"]
                found.add(Symbol(symbol.name, sections.section(image.get_section(index).name).part, address, size))
    return tuple(sorted(found, key=lambda s: (-s.size, s.address, s.name)))


def stack_bound(callgraphs: Iterable[Path], entry: str) -> StackBound:
    """The worst-case stack of calling `entry`, from the .ci files of everything that it may call.

    The sum of the frames along the deepest path. A tail call counts as a call, so that the bound may be a few
    bytes too high. Calls in inline assembly are not seen. Raises AssertionError if no file defines `entry`.
    """
    graph = _CallGraph(callgraphs)
    assert entry in graph.frames, f"no call graph defines {entry}"
    unbounded: dict[str, None] = {}
    deepest: dict[str, tuple[int, tuple[str, ...]]] = {}

    def visit(function: str, above: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
        if function in above:
            cycle = [graph.name(f) for f in (*above[above.index(function) :], function)]
            unbounded[f"recursion: {' -> '.join(cycle)}"] = None
            return 0, ()
        if function not in deepest:
            for reason in graph.obstacles(function):
                unbounded[reason] = None
            below = [visit(callee, (*above, function)) for callee in graph.calls.get(function, ())]
            depth, path = max(below, default=(0, ()), key=lambda found: found[0])
            deepest[function] = depth + graph.frame(function), (function, *path)
        return deepest[function]

    total, path = visit(entry, ())
    return StackBound(
        None if unbounded else total, tuple((graph.name(f), graph.frame(f)) for f in path), tuple(unbounded)
    )


class _CallGraph:
    """The .ci files of several objects as one; keys are GCC's titles, made unique for static functions."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.frames: dict[str, int] = {}
        self.calls: dict[str, dict[str, None]] = {}
        self._names: dict[str, str] = {}
        self._dynamic: set[str] = set()
        for i, path in enumerate(paths):
            text = path.read_text(encoding="utf-8")
            node = (
                r'^node: \{ title: "(.*?)" label: "(.*)"[^"]*\}$'  # GCC escapes nothing; a label holds the file's path
            )
            for title, label in re.findall(node, text, re.MULTILINE):
                key = self._key(i, title)
                self._names[key] = label.split(r"\n")[0].removeprefix("__builtin_")
                if frame := re.search(r"\\n(\d+) bytes \(([a-z,]+)\)", label):
                    self.frames[key] = int(frame[1]) + ASSEMBLY_STACK.get(title, 0)
                    if frame[2] == "dynamic":  # "dynamic,bounded" is counted in the figure
                        self._dynamic.add(key)
            edge = r'^edge: \{ sourcename: "(.*?)" targetname: "(.*?)"'
            for caller, callee in re.findall(edge, text, re.MULTILINE):
                self.calls.setdefault(self._key(i, caller), {})[self._key(i, callee)] = None

    @staticmethod
    def _key(unit: int, title: str) -> str:
        return f"{unit}|{title}" if ":" in title else title  # "file.c:f" is static

    def name(self, key: str) -> str:
        return self._names[key]

    def frame(self, key: str) -> int:
        return self.frames.get(key, LIBRARY_STACK.get(key, 0))

    def obstacles(self, key: str) -> list[str]:
        """Why the frames of `key` and of what it calls cannot all be known."""
        name = self.name(key)
        found = [f"{name} has a frame of variable size"] if key in self._dynamic else []
        for callee in self.calls.get(key, ()):
            if callee == "__indirect_call":
                found.append(f"{name} calls through a pointer")
            elif callee not in self.frames and callee not in LIBRARY_STACK:
                found.append(f"{name} calls {self.name(callee)}, of which no stack figure is known")
        return found
