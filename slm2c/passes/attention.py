"""fuse_attention: softmax(scale * Q K^T + mask) V, whatever reshapes, transposes, splits and scalings lie in between.

Every operand is traced back through views to the tensor it is taken from, as an array of flat positions. The heads are
recognised by what these arrays say, not by how the exporter wrote them (Vaswani et al., arXiv 1706.03762).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from slm2c.ir import Array, Graph, Node
from slm2c.passes.edit import Edit
from slm2c.passes.tokens import BLOCKED, Interface, Mask, Probe, classify_mask


@dataclass(frozen=True)
class _Term:
    """Something added to the scores, or a condition on them: its tensor, and where each softmax element finds it."""

    name: str
    index: Array  # [rows, keys] flat positions in the broadcast shape
    shape: tuple[int, ...]
    scale: float
    blocks_when: bool | None  # None: additive; else the truth value of a condition that blocks


@dataclass(frozen=True)
class _Scores:
    matmul: Node
    index: Array  # [rows, keys] flat positions in the product
    scale: float
    terms: tuple[_Term, ...]


def fuse_attention(graph: Graph, interface: Interface | None) -> Graph:
    """Replace each recognised attention by one `attention` node on [tokens, heads * size] operands.

    What is not recognised stays as it is: matmul and softmax have kernels of their own.
    """
    edit = Edit(graph)
    probe = None if interface is None else Probe(graph, interface)
    producers, consumers = graph.producers(), graph.consumers()
    for node in graph.nodes:
        if node.op == "softmax":
            _fuse_one(graph, edit, probe, producers, consumers, node)
    return edit.apply()


def _fuse_one(
    graph: Graph,
    edit: Edit,
    probe: Probe | None,
    producers: Mapping[str, Node],
    consumers: Mapping[str, list[Node]],
    softmax: Node,
) -> None:
    scores = _trace_scores(graph, probe, producers, softmax.inputs[0])
    context = _trace_context(graph, consumers, softmax.outputs[0])
    if scores is None or context is None:
        return
    heads = _split_heads(graph, scores)
    if heads is None:
        return
    q, k, count = heads.q, heads.k, len(heads.q)
    product, weights, order = context
    queries, keys = q.shape[1], k.shape[1]
    mask = _mask(graph, probe, scores.terms, count, queries, keys)
    if mask is None:
        return
    v = _values(graph, product, weights, order, count, queries, keys)
    if v is None:
        return
    values, out_index = v
    operands = [
        _operand(graph, producers, name, index)
        for name, index in ((heads.q_name, q), (heads.k_name, k), (product.inputs[1 - order], values))
    ]
    if any(x is None for x in operands):
        return
    scale = scores.scale
    names: list[str] = []
    for operand in operands:
        assert operand is not None
        root, columns, factor, rows = operand
        scale *= factor if len(names) < 2 else 1.0
        if len(names) == 2 and factor != 1.0:
            return
        names.append(_columns(edit, producers, root, columns, rows, softmax.name))
    size = values.shape[2]
    bias = edit.const(mask.bias) if mask.bias is not None else ""
    out = edit.add(
        "attention",
        [*names, bias],
        {"heads": count, "kv_heads": count, "scale": float(np.float32(scale)), "causal": mask.causal},
        (queries, count * size),
        softmax.name,
    )
    shape = graph.tensors[product.outputs[0]].shape
    edit.replace(
        product.outputs[0],
        edit.add("view", [out], {"index": out_index.reshape(shape), "fill": 0.0}, shape, product.name),
    )


def _trace_scores(graph: Graph, probe: Probe | None, producers: Mapping[str, Node], name: str) -> _Scores | None:
    """Walk from the softmax up to the product, collecting scale, masks and biases."""
    shape = graph.tensors[name].shape
    index = np.arange(graph.tensors[name].size).reshape(shape)
    scale = 1.0
    terms: list[_Term] = []
    while True:
        node = producers.get(name)
        if node is None:
            return None
        if node.op == "matmul" and node.inputs[1] not in graph.consts:
            return _Scores(node, index, scale, tuple(terms))
        shape = graph.tensors[name].shape
        if node.op == "view" and node.attrs["index"].min(initial=0) >= 0:
            index, name = node.attrs["index"].ravel()[index], node.inputs[0]
            continue
        is_side = {x: x in graph.consts or (probe is not None and x in probe.cone) for x in node.inputs}
        main = [x for x in node.inputs if not is_side[x]]
        if len(main) != 1:
            return None
        side = [x for x in node.inputs if is_side[x]]
        if node.op == "mul" and side[0] in graph.consts and graph.consts[side[0]].size == 1:
            scale *= float(graph.consts[side[0]].ravel()[0])
        elif node.op == "add":
            terms.append(_Term(side[0], index, shape, scale, None))
        elif node.op == "where" and main[0] != node.inputs[0]:
            other = node.inputs[2] if main[0] == node.inputs[1] else node.inputs[1]
            fill = graph.consts.get(other)
            if fill is None or fill.size == 0 or not (fill <= BLOCKED).all():
                return None
            terms.append(_Term(node.inputs[0], index, shape, scale, main[0] == node.inputs[2]))
        else:
            return None
        if graph.tensors[main[0]].shape != shape:
            wide = np.broadcast_to(np.arange(graph.tensors[main[0]].size).reshape(graph.tensors[main[0]].shape), shape)
            index = wide.ravel()[index]
        name = main[0]


def _trace_context(graph: Graph, consumers: Mapping[str, list[Node]], name: str) -> tuple[Node, Array, int] | None:
    """(product with V, softmax positions of its operand, which operand that is) from the softmax downwards."""
    index = np.arange(graph.tensors[name].size).reshape(graph.tensors[name].shape)
    while True:
        readers = consumers.get(name, [])
        if len(readers) != 1 or name in graph.outputs:
            return None
        node = readers[0]
        if node.op == "view" and node.attrs["index"].min(initial=0) >= 0:
            index, name = index.ravel()[node.attrs["index"]], node.outputs[0]
        elif node.op == "matmul" and node.inputs[0] != node.inputs[1]:
            return node, index, node.inputs.index(name)
        else:
            return None


def _operand_grid(graph: Graph, node: Node, which: int) -> Array:
    """Flat positions of a matmul operand, broadcast over the batch: [batch, rows, columns]."""
    a, b = (graph.tensors[x].shape for x in node.inputs)
    batch = np.broadcast_shapes(a[:-2], b[:-2])
    tensor = graph.tensors[node.inputs[which]]
    grid = np.broadcast_to(np.arange(tensor.size).reshape(tensor.shape), (*batch, *tensor.shape[-2:]))
    return np.asarray(grid.reshape(-1, *tensor.shape[-2:]))


@dataclass(frozen=True)
class _Heads:
    """The operands of the scores, and where Q [heads, queries, size] and K [heads, keys, size] lie in them."""

    q_name: str
    k_name: str
    q: Array
    k: Array


def _split_heads(graph: Graph, scores: _Scores) -> _Heads | None:
    rows, columns = graph.tensors[scores.matmul.outputs[0]].shape[-2:]
    batch, cell = np.divmod(scores.index, rows * columns)
    m, c = np.divmod(cell, columns)
    swapped = not (m == m[:, :1]).all()
    if swapped:
        m, c = c, m
    if not ((m == m[:, :1]).all() and (batch == batch[:, :1]).all()):
        return None
    total, keys = scores.index.shape
    block = batch[:, 0]
    starts = np.flatnonzero(np.r_[True, block[1:] != block[:-1]])
    count = len(starts)
    queries = total // count
    if total % count or not np.array_equal(starts, np.arange(count) * queries):
        return None
    c = c.reshape(count, queries, keys)
    if not (c == c[:, :1]).all():
        return None
    q_grid, k_grid = _operand_grid(graph, scores.matmul, 0), np.swapaxes(_operand_grid(graph, scores.matmul, 1), -1, -2)
    q_name, k_name = scores.matmul.inputs
    if swapped:
        q_grid, k_grid, q_name, k_name = k_grid, q_grid, k_name, q_name
    heads = block[starts]
    return _Heads(
        q_name, k_name, q_grid[heads[:, None], m[:, 0].reshape(count, queries)], k_grid[heads[:, None], c[:, 0]]
    )


def _values(
    graph: Graph, product: Node, weights: Array, order: int, count: int, queries: int, keys: int
) -> tuple[Array, Array] | None:
    """Positions of V [heads, keys, size], and of each element of the product in [queries, heads * size]."""
    batch_shape = graph.tensors[product.outputs[0]].shape[:-2]
    p = np.broadcast_to(weights, (*batch_shape, *weights.shape[-2:])).reshape(-1, *weights.shape[-2:])
    v = _operand_grid(graph, product, 1 - order)
    if order == 1:  # V^T P^T: look at the transposed product
        p, v = np.swapaxes(p, -1, -2), np.swapaxes(v, -1, -2)
    row, key = np.divmod(p, keys)
    if not ((row == row[..., :1]).all() and (key == key[:1, :1]).all()):
        return None
    order_of_keys = np.argsort(key[0, 0])
    if not np.array_equal(key[0, 0][order_of_keys], np.arange(keys)):
        return None
    head, query = np.divmod(row[..., 0], queries)  # [batch, rows]
    if (
        not (head == head[:, :1]).all()
        or len(head) != count
        or not np.array_equal(np.sort(head[:, 0]), np.arange(count))
    ):
        return None
    size = v.shape[2]
    values = np.empty((count, keys, size), dtype=np.int64)
    values[head[:, 0]] = v[:, order_of_keys]
    out = query[..., None] * (count * size) + head[..., None] * size + np.arange(size)
    return values, np.swapaxes(out, -1, -2) if order == 1 else out


def _operand(
    graph: Graph, producers: Mapping[str, Node], name: str, index: Array
) -> tuple[str, Array, float, int] | None:
    """(root, columns [heads * size], scalar factor, rows) of a head-split operand, if it is columns of a [rows,
    features] root.

    Walks up through views and scalar factors and stops at the first tensor whose rows are the tokens in order.
    """
    factor = 1.0
    rows = index.shape[1]
    best: tuple[str, Array, float, int] | None = None
    while True:
        features = graph.tensors[name].size // rows if graph.tensors[name].size % rows == 0 else 0
        if features:
            row, column = np.divmod(index, features)
            if (row == np.arange(rows)[None, :, None]).all() and (column == column[:, :1]).all():
                best = name, column[:, 0].ravel(), factor, rows
        node = producers.get(name)
        if node is None:
            return best
        if node.op == "view" and node.attrs["index"].min(initial=0) >= 0:
            index, name = node.attrs["index"].ravel()[index], node.inputs[0]
        elif node.op == "mul" and node.inputs[1] in graph.consts and graph.consts[node.inputs[1]].size == 1:
            factor *= float(graph.consts[node.inputs[1]].ravel()[0])
            name = node.inputs[0]
        else:
            return best


def _columns(edit: Edit, producers: Mapping[str, Node], root: str, columns: Array, rows: int, name: str) -> str:
    """A [rows, len(columns)] tensor of these columns of `root`; taken from the weights where a linear layer makes
    it.
    """
    tensor = edit.tensors[root]
    features = tensor.size // rows
    if tensor.shape == (rows, features):
        if np.array_equal(columns, np.arange(features)):
            return root
        node = producers.get(root)
        if (
            node is not None
            and node.op in ("add", "mul")
            and node.inputs[1] in edit.consts
            and edit.tensors[node.inputs[0]].shape == tensor.shape
        ):
            inner = _columns(edit, producers, node.inputs[0], columns, rows, name)
            value = edit.consts[node.inputs[1]]
            part = value[..., columns] if value.ndim and value.shape[-1] == features else value
            return edit.add(
                node.op, [inner, edit.const(np.ascontiguousarray(part))], node.attrs, (rows, len(columns)), node.name
            )
        if node is not None and node.op == "matmul" and node.inputs[1] in edit.consts:
            weight = edit.const(np.ascontiguousarray(edit.consts[node.inputs[1]][:, columns]))
            return edit.add("matmul", [node.inputs[0], weight], {}, (rows, len(columns)), node.name)
    index = np.arange(rows)[:, None] * features + columns[None, :]
    return edit.add("view", [root], {"index": index, "fill": 0.0}, index.shape, name)


def _mask(
    graph: Graph, probe: Probe | None, terms: tuple[_Term, ...], count: int, queries: int, keys: int
) -> Mask | None:
    """All masks and biases of the scores as one, or None where they are not of a known form."""
    if not terms:
        return Mask(False, None)
    lengths = (keys,) if probe is None else probe.lengths
    allowed = {n: np.ones((count, queries, keys), dtype=bool) for n in lengths}
    added: dict[int, Array] = {n: np.zeros((count, queries, keys), dtype=np.float32) for n in lengths}
    padded = False
    for term in terms:
        values = (
            dict.fromkeys(lengths, graph.consts[term.name])
            if term.name in graph.consts or probe is None
            else probe.values(term.name)
        )
        padded |= term.name not in graph.consts
        for n in lengths:
            value = np.broadcast_to(values[n], term.shape).ravel()[term.index].reshape(count, queries, keys)
            if term.blocks_when is None:
                allowed[n] &= value > BLOCKED
                added[n] = added[n] + np.where(value > BLOCKED, value, 0) * np.float32(term.scale)
            else:
                allowed[n] &= value.astype(bool) != term.blocks_when
    if not padded:  # constants know nothing of padding: the rule for n tokens is theirs on the first n keys
        real = np.arange(keys)
        allowed = {n: a & (real < n) for n, a in allowed.items()}
    return classify_mask(allowed, added if any(a.any() for a in added.values()) else None)
