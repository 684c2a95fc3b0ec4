"""sections: the output sections of templates/firmware/firmware.ld.j2, and what each is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Section:
    """What lies in a section.

    part: the field of `elf.Sizes` that counts it
    purpose: in the report, where several sections may have one
    name, what: in flash-layout, where each has its own
    loaded: what is copied to it from elsewhere, in the report
    """

    part: str
    purpose: str
    name: str
    what: str
    loaded: str = "load image"


SECTIONS: Mapping[str, Section] = MappingProxyType(
    {
        ".text": Section("code", "code", "text", "instructions"),
        ".rodata": Section("code", "code", "rodata", "constants"),
        ".slm_hot": Section("code", "hot code", "hot", "kernels beside the core"),
        ".slm_blob": Section("blob", "blob", "blob", "the model's blob"),
        ".slm_samples": Section("other", "samples", "samples", "inputs of a validation"),
        ".slm_stack": Section("stack", "stack", "stack", "grows down from its end"),
        ".slm_arena": Section("arena", "arena", "arena", "the model's scratch memory"),
        ".data": Section("data", "variables", "data", "variables with a value", "initial values"),
        ".bss": Section("bss", "variables", "bss", "variables that start at zero"),
    }
)
"""In the report's order."""


def section(name: str) -> Section:
    """What the section `name` holds. One of another C library, which firmware.ld does not place, is its own."""
    return SECTIONS.get(name) or Section("other", name, name, "not of firmware.ld")


def purpose(name: str, load: bool) -> str:
    """What a section is for in the report; `load`: the bytes that the start-up code copies to it."""
    found = section(name)
    return f"{found.purpose}, {found.loaded}" if load else found.purpose
