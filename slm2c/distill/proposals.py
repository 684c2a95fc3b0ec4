"""proposals: which students are worth a try, the largest first; nothing here trains or measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from slm2c.distill.parts import GRAIN
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

_CUTS = (
    (0.8, 1, 1, 1),
    (1, 0.5, 1, 1),
    (0.75, 0.5, 1, 1),
    (1, 1, 2 / 3, 1),
    (0.5, 0.25, 1, 1),
    (1, 1, 1, 1 / 2),
    (1, 0.5, 2 / 3, 1),
    (0.75, 0.5, 1, 1 / 2),
    (1, 1, 1 / 2, 1),
    (1, 0.5, 1 / 2, 1 / 2),
    (1, 0.5, 1 / 3, 1 / 4),
)
"""Shares of a student's heads, inner sizes and layers, and the rank of its table of pieces as a share of its features:
from a fifth of the heads less to about a sixth of the work."""

_LEAST_VOCABULARY = 200  # of a recipe
_BLOCK = 8  # features that kernels take at a time


@dataclass(frozen=True)
class Cut:
    """What is left of a student: shares of its heads and of the inner sizes of its layers, so many layers, and the rank
    of its table of pieces, 0 for the table that it has.
    """

    heads: float = 1.0
    ffn: float = 1.0
    layers: int = 0
    rank: int = 0


def shapes(base: Shape) -> dict[str, Shape]:
    """Students around `base` by their names, each shape once; heads keep their size. Names say layers x features,
    vocabulary, and the inner size where it is not the usual multiple.
    """
    size, ratio = base.size_of_head, max(base.ffn_of) / base.hidden
    found: dict[str, Shape] = {}
    for layers, heads, ffn, vocabulary in _SCALES:
        count = _whole(base.hidden // size * heads)
        inner = _BLOCK * _whole(count * size * ratio * ffn / _BLOCK)
        shape = replace(
            base,
            layers=_whole(base.layers * layers),
            heads=count,
            hidden=count * size,
            ffn=inner,
            vocabulary=max(_LEAST_VOCABULARY, round(base.vocabulary * vocabulary)),
            rank=min(base.rank, count * size),
        )
        if shape not in found.values():
            inner_name = f"-f{inner}" if ffn != 1 else ""
            found[f"{shape.layers}x{shape.hidden}{inner_name}-{_thousands(shape.vocabulary)}"] = shape
    return found


def cuts(whole: Shape) -> dict[str, tuple[Cut, Shape]]:
    """Cuts of a student of the shape `whole` by their names, and about the shape that each leaves: which layer gives
    how many heads is decided later, by what they are worth. Each shape once, and none that is the whole.
    """
    found: dict[str, tuple[Cut, Shape]] = {}
    uncut = _left(whole, Cut(layers=whole.layers))
    for heads, ffn, layers, rank in _CUTS:
        count = whole.layers if whole.share > 1 else _whole(whole.layers * layers)  # shared weights go together
        columns = _BLOCK * _whole(whole.hidden * rank / _BLOCK)
        cut = Cut(heads, ffn, count, columns if columns < (whole.rank or whole.hidden) else 0)
        shape = _left(whole, cut)
        kept = _left(whole, Cut(layers=count))
        cut = replace(cut, heads=1.0 if shape.heads == kept.heads else heads, ffn=1.0 if shape.ffn == kept.ffn else ffn)
        if shape not in (uncut, *(other for _, other in found.values())):
            found[_cut_name(whole, cut)] = (cut, shape)
    return found


def _left(whole: Shape, cut: Cut) -> Shape:
    """A shape with as many heads and columns as a cut leaves, the same in each layer as far as that goes."""
    ffn, grain = whole.ffn_of[: cut.layers], GRAIN["columns"]
    own = [i for i in range(cut.layers) if whole.source(i) == i]  # layers with weights of their own
    count = max(len(own), round(cut.heads * sum(whole.heads_of[i] for i in own)))
    least, more = divmod(count, len(own))
    return replace(
        whole,
        layers=cut.layers,
        heads=tuple(least + (own.index(whole.source(i)) < more) for i in range(cut.layers)),
        ffn=tuple(min(size, grain * _whole(cut.ffn * size / grain)) if cut.ffn < 1 else size for size in ffn),
        head_size=whole.size_of_head,
        rank=cut.rank or whole.rank,
    )


def _cut_name(whole: Shape, cut: Cut) -> str:
    parts = {
        f"layers{cut.layers}": cut.layers < whole.layers,
        f"heads{100 * cut.heads:.0f}": cut.heads < 1,
        f"ffn{100 * cut.ffn:.0f}": cut.ffn < 1,
        f"rank{cut.rank}": cut.rank > 0,
    }
    return "-".join(name for name, there in parts.items() if there)


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
