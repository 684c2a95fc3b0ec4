"""pareto: which of several students are worth having, and which of them to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COSTS = ("flash", "arena", "instructions")
"""What a student takes, by the names of Point's fields."""


@dataclass(frozen=True)
class Point:
    """A student that was tried. `accuracy`: share of the validation sentences, 0 to 1, that the integers get right;
    flash and arena in bytes, instructions at the most tokens; `fits`: the board, and in the time that it may take.
    """

    name: str
    accuracy: float
    flash: int
    arena: int
    instructions: int
    fits: bool

    def takes(self, cost: str) -> int:
        """What it takes of one of COSTS."""
        return int(getattr(self, cost))


def dominates(one: Point, other: Point, costs: Sequence[str] = COSTS) -> bool:
    """Whether `one` is at least as good as `other` in accuracy and every cost, and better in one of them."""
    better = [one.accuracy - other.accuracy, *(other.takes(cost) - one.takes(cost) for cost in costs)]
    return min(better) >= 0 and max(better) > 0


def front(points: Sequence[Point], costs: Sequence[str] = COSTS) -> tuple[Point, ...]:
    """Those that no other dominates, the cheapest by the first cost first."""
    kept = [point for point in points if not any(dominates(other, point, costs) for other in points)]
    return tuple(sorted(kept, key=lambda point: (point.takes(costs[0]), -point.accuracy)))


def best(points: Sequence[Point]) -> Point | None:
    """Of those that fit the most accurate; of several the one of fewest instructions, then flash, then arena."""
    fitting = [point for point in points if point.fits]
    return min(fitting, key=lambda p: (-p.accuracy, p.instructions, p.flash, p.arena), default=None)
