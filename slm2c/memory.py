"""memory: buffers with a life -> offsets in one arena, with the bound that no arena can go below.

A buffer is what the schedule decided; tensors that share memory in place are one buffer already. `plan` places them
(the solver is `slm2c/packing.py`), `check` proves a plan right without the solver's code, `render` prints it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slm2c.packing import pack

EFFORT = 60_000
"""Steps of search, where first fit leaves a gap to the lower bound: a tenth of a millisecond each."""


@dataclass(frozen=True)
class Buffer:
    """`size` bytes that are needed from step `first` to step `last`, both inclusive; a step is one kernel call.

    `alignment` in bytes is a power of two. A buffer of 0 bytes overlaps nothing.
    """

    name: str
    size: int
    first: int
    last: int
    alignment: int = 16

    def __post_init__(self) -> None:
        assert self.size >= 0 and 0 <= self.first <= self.last, self
        assert self.alignment > 0 and self.alignment & (self.alignment - 1) == 0, self


@dataclass(frozen=True)
class Placement:
    """`buffer` lies in the bytes [offset, end) of the arena."""

    buffer: Buffer
    offset: int

    @property
    def end(self) -> int:
        """The first byte after the buffer."""
        return self.offset + self.buffer.size


@dataclass(frozen=True)
class Peak:
    """The first of the steps that need the most: no arena can be smaller than `bytes`, what `buffers` add up to."""

    bytes: int
    step: int
    buffers: tuple[Buffer, ...]


@dataclass(frozen=True)
class MemoryPlan:
    """Where every buffer lies. `optimal`: no smaller arena exists; `steps`: what the search took (0: first fit)."""

    placements: tuple[Placement, ...]
    arena_bytes: int
    peak: Peak
    optimal: bool
    steps: int

    @property
    def lower_bound_bytes(self) -> int:
        """What the busiest step needs."""
        return self.peak.bytes

    @property
    def gap_bytes(self) -> int:
        """Arena above the lower bound."""
        return self.arena_bytes - self.peak.bytes

    @property
    def offsets(self) -> Mapping[str, int]:
        """Offset of each buffer by name, in bytes."""
        return {p.buffer.name: p.offset for p in self.placements}


def lower_bound(buffers: Sequence[Buffer]) -> Peak:
    """The step whose live buffers add up to the most bytes, each rounded up to the least alignment of all."""
    granule = min((b.alignment for b in buffers), default=1)
    used = [b for b in buffers if b.size]
    change: dict[int, int] = {}
    for b in used:
        change[b.first] = change.get(b.first, 0) + _round_up(b.size, granule)
        change[b.last + 1] = change.get(b.last + 1, 0) - _round_up(b.size, granule)
    load, most, step = 0, 0, 0
    for at in sorted(change):
        load += change[at]
        if load > most:
            most, step = load, at
    return Peak(most, step, tuple(b for b in used if b.first <= step <= b.last))


def plan(buffers: Sequence[Buffer], *, capacity: int | None = None, effort: int = EFFORT) -> MemoryPlan:
    """Place `buffers`, whose names differ, in the smallest arena that `effort` steps of search find.

    With `capacity`, the search ends as soon as the arena fits in that many bytes. Whether it does is for the caller
    to see: a plan is returned either way. The same input gives the same plan on every machine.
    """
    assert len({b.name for b in buffers}) == len(buffers), "two buffers have one name"
    peak = lower_bound(buffers)
    used = [b for b in buffers if b.size]
    offsets = dict.fromkeys((b.name for b in buffers), 0)
    proved, steps = True, 0
    if used:
        packing = pack([(b.first, b.last) for b in used], [b.size for b in used], [b.alignment for b in used],
                       enough=max(peak.bytes, capacity or 0), effort=effort)
        offsets |= {b.name: offset for b, offset in zip(used, packing.offsets, strict=True)}
        proved, steps = packing.proved, packing.steps
    placements = tuple(Placement(b, offsets[b.name]) for b in buffers)
    granule = min((b.alignment for b in buffers), default=1)
    arena = _round_up(max((p.end for p in placements), default=0), granule)
    return MemoryPlan(placements, arena, peak, proved or arena == peak.bytes, steps)


def check(buffers: Sequence[Buffer], plan: MemoryPlan) -> None:
    """Prove that `plan` places each of `buffers` once, aligned, inside the arena, and no two over each other.

    Raises AssertionError that names the buffers at fault. Compares every pair, shares nothing with
    the solver, and is no `assert`, so that `python -O` keeps it.
    """
    names = [p.buffer.name for p in plan.placements]
    for b in buffers:
        if names.count(b.name) != 1:
            raise AssertionError(f"buffer '{b.name}' is placed {names.count(b.name)} times")
    for i, p in enumerate(plan.placements):
        a, a_end = p.buffer, p.offset + p.buffer.size
        if a not in buffers:
            raise AssertionError(f"buffer '{a.name}' is not one of those to place")
        if p.offset % a.alignment:
            raise AssertionError(f"buffer '{a.name}' at {p.offset} is not aligned to {a.alignment}")
        if p.offset < 0 or a_end > plan.arena_bytes:
            raise AssertionError(
                f"buffer '{a.name}' in [{p.offset}, {a_end}) leaves the arena of {plan.arena_bytes} bytes")
        for q in plan.placements[:i]:
            b, b_end = q.buffer, q.offset + q.buffer.size
            in_time = max(a.first, b.first) <= min(a.last, b.last)
            in_space = max(p.offset, q.offset) < min(a_end, b_end)
            if in_time and in_space:
                raise AssertionError(f"buffers '{b.name}' and '{a.name}' overlap: bytes [{q.offset}, {b_end}) in steps "
                                     f"{b.first}..{b.last} and bytes [{p.offset}, {a_end}) in steps {a.first}..{a.last}")


def _round_up(x: int, alignment: int) -> int:
    return -(-x // alignment) * alignment
