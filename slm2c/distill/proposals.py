"""proposals: which students are worth a try, the largest first; nothing here trains or measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from slm2c.distill.recipe import Shape

T = TypeVar("T")

_SCALES = (
    (1, 3 / 2, 1, 1),
    (1, 1, 1, 1),
    (2 / 3, 1, 1, 1),
    (1, 3 / 4, 1, 1 / 2),
    (2 / 3, 1, 1, 1 / 2),
    (1, 3 / 4, 1 / 2, 1 / 2),
    (1 / 2, 1, 1, 1 / 2),
    (2 / 3, 3 / 4, 1, 1 / 2),
    (1 / 2, 1, 1 / 2, 1 / 4),
    (1 / 2, 3 / 4, 1, 1 / 4),
    (1 / 3, 1, 1, 1 / 4),
    (2 / 3, 1 / 2, 1, 1 / 4),
    (1 / 3, 3 / 4, 1 / 2, 1 / 4),
    (1 / 3, 1 / 2, 1, 1 / 4),
    (1 / 6, 1 / 2, 1, 1 / 8),
)
"""Shares of a recipe's layers, heads (and with them features), inner size for each feature, and vocabulary: what makes
it twice to a fiftieth of the work. Depth, width and vocabulary shrink by turns, not one alone: what is short of one of
them wastes the others (Tan and Le, arXiv 1905.11946, for depth and width of convolutional nets)."""

_LEAST_VOCABULARY = 200  # of a recipe
_BLOCK = 8  # features that kernels take at a time


def shapes(base: Shape) -> dict[str, Shape]:
    """Students around `base` by their names, each shape once; heads keep their size. Names say layers x features,
    vocabulary, and the inner size where it is not the usual multiple.
    """
    size, ratio = base.hidden // base.heads, base.ffn / base.hidden
    found: dict[str, Shape] = {}
    for layers, heads, ffn, vocabulary in _SCALES:
        count = _whole(base.heads * heads)
        inner = _BLOCK * _whole(count * size * ratio * ffn / _BLOCK)
        shape = replace(
            base,
            layers=_whole(base.layers * layers),
            heads=count,
            hidden=count * size,
            ffn=inner,
            vocabulary=max(_LEAST_VOCABULARY, round(base.vocabulary * vocabulary)),
        )
        if shape not in found.values():
            inner_name = f"-f{inner}" if ffn != 1 else ""
            found[f"{shape.layers}x{shape.hidden}{inner_name}-{_thousands(shape.vocabulary)}"] = shape
    return found


def spread(found: Sequence[T], count: int) -> list[T]:
    """`count` of what is sorted by size: both ends first, then what halves the widest gap; the first few of a larger
    count are those of a smaller one, so that more tries add to what was tried.
    """
    chosen = sorted({0, len(found) - 1}) if found else []
    while len(chosen) < min(count, len(found)):
        known = sorted(chosen)
        gap, at = max((b - a, -a) for a, b in pairwise(known))
        chosen.append(-at + gap // 2)
    return [found[i] for i in chosen[:count]]


def _whole(number: float) -> int:
    return max(1, round(number))


def _thousands(number: int) -> str:
    return f"{number // 1024}k" if number % 1024 == 0 else str(number)


def words(shape: Shape) -> str:
    """A shape for a line of progress."""
    return f"{shape.layers} layer{'s' * (shape.layers > 1)}, {shape.hidden} wide"
