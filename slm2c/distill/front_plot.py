"""front_plot: accuracy of students against what they take, as one SVG; the same figures give the same bytes.

Three panels below each other, so that the picture is readable on a phone, too. The template holds form and colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from slm2c.distill.pareto import Point, best, front
from slm2c.errors import printable
from slm2c.resources import templates
from slm2c.text import shortened

WIDTH, PANEL = 400, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 44, 38  # of the plot in its panel
_HEAD, _FOOT = 50, 34
_FONT = 12
_CHARACTER = 0.6  # of the font's size: more than any system's letters are wide on average
_LONGEST = 26  # characters of a label
_GAP = 6.0  # from a point to its label
_SPAN = 2.0  # points of accuracy, at least, so that one sentence does not look like much
_RINGS = 12  # of places that are tried around a point
_ATTEMPTS = 8
_DOUBT = 3  # what makes a label hard to read or to assign is as bad as so many rings

Spot = tuple[float, float]
"""x and y in the picture."""

_SHARES = {
    "flash": (1024, "KB of flash"),
    "arena": (1024, "KB of arena"),
    "instructions": (1e6, "million instructions"),
}


@dataclass(frozen=True)
class Limit:
    """The most that may be taken, in the unit of Point, and how it is called."""

    at: float
    text: str


@dataclass(frozen=True)
class Box:
    """A rectangle from (x, y) on, y downwards."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: Box) -> bool:
        """Whether the two have a point in common."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )

    def grown(self, by: float) -> Box:
        """With so much more on each side."""
        return Box(self.x - by, self.y - by, self.width + 2 * by, self.height + 2 * by)

    def within(self, other: Box) -> bool:
        """Whether all of it lies in the other."""
        return (
            other.x <= self.x
            and other.y <= self.y
            and self.x + self.width <= other.x + other.width
            and self.y + self.height <= other.y + other.height
        )


@dataclass(frozen=True)
class Label:
    """A text with its box, at a point; from the second ring of places on a line leads there."""

    text: str
    point: Spot
    box: Box
    ring: int

    @property
    def anchor(self) -> tuple[str, float]:
        """How SVG calls the side of the text that faces the point, and its x: letters may take less than the box."""
        left, right = self.box.x, self.box.x + self.box.width
        x = self.point[0]
        return ("start", left) if left > x else ("end", right) if right < x else ("middle", (left + right) / 2)

    @property
    def end(self) -> Spot:
        """Where a line to it ends."""
        (x, y), box = self.point, self.box
        return min(max(x, box.x), box.x + box.width), min(max(y, box.y), box.y + box.height)

    @property
    def leader(self) -> list[Box]:
        """Dots of that line; none where there is none."""
        (x, y), (a, b) = self.point, self.end
        count = int(math.hypot(a - x, b - y) / 4) if self.ring else 0
        return [Box(x + (a - x) * i / count - 1, y + (b - y) * i / count - 1, 2, 2) for i in range(count)]


@dataclass(frozen=True)
class _Axis:
    """From `low` to `high`, drawn from pixel `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Three to six round values."""
        step = _step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def draw(points: Sequence[Point], limits: Mapping[str, Limit], title: str, subtitle: str) -> str:
    """The text of an SVG file; `limits` by the cost that they limit. There is at least one point."""
    jinja = templates(autoescape=True)
    panels = [_panel(points, cost, limits.get(cost), _HEAD + i * PANEL) for i, cost in enumerate(_SHARES)]
    return jinja.get_template("front.svg.j2").render(
        width=WIDTH,
        height=_HEAD + len(panels) * PANEL + _FOOT,
        font=_FONT,
        title=printable(title),
        subtitle=printable(subtitle),
        panels=panels,
    )


def _panel(points: Sequence[Point], cost: str, limit: Limit | None, top: float) -> dict[str, object]:
    unit, name = _SHARES[cost]
    plot = Box(_LEFT, top + _TOP, WIDTH - _LEFT - _RIGHT, PANEL - _TOP - _BOTTOM)
    taken = [point.takes(cost) / unit for point in points]
    most = None if limit is None else limit.at / unit
    # A limit far beyond all points would squeeze them into a corner: it is then told, not drawn.
    near = most is not None and most < 1.6 * max(taken)
    low, high = _range([*taken, most] if near and most is not None else taken)
    x = _Axis(low, high, plot.x, plot.x + plot.width)
    low, high = _range([100 * point.accuracy for point in points], _SPAN, 100)
    y = _Axis(low, high, plot.y + plot.height, plot.y)
    at = {point.name: (x.at(point.takes(cost) / unit), y.at(100 * point.accuracy)) for point in points}
    chosen = best(points)
    steps = _steps([at[point.name] for point in front(points, [cost])], plot)
    edge = x.at(most) if near and most is not None else None
    lines = [_line(*ends) for ends in pairwise(steps)]
    lines += [] if edge is None else [_line((edge, plot.y), (edge, plot.y + plot.height))]
    labels = place(at, plot, lines)
    return {
        "plot": plot,
        "name": name,
        "x_ticks": [(x.at(tick), *_under(x.at(tick), f"{tick:,g}")) for tick in x.ticks()],
        "y_ticks": [(y.at(tick), f"{tick:g}") for tick in y.ticks() if tick <= 100],
        "steps": steps,
        "limit": None if limit is None else (edge, limit.text),
        "points": [("best" if p == chosen else "fits" if p.fits else "over", labels[p.name]) for p in points],
    }


def _steps(corners: Sequence[Spot], plot: Box) -> list[Spot]:
    """A front as a line: up to the first point, then level to below the next and up to it, and on to the right."""
    found = [(corners[0][0], plot.y + plot.height)]
    for x, y in corners:
        found += [(x, found[-1][1]), (x, y)]
    return [*found, (plot.x + plot.width, found[-1][1])]


def _under(x: float, text: str) -> tuple[float, str]:
    """(middle of a text below `x`, moved so that all of it is in the picture, the text)."""
    return min(x, WIDTH - _CHARACTER * _FONT * len(text) / 2 - 2), text


def _line(one: Spot, other: Spot) -> Box:
    """Where a level or upright line lies."""
    (a, b), (c, d) = one, other
    return Box(min(a, c) - 1, min(b, d) - 1, abs(a - c) + 2, abs(b - d) + 2)


def _range(values: Sequence[float], span: float = 0.0, most: float = math.inf) -> tuple[float, float]:
    """A range with room around the values for points and labels, at least `span` wide; from 0 where they begin near it,
    and not beyond `most`.
    """
    low, high = min(values), max(values)
    room = max(0.15 * (high - low), (span - high + low) / 2) or 0.05 * high or 1.0
    return (0.0 if low < 0.3 * high else low - room), min(high + room, most if high < most else high + room)


def _step(least: float) -> float:
    """The round number at or above `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(s * power for s in (1, 2, 5, 10) if s * power >= least * (1 - 1e-9))


