"""The small float operator set that every ONNX file is reduced to before fusion, and its one evaluator.

Shapes are static, so a reshape, transpose, slice, expand or constant gather is only a question of which source element
each output element is: all of them are the single operator `view`, whose attribute `index` (an int64 array of the
output's shape) holds flat source indices (-1: the constant `fill`). Two views compose by indexing, and equality of
layouts is `==` on arrays instead of a catalogue of patterns.

| op | inputs | attrs |
|---|---|---|
| view | x | index, fill |
| concat | x... | axis |
| gather | data, indices (not constant) | axis |
| one of ELEMENTWISE | broadcast as in numpy | per op |
| cast | x | to (IR type) |
| matmul | a, b (numpy.matmul) | |
| reduce_sum, _mean, _max, _min, _prod | x | axes, keepdims |
| softmax | x | axis |
| layernorm, rmsnorm | x, gamma, beta or "" (over the last axes) | axis, epsilon |
| conv | x, w, bias or "" | strides, pads, dilations, group |
| maxpool, avgpool | x | kernel, strides, pads, dilations, count_include_pad |
| cumsum | x | axis, exclusive, reverse |

`Builder` makes graphs of these and folds whatever depends on constants alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from slm2c.ir import DTYPES, Array, Graph, Node, Shape, Tensor, const_tensor, prune, toposort, verify

_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    """The error function, element by element, as float32."""
    return np.asarray(_erf(np.asarray(x, np.float64)), dtype=np.float64).astype(np.float32)


def _gelu(x: Array, approximate: str = "none") -> Array:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)))
    return 0.5 * x * (1 + erf(x / np.float32(math.sqrt(2))))


def _sigmoid(x: Array) -> Array:
    return (0.5 * (1 + np.tanh(0.5 * np.asarray(x, np.float64)))).astype(np.float32)


def _divide(a: Array, b: Array) -> Array:
    if np.issubdtype(a.dtype, np.integer):  # ONNX Div truncates towards zero, numpy's // floors
        return np.asarray(np.sign(a) * np.sign(b) * (abs(a) // np.maximum(abs(b), 1)), dtype=a.dtype)
    return a / b


ELEMENTWISE: Mapping[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _divide,
    "pow": lambda a, b: np.power(a, b).astype(a.dtype),
    "max": np.maximum,
    "min": np.minimum,
    "mod": np.mod,
    "fmod": np.fmod,
    "equal": np.equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "where": np.where,
    "not": np.logical_not,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "sqrt": np.sqrt,
    "reciprocal": np.reciprocal,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "erf": erf,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": _gelu,
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + abs(x)),
    "leaky_relu": lambda x, alpha: np.where(x < 0, np.float32(alpha) * x, x),
    "elu": lambda x, alpha: np.where(x < 0, np.float32(alpha) * np.expm1(np.minimum(x, 0)), x),
    "selu": lambda x, alpha, gamma: (
        np.float32(gamma) * np.where(x < 0, np.float32(alpha) * np.expm1(np.minimum(x, 0)), x)
    ),
    "hard_sigmoid": lambda x, alpha, beta: np.clip(np.float32(alpha) * x + np.float32(beta), 0, 1),
    "hard_swish": lambda x: x * np.clip(x / 6 + np.float32(0.5), 0, 1),
}
"""Element by element, broadcasting; keyword arguments are the node's attrs."""

_BOOLEAN = frozenset(
    {"equal", "less", "less_equal", "greater", "greater_equal", "and", "or", "xor", "not", "isnan", "isinf"}
)

_REDUCE: Mapping[str, Callable[..., Array]] = {
    "reduce_sum": np.sum,
    "reduce_mean": np.mean,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
}


def view(x: Array, index: Array, fill: float = 0.0) -> Array:
    """Element i of the result is element index[i] of the flattened `x`, or `fill` where index[i] is -1."""
    flat = np.append(x.ravel(), np.asarray(fill, dtype=x.dtype))
    return np.asarray(flat[index])


def softmax(x: Array, axis: int) -> Array:
    """exp(x - max) / sum along `axis`; a row that is -inf throughout gives NaN, as in onnxruntime."""
    with np.errstate(invalid="ignore"):
        e = np.exp(x - np.max(x, axis=axis, keepdims=True))
        return np.asarray(e / np.sum(e, axis=axis, keepdims=True))


