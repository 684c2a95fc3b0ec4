"""The graph that every stage reads and returns: frozen values, and `verify`, which states its rules as code.

One pair of types serves the whole pipeline. Straight after the import the operators are ONNX's; after the passes
they are those of the table in `slm2c.ops`; after quantization the tensors carry integer types and a `Quant`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

DTYPES: Mapping[str, type[np.generic]] = MappingProxyType(
    {
        "f32": np.float32,
        "i8": np.int8,
        "u8": np.uint8,
        "i16": np.int16,
        "i32": np.int32,
        "i64": np.int64,
        "bool": np.bool_,
    }
)
"""Element types by name; int4 will be stored two to a byte and stay a name of its own."""


@dataclass(frozen=True)
class Quant:
    """real = scale * (q - zero_point), per tensor."""

    scale: float
    zero_point: int = 0


@dataclass(frozen=True)
class Tensor:
    """What is known of a value without running anything.

    `shape` holds the planned maximum of each axis. Where `token_axis` is set, that axis counts tokens and has at run
    time the actual count n <= shape[token_axis]; all other axes are exact. `quant` is None for float and index tensors;
    straight after the import it may hold the scale that a QDQ file states for this tensor (a hint to the quantizer).
    """

    name: str
    shape: Shape
    dtype: str
    token_axis: int | None = None
    quant: Quant | None = None

    @property
    def size(self) -> int:
        """Number of elements at the maximum."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes at the maximum."""
        return self.size * np.dtype(DTYPES[self.dtype]).itemsize


@dataclass(frozen=True)
class Node:
    """One operator. `name` is that of the ONNX node it came from, for messages and comments; "" in `inputs` is
    absent.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attrs", MappingProxyType(dict(self.attrs)))


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order over named tensors; `consts` holds the values of those that are constant."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    consts: Mapping[str, Array]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        object.__setattr__(self, "consts", MappingProxyType(dict(self.consts)))

    def producers(self) -> dict[str, Node]:
        """Tensor name -> the node that writes it; graph inputs and constants are absent."""
        return {out: node for node in self.nodes for out in node.outputs}

    def consumers(self) -> dict[str, list[Node]]:
        """Tensor name -> the nodes that read it, in order; a graph output adds no entry."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return found


def const_tensor(name: str, value: Array) -> Tensor:
    """The `Tensor` of a constant array; AssertionError on an element type that the IR has no name for."""
    for dtype, kind in DTYPES.items():
        if value.dtype == kind:
            return Tensor(name, tuple(value.shape), dtype)
    raise AssertionError(f"constant {name}: no IR type for {value.dtype}")


def prune(graph: Graph) -> Graph:
    """Drop nodes, tensors and constants that no output depends on. Graph inputs stay."""
    live = set(graph.outputs)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if any(out in live for out in node.outputs):
            nodes.append(node)
            live.update(node.inputs)
    nodes.reverse()
    keep = live | set(graph.inputs) | {out for node in nodes for out in node.outputs}
    return replace(
        graph,
        nodes=tuple(nodes),
        tensors={k: v for k, v in graph.tensors.items() if k in keep},
        consts={k: v for k, v in graph.consts.items() if k in keep},
    )


def toposort(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """`nodes` in an order where each is written before it is read; stable, so equal graphs stay equal.

    Raises AssertionError on a cycle: files with one are refused by the importer.
    """
    pending = list(nodes)
    written_by = {out: i for i, node in enumerate(pending) for out in node.outputs}
    order: list[Node] = []
    state = [0] * len(pending)  # 0 untouched, 1 on the stack, 2 done
    for root in range(len(pending)):
        stack: list[tuple[int, Iterator[int]]] = []
        if state[root] == 0:
            state[root] = 1
            stack.append((root, iter([written_by[x] for x in pending[root].inputs if x in written_by])))
        while stack:
            index, below = stack[-1]
            for child in below:
                assert state[child] != 1, f"cycle through {pending[child].name}"
                if state[child] == 0:
                    state[child] = 1
                    stack.append((child, iter([written_by[x] for x in pending[child].inputs if x in written_by])))
                    break
            else:
                stack.pop()
                state[index] = 2
                order.append(pending[index])
    return tuple(order)


def verify(graph: Graph) -> Graph:
    """Return `graph` if it keeps the rules of the IR, else AssertionError: the fault is ours, not the user's."""
    ready = set(graph.inputs) | set(graph.consts)
    for name in graph.inputs:
        assert name not in graph.consts, f"input {name} is also a constant"
    for name, value in graph.consts.items():
        tensor = graph.tensors[name]
        assert tuple(value.shape) == tensor.shape, f"{name}: {value.shape} is not {tensor.shape}"
        assert value.dtype == DTYPES[tensor.dtype], f"{name}: {value.dtype} is not {tensor.dtype}"
    for node in graph.nodes:
        for name in node.inputs:
            assert not name or name in ready, f"{node.op} {node.name} reads {name} before it is written"
        for name in node.outputs:
            assert name in graph.tensors, f"{node.op} {node.name} writes {name}, which has no type"
            assert name not in ready, f"{node.op} {node.name} writes {name} a second time"
            ready.add(name)
    for name in graph.outputs:
        assert name in ready, f"output {name} is never written"
    for name, tensor in graph.tensors.items():
        assert name == tensor.name, f"tensor {tensor.name} is filed under {name}"
        assert tensor.dtype in DTYPES, f"{name}: unknown type {tensor.dtype}"
        axis = tensor.token_axis
        assert axis is None or 0 <= axis < len(tensor.shape), f"{name}: no axis {axis} in {tensor.shape}"
    return graph
