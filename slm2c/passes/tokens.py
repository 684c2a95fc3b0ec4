"""Which inputs are tokens, and what the padding mask does: found by probing, not by pattern.

Exporters build masks with Where, Expand, GatherND, CumSum or arithmetic. All these subgraphs depend on the integer
inputs alone, so they can simply be evaluated for prompts of k = 1..N real tokens: what they yield for every k says
what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from slm2c import interpret
from slm2c.core import ELEMENTWISE
from slm2c.ir import Array, Graph, Node
from slm2c.passes.edit import Edit

BLOCKED = -1e4
"""An additive mask at or below this blocks a key: exp(-1e4) is 0 in float32."""


@dataclass(frozen=True)
class Interface:
    """How the ONNX inputs become run-time arguments.

    lookups: inputs that index embedding tables, the token ids first (then token types, positions)
    masks: inputs that state the padding and are replaced by the token count n
    pad_id: the id that the graph itself takes as padding, None if it has no such rule
    max_tokens: the length that the graph was bound to
    """

    lookups: tuple[str, ...]
    masks: tuple[str, ...]
    pad_id: int | None
    max_tokens: int


def find_interface(graph: Graph) -> Interface | None:
    """The token interface of a graph in normal form, or None if no input indexes an embedding table."""
    tables = _tables(graph)
    if not tables:
        return None
    lookups = tuple(sorted(tables, key=lambda x: (-max(tables[x]), graph.inputs.index(x))))
    count = graph.tensors[lookups[0]].size
    lookups = tuple(x for x in lookups if graph.tensors[x].size == count)
    if graph.tensors[lookups[0]].shape[-1] != count:
        return None
    masks = tuple(x for x in graph.inputs if x not in lookups and graph.tensors[x].size == count)
    return Interface(lookups, masks, _pad_id(graph, lookups[0]), count)


def _tables(graph: Graph) -> dict[str, list[int]]:
    """Rows of the embedding tables that each input indexes, as it is, converted or reshaped."""
    producers = graph.producers()
    tables: dict[str, list[int]] = {}
    for node in graph.nodes:
        if node.op == "gather" and node.inputs[0] in graph.consts and graph.tensors[node.inputs[0]].dtype == "f32":
            source = node.inputs[1]
            maker = producers.get(source)
            while maker is not None and (
                maker.op == "cast"
                or (
                    maker.op == "view"
                    and np.array_equal(maker.attrs["index"].ravel(), np.arange(graph.tensors[maker.inputs[0]].size))
                )
            ):
                source = maker.inputs[0]
                maker = producers.get(source)
            if source in graph.inputs:
                tables.setdefault(source, []).append(graph.tensors[node.inputs[0]].shape[0])
    return tables


def _pad_id(graph: Graph, tokens: str) -> int | None:
    """The constant that the ids are compared with, if there is exactly one."""
    inside = cone(graph, (tokens,))
    found = {
        int(graph.consts[x].ravel()[0])
        for node in graph.nodes
        if node.op == "equal" and node.outputs[0] in inside
        for x in node.inputs
        if x in graph.consts and graph.consts[x].size == 1
    }
    return found.pop() if len(found) == 1 else None


def cone(graph: Graph, inputs: Sequence[str]) -> frozenset[str]:
    """Tensors that depend on `inputs` and constants alone, and are not embedded: everything that masks are made of."""
    inside = set(inputs)
    for node in graph.nodes:
        embeds = node.op == "gather" and graph.tensors[node.outputs[0]].dtype == "f32"
        known = all(not x or x in inside or x in graph.consts for x in node.inputs)
        if known and not embeds and any(x in inside for x in node.inputs):
            inside.add(node.outputs[0])
    return frozenset(inside)


class Probe:
    """Evaluates what depends on the token inputs alone, for prompts of k real tokens.

    The ids are any of the vocabulary, and often near the constants that the graph has for them: what depends on more
    than which ids are padding shows.
    """

    def __init__(self, graph: Graph, interface: Interface) -> None:
        self.graph = graph
        self.interface = interface
        self.rows = {name: min(sizes) for name, sizes in _tables(graph).items()}
        count = interface.max_tokens
        self.lengths = (
            tuple(range(1, count + 1))
            if count <= 64
            else tuple(sorted({1, 2, 3, count // 3, count // 2, count - 1, count}))
        )

    @cached_property
    def cone(self) -> frozenset[str]:
        """The tensors that can be probed."""
        return cone(self.graph, (*self.interface.lookups, *self.interface.masks))

    def feeds(self, k: int) -> dict[str, Array]:
        """Inputs of a prompt with k real tokens, padded to the maximum."""
        count, pad = self.interface.max_tokens, self.interface.pad_id or 0
        rng = np.random.default_rng(k)
        given: dict[str, Array] = {}
        for i, name in enumerate(self.interface.lookups):
            given[name] = np.full(count, pad)
            given[name][:k] = self._ids(name, rng, k, self.interface.pad_id if i == 0 else None)
        for name in self.interface.masks:
            given[name] = (np.arange(count) < k).astype(np.int64)
        return {
            name: value.reshape(self.graph.tensors[name].shape).astype(
                {"bool": np.bool_, "f32": np.float32, "i32": np.int32}.get(self.graph.tensors[name].dtype, np.int64)
            )
            for name, value in given.items()
        }

    def _ids(self, name: str, rng: np.random.Generator, count: int, pad: int | None) -> Array:
        """Ids that are no padding; every other one, on average, lies at a constant or beside it."""
        rows = self.rows.get(name, 2)  # a table that was folded away had two kinds of rows to tell apart
        ids = rng.integers(0, rows, count)
        near = [x for c in self._constants for x in (c - 1, c, c + 1) if 0 <= x < rows]
        if near:
            ids = np.where(rng.random(count) < 0.5, rng.choice(near, count), ids)
        return np.where(ids == pad, (ids + 1) % rows, ids) if pad is not None else ids

    @cached_property
    def _constants(self) -> tuple[int, ...]:
        """The integers, each alone in its tensor, that what can be probed is made with."""
        used = {
            x
            for node in self.graph.nodes
            if node.outputs[0] in self.cone
            for x in node.inputs
            if x in self.graph.consts
        }
        single = (self.graph.consts[x].ravel() for x in used if self.graph.consts[x].size == 1)
        return tuple(sorted({int(x[0]) for x in single if np.isfinite(x[0])}))

    def values(self, name: str) -> dict[int, Array]:
        """The value of a tensor for each probed length."""
        if name in self.graph.consts:
            return dict.fromkeys(self.lengths, self.graph.consts[name])
        assert name in self.cone, name
        return {k: interpret.run(self.graph, self.feeds(k), [name])[name] for k in self.lengths}


@dataclass(frozen=True)
class Mask:
    """What a mask amounts to on [heads, query, key]: which keys of the prompt it blocks, and what it adds to the
    others.
    """

    causal: bool
    bias: Array | None


def classify_mask(allowed: dict[int, Array], added: dict[int, Array] | None) -> Mask | None:
    """Judge a mask by its values at every probed length k; each array is [heads, queries, keys].

    Rows of padded queries mean nothing. A query must see exactly the k real keys, or (causal) those of them up to
    its own position; what is added must not depend on k. Anything else is None. A mask that blocks nothing though
    keys are padded is only right for graphs without padding; the caller knows which it has.
    """
    lengths = sorted(allowed)
    heads, queries, keys = allowed[lengths[-1]].shape
    lower = np.arange(keys)[None, :] <= np.arange(queries)[:, None]
    for causal in (False, True):
        if all(
            np.array_equal(
                allowed[k][:, :k],
                np.broadcast_to(_visible(k, keys, lower if causal else None), (heads, queries, keys))[:, :k],
            )
            for k in lengths
        ):
            break
    else:
        return None
    if added is None:
        return Mask(causal, None)
    full = added[lengths[-1]]
    for k in lengths:
        same = (added[k] == full) | ~allowed[k]
        if not same[:, :k, :k].all():
            return None
    bias = np.where(allowed[lengths[-1]], full, 0).astype(np.float32)
    return Mask(causal, bias if bias.any() else None)


def _visible(k: int, keys: int, lower: Array | None) -> Array:
    real = (np.arange(keys) < k)[None, :]
    return real if lower is None else real & lower


def fold_positions(graph: Graph, interface: Interface) -> Graph:
    """Table rows whose index does not depend on the prompt (positions, a constant token type) become constants."""
    probe = Probe(graph, interface)
    edit = Edit(graph)
    count = interface.max_tokens
    for node in graph.nodes:
        if node.op != "gather" or node.inputs[0] not in graph.consts or node.inputs[1] not in probe.cone:
            continue
        if graph.tensors[node.inputs[1]].size != count:
            continue
        values = probe.values(node.inputs[1])
        full = values[count].ravel()
        if all(np.array_equal(v.ravel()[:k], full[:k]) for k, v in values.items()) and not _random(
            probe, node.inputs[1]
        ):
            edit.replace(node.outputs[0], edit.const(np.take(graph.consts[node.inputs[0]], values[count], axis=0)))
    return edit.apply()


def _random(probe: Probe, name: str) -> bool:
    """Whether a tensor depends on the ids themselves, not only on how many there are."""
    k = probe.interface.max_tokens
    feeds = probe.feeds(k)
    for token in probe.interface.lookups:
        feeds = {**feeds, token: feeds[token][..., ::-1] if k > 1 else (feeds[token] + 1) % probe.rows.get(token, 2)}
    return not np.array_equal(interpret.run(probe.graph, feeds, [name])[name], probe.values(name)[k])


def drop_token_masks(graph: Graph, interface: Interface) -> Graph:
    """Replace what a mask does to whole rows: rows kept as they are, and means, sums and maxima over the real tokens.

    A value that depends on one activation X of N rows and on the mask is evaluated for random X and every length;
    where it equals X on the real rows, or the mean, sum or maximum of these rows, it is replaced by that.
    """
    probe = Probe(graph, interface)
    producers = graph.producers()
    rank = {name: i for i, name in enumerate(producers)}
    edit = Edit(graph)
    for node in graph.nodes:
        y = node.outputs[0]
        if y in probe.cone or graph.tensors[y].dtype != "f32":
            continue
        root = _masked_root(graph, producers, rank, probe.cone, y)
        meaning = None if root is None else _meaning(graph, probe, root, y)
        if root is None or meaning is None:
            continue
        shape, count = graph.tensors[y].shape, interface.max_tokens
        features = graph.tensors[root].size // count
        if meaning == "same":
            new = edit.add(
                "view", [root], {"index": np.arange(count * features).reshape(shape), "fill": 0.0}, shape, node.name
            )
        else:
            rows = edit.add(
                "view",
                [root],
                {"index": np.arange(count * features).reshape(count, features), "fill": 0.0},
                (count, features),
                node.name,
            )
            pooled = edit.add(meaning, [rows], {"axes": (0,), "keepdims": True}, (1, features), node.name)
            new = edit.add(
                "view", [pooled], {"index": np.arange(features).reshape(shape), "fill": 0.0}, shape, node.name
            )
        edit.replace(y, new)
    return edit.apply()


_REGION_LIMIT = 24  # nodes; a masked mean in its longest known form has 10
_MASKED_OPS = frozenset(ELEMENTWISE) | {"view", "reduce_sum", "reduce_mean", "reduce_max", "reduce_min"}


def _masked_root(
    graph: Graph, producers: Mapping[str, Node], rank: Mapping[str, int], inside: frozenset[str], y: str
) -> str | None:
    """X, if `y` follows from one activation X and from tensors in the mask's cone, at least one of these.

    Of several such X the smallest and farthest: behind a product with the mask, not between it and a sum.
    """
    frontier, masked, best = {y}, False, None
    for _ in range(_REGION_LIMIT):
        name = max(frontier, key=lambda x: rank.get(x, -1))
        node = producers.get(name)
        if node is None or node.op not in _MASKED_OPS:
            return best
        frontier.remove(name)
        masked |= any(x in inside for x in node.inputs)
        frontier |= {x for x in node.inputs if x and x not in inside and x not in graph.consts}
        if not frontier:
            return best
        if masked and len(frontier) == 1:
            (x,) = frontier
            if best is not None and graph.tensors[x].size < graph.tensors[best].size:
                return best
            best = x
    return best


def _meaning(graph: Graph, probe: Probe, root: str, y: str) -> str | None:
    count = probe.interface.max_tokens
    tensor = graph.tensors[root]
    if tensor.size % count or (tensor.shape[-1] == count and len(tensor.shape) > 2):
        return None
    rng = np.random.default_rng(0)
    x = rng.normal(size=tensor.shape).astype(np.float32)
    rows = x.reshape(count, -1)
    candidates = {"same", "reduce_mean", "reduce_sum", "reduce_max"}
    for k in probe.lengths:
        got = interpret.run(graph, {**probe.feeds(k), root: x}, [y])[y]
        real = rows[:k]
        expected = {
            "same": real,
            "reduce_mean": real.mean(axis=0),
            "reduce_sum": real.sum(axis=0),
            "reduce_max": real.max(axis=0),
        }
        for kind in tuple(candidates):
            value = got.reshape(count, -1)[:k] if kind == "same" and got.size == rows.size else got.ravel()
            if value.shape != expected[kind].shape or np.abs(value - expected[kind]).max() > 1e-4:
                candidates.discard(kind)
    # With one token everything is the same; the probed lengths tell them apart as soon as the model takes two.
    return next((kind for kind in ("same", "reduce_mean", "reduce_sum", "reduce_max") if kind in candidates), None)
