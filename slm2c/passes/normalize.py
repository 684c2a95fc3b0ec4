"""normalize: the core graph in a normal form, so that one pattern serves all exporters.

The graph is built anew, node by node; each rule sees operands that are already normal, so a single walk reaches the
fixed point. In the normal form

* views are composed, and stand as late as they can: element-by-element operators are moved before the views of their
  operands, constants are moved along;
* row operators (matmul with a constant, layernorm, softmax over the last axis) work on two-dimensional [rows,
  features];
* there is no sub or div by a constant, no neg; constants come second and are as small as broadcasting allows;
* equal constants are one constant, equal nodes are one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from slm2c.core import ELEMENTWISE, Builder
from slm2c.ir import Array, Graph, Node, Quant, Shape, Tensor

COMMUTATIVE = frozenset({"add", "mul", "max", "min", "equal", "and", "or", "xor"})


def normalize(graph: Graph) -> Graph:
    """`graph` in normal form: the same inputs and outputs, the same values."""
    build = Normalizer()
    names: dict[str, str] = {}
    for name in graph.inputs:
        tensor = graph.tensors[name]
        names[name] = build.input(name, tensor.shape, tensor.dtype)
        build.tensors[name] = tensor
    for name, value in graph.consts.items():
        names[name] = build.const(value)
    for node in graph.nodes:
        names[node.outputs[0]] = build.add_node(node, [names[x] if x else "" for x in node.inputs], graph)
        build.hint(names[node.outputs[0]], graph.tensors[node.outputs[0]].quant)
    return build.graph(graph.name, [names[x] for x in graph.outputs])


def is_identity(index: Array) -> bool:
    """Whether a view's index keeps all elements in their order (it may still change the shape)."""
    return bool(np.array_equal(index.ravel(), np.arange(index.size)))


def inverse(index: Array, size: int) -> Array | None:
    """The inverse permutation of a view that is a bijection on `size` elements, else None."""
    flat = index.ravel()
    if flat.size != size or flat.min(initial=0) < 0:
        return None
    result = np.full(size, -1, dtype=np.int64)
    result[flat] = np.arange(size)
    return None if (result < 0).any() else result


def shrink(value: Array) -> Array:
    """`value` with length 1 along every axis along which it does not change, and no leading axes of length 1."""
    for axis in range(value.ndim):
        first = np.take(value, [0], axis=axis) if value.shape[axis] else value
        if value.shape[axis] > 1 and np.array_equal(
            np.broadcast_to(first, value.shape), value, equal_nan=value.dtype.kind == "f"
        ):
            value = first
    while value.ndim and value.shape[0] == 1:
        value = value[0]
    return np.ascontiguousarray(value)


