"""memory: buffers with a life -> offsets in one arena, with the bound that no arena can go below.

A buffer is what the schedule decided; tensors that share memory in place are one buffer already. `plan` places them
(the solver is `slm2c/packing.py`), `check` proves a plan right without the solver's code, `render` prints it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slm2c.errors import printable
from slm2c.packing import pack
from slm2c.text import shortened

EFFORT = 30_000
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
    """The step whose live buffers add up to the most bytes, each rounded up to the least alignment."""
    used = [b for b in buffers if b.size]
    granule = _granule(used)
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
        packing = pack(
            [(b.first, b.last) for b in used],
            [b.size for b in used],
            [b.alignment for b in used],
            enough=max(peak.bytes, capacity or 0),
            effort=effort,
        )
        offsets |= {b.name: offset for b, offset in zip(used, packing.offsets, strict=True)}
        proved, steps = packing.proved, packing.steps
    placements = tuple(Placement(b, offsets[b.name]) for b in buffers)
    arena = _round_up(max((p.end for p in placements), default=0), _granule(used))
    return MemoryPlan(placements, arena, peak, proved or arena == peak.bytes, steps)


def _granule(used: Sequence[Buffer]) -> int:
    """Every offset is a multiple of it: the least alignment of the buffers that need room."""
    return min((b.alignment for b in used), default=1)


def check(buffers: Sequence[Buffer], plan: MemoryPlan) -> None:
    """Prove that `plan` places each of `buffers` once, aligned, inside the arena, and no two over each other.

    Raises AssertionError that names the buffers at fault. Compares every pair, shares nothing with
    the solver, and is no `assert`, so that `python -O` keeps it.
    """
    asked, names = set(buffers), [p.buffer.name for p in plan.placements]
    for b in buffers:
        if names.count(b.name) != 1:
            raise AssertionError(f"buffer '{b.name}' is placed {names.count(b.name)} times")
    for i, p in enumerate(plan.placements):
        a, a_end = p.buffer, p.offset + p.buffer.size
        if a not in asked:
            raise AssertionError(f"buffer '{a.name}' is not one of those to place")
        if p.offset % a.alignment:
            raise AssertionError(f"buffer '{a.name}' at {p.offset} is not aligned to {a.alignment}")
        if p.offset < 0 or a_end > plan.arena_bytes:
            raise AssertionError(
                f"buffer '{a.name}' in [{p.offset}, {a_end}) leaves the arena of {plan.arena_bytes} bytes"
            )
        for q in plan.placements[:i]:
            b, b_end = q.buffer, q.offset + q.buffer.size
            in_time = max(a.first, b.first) <= min(a.last, b.last)
            in_space = max(p.offset, q.offset) < min(a_end, b_end)
            if in_time and in_space:
                raise AssertionError(
                    f"buffers '{b.name}' and '{a.name}' overlap: "
                    f"bytes [{q.offset}, {b_end}) in steps {b.first}..{b.last} and "
                    f"bytes [{p.offset}, {a_end}) in steps {a.first}..{a.last}"
                )


# ---- text --------------------------------------------------------------------------------------------------------

COLUMNS = 100  # nothing that `render` prints is wider
ROWS = 24  # of the picture
SYMBOLS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def render(plan: MemoryPlan) -> str:
    """The plan as text: the totals, a line for each buffer in order of time, and a picture of addresses over steps."""
    peak, gap = plan.peak, plan.gap_bytes
    if gap == 0:
        verdict = ": optimal"
    else:
        verdict = (
            f" ({100 * gap / peak.bytes:.2f} %): "
            f"{'yet no smaller arena exists' if plan.optimal else 'a smaller arena may exist'}"
        )
    width = len(f"{plan.arena_bytes:,}")
    lines = [
        f"arena        {plan.arena_bytes:{width},} bytes",
        f"lower bound  {peak.bytes:{width},} bytes, all live at step {peak.step}",
        f"gap          {gap:{width},} bytes{verdict}",
    ]
    if plan.placements:
        order = sorted(plan.placements, key=lambda p: (p.buffer.first, p.offset, p.buffer.name))
        marks = {p.buffer.name: SYMBOLS[i % len(SYMBOLS)] for i, p in enumerate(order)}
        lines += ["", *_table(order, marks, set(peak.buffers))]
        if plan.arena_bytes:
            lines += ["", *_picture(order, marks, plan)]
    return "\n".join(lines) + "\n"


def _table(order: Sequence[Placement], marks: Mapping[str, str], at_peak: set[Buffer]) -> list[str]:
    """One line a buffer: its mark in the picture, `*` if it lives at the peak, name, bytes, place, life."""
    cells = [("bytes", "offset", "end", "steps")]
    cells += [(f"{p.buffer.size:,}", f"{p.offset:,}", f"{p.end:,}", f"{p.buffer.first}-{p.buffer.last}") for p in order]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numbers = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in cells]
    room = COLUMNS - len(numbers[0]) - len("a *   ")
    names = ["buffer", *(shortened(printable(p.buffer.name), room) for p in order)]
    signs = ["   ", *(f"{marks[p.buffer.name]} {'*' if p.buffer in at_peak else ' '}" for p in order)]
    width = max(map(len, names))
    return [f"{sign} {name:<{width}}  {row}" for sign, name, row in zip(signs, names, numbers, strict=True)]


def _picture(order: Sequence[Placement], marks: Mapping[str, str], plan: MemoryPlan) -> list[str]:
    """Addresses upwards, steps to the right; a buffer covers at least one cell, the small ones lie on top."""
    begin, steps = order[0].buffer.first, max(p.buffer.last for p in order) - order[0].buffer.first + 1
    label = max(len(f"{plan.arena_bytes:,}"), len("step"))
    room = COLUMNS - label - 3
    width = steps * max(1, min(4, room // steps)) if steps <= room else room
    height = min(ROWS, plan.arena_bytes)

    def cells(low: int, high: int, extent: int, count: int) -> slice:
        first = min(round(low * count / extent), count - 1)
        return slice(first, max(first + 1, round(high * count / extent)))

    grid = [["."] * width for _ in range(height)]
    for p in sorted(order, key=lambda p: -p.buffer.size * (p.buffer.last - p.buffer.first + 1)):
        b = p.buffer
        columns = cells(b.first - begin, b.last + 1 - begin, steps, width)
        if b.size:
            for row in grid[cells(p.offset, p.end, plan.arena_bytes, height)]:
                row[columns] = marks[b.name] * len(row[columns])
    ticks = [f"{plan.arena_bytes * row // height:,}" for row in range(height)]
    lines = [f"{tick:>{label}} |{''.join(row)}|" for tick, row in zip(ticks, grid, strict=True)][::-1]
    arrow = cells(plan.peak.step - begin, plan.peak.step + 1 - begin, steps, width).start
    text = f"^ peak: step {plan.peak.step}"
    text = " " * arrow + text if arrow + len(text) <= room else f"{text[2:]} ^".rjust(arrow + 1)
    last = str(begin + steps - 1) if steps > 1 else ""
    axis = str(begin).ljust(max(width - len(last), 1)) + last
    return [*lines, f"{'step':>{label}}  {axis}".rstrip(), f"{'':>{label}}  {text}"]


def _round_up(x: int, alignment: int) -> int:
    return -(-x // alignment) * alignment
