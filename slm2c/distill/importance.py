"""importance: what the loss would lose with each head, FFN column and table column, by gates on them.

A gate g multiplies what a part puts out; at g = 1 the model is as it was, at 0 the part is gone. To first order a
sentence's loss changes by |dL/dg| when the gate goes from 1 to 0, which is |sum of a * dL/da| over the activations a
that it multiplies. The mean over sentences is the importance: of heads, Michel, Levy and Neubig, arXiv 1905.10650; of
columns and other neurons, Molchanov et al., arXiv 1906.10771, who sum it up to compare parts of different layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from slm2c.compile import Progress
from slm2c.distill.batches import by_length, pad
from slm2c.distill.recipe import Shape
from slm2c.distill.student import Student

_BATCH = 64


@dataclass(frozen=True)
class Gates:
    """A number for each head and FFN column of each layer, and each column of a table in two factors (else 0 columns):
    [sentences, parts], or [parts] for all alike. Layers that share weights have the same tensors.
    """

    heads: tuple[Tensor, ...]
    columns: tuple[Tensor, ...]
    components: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, those that are shared once."""
        return tuple({id(x): x for x in (*self.heads, *self.columns, self.components)}.values())


def gates(shape: Shape, make: Callable[[int], Tensor]) -> Gates:
    """Gates of a student of this shape; `make` gives those of so many parts."""
    heads, columns = list[Tensor](), list[Tensor]()
    for i, (h, f) in enumerate(zip(shape.heads_of, shape.ffn_of, strict=True)):
        own = shape.source(i) == i
        heads.append(make(h) if own else heads[shape.source(i)])
        columns.append(make(f) if own else columns[shape.source(i)])
    return Gates(tuple(heads), tuple(columns), make(shape.rank))


@contextmanager
def gated(student: Student, values: Gates) -> Iterator[None]:
    """Within, the student has these gates."""
    hooks = []
    for layer, heads, columns in zip(student.layers, values.heads, values.columns, strict=True):
        wide = heads.repeat_interleave(student.shape.size_of_head, -1)
        hooks += [_gate(layer.attention.output.dense, wide), _gate(layer.output.dense, columns)]
    if student.shape.rank:
        hooks.append(_gate(student.bert.bert.embeddings.word_embeddings.up, values.components))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _gate(module: Any, gate: Tensor) -> Any:
    """Multiply what goes into a linear layer, [sentences, tokens, parts]."""
    return module.register_forward_pre_hook(lambda _, given: (given[0] * gate.unsqueeze(-2),))


def _open(sentences: int, parts: int) -> Tensor:
    return torch.ones(sentences, parts, requires_grad=True)


def importance(student: Student, ids: Sequence[Sequence[int]], labels: Sequence[int], progress: Progress) -> Gates:
    """Mean over the sentences of |dL/dg| at g = 1, L their cross-entropy with their labels; [parts] each."""
    student.eval()
    total = gates(student.shape, lambda parts: torch.zeros(parts, dtype=torch.float64))
    batches = by_length([len(row) for row in ids], _BATCH)
    for done, batch in enumerate(batches):
        progress("importance", done, len(batches))
        own = gates(student.shape, partial(_open, len(batch)))
        with gated(student, own):
            logits = student(*pad([ids[i] for i in batch]))
        # The sum: a gate of one sentence has no part in the loss of another.
        loss = functional.cross_entropy(logits, torch.tensor([labels[i] for i in batch]), reduction="sum")
        found = torch.autograd.grad(loss, own.tensors, allow_unused=True)
        for kept, gradient in zip(total.tensors, found, strict=True):
            if gradient is not None:
                kept += gradient.abs().sum(0)
    for kept in total.tensors:
        kept /= len(ids)
    return total
