"""schedule: integer graph -> kernel calls, and which tensors share a buffer of the arena.

A call may write over an input that nothing reads later (in place), and a view that only shifts (row 0 of a tensor)
needs no call at all. What is left are buffers with a life in steps, one step a node; `memory.plan` places them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from slm2c.ir import DTYPES, Graph, Node
from slm2c.memory import Buffer
from slm2c.ops import TABLE
from slm2c.ops.base import KernelCall, Target, lower

ALIGNMENT = 16
"""Of every buffer, in bytes: SLM_ALIGNMENT of runtime_c/slm.h."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: `offset` bytes into `buffer` of the arena; buffer "" is memory of the caller."""

    buffer: str
    offset: int = 0


@dataclass(frozen=True)
class Program:
    """Kernel calls in order, those without a symbol included, and where their operands are; `scratch` names the
    buffer of the call for a node's output.
    """

    graph: Graph
    calls: tuple[KernelCall, ...]
    places: Mapping[str, Place]
    scratch: Mapping[str, str]
    buffers: tuple[Buffer, ...]


def schedule(graph: Graph, target: Target) -> Program:
    """Lower every node in order for `target` and decide which tensors share memory."""
    last = _last_reads(graph)
    calls: list[KernelCall] = []
    places = {name: Place("") for name in (*graph.inputs, *graph.outputs)}
    sizes: dict[str, int] = {}
    lives: dict[str, list[int]] = {}  # buffer -> [first step, last step]
    scratch: dict[str, str] = {}
    for step, node in enumerate(graph.nodes):
        out = node.outputs[0]
        call = lower(TABLE[node.op], node, graph, target)
        calls.append(call)
        if not call.symbol:
            source, width = places[node.inputs[0]], np.dtype(DTYPES[graph.tensors[out].dtype]).itemsize
            assert isinstance(call.args[1], int)
            places[out] = Place(source.buffer, source.offset + call.args[1] * width)
            if source.buffer:
                lives[source.buffer][1] = max(lives[source.buffer][1], last[out])
            continue
        if call.scratch:
            scratch[out] = f"scratch of {out}"
            sizes[scratch[out]], lives[scratch[out]] = call.scratch, [step, step]
        if out in graph.outputs:
            continue
        name = _overwritten(graph, node, places, sizes, lives, step) or out
        places[out] = Place(name)
        sizes[name] = graph.tensors[out].nbytes
        lives[name] = [lives.get(name, [step])[0], last[out]]
    buffers = tuple(Buffer(name, sizes[name], first, end, ALIGNMENT) for name, (first, end) in lives.items())
    return Program(graph, tuple(calls), places, scratch, buffers)


def _last_reads(graph: Graph) -> dict[str, int]:
    """Tensor -> index of the last node that reads it; of the node that writes it if none does."""
    return {name: step for step, node in enumerate(graph.nodes) for name in (*node.inputs, *node.outputs)}


def _overwritten(
    graph: Graph,
    node: Node,
    places: Mapping[str, Place],
    sizes: Mapping[str, int],
    lives: Mapping[str, list[int]],
    step: int,
) -> str:
    """The buffer of an input that the output may overwrite: all of it, of the same type, and not read after this
    step.
    """
    out = graph.tensors[node.outputs[0]]
    for i in TABLE[node.op].inplace:
        if i >= len(node.inputs) or node.inputs[i] not in places or graph.tensors[node.inputs[i]].dtype != out.dtype:
            continue
        place = places[node.inputs[i]]
        if any(places[x].buffer == place.buffer for j, x in enumerate(node.inputs) if j != i and x in places):
            continue  # the kernel still reads the buffer as another operand
        if place.buffer and place.offset == 0 and sizes[place.buffer] == out.nbytes and lives[place.buffer][1] <= step:
            return place.buffer
    return ""
