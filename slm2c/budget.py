"""budget: what a model needs of a board's memories; where that is too much, what takes it and what would help."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from slm2c.board import Board, list_boards, load_board, with_reserve
from slm2c.emit import Texts, classifies_text
from slm2c.errors import CompileError, Problem
from slm2c.ir import Array, Graph, Node
from slm2c.lower import Lowered, most_tokens, target_of
from slm2c.ops import TABLE
from slm2c.passes import Fused

_LARGEST = 5  # contributors that a message lists
_APPLICATION = "application"
_FAR = 2  # times a memory


DATA_BYTES = 1024
"""Kept for the variables of an image, beside the model's memory, until it is linked: start-up code, C library, a line
of text. tests/test_report.py holds that it suffices."""


@dataclass(frozen=True)
class Need:
    """`bytes` of a board's memory region for one purpose."""

    region: str
    what: str
    bytes: int


@dataclass(frozen=True)
class _Remedy:
    """What `text` says would save so many bytes; 0 for a remedy that is none of the model."""

    saves: int
    text: str


class TooLarge(CompileError):
    """A model that does not fit its board."""


def caller_bytes(graph: Graph, texts: Texts) -> int:
    """Inputs and outputs, which the caller holds; 0 for a text model, whose ids and scores lie in the arena."""
    if classifies_text(graph, texts):
        return 0
    return sum(graph.tensors[x].nbytes for x in (*graph.inputs, *dict.fromkeys(graph.outputs)))


def needs(board: Board, lowered: Lowered, code: int = 0) -> tuple[Need, ...]:
    """What is expected to go where on `board`, before it is linked. Of the stack, what the board keeps for it."""
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
    return _reserved(board, found)


def linked_needs(board: Board, lowered: Lowered, over: Mapping[str, int], arena: str) -> tuple[Need, ...]:
    """The same once the linker has said by how many bytes the regions of `over` are too small for an image with its
    arena in region `arena`. What of these is not known otherwise is code, or variables.
    """
    place = board.placement
    found = [need for need in needs(board, lowered) if need.what not in ("variables", _APPLICATION)]
    found = [replace(need, region=arena) if need.what == "arena" else need for need in found]
    for name, size in over.items():
        usable = board.region(name).size - board.region(name).reserve
        rest = usable + size - sum(need.bytes for need in found if need.region == name)
        found.append(Need(name, "code" if name == place.code else "variables", rest))
    return _reserved(board, found)


def _reserved(board: Board, found: Iterable[Need]) -> tuple[Need, ...]:
    """With what the application keeps of the regions that are used, and without what takes nothing."""
    taken = [need for need in found if need.bytes]
    regions = dict.fromkeys(need.region for need in taken)
    return (*taken, *(Need(x, _APPLICATION, n) for x in regions if (n := board.region(x).reserve)))


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


def is_hopeless(board: Board, fused: Fused) -> bool:
    """Whether an int8 tensor that cannot be tiled exceeds the board, or the int8 weights do by far: not worth the
    calibration, which would make the figures exact.
    """
    graph = fused.graph
    weights = sum(value.size for value in graph.consts.values())
    whole = [node for node in graph.nodes if not TABLE[node.op].rowwise(node, graph)]
    largest = max((graph.tensors[node.outputs[0]].size for node in whole), default=0)
    return weights > _FAR * board.region(board.placement.blob).size or largest > board.arena_limit


def check(board: Board, fused: Fused, lowered: Lowered, found: Sequence[Need] | None = None) -> None:
    """Raises CompileError if a region is too small for what is `found` to be needed, else for what is expected: what
    it needs, what takes the most, what would help.
    """
    found = needs(board, lowered) if found is None else found
    problems: list[Problem] = []
    code = sum(need.bytes for need in found if need.what == "code")
    for region, over in excess(board, found).items():
        group = by_region(found)[region]
        needed = sum(n.bytes for n in group)
        parts = ", ".join(f"{n.what} {n.bytes:,}" for n in sorted(group, key=lambda n: -n.bytes))
        flash = not board.region(region).writable
        remedies = [
            *(_smaller_blob(lowered, over, group) if flash else _smaller_arena(board, fused, lowered, over, group)),
            *_other_region(board, found, region, over),
            *_other_board(board, lowered, code),
        ]
        ranked = sorted((_completed(remedy, over) for remedy in remedies), key=lambda r: -r.saves)
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
        raise TooLarge(problems)


def _completed(remedy: _Remedy, over: int) -> _Remedy:
    """With what is missing if it does not suffice."""
    if not 0 < remedy.saves < over:
        return remedy
    return replace(remedy, text=f"{remedy.text}, and {over - remedy.saves:,} more are needed")


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


