"""choose: which parts of a student go: those that matter least, or matter least for the bytes that they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from slm2c.distill.importance import Gates
from slm2c.distill.parts import GRAIN
from slm2c.distill.prune import Kept, everything
from slm2c.distill.recipe import Shape


@dataclass(frozen=True)
class Unit:
    """Parts of one kind ("heads", "columns", "components") and layer that go together.

    layer: the first of those that share the weights, 0 for components
    """

    kind: str
    layer: int
    parts: tuple[int, ...]
    importance: float


def units(shape: Shape, importance: Gates) -> list[Unit]:
    """All that may go: in each layer everything but the most important unit of each kind."""
    found = []
    for layer in (i for i in range(shape.layers) if shape.source(i) == i):
        found += _units("heads", layer, importance.heads[layer])
        found += _units("columns", layer, importance.columns[layer])
    return found + _units("components", 0, importance.components)


def _units(kind: str, layer: int, importance: Tensor) -> list[Unit]:
    """Units in ascending order. The first takes the remainder, so that what is left is a multiple of the grain."""
    grain, order = GRAIN[kind], importance.argsort(stable=True).tolist()
    first = len(order) % grain or grain
    starts = [0, *range(first, len(order), grain)]
    parts = [order[a:b] for a, b in zip(starts, [*starts[1:], len(order)], strict=True)]
    made = [Unit(kind, layer, tuple(sorted(p)), float(importance[p].sum())) for p in parts if p]
    return made[:-1]


def least(found: Sequence[Unit], kind: str, parts: int) -> list[Unit]:
    """The least important units of a kind, together at least so many parts, or all there are."""
    chosen, count = [], 0
    for unit in sorted((u for u in found if u.kind == kind), key=lambda u: u.importance / len(u.parts)):
        if count >= parts:
            break
        chosen.append(unit)
        count += len(unit.parts)
    return chosen


def cheapest(found: Sequence[Unit], price: Mapping[str, int], needed: int) -> list[Unit]:
    """The units with the least importance per byte that together save at least `needed` bytes, or all there are.

    What the last of them made needless stays, the most important first.

    `price`: bytes that a unit of a kind saves; kinds without one stay.
    """
    chosen, saved = [], 0
    able = [u for u in found if price.get(u.kind, 0) > 0]
    for unit in sorted(able, key=lambda u: u.importance / price[u.kind]):
        if saved >= needed:
            break
        chosen.append(unit)
        saved += price[unit.kind]
    for unit in chosen[::-1]:
        if saved - price[unit.kind] >= needed:
            chosen.remove(unit)
            saved -= price[unit.kind]
    return chosen


def without(shape: Shape, gone: Sequence[Unit]) -> Kept:
    """What is kept of a student of this shape."""
    whole = everything(shape)

    def rest(kind: str, layer: int, parts: Sequence[int]) -> tuple[int, ...]:
        lost = {p for u in gone if u.kind == kind and u.layer == layer for p in u.parts}
        return tuple(p for p in parts if p not in lost)

    return replace(
        whole,
        heads=tuple(rest("heads", shape.source(i), parts) for i, parts in enumerate(whole.heads)),
        columns=tuple(rest("columns", shape.source(i), parts) for i, parts in enumerate(whole.columns)),
        components=rest("components", 0, whole.components),
    )