def place(points: Mapping[str, Spot], plot: Box, lines: Sequence[Box] = ()) -> dict[str, Label]:
    """A label for each point by its name: while there is room, none meets another, or a point, or leaves the plot; and
    near the point none lies on a line or beside another point.

    Each takes the best of the places that those before it left, near ones before far ones. Points with most neighbours
    come first, as they have least choice; whoever found none that is free comes first in another attempt.
    """

    def crowd(name: str) -> tuple[int, float, float]:
        x, y = points[name]
        near = sum(abs(x - a) < 90 and abs(y - b) < 30 for a, b in points.values())
        return -near, x, y

    order = sorted(points, key=crowd)
    attempts = []
    for _ in range(_ATTEMPTS):
        labels, faulty = _in_order(order, points, plot, lines)
        attempts.append((len(faulty), labels))
        if not faulty:
            break
        order = [*faulty, *(name for name in order if name not in faulty)]
    return min(attempts, key=lambda attempt: attempt[0])[1]


def _in_order(
    order: Sequence[str], points: Mapping[str, Spot], plot: Box, lines: Sequence[Box]
) -> tuple[dict[str, Label], list[str]]:
    """(labels, names of those that found no free place), each placed when its turn comes."""
    taken: list[Box] = []
    drawn = list(lines)
    spots = {name: Box(x - 5, y - 5, 10, 10) for name, (x, y) in points.items()}

    def cost(label: Label, name: str) -> tuple[int, float]:
        """(faults, how far the place is from a good one)."""
        others = [spot for other, spot in spots.items() if other != name]
        faults = sum(label.box.meets(box) for box in (*taken, *spots.values())) + (not label.box.within(plot))
        close = label.box.grown(_GAP)
        doubts = [any(close.meets(spot) for spot in others), any(label.box.meets(line) for line in drawn)]
        doubts.append(any(dot.meets(box) for dot in label.leader for box in (*taken, *others)))
        return faults, label.ring + _DOUBT * sum(doubts)

    found, faulty = {}, []
    for name in order:
        text = shortened(printable(name), _LONGEST)
        (faults, _), _, label = min((cost(x, name), i, x) for i, x in enumerate(_places(text, *points[name])))
        if faults:
            faulty.append(name)
        taken.append(label.box)
        drawn += label.leader
        found[name] = label
    return found, faulty


def _places(text: str, x: float, y: float) -> Iterator[Label]:
    """Labels around a point, ring by ring; below and right first, as the front has most room there."""
    width, height = _CHARACTER * _FONT * len(text), _FONT + 2.0
    for ring in range(_RINGS):
        away = _GAP + 9.0 * ring
        right, left = x + away, x - away - width
        below, above, level = y + away - 3, y - away - height + 3, y - height / 2
        sides = [(right, below), (right, level), (left, above), (left, level), (left, below), (right, above)]
        for part in (0.5, 0.25, 0.75, 0.0, 1.0):  # of the text left of the point
            sides += [(x - part * width, below + 3), (x - part * width, above - 3)]
        yield from (Label(text, (x, y), Box(a, b, width, height), ring) for a, b in sides)