def normalize(x: Array, gamma: Array | None, beta: Array | None, axis: int, epsilon: float, centre: bool) -> Array:
    """LayerNorm (Ba et al., arXiv 1607.06450) or, with centre=False, RMSNorm (arXiv 1910.07467) over axes axis..-1."""
    axes = tuple(range(axis % x.ndim, x.ndim))
    wide = x.astype(np.float64)
    if centre:
        wide = wide - wide.mean(axis=axes, keepdims=True)
    y = wide / np.sqrt((wide * wide).mean(axis=axes, keepdims=True) + epsilon)
    if gamma is not None:
        y = y * gamma
    if beta is not None:
        y = y + beta
    return y.astype(np.float32)


def _windows(x: Array, kernel: Shape, strides: Shape, pads: Shape, dilations: Shape, fill: float) -> Array:
    """[batch, channels, *out, *kernel] sliding windows of a padded [batch, channels, *spatial] array."""
    dims = len(kernel)
    padded = np.pad(x, [(0, 0), (0, 0), *zip(pads[:dims], pads[dims:], strict=True)], constant_values=fill)
    span = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True))
    win = np.lib.stride_tricks.sliding_window_view(padded, span, axis=tuple(range(2, 2 + dims)))
    steps = [slice(None, None, step) for step in (*strides, *dilations)]
    return np.asarray(win[(slice(None), slice(None), *steps)])


def window_counts(extent: Shape, kernel: Shape, attrs: Mapping[str, Any]) -> Shape:
    """Windows along each spatial axis of a conv or pool with these `strides`, `pads` and `dilations`."""
    begin, end = attrs["pads"][: len(kernel)], attrs["pads"][len(kernel) :]
    axes = zip(extent, kernel, begin, end, attrs["strides"], attrs["dilations"], strict=True)
    return tuple(
        (size + before + after - dilation * (k - 1) - 1) // stride + 1
        for size, k, before, after, stride, dilation in axes
    )