class Normalizer(Builder):
    """A Builder whose `op` applies the rules of the normal form as it goes."""

    def __init__(self) -> None:
        super().__init__()
        self._const_names: dict[tuple[object, ...], str] = {}
        self._node_names: dict[tuple[object, ...], str] = {}
        self.made: dict[str, Node] = {}
        self._flat: set[str] = set()

    def const(self, value: Array) -> str:
        """A constant; equal ones share a name."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._const_names:
            self._const_names[key] = super().const(value)
        return self._const_names[key]

    def add_node(self, node: Node, inputs: Sequence[str], graph: Graph) -> str:
        """A node of another graph in this one; fused and unknown operators are copied as they are."""
        if node.op in _RULES or node.op in ELEMENTWISE:
            return self.op(node.op, inputs, node.attrs, name=node.name)
        return self.append(node.op, inputs, node.attrs, node.name, graph.tensors[node.outputs[0]])

    def append(self, op: str, inputs: Sequence[str], attrs: Mapping[str, Any], name: str, like: Tensor) -> str:
        """A node whose result has the type of `like`, without any rule but that equal nodes are one."""
        key = _key(op, inputs, attrs)
        if key not in self._node_names:
            out = self.fresh()
            self.tensors[out] = Tensor(out, like.shape, like.dtype, like.token_axis, like.quant)
            self.nodes.append(Node(op, name, tuple(inputs), (out,), attrs))
            self.made[out] = self.nodes[-1]
            self._node_names[key] = out
        return self._node_names[key]

    def plain(self, op: str, inputs: Sequence[str], attrs: Mapping[str, Any], name: str) -> str:
        """The operator itself, without the rules."""
        key = _key(op, inputs, attrs)
        if key not in self._node_names:
            count = len(self.nodes)
            out = super().op(op, inputs, attrs, name=name)
            if len(self.nodes) > count:
                self.made[out] = self.nodes[-1]
            self._node_names[key] = out
        return self._node_names[key]

    def op(self, op: str, inputs: Sequence[str], attrs: Mapping[str, Any] | None = None, *, name: str = "") -> str:
        """The result of a core operator in normal form."""
        attrs = attrs or {}
        if all(not x or x in self.consts for x in inputs):
            return super().op(op, inputs, attrs, name=name)
        if op in _RULES:
            return _RULES[op](self, op, list(inputs), attrs, name)
        if op in ELEMENTWISE:
            return _elementwise(self, op, list(inputs), attrs, name)
        return self.plain(op, inputs, attrs, name)

    def hint(self, x: str, quant: Quant | None) -> None:
        """Keep what a QDQ file states of a value, also for the tensor that it is a rearrangement of."""
        while quant is not None and x not in self.consts:
            if self.tensors[x].quant is None:
                self.tensors[x] = replace(self.tensors[x], quant=quant)
            root, index = self.source(x)
            if index is None or inverse(index, self.tensors[root].size) is None:
                return
            x = root

    def source(self, x: str) -> tuple[str, Array | None]:
        """(root, index) of a value: itself and None unless a view without fill makes it.

        A graph input [1, rows, features] counts as a view of its rows, so that what is computed from it has two axes.
        """
        shape = self.shape(x)
        if x in self.inputs and len(shape) == 3 and shape[0] == 1 and self.tensors[x].dtype == "f32":
            flat = self.plain("view", [x], {"index": self.positions(x).reshape(shape[1:]), "fill": 0.0}, "")
            self._flat.add(flat)
            return flat, self.positions(x)
        node = self.made.get(x)
        if x in self._flat or node is None or node.op != "view" or node.attrs["index"].min(initial=0) < 0:
            return x, None
        return node.inputs[0], node.attrs["index"]


def _key(op: str, inputs: Sequence[str], attrs: Mapping[str, Any]) -> tuple[object, ...]:
    def frozen(value: object) -> object:
        return (value.shape, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)

    return op, tuple(inputs), tuple(sorted((k, frozen(v)) for k, v in attrs.items()))


def _view(b: Normalizer, op: str, inputs: list[str], attrs: Mapping[str, Any], name: str) -> str:
    index, fill = attrs["index"], attrs.get("fill", 0.0)
    root, below = b.source(inputs[0])
    if below is not None:
        index = np.where(index < 0, -1, below.ravel()[index])
    if b.shape(root) == index.shape and is_identity(index):
        return root
    return b.plain("view", [root], {"index": index, "fill": fill if index.min(initial=0) < 0 else 0.0}, name)


def _constant_second(b: Normalizer, op: str, inputs: list[str]) -> list[str]:
    if op in COMMUTATIVE and len(inputs) == 2:
        rank = {x: (x in b.consts, int(x[1:]) if x[1:].isdigit() else -1) for x in inputs}
        return sorted(inputs, key=lambda x: rank[x])
    return inputs


def _elementwise(b: Normalizer, op: str, inputs: list[str], attrs: Mapping[str, Any], name: str) -> str:
    first, second = inputs[0], inputs[1] if len(inputs) == 2 else ""
    floating = b.tensors[first].dtype == "f32"
    if op == "neg" and floating:
        return b.op("mul", [first, b.const(np.array(-1, np.float32))], name=name)
    if op == "sub" and floating and second in b.consts:
        return b.op("add", [first, b.const(-b.consts[second])], name=name)
    if op == "sub" and floating and first in b.consts:
        return b.op("add", [b.op("neg", [second], name=name), first], name=name)
    if op == "div" and floating and second in b.consts:
        with np.errstate(divide="ignore"):
            return b.op(
                "mul", [first, b.const((1 / b.consts[second].astype(np.float64)).astype(np.float32))], name=name
            )
    if op == "reciprocal":
        return b.op("div", [b.const(np.ones((), np.float32)), first], name=name)
    inputs = _constant_second(b, op, inputs)
    shape = np.broadcast_shapes(*(b.shape(x) for x in inputs))
    for anchor in (x for x in inputs if x not in b.consts and b.shape(x) == shape):
        root, index = b.source(anchor)
        back = None if index is None else inverse(index, b.tensors[root].size)
        if index is not None and back is not None:
            moved = [_before(b, x, shape, back, b.shape(root)) for x in inputs]
            if all(moved):
                return b.view(b.op(op, moved, attrs, name=name), index, name=name)
    if len(shape) > 1 and shape[0] == 1 and any(b.source(x)[1] is not None for x in inputs):
        # No operand has the whole shape (a column times a row): only the leading axes of length 1 can be taken off.
        target = shape[next((i for i, d in enumerate(shape) if d != 1), len(shape) - 1) :]
        index = np.arange(int(np.prod(shape))).reshape(shape)
        moved = [_before(b, x, shape, index.ravel(), target) for x in inputs]
        if all(moved) and np.broadcast_shapes(*(b.shape(x) for x in moved)) == target:
            return b.view(b.op(op, moved, attrs, name=name), index, name=name)
    inputs = [b.const(shrink(b.consts[x])) if x in b.consts else x for x in inputs]
    return _algebra(b, op, inputs, attrs, name, shape)


def _before(b: Normalizer, x: str, shape: Shape, back: Array, target: Shape) -> str:
    """The operand that stands for `x` where the result is taken before a view: `back` is the inverse of the view.

    A constant can always be moved; a run-time value only if what is needed is one of its sources as numpy broadcasts
    it to `target`. Otherwise "".
    """
    if x in b.consts:
        return b.const(shrink(np.broadcast_to(b.consts[x], shape).ravel()[back].reshape(target)))
    root, index = b.source(x)
    positions = b.positions(root)
    index = positions if index is None else index
    needed = np.broadcast_to(index, shape).ravel()[back].reshape(target)
    if len(positions.shape) > len(target):
        return ""
    lead = (1,) * (len(target) - positions.ndim) + positions.shape
    if any(d not in (1, t) for d, t in zip(lead, target, strict=True)):
        return ""
    return root if np.array_equal(np.broadcast_to(positions.reshape(lead), target), needed) else ""


def _algebra(b: Normalizer, op: str, inputs: list[str], attrs: Mapping[str, Any], name: str, shape: Shape) -> str:
    """X + 0, x * 1, (x + a) + b, (x * a) * b, and IsNaN guards of a softmax."""
    x, value = inputs[0], b.value(inputs[1]) if len(inputs) == 2 else None
    keeps = value is not None and b.shape(x) == shape
    if keeps and op in ("add", "sub") and not np.any(value):
        return x
    if keeps and op in ("mul", "div", "pow") and np.all(value == 1):
        return x
    inner = b.made.get(x)
    if (
        keeps
        and op in ("add", "mul")
        and inner is not None
        and inner.op == op
        and inner.inputs[1] in b.consts
        and b.tensors[x].dtype == "f32"
        and b.shape(inner.inputs[0]) == shape
    ):
        constant = b.op(op, [inner.inputs[1], inputs[1]])
        return b.op(op, [inner.inputs[0], constant], name=name or inner.name)
    if op == "add" and keeps and inner is not None and inner.op == "add" and inner.inputs[1] not in b.consts:
        linear = [i for i, y in enumerate(inner.inputs) if _is_linear(b, y) and b.shape(y) == shape]
        if len(linear) == 1:  # (x W + r) + b is (x W + b) + r: a bias belongs to its linear layer
            biased = b.op("add", [inner.inputs[linear[0]], inputs[1]], name=name)
            return b.op("add", [biased, inner.inputs[1 - linear[0]]], name=inner.name)
    if op == "where" and (guarded := _softmax_guard(b, inputs)):
        return guarded
    return b.plain(op, inputs, attrs, name)


def _is_linear(b: Normalizer, x: str) -> bool:
    """Whether a matmul with a constant makes `x`, but for a bias."""
    node = b.made.get(x)
    if node is not None and node.op == "add" and node.inputs[1] in b.consts:
        node = b.made.get(node.inputs[0])
    return node is not None and node.op == "matmul" and node.inputs[1] in b.consts


def _softmax_guard(b: Normalizer, inputs: list[str]) -> str | None:
    """p, if this is where(isnan(p), c, p): exporters guard rows without any key, which the mask of a prompt never
    has.
    """
    test = b.made.get(inputs[0])
    made = b.made.get(inputs[2])
    if (
        test is not None
        and test.op == "isnan"
        and test.inputs[0] == inputs[2]
        and made is not None
        and made.op == "softmax"
    ):
        return inputs[2]
    return None


def _rows(b: Normalizer, x: str, features: int) -> str:
    return b.reshape(x, (b.tensors[x].size // features, features))


def _last_axis(b: Normalizer, op: str, inputs: list[str], attrs: Mapping[str, Any], name: str) -> str:
    """softmax, layernorm and rmsnorm over the last axis, on [rows, features]; another axis is moved there first."""
    x, shape = inputs[0], b.shape(inputs[0])
    axis = attrs["axis"] % len(shape)
    if op == "softmax" and axis != len(shape) - 1:
        order = np.moveaxis(b.positions(x), axis, -1)
        moved = b.op(op, [b.view(x, order, name=name)], {"axis": -1}, name=name)
        return b.view(moved, np.moveaxis(np.arange(order.size).reshape(order.shape), -1, axis), name=name)
    features = int(np.prod(shape[axis:]))
    flat = _rows(b, x, features)
    others = [b.reshape(w, (features,)) if w else "" for w in inputs[1:]]
    y = b.plain(op, [flat, *others], {**attrs, "axis": -1}, name)
    return b.reshape(y, shape, name=name)


def _matmul(b: Normalizer, op: str, inputs: list[str], attrs: Mapping[str, Any], name: str) -> str:
    x, w = inputs
    if len(b.shape(x)) == 1:
        y = b.op("matmul", [b.reshape(x, (1, *b.shape(x))), w], name=name)
        return b.reshape(y, b.shape(y)[:-2] + b.shape(y)[-1:])
    if len(b.shape(w)) == 1:
        y = b.op("matmul", [x, b.reshape(w, (*b.shape(w), 1))], name=name)
        return b.reshape(y, b.shape(y)[:-1])
    if x in b.consts:  # W x = (x^T W^T)^T
        swapped = [b.view(v, np.swapaxes(b.positions(v), -1, -2)) for v in (w, x)]
        y = b.op("matmul", swapped, name=name)
        return b.view(y, np.swapaxes(b.positions(y), -1, -2))
    if w not in b.consts:
        return b.plain("matmul", inputs, attrs, name)
    weight = b.consts[w]
    batch = weight.shape[:-2]
    if int(np.prod(batch)) == 1:
        flat = _rows(b, x, weight.shape[-2])
        y = b.plain("matmul", [flat, b.const(weight.reshape(weight.shape[-2:]))], {}, name)
        lead = np.broadcast_shapes(b.shape(x)[:-2], batch)
        return b.reshape(y, (*lead, b.shape(x)[-2], weight.shape[-1]), name=name)
    return _batched_weight(b, x, weight, name)


def _batched_weight(b: Normalizer, x: str, weight: Array, name: str) -> str:
    """One weight per head on the same rows is one wide weight: [rows, K] x [H, K, N] -> [rows, H * N], viewed."""
    count, k, n = int(np.prod(weight.shape[:-2])), *weight.shape[-2:]
    lead = np.broadcast_shapes(b.shape(x)[:-2], weight.shape[:-2])
    m = b.shape(x)[-2]
    wide = np.broadcast_to(b.positions(x), (*lead, m, k)).reshape(-1, m, k)
    stacked = np.broadcast_to(np.arange(count).reshape(weight.shape[:-2]), lead).ravel()
    if not all(np.array_equal(wide[i], wide[0]) for i in range(len(wide))):
        return b.plain("matmul", [x, b.const(weight)], {}, name)
    rows = b.view(x, wide[0], name=name)
    joined = b.const(np.moveaxis(weight.reshape(count, k, n), 0, 1).reshape(k, count * n))
    y = b.op("matmul", [rows, joined], name=name)
    cell = np.arange(m * count * n).reshape(m, count, n)
    return b.view(y, np.moveaxis(cell[:, stacked], 0, 1).reshape(*lead, m, n), name=name)


def _reduce(b: Normalizer, op: str, inputs: list[str], attrs: Mapping[str, Any], name: str) -> str:
    """Reductions of a matrix along one axis where the elements allow it, whatever views lie between."""
    x = inputs[0]
    shape = b.shape(x)
    axes = sorted(a % len(shape) for a in attrs["axes"])
    kept = [a for a in range(len(shape)) if a not in axes]
    outer, out_shape = (
        [shape[a] for a in kept],
        tuple(1 if a in axes else d for a, d in enumerate(shape) if a not in axes or attrs["keepdims"]),
    )
    root, index = b.source(x)
    if index is None:
        root, index = x, b.positions(x)
    groups = np.sort(index.transpose(*kept, *axes).reshape(int(np.prod(outer)), -1), axis=1)
    features = b.shape(root)[-1] if b.shape(root) else 1
    rows = b.tensors[root].size // max(features, 1)
    matrix = np.arange(rows * features).reshape(rows, features)
    for axis, lines in ((0, matrix.T), (1, matrix)):
        if (
            groups.shape == lines.shape
            and (groups[:, 0] == np.sort(groups[:, 0])).all()
            and np.array_equal(groups, lines)
        ):
            y = b.plain(op, [b.reshape(root, (rows, features))], {"axes": (axis,), "keepdims": True}, name)
            return b.reshape(y, out_shape, name=name)
    return b.plain(op, inputs, {"axes": tuple(axes), "keepdims": bool(attrs["keepdims"])}, name)


def _concat(b: Normalizer, op: str, inputs: list[str], attrs: Mapping[str, Any], name: str) -> str:
    inputs = [x for x in inputs if b.tensors[x].size]
    shape = b.shape(inputs[0])
    axis = attrs["axis"] % len(shape)
    if len(inputs) == 1:
        return inputs[0]
    pairs = [b.source(x) for x in inputs]
    if len({root for root, _ in pairs}) == 1 and all(index is not None for _, index in pairs):
        return b.view(
            pairs[0][0], np.concatenate([index for _, index in pairs if index is not None], axis=axis), name=name
        )
    inner = int(np.prod(shape[axis + 1 :]))
    if int(np.prod(shape[:axis])) == 1 and len(shape) != 2:
        y = b.plain("concat", [b.reshape(x, (b.shape(x)[axis], inner)) for x in inputs], {"axis": 0}, name)
        return b.reshape(y, (*shape[:axis], sum(b.shape(x)[axis] for x in inputs), *shape[axis + 1 :]), name=name)
    return b.plain("concat", inputs, {"axis": axis}, name)


def _cast(b: Normalizer, op: str, inputs: list[str], attrs: Mapping[str, Any], name: str) -> str:
    return inputs[0] if b.tensors[inputs[0]].dtype == attrs["to"] else b.plain(op, inputs, attrs, name)


def _gather(b: Normalizer, op: str, inputs: list[str], attrs: Mapping[str, Any], name: str) -> str:
    """Rows of a table by index, on [table rows, features] and a flat index."""
    data, index = inputs
    shape = b.shape(data)
    if attrs["axis"] % len(shape) or data not in b.consts:
        return b.plain(op, inputs, attrs, name)
    features = int(np.prod(shape[1:]))
    flat = b.reshape(index, (b.tensors[index].size,))
    y = b.plain("gather", [b.reshape(data, (shape[0], features)), flat], {"axis": 0}, name)
    return b.reshape(y, (*b.shape(index), *shape[1:]), name=name)


_RULES = {
    "view": _view,
    "softmax": _last_axis,
    "layernorm": _last_axis,
    "rmsnorm": _last_axis,
    "matmul": _matmul,
    "concat": _concat,
    "cast": _cast,
    "gather": _gather,
    "reduce_sum": _reduce,
    "reduce_mean": _reduce,
    "reduce_max": _reduce,
    "reduce_min": _reduce,
    "reduce_prod": _reduce,
}
