"""Editing of frozen graphs: collect new nodes and replacements, then apply them all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from slm2c.ir import Array, Graph, Node, Shape, Tensor, const_tensor, prune, toposort, verify


class Edit:
    """New nodes for a graph, and which old tensors they stand for."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tensors: dict[str, Tensor] = dict(graph.tensors)
        self.consts: dict[str, Array] = dict(graph.consts)
        self.made: list[Node] = []
        self.replaced: dict[str, str] = {}
        self._number = len(graph.tensors)

    def _fresh(self) -> str:
        while f"v{self._number}" in self.tensors:
            self._number += 1
        return f"v{self._number}"

    def const(self, value: Array) -> str:
        """A new constant."""
        name = self._fresh()
        self.tensors[name] = const_tensor(name, value)
        self.consts[name] = value
        return name

    def add(
        self, op: str, inputs: Sequence[str], attrs: Mapping[str, Any], shape: Shape, name: str, dtype: str = "f32"
    ) -> str:
        """A new node; returns its output."""
        out = self._fresh()
        self.tensors[out] = Tensor(out, tuple(shape), dtype)
        self.made.append(Node(op, name, tuple(inputs), (out,), attrs))
        return out

    def replace(self, old: str, new: str) -> None:
        """Everything that read `old` shall read `new`, which has the quantization that the file states for `old`."""
        assert old not in self.replaced and self.tensors[old].shape == self.tensors[new].shape, (old, new)
        self.replaced[old] = new
        if self.tensors[new].quant is None:
            self.tensors[new] = replace(self.tensors[new], quant=self.tensors[old].quant)

    def resolve(self, name: str) -> str:
        """What stands for `name` after all replacements."""
        while name in self.replaced:
            name = self.replaced[name]
        return name

    def apply(self) -> Graph:
        """The edited graph, without what nothing reads any more."""
        if not self.made and not self.replaced:
            return self.graph
        nodes = [
            Node(n.op, n.name, tuple(self.resolve(x) for x in n.inputs), n.outputs, n.attrs)
            for n in (*self.graph.nodes, *self.made)
            if n.outputs[0] not in self.replaced
        ]
        return verify(
            prune(
                replace(
                    self.graph,
                    nodes=toposort(nodes),
                    tensors=self.tensors,
                    consts=self.consts,
                    outputs=tuple(self.resolve(x) for x in self.graph.outputs),
                )
            )
        )
