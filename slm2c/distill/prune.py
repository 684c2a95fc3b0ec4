"""prune: a student without some of its heads, FFN columns, table columns or layers.

What is left computes exactly what the student does with their gates at 0 (`importance.gated`); a layer that is gone
passes on what it gets. Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slm2c.distill.recipe import Shape
from slm2c.distill.student import Student

LAYER, TABLE = "bert.bert.encoder.layer", "bert.bert.embeddings.word_embeddings"
"""Where a student's state has its layers, and its table of pieces."""


@dataclass(frozen=True)
class Kept:
    """What stays, by position, ascending: heads and FFN columns of each layer, columns of a table in two factors."""

    heads: tuple[tuple[int, ...], ...]
    columns: tuple[tuple[int, ...], ...]
    components: tuple[int, ...] = ()


def everything(shape: Shape) -> Kept:
    """All that a student of this shape has."""
    heads, columns = (tuple(tuple(range(n)) for n in sizes) for sizes in (shape.heads_of, shape.ffn_of))
    return Kept(heads, columns, tuple(range(shape.rank)))


def shape_of(shape: Shape, kept: Kept) -> Shape:
    """The shape of what is kept of a student."""
    heads, columns = tuple(map(len, kept.heads)), tuple(map(len, kept.columns))
    return replace(shape, heads=_one(heads), ffn=_one(columns), head_size=shape.size_of_head, rank=len(kept.components))


def prune(student: Student, kept: Kept) -> Student:
    """A student of what is kept. Layers that share weights keep the same."""
    state, size = dict(student.state_dict()), student.shape.size_of_head
    for i, (heads, columns) in enumerate(zip(kept.heads, kept.columns, strict=True)):
        assert kept.heads[student.shape.source(i)] == heads and kept.columns[student.shape.source(i)] == columns, i
        features = [size * head + j for head in heads for j in range(size)]
        for name in ("query", "key", "value"):
            _select(state, f"{LAYER}.{i}.attention.self.{name}", torch.tensor(features), 0)
        _select(state, f"{LAYER}.{i}.attention.output.dense", torch.tensor(features), 1)
        _select(state, f"{LAYER}.{i}.intermediate.dense", torch.tensor(columns), 0)
        _select(state, f"{LAYER}.{i}.output.dense", torch.tensor(columns), 1)
    if student.shape.rank:
        for name in ("table", "up"):
            _select(state, f"{TABLE}.{name}", torch.tensor(kept.components), 1)
    return remade(student, shape_of(student.shape, kept), state)


def without_layers(student: Student, kept: Sequence[int]) -> Student:
    """A student of these layers, in this order; none of them may share its weights."""
    shape = student.shape
    assert shape.share == 1, "layers that share weights go together"
    state = {name: value for name, value in student.state_dict().items() if not name.startswith(LAYER)}
    for new, old in enumerate(kept):
        state |= layer_state(student, old, new)
    heads, columns = (_one(tuple(sizes[i] for i in kept)) for sizes in (shape.heads_of, shape.ffn_of))
    smaller = replace(shape, layers=len(kept), heads=heads, ffn=columns, head_size=shape.size_of_head)
    return remade(student, smaller, state)


def layer_state(student: Student, layer: int, name: int) -> dict[str, Tensor]:
    """The state of a layer, as that of the layer number `name`."""
    return {f"{LAYER}.{name}.{key}": value for key, value in student.layers[layer].state_dict().items()}


def remade(student: Student, shape: Shape, state: Mapping[str, Tensor]) -> Student:
    """A student for the same pieces and labels, of another shape, with this state; in evaluation mode."""
    made = Student(shape, student.vocabulary, student.labels, student.dropout)
    made.load_state_dict(state)
    return made.eval()


def _select(state: dict[str, Tensor], name: str, kept: Tensor, axis: int) -> None:
    """Keep some outputs (axis 0, with their biases) or inputs (axis 1) of a linear layer, or columns of a table."""
    state[f"{name}.weight"] = state[f"{name}.weight"].index_select(axis, kept)
    if axis == 0:
        state[f"{name}.bias"] = state[f"{name}.bias"].index_select(0, kept)


def _one(sizes: tuple[int, ...]) -> int | tuple[int, ...]:
    """One number where all are the same."""
    return sizes[0] if len(set(sizes)) == 1 else sizes
