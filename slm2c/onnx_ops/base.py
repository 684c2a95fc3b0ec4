"""What a translation of one ONNX operator works with: the table, the node being translated, and how to refuse it.

A translation is a function of a `Call` that returns the node's outputs as values of the graph under construction. It is
registered under the operator's name:

    @onnx_op("Relu")
    def relu(call: Call) -> str:
        return call.op("relu", call.inputs[0])

Whatever a file may get wrong is checked here, once: types, ranks, sizes and attributes reach the core operators sound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from onnx import AttributeProto, TensorProto

from slm2c.core import ELEMENTWISE, Builder, window_counts
from slm2c.ir import Array, Node, Quant, Shape
from slm2c.onnx_file import MAX_ELEMENTS

Dim = int | str
"""A declared dimension: its length, or the name of a symbolic one ("" if it has none)."""

MAX_TOTAL_ELEMENTS = 1 << 27
"""Elements of all index arrays and folded constants of one import together: 1 GB at eight bytes each."""

IR_TYPES: Mapping[int, str] = {
    TensorProto.FLOAT: "f32",
    TensorProto.FLOAT16: "f32",
    TensorProto.BFLOAT16: "f32",
    TensorProto.DOUBLE: "f32",
    TensorProto.INT8: "i8",
    TensorProto.UINT8: "u8",
    TensorProto.INT16: "i16",
    TensorProto.INT32: "i32",
    TensorProto.INT64: "i64",
    TensorProto.BOOL: "bool",
}
"""ONNX element type -> the IR's; every float is computed as float32."""


class Refused(Exception):
    """This node cannot be translated: the fact, and what the user can do. The importer adds name and operator."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


class Code(NamedTuple):
    """How the file stores a value as integers: real = quant.scale * (q - quant.zero_point), q of IR type `dtype`.

    A translated graph computes the real value; the code says which integers the file has in its place. With `dynamic`
    the file computes the scale at run time; the quant is then 1 and 0 by convention.
    """

    quant: Quant
    dtype: str
    dynamic: bool = False


class Value(NamedTuple):
    """A value of the file: its name in the graph under construction and, if the file holds integers, their code."""

    name: str
    code: Code | None = None


class Budget:
    """Counts the elements of index arrays and folded constants, so that a hostile file cannot fill this machine."""

    def __init__(self) -> None:
        self.elements = 0

    def take(self, count: int) -> None:
        """Account for `count` further elements; Refused once the total passes MAX_TOTAL_ELEMENTS."""
        self.elements += count
        if self.elements > MAX_TOTAL_ELEMENTS:
            raise Refused(f"constants and index maps exceed {MAX_TOTAL_ELEMENTS:,} elements", "use a smaller model")


def fits(shape: Sequence[int]) -> None:
    """Refuse a value that no microcontroller could hold, before it takes this machine's memory."""
    if math.prod(shape) > MAX_ELEMENTS or len(shape) > 32 or max(shape, default=0) > MAX_ELEMENTS:
        raise Refused(f"a value of shape {list(shape)}; the limit is {MAX_ELEMENTS:,} elements", "use a smaller model")


Result = str | Value | Sequence[str | Value]


class Translation(NamedTuple):
    """`function` of a Call, and what becomes of the codes of its inputs.

    `codes` is "decode": the function sees the file's integers; "keep": it moves elements, so that the output has the
    code of the input; or "own": it reads `Call.codes` itself and returns a `Value` where its output is coded.
    """

    function: Callable[[Call], Result]
    codes: str


TRANSLATIONS: dict[tuple[str, str], Translation] = {}
"""(domain, operator) -> translation; "" is ONNX's own domain."""


def onnx_op(
    *op_types: str, domain: str = "", codes: str = "decode"
) -> Callable[[Callable[[Call], Result]], Callable[[Call], Result]]:
    """Register the decorated translation for these operators."""

    def register(function: Callable[[Call], Result]) -> Callable[[Call], Result]:
        for op_type in op_types:
            assert (domain, op_type) not in TRANSLATIONS, f"{domain}:{op_type} has two translations"
            TRANSLATIONS[domain, op_type] = Translation(function, codes)
        return function

    return register


