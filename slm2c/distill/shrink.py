"""shrink: fewer layers, layers that share their weights, a table of embeddings in two factors. Nothing is trained here.

Which layers go, and which of those that share lend their weights, is decided by trying: the loss on some training
sentences, one layer at a time, the best first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from slm2c.distill.prune import LAYER, TABLE, layer_state, remade, without_layers
from slm2c.distill.student import Student, factors

Loss = Callable[[Student], float]
"""What a student is judged by."""


def fewer_layers(student: Student, count: int, loss: Loss) -> Student:
    """A student of `count` layers: that without which the loss is least goes first."""
    kept = list(range(student.shape.layers))
    while len(kept) > count:
        ways = [[x for x in kept if x != gone] for gone in kept]
        kept = min(ways, key=lambda way: loss(without_layers(student, way)))
    return without_layers(student, kept)


def shared(student: Student, share: int, loss: Loss) -> Student:
    """A student in which each `share` layers in a row have the weights of one of them (Takase and Kiyono,
    arXiv 2104.06022, call it sequence): that with which the loss is least, group after group.
    """
    shape, state = student.shape, dict(student.state_dict())
    assert shape.share == 1, "layers share weights already"
    heads, ffn = list(shape.heads_of), list(shape.ffn_of)
    for first in range(0, shape.layers, share):
        group = range(first, min(first + share, shape.layers))
        ways = []
        for lender in group:
            made = dict(state)
            sizes = list(heads), list(ffn)
            for layer in group:
                made = {k: v for k, v in made.items() if not k.startswith(f"{LAYER}.{layer}.")}
                made |= layer_state(student, lender, layer)
                sizes[0][layer], sizes[1][layer] = shape.heads_of[lender], shape.ffn_of[lender]
            so_far = replace(shape, heads=tuple(sizes[0]), ffn=tuple(sizes[1]), head_size=shape.size_of_head)
            ways.append((loss(remade(student, so_far, made)), made, sizes))
        _, state, (heads, ffn) = min(ways, key=lambda way: way[0])
    whole = replace(shape, share=share, heads=tuple(heads), ffn=tuple(ffn), head_size=shape.size_of_head)
    return remade(student, whole, state)


@torch.no_grad()
def factored(student: Student, rank: int) -> Student:
    """A student whose table of pieces [V, hidden] is the product of rank `rank` that is nearest to it."""
    state = {name: value for name, value in student.state_dict().items() if not name.startswith(TABLE)}
    table, up = factors(student.bert.bert.embeddings.word_embeddings.weight, rank)
    state |= {f"{TABLE}.table.weight": table, f"{TABLE}.up.weight": up}
    return remade(student, replace(student.shape, rank=rank), state)
