"""A reader of Renode's platform descriptions and scripts, for what slm2c writes of them.

It knows entries, properties, interrupts and registration on the system bus of a .repl, and of a .resc the commands that
slm2c uses; anything else is an error, as it is for a name that nothing has. What it takes is what the platforms/ and
scripts/ of Renode show.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise

NUMBER = r"0x[0-9A-Fa-f]+|\d+"
_ENTRY = re.compile(rf"(\w+): ([A-Z]\w*\.\w+) @ sysbus(?: ({NUMBER})| <({NUMBER}), \+({NUMBER})>)?")
_PROPERTY = re.compile(rf'(\w+): ({NUMBER}|true|false|\w+|"[^"\\]*")')
_INTERRUPT = re.compile(r"(\w+|\[\d+(?:, \d+)*\]) -> (\w+)@(\d+|\[\d+(?:, \d+)*\])")

SIZES = {
    "CPU.CortexM": 0,
    "CPU.RiscV32": 0,
    "IRQControllers.CoreLevelInterruptor": 0x10000,
    "IRQControllers.NVIC": 0x1000,
    "UART.CMSDK_APB_UART": 0x1000,
    "UART.NRF52840_UART": 0x1000,
    "UART.NS16550": 0x100,
    "UART.PL011": 0x1000,
    "UART.STM32F7_USART": 0x400,
}
"""Bytes that a type takes on the bus where neither the registration nor a property `size` says."""


@dataclass
class Entry:
    """A peripheral: `address` and `size` on the bus, values of its properties as Python has them."""

    name: str
    type: str
    address: int | None
    size: int
    properties: dict[str, object] = field(default_factory=dict)
    interrupts: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Name:
    """A property that names an entry."""

    name: str


def parse_repl(text: str) -> dict[str, Entry]:
    """The entries by name; AssertionError with the line for whatever is not understood, twice there, or overlaps."""
    found: dict[str, Entry] = {}
    entry: Entry | None = None
    assert "\t" not in text and text.endswith("\n")
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("//"):
            continue
        assert line == line.rstrip(), f"{number}: white space at the end"
        if not line.startswith(" "):
            match = _ENTRY.fullmatch(line)
            assert match, f"{number}: not an entry: {line}"
            name, kind, address, start, size = match.groups()
            assert name not in found, f"{number}: a second {name}"
            entry = Entry(name, kind, _int(address or start), _int(size) or SIZES.get(kind, 0))
            found[name] = entry
            continue
        assert entry is not None and re.match(r"    \S", line), f"{number}: indentation"
        if match := _PROPERTY.fullmatch(line.strip()):
            assert match[1] not in entry.properties, f"{number}: a second {match[1]}"
            entry.properties[match[1]] = _value(match[2])
        elif match := _INTERRUPT.fullmatch(line.strip()):
            assert match[1].count(",") == match[3].count(","), f"{number}: as many sources as destinations"
            entry.interrupts.append((match[1], match[2], match[3]))
        else:
            raise AssertionError(f"{number}: neither a property nor an interrupt: {line}")
    for entry in found.values():
        named = [value.name for value in entry.properties.values() if isinstance(value, Name)]
        named += [target for _, target, _ in entry.interrupts]
        assert all(name in found for name in named), f"{entry.name}: one of {named} is nowhere"
        if "size" in entry.properties:
            entry.size = entry.properties["size"]
    placed = sorted((e.address, e.address + e.size, e.name) for e in found.values() if e.address is not None)
    for (_, end, a), (start, _, b) in pairwise(placed):
        assert end <= start, f"{a} and {b} overlap"
    return found


def _int(text: str | None) -> int | None:
    return None if text is None else int(text, 0)


def _value(text: str) -> object:
    if re.fullmatch(NUMBER, text):
        return int(text, 0)
    if text.startswith('"'):
        return text[1:-1]
    return {"true": True, "false": False}.get(text, Name(text))


@dataclass(frozen=True)
class Script:
    """What a .resc does. `vectors`: what it sets VTOR to; `hook`: the symbol and the Python that is run there."""

    platform: str
    elf: str
    vectors: int | None
    uart: tuple[str, str]
    hook: tuple[str, str]
    seconds: float


_VALIDATION = (
    ("using sysbus", None),
    (r'mach create "[\w.-]+"', None),
    (r"machine LoadPlatformDescription @(\S+)", "platform"),
    (r"sysbus LoadELF @(\S+)", "elf"),
    (rf"cpu VectorTableOffset ({NUMBER})", "vectors"),
    (r"(\w+) CreateFileBackend @(\S+) true", "uart"),
    (r'cpu AddHook `sysbus GetSymbolAddress "(\w+)"` "([^"\\]+)"', "hook"),
    ("emulation SetGlobalAdvanceImmediately true", None),
    (r'emulation SetGlobalQuantum "[\d.]+"', None),
    (r'emulation RunFor "([\d.]+)"', "seconds"),
    (r'echo "[^"\\]+"', None),
    ("cpu ExecutedInstructions", None),
)
_CONSOLE = (
    (r"\$image\?=\$ORIGIN/(\S+)", "elf"),
    ("using sysbus", None),
    (r'mach create "[\w.-]+"', None),
    (r"machine LoadPlatformDescription \$ORIGIN/(\S+)", "platform"),
    (r"logLevel 3 (\w+)", "quiet"),
    ("macro reset", None),
    ('"""', None),
    (r"    sysbus LoadELF \$image", None),
    (rf"    cpu VectorTableOffset ({NUMBER})", "vectors"),
    ('"""', None),
    (r"runMacro \$reset", None),
    (r"showAnalyzer (\w+)", "uart"),
    ("start", None),
)
"""Commands in the order in which they must come, each once; VectorTableOffset only on Arm."""


def parse_resc(text: str) -> Script:
    """A script that validates; AssertionError if a command is unknown, missing or out of order."""
    found = _commands(text, _VALIDATION)
    uart, hook = (found["uart"][0], found["uart"][1]), (found["hook"][0], found["hook"][1])
    vectors, seconds = _int(found.get("vectors", (None,))[0]), float(found["seconds"][0])
    return Script(found["platform"][0], found["elf"][0], vectors, uart, hook, seconds)


def parse_console(text: str) -> tuple[str, str, int | None, str]:
    """ELF, platform, vector table and UART of a script that runs a firmware with a console."""
    found = _commands(text, _CONSOLE)
    assert found["quiet"] == found["uart"]
    return found["elf"][0], found["platform"][0], _int(found.get("vectors", (None,))[0]), found["uart"][0]


def _commands(text: str, known: tuple[tuple[str, str | None], ...]) -> dict[str, tuple[str, ...]]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found: dict[str, tuple[str, ...]] = {}
    for pattern, key in known:
        match = re.fullmatch(pattern, lines[0]) if lines else None
        assert match or key == "vectors", f"{pattern} expected, not {lines[:1]}"
        if match:
            lines.pop(0)
            found[key or ""] = match.groups()
    assert not lines, f"more than is known: {lines}"
    return found
