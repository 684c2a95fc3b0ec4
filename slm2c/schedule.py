"""schedule: integer graph -> kernel calls, the loops that some of them run in, and which tensors share a buffer of the
arena.

A call may write over an input that nothing reads later (in place), and a view that only shifts (row 0 of a tensor)
needs no call at all. Loops keep what lies between their calls to the size of a tile (`slm2c/tiling.py`). What is left
are buffers with a life in steps, one step a node; `memory.plan` places them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slm2c.costs import best_call
from slm2c.ir import DTYPES, Graph, Tensor
from slm2c.memory import Buffer
from slm2c.ops import TABLE
from slm2c.ops.base import ROW, KernelCall, Target
from slm2c.order import order
from slm2c.tiling import Loop, Tiling, group_loops, in_loop, row_loop, row_runs

ALIGNMENT = 16
"""Of every buffer, in bytes: SLM_ALIGNMENT of runtime_c/slm.h."""

_LONGEST = 12
"""Calls in a loop over rows, at most: what lies between more than these is never wide from end to end."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: `offset` bytes into `buffer` of the arena; buffer "" is memory of the caller."""

    buffer: str
    offset: int = 0


@dataclass(frozen=True)
class Program:
    """Kernel calls in order, one a node, those without a symbol included; the loops that some of them run in; and where
    their operands are. `scratch` names the buffer of the call for a node's output.
    """

    graph: Graph
    calls: tuple[KernelCall, ...]
    places: Mapping[str, Place]
    scratch: Mapping[str, str]
    buffers: tuple[Buffer, ...]
    loops: tuple[Loop, ...] = ()


def schedule(graph: Graph, target: Target, tiling: Tiling | None = None) -> Program:
    """Order the nodes for `target`, lower each, and decide which run in tiles and which tensors share memory.

    Heads are divided into groups as `tiling` says. Rows are tiled where that makes the busiest step of all smaller,
    with as few calls in loops as that takes.
    """
    tiling = tiling or Tiling()
    graph = order(graph, target, tiling.rows)
    calls = [best_call(node, graph, target) for node in graph.nodes]
    loops = group_loops(graph, tiling.groups, target) if tiling.groups > 1 else []
    calls = _with_loops(graph, calls, loops, target)
    rows = _row_loops(graph, calls, loops, tiling.rows, target)
    calls, loops = _with_loops(graph, calls, rows, target), sorted([*loops, *rows], key=lambda loop: loop.first)
    return _allocate(graph, calls, loops)


def _with_loops(graph: Graph, calls: Sequence[KernelCall], loops: Iterable[Loop], target: Target) -> list[KernelCall]:
    """The calls, those in `loops` as they are there."""
    found = list(calls)
    for loop in loops:
        for step in range(loop.first, loop.last + 1):
            found[step] = in_loop(graph, graph.nodes[step], loop, target)
    return found


def _row_loops(
    graph: Graph, calls: Sequence[KernelCall], loops: Sequence[Loop], size: int, target: Target
) -> list[Loop]:
    """The loops over rows, with the fewest calls in them, that bring the busiest step of all as far down as any would.

    Each run of nodes that can share a loop is cut into pieces: single nodes, and loops of at least two.
    """
    plain = _loads(_allocate(graph, calls, loops).buffers, len(graph.nodes))
    runs = list(row_runs(graph, size, loops))
    outside = max((load for step, load in enumerate(plain) if not any(step in run for run in runs)), default=0)
    runs = [run for run in runs if max(plain[step] for step in run) > outside]
    tiled = list(calls)
    for run in runs:
        for step in run:
            # What a tile needs of memory does not depend on what else is in the loop.
            alone = row_loop(graph, range(step, step + 1), size)
            tiled[step] = in_loop(graph, graph.nodes[step], alone, target)
    peaks: dict[range, int] = {}
    for run in runs:
        for first in run:
            peaks[range(first, first + 1)] = plain[first]
            for last in range(first + 1, min(first + _LONGEST, run[-1] + 1)):
                inside = [*calls[:first], *tiled[first : last + 1], *calls[last + 1 :]]
                made = _allocate(graph, inside, [*loops, row_loop(graph, range(first, last + 1), size)])
                peaks[range(first, last + 1)] = max(_loads(made.buffers, len(plain))[first : last + 1])
    least = max([outside, *(_cut(run, lambda steps: peaks.get(steps, math.inf), max)[0] for run in runs)])

    def looped(steps: range) -> float:
        return math.inf if peaks.get(steps, math.inf) > least else len(steps) if len(steps) > 1 else 0

    pieces = [steps for run in runs for steps in _cut(run, looped, operator.add)[1]]
    return [row_loop(graph, steps, size) for steps in pieces if len(steps) > 1]


def _cut(
    run: range, cost: Callable[[range], float], join: Callable[[float, float], float]
) -> tuple[float, tuple[range, ...]]:
    """The cheapest way to cut a run into pieces, where `join` adds a piece's cost to that of the pieces before it."""
    best: list[tuple[float, tuple[range, ...]]] = [(0, ())]
    for end in range(1, len(run) + 1):
        ways = [(join(best[start][0], cost(run[start:end])), (*best[start][1], run[start:end])) for start in range(end)]
        best.append(min(ways, key=lambda way: way[0]))
    return best[-1]


