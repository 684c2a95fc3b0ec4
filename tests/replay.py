"""Replays a program on the bytes of its arena: what each call reads must be what was meant, row by row and tile by
tile.

Values come from the integer reference; nothing is computed here. A row is written as soon as its inputs were read,
which is the least that a kernel may need: output rows that run ahead of input rows in one buffer are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from slm2c import memory
from slm2c.costs import tile_rows
from slm2c.ir import Array
from slm2c.ops import TABLE
from slm2c.ops.base import ROW, KernelCall
from slm2c.schedule import Program
from slm2c.tiling import Loop


class Replay:
    """The arena of a program, and the reference values that its tensors must have."""

    def __init__(self, program: Program, values: Mapping[str, Array]) -> None:
        self.program, self.graph, self.values = program, program.graph, values
        self.plan = memory.plan(program.buffers)
        memory.check(program.buffers, self.plan)
        self.arena = np.full(self.plan.arena_bytes, 0xEE, dtype=np.uint8)

    def run(self) -> None:
        """AssertionError where a call reads anything else than it should."""
        starts = {loop.first: loop for loop in self.program.loops}
        step = 0
        while step < len(self.program.calls):
            loop = starts.get(step)
            inside = self.program.calls[step : loop.last + 1] if loop else self.program.calls[step : step + 1]
            for tile in self._tiles(loop):
                for call in inside:
                    self._call(call, loop, tile)
            step += len(inside)

    def _tiles(self, loop: Loop | None) -> Iterator[range]:
        """The rows of each tile, or one group each."""
        if loop is None:
            yield range(0)
        elif loop.index != ROW:
            yield from (range(g, g + 1) for g in range(loop.size))
        else:
            first = 0
            for rows in tile_rows(len(self.values[self.graph.nodes[loop.first].outputs[0]]), loop.size):
                yield range(first, first + rows)
                first += rows

    def _call(self, call: KernelCall, loop: Loop | None, tile: range) -> None:
        if not call.symbol:
            return
        node, out = call.node, call.node.outputs[0]
        if out in self.program.scratch:
            at, size = self.plan.offsets[self.program.scratch[out]], call.scratch
            self.arena[at : at + size] = 0xA5
        inputs = [x for x in node.inputs if x and x not in self.graph.consts]
        if loop is None:
            shapes = {self.values[x].shape[:1] for x in (*inputs, out) if self.values[x].ndim == 2}
            together = TABLE[node.op].rowwise(node, self.graph) and len(shapes) == 1
            tile = range(len(self.values[out])) if together else tile
        if loop is None and not tile:
            for x in inputs:
                self._read(x, call, self._rows(x))
            self._write(out, self._rows(out))
        elif loop is None or loop.index == ROW:
            for row in tile:
                for x in inputs:
                    self._read(x, call, self._row(x, row, loop, tile))
                self._write(out, self._row(out, row, loop, tile))
        else:
            for x in inputs:
                self._read(x, call, self._columns(x, loop, tile[0]))
            self._write(out, self._columns(out, loop, tile[0]))

    def _rows(self, x: str) -> list[tuple[int, Array]]:
        """(offset in memory, bytes) of all of a tensor."""
        return [(0, self._bytes(x).ravel())]

    def _row(self, x: str, row: int, loop: Loop | None, tile: range) -> list[tuple[int, Array]]:
        data = self._bytes(x)[row]
        return [((row - tile[0] if loop and x in loop.local else row) * len(data), data)]

    def _columns(self, x: str, loop: Loop, group: int) -> list[tuple[int, Array]]:
        """A group's columns of what the loop makes; all of what it only reads."""
        made = {n.outputs[0] for n in self.graph.nodes[loop.first : loop.last + 1]}
        data = self._bytes(x)
        if x not in made:
            return self._rows(x)
        width = data.shape[1] // loop.size
        step, start = (width, 0) if x in loop.local else (data.shape[1], group * width)
        return [(start + r * step, row[group * width : (group + 1) * width]) for r, row in enumerate(data)]

    def _bytes(self, x: str) -> Array:
        value = np.ascontiguousarray(self.values[x])
        return value.reshape(len(value) if value.ndim == 2 else 1, -1).view(np.uint8)

    def _at(self, x: str) -> int | None:
        place = self.program.places[x]
        return self.plan.offsets[place.buffer] + place.offset if place.buffer else None

    def _read(self, x: str, call: KernelCall, parts: list[tuple[int, Array]]) -> None:
        base = self._at(x)
        for offset, data in parts if base is not None else []:
            found = self.arena[(base or 0) + offset :][: len(data)]
            assert np.array_equal(found, data), f"{call.node.op} {call.node.name} reads {x}, which was overwritten"

    def _write(self, x: str, parts: list[tuple[int, Array]]) -> None:
        base = self._at(x)
        for offset, data in parts if base is not None else []:
            self.arena[(base or 0) + offset :][: len(data)] = data
