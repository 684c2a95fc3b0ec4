"""plot: line charts as SVG, readable on light and dark pages; the same figures give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 200, 44, 54

# In the middle between black and white, so that they stand out from either.
_INK, _GRID = "#808890", "#80889040"
COLOURS = ("#2f81d8", "#d9722a", "#2f9e5b", "#a06bd6")

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points of one name; `mark` is how each is drawn: "dot", "ring", "cross" or "" for none.
    `labels` are written beside the points, where there are any.
    """

    name: str
    points: Sequence[Point]
    colour: str
    line: bool = True
    dashed: bool = False
    mark: str = "dot"
    labels: Sequence[str] = ()


def chart(title: str, x_label: str, y_label: str, series: Sequence[Series], *, from_zero: bool = True) -> str:
    """The text of an SVG file; axes start at 0, the upright one only if `from_zero`; names of series stand at the right
    in the order given.
    """
    heights = [y for s in series for _, y in s.points]
    x_ticks = _ticks(0, max(x for s in series for x, _ in s.points))
    y_ticks = _ticks(0 if from_zero else min(heights), max(heights))
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def at(point: Point) -> Point:
        x, y = point[0] / x_ticks[-1], (point[1] - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return _LEFT + x * (right - _LEFT), bottom - y * (bottom - _TOP)

    body = [_text(_LEFT, 22, title, 'font-size="16" font-weight="600"')]
    for tick in y_ticks:
        y = at((0, tick))[1]
        body.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="{_INK if tick == y_ticks[0] else _GRID}"/>')
        body.append(_text(_LEFT - 8, y + 4, f"{tick:g}", 'text-anchor="end"'))
    for tick in x_ticks:
        x = at((tick, y_ticks[0]))[0]
        body.append(f'<path d="M{x:.1f} {bottom}v5" stroke="{_INK}"/>')
        body.append(_text(x, bottom + 20, f"{tick:g}", 'text-anchor="middle"'))
    body.append(_text((_LEFT + right) / 2, HEIGHT - 12, x_label, 'text-anchor="middle"'))
    turned = f'transform="translate(16 {(_TOP + bottom) / 2:.1f}) rotate(-90)"'
    body.append(_text(0, 0, y_label, f'{turned} text-anchor="middle"'))
    for i, s in enumerate(series):
        body += _line(s, [at(point) for point in s.points])
        y = _TOP + 10 + 22 * i
        ends = [(right + 14.0, y), (right + 38.0, y)]
        body += _line(replace(s, mark="", labels=()), ends)
        body += _line(replace(s, line=False, labels=()), [(right + 26.0, y)])
        body.append(_text(right + 46, y + 4, s.name))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="12" fill="{_INK}">'
    )
    return "\n".join([head, f"<title>{escape(title)}</title>", *body, "</svg>"]) + "\n"


def _line(s: Series, points: Sequence[Point]) -> Iterator[str]:
    """What of a series is drawn, at `points` of the picture."""
    if s.line:
        dashes = ' stroke-dasharray="6 4"' if s.dashed else ""
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        yield f'<path d="M{path}" fill="none" stroke="{s.colour}" stroke-width="2"{dashes}/>'
    yield from (_mark(s.mark, x, y, s.colour) for x, y in points if s.mark)
    for (x, y), label in zip(points, s.labels, strict=False):
        if label:
            yield _text(x - 7, y - 5, label, 'text-anchor="end"')


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{" " if more else ""}{more}>{escape(text)}</text>'


def _mark(kind: str, x: float, y: float, colour: str) -> str:
    if kind == "cross":
        return f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="{colour}" stroke-width="1.5"/>'
    style = f'fill="{colour}"' if kind == "dot" else f'fill="none" stroke="{colour}" stroke-width="1.5"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 if kind == "dot" else 5}" {style}/>'


def _ticks(smallest: float, largest: float) -> list[float]:
    """Four to nine round numbers around both, the first one at or below `smallest`; over 1 where they are equal."""
    span = largest - smallest or 1.0
    power = 10.0 ** math.floor(math.log10(span))
    step = next(s * power for s in (0.1, 0.2, 0.4, 0.5, 1.0, 2.0) if span <= 8 * s * power)
    first = math.floor(smallest / step + 1e-9)
    return [i * step for i in range(first, math.ceil((smallest + span) / step - 1e-9) + 1)]