def _smaller_arena(board: Board, fused: Fused, lowered: Lowered, over: int, group: Sequence[Need]) -> Iterator[_Remedy]:
    """Shorter or smaller inputs."""
    graph, arena = lowered.program.graph, sum(need.bytes for need in group if need.what == "arena")
    if not arena:
        return
    if fused.interface is not None:
        longest, ports = fused.interface.max_tokens, (*graph.inputs, *dict.fromkeys(graph.outputs))
        counted = [x for x in ports if graph.tensors[x].token_axis is not None]
        beside = any(need.what == "inputs and outputs" for need in group)
        held = sum(graph.tensors[x].nbytes for x in counted) // longest if beside else 0
        fits, taken = most_tokens(lowered, fused, target_of(board), arena - over, held)
        if fits:
            saves = arena - taken + held * (longest - fits)
            yield _Remedy(
                saves,
                f"at most {fits} tokens instead of {longest} save {saves:,} bytes (--shape "
                f"{fused.interface.lookups[0]}=1,{fits} where the export leaves the length open, else export it so)",
            )
    elif any(len(graph.tensors[x].shape) > 1 and max(graph.tensors[x].shape) > 1 for x in graph.inputs):
        half = lowered.plan.peak.bytes // 2
        yield _Remedy(half, f"half the length of the input saves about {half:,} bytes")


def _smaller_blob(lowered: Lowered, over: int, group: Sequence[Need]) -> Iterator[_Remedy]:
    """A smaller vocabulary, fewer layers."""
    if not any(need.what == "blob" for need in group):
        return
    graph, emitted = lowered.program.graph, lowered.emitted
    tables = [node for node in graph.nodes if node.op == "embedding"]
    consts = (graph.consts[x] for node in tables for x in node.inputs if x in graph.consts)
    rows = max((value.shape[0] for value in consts if value.ndim == 2), default=0)
    if rows:
        entry = (
            sum(value.nbytes // rows for value in _tables(graph, rows)) + emitted.sections.get("tokenizer", 0) / rows
        )
        less = math.ceil(over / entry)
        if less < rows:
            saves = round(less * entry)
            yield _Remedy(
                saves, f"a vocabulary of at most {rows - less:,} instead of {rows:,} entries saves {saves:,} bytes"
            )
        else:
            saves = round(rows // 2 * entry)
            yield _Remedy(saves, f"a vocabulary of half its {rows:,} entries saves {saves:,} bytes")
    layers = [i for i, node in enumerate(graph.nodes) if node.op == "attention"]
    spans = [graph.nodes[a:b] for a, b in pairwise(layers)]
    # The least, as constants that layers share are in the blob once, with the first of them.
    each = min((sum(emitted.weights.get(node.outputs[0], 0) for node in span) for span in spans), default=0)
    if each:
        less = min(math.ceil(over / each), len(layers) - 1)
        kept = len(layers) - less
        text = f"at most {kept} layer{'s' * (kept > 1)} instead of {len(layers)} save about {less * each:,} bytes"
        yield _Remedy(less * each, text)


def _tables(graph: Graph, rows: int) -> list[Array]:
    """Tables of embeddings with so many rows."""
    names = {x for node in graph.nodes if node.op == "embedding" for x in node.inputs if x in graph.consts}
    return [graph.consts[x] for x in sorted(names) if graph.consts[x].ndim == 2 and graph.consts[x].shape[0] == rows]


def _other_region(board: Board, found: Sequence[Need], region: str, over: int) -> Iterator[_Remedy]:
    """What would fit another memory of the board, and what the application could give."""
    free = {
        r.name: r.size
        - r.reserve
        - sum(need.bytes for need in found if need.region == r.name and need.what != _APPLICATION)
        for r in board.memory
        if r.writable == board.region(region).writable and r.name != region
    }
    here = {need.what: need.bytes for need in found if need.region == region}
    beside = sum(here.get(what, 0) for what in ("inputs and outputs", "variables"))  # these lie where the stack does
    for what in ("arena", "blob", "code", "stack"):
        size = here.get(what, 0) + (beside if what == "stack" else 0)
        home = next((name for name, room in free.items() if room >= size), None)
        if what in here and home:
            key = f"placement.{what} in a copy of the board's file"
            yield _Remedy(size, f"the {what} in {home} instead saves {size:,} bytes ({key})")
    if kept := here.get(_APPLICATION, 0):
        less = min(over, kept)
        yield _Remedy(less, f"--reserve {region}={kept - less} instead of {kept} saves {less:,} bytes")


def _other_board(board: Board, lowered: Lowered, code: int) -> Iterator[_Remedy]:
    """Those that come with slm2c and hold the model beside what the application keeps."""
    reserve = {region.name: region.reserve for region in board.memory if region.reserve}

    def fits(name: str) -> bool:
        try:
            other = with_reserve(load_board(name), reserve)
        except CompileError:  # no such region, or a smaller one
            return False
        return not excess(other, needs(other, lowered, code))

    if boards := [name for name in list_boards() if name != board.name and fits(name)]:
        yield _Remedy(0, f"a board that it fits: {', '.join(boards)}")


__all__ = [
    "Need",
    "arena_room",
    "by_region",
    "caller_bytes",
    "check",
    "excess",
    "is_hopeless",
    "linked_needs",
    "needs",
]
