"""tiling: loops over parts of tensors, so that what lies between two calls is never there as a whole.

Rows: calls of which each computes row i from row i alone run one after the other for a few rows at a time. The wide
tensor inside a feed-forward block then needs room for those rows only.

Groups: an attention runs for one group of heads after the other. Keys and values exist for one group at a time; queries
lie where the output will, in its columns.

This file says which loops are possible and what the calls in them are; the schedule chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from slm2c.costs import best_call
from slm2c.ir import Array, Graph, Node, Tensor
from slm2c.ops import TABLE
from slm2c.ops.base import Arg, KernelCall, Offset, Part, Special, Target, rows
from slm2c.ops.linear import TILE

ROW, GROUP = "row", "group"
"""Variables of the two kinds of loop in C."""


@dataclass(frozen=True)
class Tiling:
    """rows: of a tile at most; groups: that the heads of an attention are divided into, where their number allows
    it.
    """

    rows: int = TILE
    groups: int = 1


@dataclass(frozen=True)
class Loop:
    """The nodes first..last, once for each tile.

    index: ROW or GROUP
    size: rows in a tile at most, or the number of groups
    rows: that there are in all, for a loop over rows
    local: tensors of which one tile exists at a time
    aliases: tensors that lie where another one will
    """

    first: int
    last: int
    index: str
    size: int
    rows: Arg
    local: frozenset[str]
    aliases: Mapping[str, str] = field(default_factory=dict)


def row_runs(graph: Graph, rows: int, taken: Sequence[Loop]) -> Iterator[range]:
    """Longest runs of nodes that can share a loop over tiles of `rows` rows, outside of the loops `taken`."""
    inside = {step for loop in taken for step in range(loop.first, loop.last + 1)}
    run: list[int] = []
    kind = None
    for step, node in enumerate(graph.nodes):
        found = None if step in inside else _rows_of(graph, node)
        if run and found != kind:
            yield range(run[0], run[-1] + 1)
            run = []
        kind = found
        if found is not None and found[0] > rows:
            run.append(step)
    if run:
        yield range(run[0], run[-1] + 1)


def _rows_of(graph: Graph, node: Node) -> tuple[int, bool] | None:
    """(number of rows, whether they are tokens) of a node that can be called for some of them; else None."""
    if not TABLE[node.op].rowwise(node, graph):
        return None
    tensors = [graph.tensors[x] for x in _activations(graph, node)]
    kinds = {(t.shape[0], t.token_axis == 0) for t in tensors}
    if len(kinds) != 1 or any(len(t.shape) != 2 or t.token_axis not in (0, None) for t in tensors):
        return None
    return kinds.pop()


def _activations(graph: Graph, node: Node) -> list[str]:
    return [x for x in (*node.inputs, *node.outputs) if x and x not in graph.consts]


def row_loop(graph: Graph, steps: range, size: int) -> Loop:
    """The loop over these nodes, which are part of one run."""
    inside = [graph.nodes[step] for step in steps]
    made = {node.outputs[0] for node in inside} - set(graph.outputs)
    read_outside = {x for step, n in enumerate(graph.nodes) if step not in steps for x in n.inputs}
    count = rows(graph.tensors[inside[0].outputs[0]])
    return Loop(steps[0], steps[-1], ROW, size, count, frozenset(made - read_outside))


def group_loops(graph: Graph, groups: int, target: Target) -> list[Loop]:
    """A loop for each attention whose query, key and value layers stand right before it."""
    found = []
    for last, node in enumerate(graph.nodes):
        if node.op != "attention" or node.outputs[0] in graph.outputs or last < 3:
            continue
        q, k, v = node.inputs[:3]
        heads, kv_heads = int(node.attrs["heads"]), int(node.attrs["kv_heads"])
        before = {n.outputs[0] for n in graph.nodes[last - 3 : last] if n.op == "linear"}
        own = before == {q, k, v} and graph.tensors[q].shape[1] == graph.tensors[node.outputs[0]].shape[1]
        count = max(g for g in range(1, groups + 1) if kv_heads % g == heads % g == 0)
        loop = Loop(last - 3, last, GROUP, count, 1, frozenset((k, v)), {q: node.outputs[0]})
        if own and count > 1 and all(_divides(graph, graph.nodes[s], loop, target) for s in range(last - 3, last + 1)):
            found.append(loop)
    return found


def in_loop(graph: Graph, node: Node, loop: Loop, target: Target) -> KernelCall:
    """The call of a node in its loop."""
    return (_in_rows if loop.index == ROW else _in_groups)(graph, node, loop, target)


def _in_rows(graph: Graph, node: Node, loop: Loop, target: Target) -> KernelCall:
    names = _activations(graph, node)
    tile = {x: replace(t, shape=(loop.size, t.shape[1]), token_axis=0) for x in names if (t := graph.tensors[x])}
    call = best_call(node, replace(graph, tensors={**graph.tensors, **tile}), target)

    def argument(arg: Arg) -> Arg:
        if arg is Special.TOKENS:
            return Special.ROWS
        if isinstance(arg, str) and arg in tile and arg not in loop.local:
            return Offset(arg, ROW, tile[arg].shape[1])
        return arg

    width = tile[node.outputs[0]].shape[1]
    part = Part(Special.ROWS, width, width, ROW, width, width)
    return replace(call, args=tuple(argument(a) for a in call.args), part=part)


def _in_groups(graph: Graph, node: Node, loop: Loop, target: Target) -> KernelCall:
    attention, out = graph.nodes[loop.last], node.outputs[0]
    full = best_call(node, graph, target)
    sliced, values = _slice(graph, node, loop)
    call = best_call(sliced, values, target)
    width, whole = values.tensors[out].shape[1], graph.tensors[out].shape[1]
    spread = {attention.inputs[0], attention.outputs[0]}

    def argument(arg: Arg) -> Arg:
        if not isinstance(arg, str):
            return arg
        if arg in spread:
            return Offset(arg, GROUP, graph.tensors[arg].shape[1] // loop.size)
        some, every = _value(call, values, arg), _value(full, graph, arg)
        return arg if some is None or every is None or some.size == every.size else Offset(arg, GROUP, some.size)

    part = Part(rows(graph.tensors[out]), width, whole if out in spread else width, GROUP, width, whole)
    args = tuple(argument(a) for a in call.args)
    return replace(full, args=args, scratch=call.scratch, overwrites=(), part=part)


def _divides(graph: Graph, node: Node, loop: Loop, target: Target) -> bool:
    """Whether a node's constants are those of its groups, one after the other, for a kernel that takes the same
    arguments.
    """
    full = best_call(node, graph, target)
    sliced, values = _slice(graph, node, loop)
    call = best_call(sliced, values, target)
    if len(call.args) != len(full.args) or set(call.consts) != set(full.consts):
        return False
    for name in call.names:
        some, every = _value(call, values, name), _value(full, graph, name)
        if some is not None and every is not None and (every.ravel()[: some.size] != some.ravel()).any():
            return False
        if some is not None and every is not None and every.size not in (some.size, some.size * loop.size):
            return False
    return True


def _value(call: KernelCall, graph: Graph, name: str) -> Array | None:
    return call.consts.get(name, graph.consts.get(name))


def _slice(graph: Graph, node: Node, loop: Loop) -> tuple[Node, Graph]:
    """The node and its operands for the first group of heads."""
    attention, out = graph.nodes[loop.last], node.outputs[0]
    whole = graph.tensors[attention.outputs[0]].shape[1]
    tensors: dict[str, Tensor] = {x: _columns(graph.tensors[x], loop.size) for x in (*attention.inputs[:3], out)}
    if node is attention:
        divided = [x for x in node.inputs[3:4] if x and graph.tensors[x].shape[0] > 1]
        heads = {name: int(node.attrs[name]) // loop.size for name in ("heads", "kv_heads")}
        attrs = {**node.attrs, **heads, "step": whole}
    else:
        divided = list(node.inputs[1:4])  # weight, bias, multiplier
        attrs = {**node.attrs, "step": whole} if out in loop.aliases else dict(node.attrs)
    consts = {x: graph.consts[x][: len(graph.consts[x]) // loop.size] for x in divided}
    tensors |= {x: replace(graph.tensors[x], shape=value.shape) for x, value in consts.items()}
    return replace(node, attrs=attrs), replace(
        graph, tensors={**graph.tensors, **tensors}, consts={**graph.consts, **consts}
    )


def _columns(tensor: Tensor, parts: int) -> Tensor:
    return replace(tensor, shape=(tensor.shape[0], tensor.shape[1] // parts))