@dataclass
class Call:
    """One ONNX node: its inputs as values of `builder` ("" where absent), attributes, and the opset of its domain.

    `outputs` are the file's names, `declared` the shapes it states for them, `used` whether anything reads them;
    `codes` belongs to `inputs`. `tensor` gives the values of a tensor attribute, `warn` (reason, remedy) records what
    the user should know although the node was translated.
    """

    builder: Builder
    domain: str
    op_type: str
    name: str
    inputs: tuple[str, ...]
    codes: tuple[Code | None, ...]
    attrs: Mapping[str, AttributeProto]
    opset: int
    outputs: tuple[str, ...]
    declared: tuple[tuple[Dim, ...] | None, ...]
    used: tuple[bool, ...]
    tensor: Callable[[TensorProto], Array]
    budget: Budget
    warn: Callable[[str, str], None]

    # ---- the node as the file has it ----

    def has(self, index: int) -> bool:
        """Whether input `index` is there."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def input(self, index: int) -> str:
        """Input `index`, which the operator's definition demands."""
        if not self.has(index):
            raise Refused(f"input {index} is missing")
        return self.inputs[index]

    def code(self, index: int) -> Code | None:
        """How the file stores input `index`, where it holds integers for a real value."""
        return self.codes[index] if self.has(index) else None

    def only_first_output(self) -> None:
        """Refuse if anything reads another output than the first."""
        if any(self.used[1:]):
            raise Refused("only the first output is supported", "export the model without its other outputs")

    def array(self, index: int, what: str) -> Array:
        """The value of a constant input; anything else is refused."""
        value = self.builder.value(self.input(index))
        if value is None:
            raise Refused(f"{what} is computed at run time", "export the model with fixed shapes and parameters")
        return value

    def integers(self, index: int, what: str) -> list[int]:
        """The values of a constant integer input of rank 0 or 1."""
        value = self.array(index, what)
        if value.dtype.kind not in "iu" or value.ndim > 1:
            raise Refused(f"{what} must be a list of integers")
        return [int(x) for x in value.ravel()]

    def scalar(self, index: int, what: str) -> float:
        """The value of a constant input of one element."""
        value = self.array(index, what)
        if value.size != 1:
            raise Refused(f"{what} must be a single number, but has shape {list(value.shape)}")
        return value.ravel()[0].item()

    def _attr(self, name: str, kind: int, what: str) -> AttributeProto | None:
        proto = self.attrs.get(name)
        if proto is not None and proto.type != kind:
            raise Refused(f"attribute {name} is not {what}", "the file is damaged: export it again")
        return proto

    def attr_int(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        proto = self._attr(name, AttributeProto.INT, "an integer")
        return default if proto is None else proto.i

    def attr_float(self, name: str, default: float = 0.0) -> float:
        """A float attribute, as the float32 it is stored as."""
        proto = self._attr(name, AttributeProto.FLOAT, "a number")
        return default if proto is None else proto.f

    def attr_str(self, name: str, default: str = "") -> str:
        """A string attribute."""
        proto = self._attr(name, AttributeProto.STRING, "a string")
        return default if proto is None else proto.s.decode("utf-8", "replace")

    def attr_ints(self, name: str) -> list[int] | None:
        """A list of integers, or None."""
        proto = self._attr(name, AttributeProto.INTS, "a list of integers")
        return None if proto is None else list(proto.ints)

    def attr_floats(self, name: str) -> list[float] | None:
        """A list of numbers, or None."""
        proto = self._attr(name, AttributeProto.FLOATS, "a list of numbers")
        return None if proto is None else list(proto.floats)

    def ints_or_input(self, name: str, index: int) -> list[int] | None:
        """What older opsets give as attribute `name` and newer ones as constant input `index`."""
        return self.integers(index, name) if self.has(index) else self.attr_ints(name)

    # ---- facts about values ----

    def shape(self, x: str) -> Shape:
        """Static shape of a value."""
        return self.builder.shape(x)

    def dtype(self, x: str) -> str:
        """IR type of a value."""
        return self.builder.tensors[x].dtype

    def axis(self, axis: int, rank: int) -> int:
        """`axis` counted from the front; refused outside of -rank..rank-1."""
        if not -rank <= axis < rank:
            raise Refused(f"axis {axis} is out of range for rank {rank}")
        return axis % rank

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """`axes` from the front, sorted; refused when out of range or given twice."""
        found = sorted(self.axis(a, rank) for a in axes)
        if len(set(found)) < len(found):
            raise Refused(f"an axis is given twice in {list(axes)}")
        return tuple(found)

    def producer(self, x: str) -> Node | None:
        """The core operator that computes `x`, None for inputs and constants."""
        return self.builder.producers.get(x)

    def real(self, x: str) -> str:
        """`x`, which must be of float type."""
        if self.dtype(x) != "f32":
            raise Refused(f"needs floats, but reads {self.dtype(x)}")
        return x

    # ---- building ----

    def core(self, op: str, inputs: Sequence[str], attrs: Mapping[str, Any]) -> str:
        """A core operator whose operands the caller has checked."""
        out = self.builder.op(op, inputs, attrs, name=self.name)
        if self.builder.value(out) is not None:
            self.budget.take(self.builder.tensors[out].size)
        return out

    def const(self, value: Any, dtype: type[np.generic] | None = None) -> str:
        """A constant."""
        with np.errstate(over="ignore"):
            return self.builder.const(np.asarray(value, dtype=dtype))

    def scalar_like(self, x: str, value: float) -> str:
        """A scalar constant of the type of `x`."""
        return self.cast(self.const(value), self.dtype(x))

    def op(self, op: str, *inputs: str, **attrs: Any) -> str:
        """An element-by-element operator, broadcasting. Scalars given as numbers must be wrapped by the caller."""
        assert op in ELEMENTWISE, op
        self.broadcast(*inputs)
        types = [self.dtype(x) for x in (inputs[1:] if op == "where" else inputs)]
        if len(set(types)) > 1:
            raise Refused(f"mixes element types {' and '.join(dict.fromkeys(types))}", "cast one of them before export")
        return self.core(op, inputs, attrs)

    def broadcast(self, *inputs: str) -> Shape:
        """The shape that operands of an element-by-element operator have together."""
        shapes = [self.shape(x) for x in inputs]
        try:
            shape = np.broadcast_shapes(*shapes)
        except ValueError:
            raise Refused(f"shapes {' and '.join(str(list(s)) for s in shapes)} do not broadcast") from None
        fits(shape)
        return shape

    def cast(self, x: str, to: str) -> str:
        """`x` as IR type `to`; nothing where it already is."""
        return x if self.dtype(x) == to else self.core("cast", [x], {"to": to})

    def matmul(self, a: str, b: str) -> str:
        """numpy.matmul of floats (or of integers, as the file has them)."""
        left, right = self.shape(a), self.shape(b)
        if not left or not right or left[-1] != right[-2 if len(right) > 1 else 0]:
            raise Refused(f"cannot multiply shapes {list(left)} and {list(right)}")
        if self.dtype(a) != self.dtype(b):
            raise Refused(f"mixes element types {self.dtype(a)} and {self.dtype(b)}", "cast one of them before export")
        try:
            batch = np.broadcast_shapes(left[:-2], right[:-2])
        except ValueError:
            raise Refused(f"cannot multiply shapes {list(left)} and {list(right)}") from None
        fits((*batch, *left[-2:-1], *right[-1:]))
        return self.core("matmul", [a, b], {})

    def reduce(self, kind: str, x: str, axes: Sequence[int], keepdims: bool = True) -> str:
        """`kind` one of sum, mean, max, min, prod."""
        axes = self.axes(axes, len(self.shape(x)))
        if kind in ("max", "min", "mean") and any(self.shape(x)[a] == 0 for a in axes):
            raise Refused(f"{kind} over no elements")
        return self.core(f"reduce_{kind}", [x], {"axes": axes, "keepdims": keepdims})

    def softmax(self, x: str, axis: int) -> str:
        """Softmax of floats along one axis."""
        return self.core("softmax", [self.real(x)], {"axis": self.axis(axis, len(self.shape(x)))})

    def normalize(self, op: str, x: str, gamma: str, beta: str, axis: int, epsilon: float) -> str:
        """The core operator layernorm or rmsnorm, gamma and beta ("" if absent) of the shape of the normalized axes."""
        inputs = [x, gamma, beta] if op == "layernorm" else [x, gamma]
        return self.core(op, inputs, {"axis": axis, "epsilon": float(epsilon)})

    def cumsum(self, x: str, axis: int, exclusive: bool, reverse: bool) -> str:
        """Running sums along `axis`."""
        return self.core("cumsum", [x], {"axis": axis, "exclusive": exclusive, "reverse": reverse})

    def concat(self, parts: Sequence[str], axis: int) -> str:
        """`parts` one behind the other; empty ones vanish."""
        rank = len(self.shape(parts[0]))
        axis = self.axis(axis, rank)
        for part in parts:
            mine = self.shape(part)
            if len(mine) != rank or any(
                m != n for i, (m, n) in enumerate(zip(mine, self.shape(parts[0]), strict=True)) if i != axis
            ):
                raise Refused(f"cannot concatenate shapes {list(self.shape(parts[0]))} and {list(mine)} on axis {axis}")
            if self.dtype(part) != self.dtype(parts[0]):
                raise Refused(f"mixes element types {self.dtype(parts[0])} and {self.dtype(part)}")
        full = [p for p in parts if self.shape(p)[axis]] or [parts[0]]
        fits((sum(self.builder.tensors[p].size for p in full),))
        return full[0] if len(full) == 1 else self.core("concat", full, {"axis": axis})

    def gather(self, data: str, indices: str, axis: int) -> str:
        """Slices of `data` by run-time `indices`."""
        shape = self.shape(data)
        fits((*shape[:axis], *self.shape(indices), *shape[axis + 1 :]))
        return self.core("gather", [data, indices], {"axis": axis})

    def positions(self, x: str) -> Array:
        """Flat positions of `x` in its own shape: move these as `x` should move, hand them to `view`."""
        fits(self.shape(x))
        return self.builder.positions(x)

    def view(self, x: str, index: Array, fill: float = 0.0) -> str:
        """The elements of `x` at flat positions `index` (-1: `fill`)."""
        fits(index.shape)
        self.budget.take(index.size)
        return self.builder.view(x, index, fill=fill, name=self.name)

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """`x` in another shape of as many elements."""
        if math.prod(shape) != self.builder.tensors[x].size or any(d < 0 for d in shape):
            raise Refused(f"cannot reshape {list(self.shape(x))} to {list(shape)}")
        return self.view(x, self.positions(x).reshape(tuple(shape)))

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """`x` with its axes in the order `perm`."""
        if sorted(perm) != list(range(len(self.shape(x)))):
            raise Refused(f"{list(perm)} is no permutation of the axes of {list(self.shape(x))}")
        return self.view(x, self.positions(x).transpose(tuple(perm)))

    def expand(self, x: str, shape: Sequence[int]) -> str:
        """`x` broadcast to `shape`."""
        fits(shape)
        try:
            return self.view(x, np.broadcast_to(self.positions(x), tuple(shape)))
        except ValueError:
            raise Refused(f"cannot expand {list(self.shape(x))} to {list(shape)}") from None

    def windows(self, extent: Shape, kernel: Shape, attrs: Mapping[str, Any], channels: int) -> None:
        """Refuse a conv or pool whose geometry makes no sense or no fit."""
        if min((*kernel, *attrs["strides"], *attrs["dilations"]), default=1) < 1 or min(attrs["pads"], default=0) < 0:
            raise Refused(f"kernel {list(kernel)} with {', '.join(f'{k} {list(v)}' for k, v in attrs.items())}")
        counts = window_counts(extent, kernel, attrs)
        if any(n < 1 for n in counts):
            raise Refused(f"kernel {list(kernel)} is larger than its padded input {list(extent)}")
        ends = zip(extent, attrs["pads"], attrs["pads"][len(kernel) :], strict=False)
        fits((channels, *(size + before + after for size, before, after in ends)))
        fits((channels, *counts))
