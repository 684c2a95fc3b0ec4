"""lower: the integer graph as kernel calls, memory plan, C and blob: what decides how many bytes a model takes.

The fastest schedule that fits is taken. Where the fastest of all does not, others trade instructions and reads of
weights for memory: smaller tiles of rows, and heads of an attention in groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from slm2c import costs, memory
from slm2c.board import Board
from slm2c.calibrate import Observed
from slm2c.emit import Emitted, Texts, emit, text_bytes
from slm2c.ir import Graph
from slm2c.memory import MemoryPlan
from slm2c.ops.base import Target
from slm2c.passes import Fused
from slm2c.quantize import quantize
from slm2c.schedule import ALIGNMENT, Program, schedule
from slm2c.tiling import Tiling

_ROWS = (16, 8, 4)
"""Rows of a tile, from fast to small."""

_WIDE = (512, 256, 128, 64, 32)
"""More rows, for who gives the memory: see ops.linear.TILE for what they gain."""


@dataclass(frozen=True)
class Schedule:
    """A way to run a graph: `arena_bytes` as emitted, with the ids and scores of a text model; `instructions` expected
    and bytes of weights read at the maximum token count.
    """

    tiling: Tiling
    program: Program
    plan: MemoryPlan
    arena_bytes: int
    instructions: int
    weight_bytes: int


@dataclass(frozen=True)
class Lowered:
    """What becomes of an integer graph: its schedule, the fastest one there is, and the model's files. `texts` is what
    it was emitted with.
    """

    chosen: Schedule
    fastest: Schedule
    emitted: Emitted
    texts: Texts

    @property
    def program(self) -> Program:
        """Kernel calls."""
        return self.chosen.program

    @property
    def plan(self) -> MemoryPlan:
        """Where buffers lie."""
        return self.chosen.plan


def target_of(board: Board) -> Target:
    """What the board's core offers to kernels."""
    return Target(dsp=board.features.dsp)


def lower(
    graph: Graph,
    fused: Fused,
    texts: Texts,
    name: str,
    target: Target,
    limit: int | None = None,
    *,
    wide: bool = False,
) -> Lowered:
    """The integer graph of `fused` as calls, plan and files, with an arena of at most `limit` bytes if any schedule has
    one, else with the smallest. With `wide`, tiles may be as large as the limit allows.
    """
    ways = schedules(graph, fused, texts, target, (*(_WIDE if wide else ()), *_ROWS))
    fastest = chosen = next(ways)
    if limit is not None and fastest.arena_bytes > limit:
        found = [fastest, *ways]
        fits = [way for way in found if way.arena_bytes <= limit]
        chosen = min(fits, key=lambda way: way.instructions) if fits else min(found, key=lambda way: way.arena_bytes)
    memory.check(chosen.program.buffers, chosen.plan)
    emitted = emit(chosen.program, chosen.plan, fused.interface, texts, name, bool(fused.fixed_by))
    assert emitted.arena_bytes == chosen.arena_bytes, f"{emitted.arena_bytes} is not {chosen.arena_bytes}"
    return Lowered(chosen, fastest, emitted, texts)


def schedules(
    graph: Graph, fused: Fused, texts: Texts, target: Target, tiles: Sequence[int] = _ROWS
) -> Iterator[Schedule]:
    """The schedules to choose from, with tiles of so many rows, the fastest first."""
    tokens = fused.interface.max_tokens if fused.interface else 1
    kept = text_bytes(graph, fused.interface, texts)
    heads = max((int(node.attrs["kv_heads"]) for node in graph.nodes if node.op == "attention"), default=1)
    longest = max((t.shape[0] for t in graph.tensors.values() if t.shape and t.name not in graph.consts), default=1)
    whole = min((rows for rows in tiles if rows >= longest), default=max(tiles))  # as good as any larger one
    tiles = [rows for rows in tiles if rows <= whole]
    for groups in (g for g in range(1, heads + 1) if heads % g == 0):
        for rows in tiles:
            tiling = Tiling(rows, groups)
            program = schedule(graph, target, tiling)
            plan = memory.plan(program.buffers)
            arena = max(ALIGNMENT, plan.arena_bytes + kept)
            yield Schedule(
                tiling, program, plan, arena, costs.instructions(program, tokens), costs.weight_bytes(program, tokens)
            )


def sketch(fused: Fused, texts: Texts, name: str, target: Target, limit: int | None = None) -> Lowered:
    """As `lower`, without calibration: of the size that a build has, save for tensors that calibration makes int16."""
    return lower(_assumed(fused), fused, texts, name, target, limit)


def _assumed(fused: Fused) -> Graph:
    spread = np.linspace(-1, 1, 64, dtype=np.float32)
    assumed = {x: Observed(-1.0, 1.0, spread, 0.5) for x in fused.graph.tensors if x not in fused.graph.consts}
    return quantize(fused.graph, assumed, "minmax").graph


def most_tokens(lowered: Lowered, fused: Fused, target: Target, limit: int, held: int = 0) -> tuple[int, int]:
    """(the largest token count for which some schedule has an arena of at most `limit` bytes, what that takes); zeros
    if there is none, or the length is fixed. Each token less leaves `held` bytes more, which the caller holds.
    """
    if fused.interface is None or fused.fixed_by:
        return 0, 0
    low, high, taken = 0, fused.interface.max_tokens, 0
    while low < high:
        tokens = (low + high + 1) // 2
        shorter = replace(fused, interface=replace(fused.interface, max_tokens=tokens))
        ways = schedules(_shortened(lowered.program.graph, tokens), shorter, lowered.texts, target)
        room = limit + held * (fused.interface.max_tokens - tokens)
        fits = [way.arena_bytes for way in ways if way.arena_bytes <= room]
        low, high, taken = (tokens, high, fits[0]) if fits else (low, tokens - 1, taken)
    return low, taken


def _shortened(graph: Graph, tokens: int) -> Graph:
    """The graph for at most `tokens` tokens."""
    tensors = {
        name: t
        if t.token_axis is None
        else replace(t, shape=tuple(tokens if i == t.token_axis else d for i, d in enumerate(t.shape)))
        for name, t in graph.tensors.items()
    }
    return replace(graph, tensors=tensors)
