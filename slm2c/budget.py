"""budget: what a model needs of a board's memories; where that is too much, what takes it and what would help."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from slm2c.board import Board, list_boards, load_board
from slm2c.emit import Texts, classifies_text
from slm2c.errors import CompileError, Problem
from slm2c.ir import Graph, Node
from slm2c.lower import Lowered, most_tokens, target_of
from slm2c.ops import TABLE
from slm2c.passes import Fused

_LARGEST = 5  # contributors that a message lists


DATA_BYTES = 1024
"""Variables of the image that is measured, beside the model's memory: start-up code, C library, a line of text."""


@dataclass(frozen=True)
class Need:
    """`bytes` of a board's memory region for one purpose."""

    region: str
    what: str
    bytes: int


@dataclass(frozen=True)
class _Remedy:
    saves: int
    text: str


def caller_bytes(graph: Graph, texts: Texts) -> int:
    """Inputs and outputs, which the caller holds; 0 for a text model, whose ids and scores lie in the arena."""
    if classifies_text(graph, texts):
        return 0
    return sum(graph.tensors[x].nbytes for x in (*graph.inputs, *dict.fromkeys(graph.outputs)))


def needs(board: Board, lowered: Lowered, code: int = 0) -> tuple[Need, ...]:
    """What goes where on `board`. The stack counts with what the board reserves; `code` is 0 until it is measured."""
    place, arena = board.placement, lowered.emitted.arena_bytes
    caller = caller_bytes(lowered.program.graph, lowered.texts)
    beside = caller + DATA_BYTES
    found = (
        Need(place.blob, "blob", len(lowered.emitted.blob)),
        Need(place.code, "code", code),
        Need(board.arena_region(arena, beside), "arena", arena),
        Need(place.stack, "stack", board.stack_size),
        Need(place.stack, "inputs and outputs", caller),
        Need(place.stack, "variables", DATA_BYTES),
    )
    return tuple(need for need in found if need.bytes)


def arena_room(board: Board, graph: Graph, texts: Texts) -> int:
    """Bytes that are left for the arena in the roomiest of its regions."""
    beside = caller_bytes(graph, texts) + DATA_BYTES
    return max(board.arena_room(name, beside) for name in board.placement.arena)


def by_region(found: Sequence[Need]) -> Mapping[str, tuple[Need, ...]]:
    """The needs of each region, regions in order of appearance."""
    return {name: tuple(n for n in found if n.region == name) for name in dict.fromkeys(n.region for n in found)}


def excess(board: Board, found: Sequence[Need]) -> dict[str, int]:
    """Bytes by which each region is too small; regions that suffice are absent."""
    over = {name: sum(n.bytes for n in group) - board.region(name).size for name, group in by_region(found).items()}
    return {name: size for name, size in over.items() if size > 0}


def fitting_boards(lowered: Lowered, code: int = 0) -> tuple[str, ...]:
    """Names of the known boards that the model fits."""
    return tuple(name for name in list_boards() if not excess(board := load_board(name), needs(board, lowered, code)))


def is_hopeless(board: Board, fused: Fused) -> bool:
    """Whether an int8 tensor that cannot be tiled, or the int8 weights, exceed the board: not worth a calibration."""
    graph = fused.graph
    weights = sum(value.size for value in graph.consts.values())
    whole = [node for node in graph.nodes if not TABLE[node.op].rowwise(node, graph)]
    largest = max((graph.tensors[node.outputs[0]].size for node in whole), default=0)
    return weights > board.region(board.placement.blob).size or largest > board.arena_limit


def check(board: Board, fused: Fused, lowered: Lowered, code: int = 0) -> None:
    """Raises CompileError if a region is too small: what it needs, what takes the most, what would help."""
    found = needs(board, lowered, code)
    problems: list[Problem] = []
    for region, over in excess(board, found).items():
        group = by_region(found)[region]
        needed = sum(n.bytes for n in group)
        parts = ", ".join(f"{n.what} {n.bytes:,}" for n in group)
        flash = not board.region(region).writable
        remedies = [
            *(_flash_remedies(lowered, over) if flash else _ram_remedies(board, fused, lowered)),
            *_other_board(lowered, code),
        ]
        ranked = sorted(remedies, key=lambda r: -r.saves)
        problems.append(
            Problem(
                board.name,
                "",
                f"needs {needed:,} bytes of {region} ({parts}), {needed - over:,} are available: {over:,} too many",
                "what helps: " + "; ".join(f"({i}) {r.text}" for i, r in enumerate(ranked, 1)) if ranked else "",
            )
        )
        problems += _flash_contributors(lowered) if flash else _ram_contributors(lowered)
    if problems:
        raise CompileError(problems)


