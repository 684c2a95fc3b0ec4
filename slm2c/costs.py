"""costs: what kernel calls are expected to take: instructions of a Cortex-M with DSP extension, bytes of weights read.

The one table that choices between kernels and between schedules go by. Its figures are those of docs/PERFORMANCE.md:
`make bench` counts instructions, tests/test_costs.py holds the table against the count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slm2c.ir import Graph
from slm2c.ops.base import Arg, KernelCall, Offset, Special

if TYPE_CHECKING:
    from slm2c.schedule import Program


@dataclass(frozen=True)
class Linear:
    """Instructions of a linear layer: for each call; for each activation that is expanded; for each pair of channels in
    a tile, each of its tokens, and each word of weights (2 channels, 2 features) and token.
    """

    call: float
    expand: float
    pair: float
    token: float
    word: float


LINEAR: Mapping[str, Linear] = {
    "slm_linear_packed": Linear(150, 1.4, 35, 12, 3.0),
    "slm_linear_pieces": Linear(150, 1.4, 80, 60, 9.0),
    "slm_linear": Linear(30, 0, 0, 40, 24),
}

ELEMENT: Mapping[str, float] = {
    "slm_lut": 4,
    "slm_layernorm_dsp": 15,
    "slm_layernorm": 40,
    "slm_embedding": 14,
}
"""Instructions for an element of the output."""

OTHER = 20
"""The same for all other kernels."""

ATTENTION_CALL, ATTENTION_ELEMENT, ATTENTION_MAC = 500, 30, 1.3
"""Instructions for a head and query, for each of its scores, and for each multiplication of a score with a key or
value.
"""


def instructions(program: Program, tokens: int) -> int:
    """Expected instructions of a run on `tokens` tokens."""
    return round(
        sum(count * call_instructions(call, program.graph, rows) for call, rows, count in _runs(program, tokens))
    )


def call_instructions(call: KernelCall, graph: Graph, rows: int) -> float:
    """Expected instructions of one call, with `rows` for the token count or the rows of its tile."""
    numbers = [_number(arg, rows) for arg in call.args]
    family = next((f for f in LINEAR if call.symbol.startswith(f)), "")
    if family:
        cost = LINEAR[family]
        has_tile = family != "slm_linear"
        count, features, channels, _, *tile = numbers[-5:] if has_tile else numbers[-4:]
        pairs, words, tiles = -(-channels // 2), -(-features // 8) * 4, -(-count // tile[0]) if has_tile else 1
        return (
            cost.call
            + count * features * cost.expand
            + pairs * (tiles * cost.pair + count * (cost.token + words * cost.word))
        )
    if call.symbol.startswith("slm_attention"):
        count, keys, heads, _, size, v_size = numbers[_FIRST[call.symbol] :][:6]
        return count * heads * (ATTENTION_CALL + keys * (ATTENTION_ELEMENT + (size + v_size) * ATTENTION_MAC))
    element = next((cost for family, cost in ELEMENT.items() if call.symbol.startswith(family)), OTHER)
    out = graph.tensors[call.node.outputs[0]]
    elements = (
        out.size if out.token_axis is None and call.part is None else rows * out.size // out.shape[out.token_axis or 0]
    )
    return element * elements


_FIRST = {"slm_attention_s8": 6, "slm_attention_bias_s8": 7, "slm_attention_dsp_s8": 7}
"""Where the sizes begin among the arguments of attention kernels."""


def weight_bytes(program: Program, tokens: int) -> int:
    """Bytes of the blob that kernels read in a run on `tokens` tokens: of tables of embeddings, the rows of the tokens.

    A linear layer reads all its weights once for each tile of tokens, whatever the number of tokens in it.
    """
    return sum(count * _call_bytes(call, program.graph, rows) for call, rows, count in _runs(program, tokens))


def _call_bytes(call: KernelCall, graph: Graph, rows: int) -> int:
    if call.node.op == "embedding":
        out = graph.tensors[call.node.outputs[0]]
        return rows * out.shape[-1] * sum(x in graph.consts and graph.consts[x].ndim == 2 for x in call.names)
    passes = 1
    if call.symbol.startswith(("slm_linear_packed", "slm_linear_pieces")):
        count, *_, tile = (_number(arg, rows) for arg in call.args[-5:])
        passes = -(-count // tile)
    total = 0
    for arg in call.args:
        name = arg.name if isinstance(arg, Offset) else arg
        value = call.consts.get(name, graph.consts.get(name)) if isinstance(name, str) else None
        if value is not None:
            total += passes * value.itemsize * (arg.step if isinstance(arg, Offset) else value.size)
    return total


def _number(arg: Arg, rows: int) -> int:
    return rows if arg in (Special.TOKENS, Special.ROWS) else arg if isinstance(arg, int) else 0


def _runs(program: Program, tokens: int) -> list[tuple[KernelCall, int, int]]:
    """(call, its rows, how often it runs so) for each call with a symbol; tiles as slm_tile_rows divides them."""
    around = {step: loop for loop in program.loops for step in range(loop.first, loop.last + 1)}
    found = []
    for step, call in enumerate(program.calls):
        loop = around.get(step)
        if not call.symbol:
            continue
        if loop is None:
            found.append((call, tokens, 1))
        elif loop.index == "group":
            found.append((call, tokens, loop.size))
        else:
            found += [(call, rows, 1) for rows in tile_rows(_number(loop.rows, tokens), loop.size)]
    return found


def tile_rows(rows: int, most: int) -> list[int]:
    """How runtime_c/slm_tile.h divides rows."""
    found = []
    while rows:
        tiles = -(-rows // most)
        equal = -(-rows // tiles)
        found.append(min(rows, (equal + 3) // 4 * 4))
        rows -= found[-1]
    return found


__all__ = ["call_instructions", "instructions", "tile_rows", "weight_bytes"]