def conv(x: Array, w: Array, bias: Array | None, *, strides: Shape, pads: Shape, dilations: Shape, group: int) -> Array:
    """Cross-correlation as ONNX Conv defines it: x [batch, C, *spatial], w [M, C/group, *kernel]."""
    dims = w.ndim - 2
    win = _windows(x, w.shape[2:], strides, pads, dilations, 0.0)
    outs = []
    for g in range(group):
        part = win[:, g * w.shape[1] : (g + 1) * w.shape[1]]
        rows = slice(g * w.shape[0] // group, (g + 1) * w.shape[0] // group)
        spatial = tuple(range(2 + dims, 2 + 2 * dims))
        outs.append(np.moveaxis(np.tensordot(part, w[rows], axes=((1, *spatial), (1, *range(2, 2 + dims)))), -1, 1))
    y = np.concatenate(outs, axis=1)
    return y if bias is None else y + bias.reshape((1, -1) + (1,) * dims)


def pool(
    x: Array,
    kind: str,
    *,
    kernel: Shape,
    strides: Shape,
    pads: Shape,
    dilations: Shape,
    count_include_pad: bool = False,
) -> Array:
    """ONNX MaxPool and AveragePool over [batch, C, *spatial]."""
    axes = tuple(range(-len(kernel), 0))
    if kind == "maxpool":
        return np.asarray(_windows(x, kernel, strides, pads, dilations, -np.inf).max(axis=axes))
    total = _windows(x, kernel, strides, pads, dilations, 0.0).sum(axis=axes)
    count = _windows(np.ones_like(x), kernel, strides, pads, dilations, float(count_include_pad)).sum(axis=axes)
    return np.asarray(total / count)


def _cumsum(x: Array, axis: int, exclusive: bool, reverse: bool) -> Array:
    y = np.flip(x, axis) if reverse else x
    total = np.cumsum(y, axis=axis, dtype=x.dtype)
    total = total - y if exclusive else total
    return np.flip(total, axis) if reverse else total


def evaluate(op: str, args: Sequence[Array | None], attrs: Mapping[str, Any]) -> Array:
    """The value of one core operator on arrays; None stands for an absent optional input."""
    a: Any = list(args)
    with np.errstate(all="ignore"):  # masks hold -inf and -3.4e38 on purpose
        match op:
            case "view":
                return view(a[0], attrs["index"], attrs.get("fill", 0.0))
            case "concat":
                return np.concatenate(a, axis=attrs["axis"])
            case "gather":
                return np.take(a[0], a[1], axis=attrs["axis"])
            case "cast":
                return np.asarray(np.trunc(a[0]) if a[0].dtype.kind == "f" and attrs["to"][0] in "iu" else a[0]).astype(
                    DTYPES[attrs["to"]]
                )
            case "matmul":
                return np.asarray(np.matmul(a[0], a[1]))
            case "softmax":
                return softmax(a[0], attrs["axis"])
            case "layernorm" | "rmsnorm":
                beta = a[2] if len(a) > 2 else None
                return normalize(a[0], a[1], beta, attrs["axis"], attrs["epsilon"], op == "layernorm")
            case "conv":
                return conv(a[0], a[1], a[2] if len(a) > 2 else None, **attrs)
            case "maxpool" | "avgpool":
                return pool(a[0], op, **attrs)
            case "cumsum":
                return _cumsum(a[0], **attrs)
        if op in _REDUCE:
            value = _REDUCE[op](a[0], axis=tuple(attrs["axes"]), keepdims=bool(attrs["keepdims"]))
            return np.asarray(value).astype(a[0].dtype)
        value = np.asarray(ELEMENTWISE[op](*a, **attrs))
        if op in _BOOLEAN:
            return value
        return value.astype(np.result_type(*a[1:]) if op == "where" else a[0].dtype)


def known(op: str) -> bool:
    """Whether `op` belongs to the core set; anything else is an ONNX operator that was not understood."""
    return op in ELEMENTWISE or op in _REDUCE or op in _OTHERS


_OTHERS = frozenset(
    {
        "view",
        "concat",
        "gather",
        "cast",
        "matmul",
        "softmax",
        "layernorm",
        "rmsnorm",
        "conv",
        "maxpool",
        "avgpool",
        "cumsum",
    }
)


def _output_type(op: str, types: Sequence[Tensor | None], attrs: Mapping[str, Any]) -> tuple[Shape, str]:
    """Shape and element type of a core operator's result."""
    first = types[0]
    assert first is not None
    match op:
        case "view":
            return tuple(attrs["index"].shape), first.dtype
        case "concat":
            axis = attrs["axis"] % len(first.shape)
            total = sum(t.shape[axis] for t in types if t is not None)
            return (*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype
        case "gather":
            assert types[1] is not None
            axis = attrs["axis"] % len(first.shape)
            return (*first.shape[:axis], *types[1].shape, *first.shape[axis + 1 :]), first.dtype
        case "cast":
            return first.shape, attrs["to"]
        case "softmax" | "layernorm" | "rmsnorm" | "cumsum":
            return first.shape, first.dtype
        case "matmul":
            assert types[1] is not None
            a, b = first.shape, types[1].shape
            return (*np.broadcast_shapes(a[:-2], b[:-2]), *a[-2:-1], *(b[-1:] if len(b) > 1 else ())), first.dtype
        case "conv":
            assert types[1] is not None
            kernel = types[1].shape[2:]
            return (first.shape[0], types[1].shape[0], *window_counts(first.shape[2:], kernel, attrs)), first.dtype
        case "maxpool" | "avgpool":
            return (*first.shape[:2], *window_counts(first.shape[2:], attrs["kernel"], attrs)), first.dtype
    if op in _REDUCE:
        axes = {a % len(first.shape) for a in attrs["axes"]}
        kept = [(1 if i in axes else d) for i, d in enumerate(first.shape) if i not in axes or attrs["keepdims"]]
        return tuple(kept), first.dtype
    shape = np.broadcast_shapes(*(t.shape for t in types if t is not None))
    if op in _BOOLEAN:
        return shape, "bool"
    return shape, types[1].dtype if op == "where" and types[1] is not None else first.dtype


class Builder:
    """Makes a graph of core operators; what depends on constants alone becomes a constant at once.

    Values are tensor names. Names are fresh ("v12") unless given, so nothing from a file becomes an identifier.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.consts: dict[str, Array] = {}
        self.nodes: list[Node] = []
        self.producers: dict[str, Node] = {}
        self.inputs: list[str] = []

    def fresh(self) -> str:
        """A tensor name not yet in use, whatever the graph's inputs are called."""
        number = len(self.tensors)
        while f"v{number}" in self.tensors:
            number += 1
        return f"v{number}"

    def input(self, name: str, shape: Shape, dtype: str) -> str:
        """Declare a graph input."""
        assert name not in self.tensors, name
        self.tensors[name] = Tensor(name, shape, dtype)
        self.inputs.append(name)
        return name

    def const(self, value: Array) -> str:
        """A constant; float16, bfloat16 and float64 become float32."""
        if value.dtype.kind == "f" or value.dtype.name == "bfloat16":
            with np.errstate(over="ignore"):  # a mask of -1.8e308 becomes -inf, as it should
                value = value.astype(np.float32)
        elif value.dtype not in [np.dtype(kind) for kind in DTYPES.values()]:
            value = value.astype(np.int64)
        name = self.fresh()
        self.tensors[name] = const_tensor(name, value)
        self.consts[name] = value
        return name

    def value(self, name: str) -> Array | None:
        """The array of a constant, None for anything computed at run time."""
        return self.consts.get(name)

    def shape(self, name: str) -> Shape:
        """The static shape of a value."""
        return self.tensors[name].shape

    def op(self, op: str, inputs: Sequence[str], attrs: Mapping[str, Any] | None = None, *, name: str = "") -> str:
        """The result of a core operator; `name` is the ONNX node it stems from."""
        attrs = attrs or {}
        if all(not x or x in self.consts for x in inputs):
            return self.const(evaluate(op, [self.consts[x] if x else None for x in inputs], attrs))
        if op == "view" and self.shape(inputs[0]) == attrs["index"].shape and _is_identity(attrs["index"]):
            return inputs[0]
        shape, dtype = _output_type(op, [self.tensors[x] if x else None for x in inputs], attrs)
        out = self.fresh()
        self.tensors[out] = Tensor(out, shape, dtype)
        self.nodes.append(Node(op, name, tuple(inputs), (out,), attrs))
        self.producers[out] = self.nodes[-1]
        return out

    def view(self, x: str, index: Array, *, fill: float = 0.0, name: str = "") -> str:
        """The elements of `x` at flat positions `index`."""
        return self.op("view", [x], {"index": np.array(index, dtype=np.int64, order="C"), "fill": fill}, name=name)

    def positions(self, x: str) -> Array:
        """Flat positions of `x` in its own shape: move these as `x` should move and hand them to `view`."""
        return np.arange(self.tensors[x].size).reshape(self.shape(x))

    def reshape(self, x: str, shape: Shape, *, name: str = "") -> str:
        """`x` in another shape of as many elements."""
        return self.view(x, self.positions(x).reshape(shape), name=name)

    def graph(self, name: str, outputs: Sequence[str]) -> Graph:
        """What was built, without what no output needs."""
        nodes = toposort(self.nodes)
        return verify(prune(Graph(name, tuple(self.inputs), tuple(outputs), nodes, self.tensors, self.consts)))


def _is_identity(index: Array) -> bool:
    return bool(np.array_equal(index.ravel(), np.arange(index.size)))


def run(graph: Graph, feeds: Mapping[str, Array], wanted: Sequence[str] | None = None) -> dict[str, Array]:
    """Evaluate a core graph on `feeds` (input name -> array of its static shape); name -> value of every tensor.

    With `wanted`, stops when those are known; anything they do not depend on is skipped.
    """
    values: dict[str, Array] = {**graph.consts, **feeds}
    needed = set(graph.outputs if wanted is None else wanted)
    steps: list[Node] = []
    for node in reversed(graph.nodes):
        if wanted is None or any(out in needed for out in node.outputs):
            steps.append(node)
            needed.update(node.inputs)
    for node in reversed(steps):
        values[node.outputs[0]] = evaluate(node.op, [values[x] if x else None for x in node.inputs], node.attrs)
    return values
