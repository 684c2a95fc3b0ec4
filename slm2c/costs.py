"""costs: what kernel calls are expected to take: instructions of a Cortex-M with DSP extension, bytes of weights read.

The one table that choices between kernels and between schedules go by. Its figures are those of docs/PERFORMANCE.md:
`make bench` counts instructions, tests/test_costs.py holds the table against the count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from slm2c.ir import Graph, Node
from slm2c.ops import TABLE
from slm2c.ops.attention import CACHE
from slm2c.ops.base import GROUP, Arg, KernelCall, Offset, Special, Target

if TYPE_CHECKING:
    from slm2c.schedule import Program

_Cost = TypeVar("_Cost")


@dataclass(frozen=True)
class Linear:
    """Instructions of a packed linear layer: for each call; for each activation, expanded, and looked up in a table;
    for each pair of channels in a tile, and each token of it; for each word of weights (2 channels, 2 features) and
    token.

    single_pair, single_word: the same where there is one token
    """

    call: float
    expand: float
    look_up: float
    pair: float
    token: float
    word: float
    single_pair: float
    single_word: float


LINEAR: Mapping[str, Linear] = {
    "slm_linear_packed": Linear(365, 0.96, 3.46, 22.1, 14.6, 2.886, 14.2, 3.551),
    "slm_linear_pieces": Linear(100, 1.0, 3.5, 50, 110, 4.45, 160, 7.0),
}

PORTABLE_LINEAR = (41, 18, 35, 5)
"""For each call, row, output, and multiplication."""


@dataclass(frozen=True)
class Attention:
    """Instructions of an attention: for each element of keys and values that is expanded, each head and query, each of
    its scores, each multiplication, and each element of a query and its output.
    """

    expand: float
    query: float
    score: float
    mac: float
    element: float


ATTENTION: Mapping[str, Attention] = {
    "slm_attention_dsp": Attention(1.64, 338, 11.9, 0.673, 3.84),
    "slm_attention": Attention(0, 1035, 1, 6.2, 0),
}

ELEMENT: Mapping[str, float] = {
    "slm_lut": 3.7,
    "slm_layernorm_dsp": 15.3,
    "slm_layernorm": 39,
    "slm_embedding": 9.4,
}
"""Instructions for an element of the output."""

OTHER_ELEMENT, OTHER_MAC = 20, 6
"""For all other kernels, which are plain loops: for an element of the output, and for a multiplication. A guess."""


def instructions(program: Program, tokens: int) -> int:
    """Expected instructions of a run on `tokens` tokens."""
    return round(sum(instructions_by_output(program, tokens).values()))


def instructions_by_output(program: Program, tokens: int) -> dict[str, float]:
    """The same by the output of the node whose kernel executes them."""
    found: dict[str, float] = {}
    for call, rows, count in runs(program, tokens):
        output = call.node.outputs[0]
        found[output] = found.get(output, 0.0) + count * call_instructions(call, program.graph, rows)
    return found


def call_instructions(call: KernelCall, graph: Graph, rows: int) -> float:
    """Expected instructions of one call, with `rows` for the token count or the rows of its tile."""
    numbers = [_number(arg, rows) for arg in call.args]
    if packed := _of_family(LINEAR, call.symbol):
        return _packed(packed, *numbers[-5:], table=isinstance(call.args[4], str))
    if call.symbol.startswith("slm_linear"):
        count, features, channels, _ = numbers[-4:]
        each, row, output, mac = PORTABLE_LINEAR
        return each + count * (row + channels * (output + mac * features))
    if attention := _of_family(ATTENTION, call.symbol):
        return _attention(attention, *numbers[_FIRST[call.symbol] :][:6])
    out = graph.tensors[call.node.outputs[0]]
    share = rows / out.shape[out.token_axis or 0] if out.token_axis is not None or call.part is not None else 1.0
    if element := _of_family(ELEMENT, call.symbol):
        return share * out.size * element
    return share * (out.size * OTHER_ELEMENT + TABLE[call.node.op].macs(call.node, graph.tensors) * OTHER_MAC)


def _packed(cost: Linear, rows: int, features: int, channels: int, _step: int, tile: int, *, table: bool) -> float:
    pairs, words, tiles = -(-channels // 2), -(-features // 8) * 4, -(-rows // tile)
    first = cost.call + rows * features * (cost.expand + table * cost.look_up)
    if rows == 1:
        return first + pairs * (cost.single_pair + words * cost.single_word)
    return first + pairs * (tiles * cost.pair + rows * (cost.token + words * cost.word))


def _attention(cost: Attention, rows: int, keys: int, heads: int, _kv_heads: int, size: int, v_size: int) -> float:
    quads = -(-keys // 4) * 4
    sizes = size + v_size
    expansions = 1 if quads * sizes <= 2 * CACHE else -(-rows // 4)  # of two elements to a word
    return heads * (
        expansions * keys * sizes * cost.expand
        + rows * (cost.query + quads * (cost.score + sizes * cost.mac) + sizes * cost.element)
    )


def _of_family(table: Mapping[str, _Cost], symbol: str) -> _Cost | None:
    """The entry of a kernel: that with the longest beginning of its name."""
    found = [family for family in table if symbol.startswith(family)]
    return table[max(found, key=len)] if found else None


_FIRST = {"slm_attention_s8": 6, "slm_attention_bias_s8": 7, "slm_attention_dsp_s8": 7}
"""Where the sizes begin among the arguments of attention kernels."""


def best_call(node: Node, graph: Graph, target: Target) -> KernelCall:
    """The call for an integer node of the kernel with the fewest expected instructions, at the most rows, of those that
    `target` can run.
    """
    op = TABLE[node.op]
    calls = [op.lower(node, graph), *(op.lower_dsp(node, graph) if target.dsp else ())]
    if len(calls) == 1:
        return calls[0]
    return min(calls, key=lambda call: call_instructions(call, graph, graph.tensors[node.outputs[0]].shape[0]))


def weight_bytes(program: Program, tokens: int) -> int:
    """Bytes of the blob that kernels read in a run on `tokens` tokens: of tables of embeddings, the rows of the tokens.

    A linear layer reads all its weights once for each tile of tokens, whatever the number of tokens in it.
    """
    return sum(count * _call_bytes(call, program.graph, rows) for call, rows, count in runs(program, tokens))


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


def runs(program: Program, tokens: int) -> list[tuple[KernelCall, int, int]]:
    """(call, its rows, how often it runs so) for each call with a symbol; tiles as slm_tile_rows divides them."""
    around = {step: loop for loop in program.loops for step in range(loop.first, loop.last + 1)}
    found = []
    for step, call in enumerate(program.calls):
        loop = around.get(step)
        if not call.symbol:
            continue
        if loop is None:
            found.append((call, tokens, 1))
        elif loop.index == GROUP:
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


__all__ = [
    "best_call",
    "call_instructions",
    "instructions",
    "instructions_by_output",
    "runs",
    "tile_rows",
    "weight_bytes",
]