def _ram_contributors(lowered: Lowered) -> list[Problem]:
    graph, peak = lowered.program.graph, lowered.plan.peak
    makers: dict[str, tuple[Node, str]] = {}
    for node in graph.nodes:
        tensor = graph.tensors[node.outputs[0]]
        makers[tensor.name] = node, f"{_part(lowered, tensor.name)} {list(tensor.shape)} {tensor.dtype}"
    for out, name in lowered.program.scratch.items():
        makers[name] = makers[out][0], "its scratch memory"
    largest = sorted(peak.buffers, key=lambda b: -b.size)[:_LARGEST]
    return [
        Problem(
            makers[b.name][0].name,
            makers[b.name][0].op,
            f"{b.size:,} bytes at the arena's peak (call {peak.step + 1} of {len(graph.nodes)}): {makers[b.name][1]}",
        )
        for b in largest
    ]


def _part(lowered: Lowered, name: str) -> str:
    return "a tile of its output" if any(name in loop.local for loop in lowered.program.loops) else "its output"


def _flash_contributors(lowered: Lowered) -> list[Problem]:
    nodes = {node.outputs[0]: node for node in lowered.program.graph.nodes}
    largest = sorted(lowered.emitted.weights.items(), key=lambda item: -item[1])[:_LARGEST]
    return [Problem(nodes[out].name, nodes[out].op, f"{size:,} bytes of weights") for out, size in largest]


def _ram_remedies(board: Board, fused: Fused, lowered: Lowered) -> Iterator[_Remedy]:
    """Shorter or smaller inputs."""
    graph, peak = lowered.program.graph, lowered.plan.peak
    if fused.interface is not None:
        room = arena_room(board, graph, lowered.texts)
        if fits := most_tokens(lowered, fused, target_of(board), room):
            yield _Remedy(
                lowered.chosen.arena_bytes - room,
                f"at most {fits} tokens instead of {fused.interface.max_tokens} (--shape "
                f"{fused.interface.lookups[0]}=1,{fits} where the export leaves the length open, else export it so)",
            )
    elif any(len(graph.tensors[x].shape) > 1 and max(graph.tensors[x].shape) > 1 for x in graph.inputs):
        yield _Remedy(peak.bytes // 2, f"half the length of the input saves about {peak.bytes // 2:,} bytes")


def _flash_remedies(lowered: Lowered, over: int) -> Iterator[_Remedy]:
    """A smaller vocabulary, fewer layers."""
    graph, emitted = lowered.program.graph, lowered.emitted
    tables = sum(emitted.weights.get(node.outputs[0], 0) for node in graph.nodes if node.op == "embedding")
    rows = max(
        (
            graph.consts[x].shape[0]
            for node in graph.nodes
            if node.op == "embedding"
            for x in node.inputs
            if x in graph.consts and graph.consts[x].ndim == 2
        ),
        default=0,
    )
    if rows:
        entry = (tables + emitted.sections.get("tokenizer", 0)) / rows
        fits = rows - math.ceil(over / entry)
        if fits > 0:
            yield _Remedy(over, f"a vocabulary of at most {fits:,} instead of {rows:,} entries saves {over:,} bytes")
        else:
            yield _Remedy(int(rows * entry), f"a smaller vocabulary saves about {entry:,.0f} bytes an entry")
    layers = [i for i, node in enumerate(graph.nodes) if node.op == "attention"]
    if len(layers) > 1:
        between = sum(emitted.weights.get(node.outputs[0], 0) for node in graph.nodes[layers[0] : layers[-1]])
        each = between // (len(layers) - 1)
        yield _Remedy(each, f"each of the {len(layers)} layers less saves about {each:,} bytes")


def _other_board(lowered: Lowered, code: int) -> Iterator[_Remedy]:
    if boards := fitting_boards(lowered, code):
        yield _Remedy(0, f"a board that it fits: {', '.join(boards)}")


__all__ = [
    "Need",
    "arena_room",
    "by_region",
    "caller_bytes",
    "check",
    "excess",
    "fitting_boards",
    "is_hopeless",
    "needs",
]