def _loads(buffers: Sequence[Buffer], steps: int) -> list[int]:
    """Bytes in use at each step."""
    loads = [0] * steps
    for b in buffers:
        for step in range(b.first, b.last + 1):
            loads[step] += -(-b.size // b.alignment) * b.alignment
    return loads


@dataclass
class _Lives:
    """What is known of the buffers so far. A buffer's `reads` is the last step at which a tensor in it is read; within
    a loop over rows, that of its row; its life goes on to the end of the loop.
    """

    size: dict[str, int]
    first: dict[str, int]
    last: dict[str, int]
    reads: dict[str, int]


def _allocate(graph: Graph, calls: Sequence[KernelCall], loops: Sequence[Loop]) -> Program:
    """Which tensors share a buffer, how large it is, and from which step to which it lives."""
    last = _last_reads(graph)
    around = {step: loop for loop in loops for step in range(loop.first, loop.last + 1)}
    places = {name: Place("") for name in (*graph.inputs, *graph.outputs)}
    lives = _Lives({}, {}, {}, {})
    scratch: dict[str, str] = {}

    def reserve(buffer: str, tensor: str, first: int, size: int) -> None:
        """Let `tensor`, which is written from step `first` on, lie in `buffer`."""
        end, loop = last[tensor], around.get(last[tensor])
        lives.size[buffer] = max(lives.size.get(buffer, 0), size)
        lives.first[buffer] = min(lives.first.get(buffer, first), first)
        lives.reads[buffer] = max(lives.reads.get(buffer, 0), end)
        end = loop.last if loop and tensor not in loop.local else end
        lives.last[buffer] = max(lives.last.get(buffer, 0), end)

    for step, (node, call) in enumerate(zip(graph.nodes, calls, strict=True)):
        out, loop = node.outputs[0], around.get(step)
        if not call.symbol:
            source, width = places[node.inputs[0]], _width(graph.tensors[out])
            assert isinstance(call.args[1], int)
            places[out] = Place(source.buffer, source.offset + call.args[1] * width)
            if source.buffer:
                reserve(source.buffer, out, step, 0)
            continue
        if call.scratch:
            scratch[out] = f"scratch of {out}"
            lives.size[scratch[out]] = call.scratch
            lives.first[scratch[out]] = lives.last[scratch[out]] = step
        if out in graph.outputs:
            continue
        if loop and out in loop.aliases:
            there = loop.aliases[out]
            places[out] = Place(there)
            reserve(there, there, loop.first, graph.tensors[there].nbytes)
            continue
        local = loop is not None and out in loop.local
        first = step if loop is None or local else loop.first
        size = _bytes(graph.tensors[out], loop if local else None)
        buffer = _overwritten(graph, call, places, lives, step, last[out], size, loop) or out
        places[out] = Place(buffer)
        reserve(buffer, out, first, size)
    buffers = tuple(
        Buffer(name, size, lives.first[name], lives.last[name], ALIGNMENT) for name, size in lives.size.items()
    )
    return Program(graph, tuple(calls), places, scratch, buffers, tuple(loops))


def _bytes(tensor: Tensor, loop: Loop | None) -> int:
    """Size of a tensor; of one tile of it, with the loop that it is local to."""
    if loop is None:
        return tensor.nbytes
    return tensor.nbytes // tensor.shape[0] * loop.size if loop.index == ROW else tensor.nbytes // loop.size


def _width(tensor: Tensor) -> int:
    return np.dtype(DTYPES[tensor.dtype]).itemsize


def _last_reads(graph: Graph) -> dict[str, int]:
    """Tensor -> index of the last node that reads it; of the node that writes it if none does."""
    return {name: step for step, node in enumerate(graph.nodes) for name in (*node.inputs, *node.outputs)}


def _overwritten(
    graph: Graph,
    call: KernelCall,
    places: Mapping[str, Place],
    lives: _Lives,
    step: int,
    last: int,
    size: int,
    loop: Loop | None,
) -> str:
    """The buffer of an input that the output, of `size` bytes and read until step `last`, may overwrite: one that is
    not read after this step, of the same type and size; or with longer rows, if the output does not keep it from
    others.
    """
    node = call.node
    out = graph.tensors[node.outputs[0]]
    inplace = [node.inputs[i] for i in TABLE[node.op].inplace if i < len(node.inputs)]
    for name in dict.fromkeys((*inplace, *call.overwrites)):
        place = places.get(name, Place(""))
        others = [x for x in node.inputs if x != name and x in places]
        if not place.buffer or place.offset or any(places[x].buffer == place.buffer for x in others):
            continue
        if loop and (loop.index != ROW or (name in loop.local) != (out.name in loop.local)):
            continue
        # The tensor itself must be as large: what lies in a larger buffer has shorter rows than it.
        own = _bytes(graph.tensors[name], loop if loop and name in loop.local else None)
        same = graph.tensors[name].dtype == out.dtype and own == lives.size[place.buffer] == size
        shorter = name in call.overwrites and own >= size and last <= step + 1
        if lives.reads[place.buffer] <= step and (same or shorter):
            return place.buffer
    return ""
