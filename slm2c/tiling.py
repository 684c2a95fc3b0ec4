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
from slm2c.ops.base import GROUP, ROW, Arg, KernelCall, Offset, Part, Special, Target, rows
from slm2c.ops.linear import TILE


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
    consumers, found = graph.consumers(), []
    for last, node in enumerate(graph.nodes):
        if node.op != "attention" or last < 3 or node.outputs[0] in graph.outputs:
            continue
        projections, operands = graph.nodes[last - 3 : last], node.inputs[:3]
        alone = all(len(consumers[x]) == 1 and x not in graph.outputs for x in operands)
        if not alone or {n.outputs[0] for n in projections} != set(operands) or len(set(operands)) != 3:
            continue
        heads, kv_heads = int(node.attrs["heads"]), int(node.attrs["kv_heads"])
        count = max(g for g in range(1, groups + 1) if kv_heads % g == heads % g == 0)
        (q, k, v), out = operands, node.outputs[0]
        fits = all(n.op == "linear" for n in projections) and graph.tensors[q].shape[1] == graph.tensors[out].shape[1]
        loop = Loop(last - 3, last, GROUP, count, 1, frozenset((k, v)), {q: out})
        if count > 1 and fits and all(_in_groups(graph, n, loop, target) for n in (*projections, node)):
            found.append(loop)
    return found


def in_loop(graph: Graph, node: Node, loop: Loop, target: Target) -> KernelCall:
    """The call of a node in its loop."""
    call = (_in_rows if loop.index == ROW else _in_groups)(graph, node, loop, target)
    assert call is not None, f"{node.name} cannot be divided"
    return call


def _in_rows(graph: Graph, node: Node, loop: Loop, target: Target) -> KernelCall:
    names = _activations(graph, node)
    whole = (graph.tensors[x] for x in names)
    tile = {t.name: replace(t, shape=(loop.size, t.shape[1]), token_axis=0) for t in whole}
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


def _in_groups(graph: Graph, node: Node, loop: Loop, target: Target) -> KernelCall | None:
    """None unless the node's constants are those of its groups, one after the other, for a kernel of the same
    arguments.
    """
    attention, out = graph.nodes[loop.last], node.outputs[0]
    full = best_call(node, graph, target)
    sliced, values = _slice(graph, node, loop)
    call = best_call(sliced, values, target)
    spread = (attention.inputs[0], attention.outputs[0])
    moved = {x: Offset(x, GROUP, graph.tensors[x].shape[1] // loop.size) for x in spread}
    if len(call.args) != len(full.args) or set(call.consts) != set(full.consts):
        return None
    for name in call.names:
        some, every = _value(call, values, name), _value(full, graph, name)
        if some is None or every is None:
            continue
        parts = every.size / some.size
        if parts not in (1, loop.size) or (every.ravel()[: some.size] != some.ravel()).any():
            return None
        if parts > 1:
            moved[name] = Offset(name, GROUP, some.size)
    width, whole = values.tensors[out].shape[1], graph.tensors[out].shape[1]
    part = Part(rows(graph.tensors[out]), width, whole if out in spread else width, GROUP, width, whole)
    args = tuple(moved.get(a, a) if isinstance(a, str) else a for a in call.args)
    return replace(full, args=args, scratch=call.scratch, overwrites=(), part=part)


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
