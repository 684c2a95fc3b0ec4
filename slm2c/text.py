"""text: tables for a terminal, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Sequence

from slm2c.errors import printable

WIDTH = 100


def table(rows: Sequence[Sequence[object]], align: str, header: Sequence[str] = (), indent: int = 2) -> str:
    """Rows in columns; `align` has `l`, `r` or `*` a column: left, right, or left and cut so that WIDTH is enough.

    Integers get thousands separators, None is blank, and control characters are escaped.
    """
    cells = (
        [list(header), *([_cell(value) for value in row] for row in rows)]
        if header
        else [[_cell(value) for value in row] for row in rows]
    )
    if not cells:
        return ""
    assert all(len(row) == len(align) for row in cells), f"{align} for {cells}"
    widths = [max(len(row[i]) for row in cells) for i in range(len(align))]
    free = WIDTH - indent - 2 * (len(align) - 1) - sum(w for w, a in zip(widths, align, strict=True) if a != "*")
    elastic = align.count("*")
    widths = [min(w, max(8, free // elastic)) if a == "*" else w for w, a in zip(widths, align, strict=True)]
    lines = [
        "  ".join(
            _fit(cell, w).rjust(w) if a == "r" else _fit(cell, w).ljust(w)
            for cell, w, a in zip(row, widths, align, strict=True)
        )
        for row in cells
    ]
    return "\n".join(" " * indent + line.rstrip() for line in lines)


def title(text: str) -> str:
    """A heading, with a line below."""
    return f"{text}\n{'-' * len(text)}"


def share(part: float, whole: float, width: int = 20) -> str:
    """A bar of `width` characters for part / whole."""
    filled = 0 if whole <= 0 else min(width, round(width * part / whole))
    return "#" * filled + "." * (width - filled)


def duration(seconds: float) -> str:
    """Seconds as 0.4 s, 12 s or 3 min 5 s."""
    if seconds >= 60:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else printable(str(value))


def _fit(cell: str, width: int) -> str:
    """`cell` cut in its middle: both ends of a tensor's name say something."""
    if len(cell) <= width:
        return cell
    tail = (width - 2) * 2 // 3
    return f"{cell[: width - 2 - tail]}..{cell[len(cell) - tail :]}"


def shortened(name: str, width: int, gap: str = "…") -> str:
    """`name` with its middle left out if it is longer than `width`: exporters tell names apart at the end."""
    end = width - width // 2 - len(gap)
    return name if len(name) <= width else f"{name[: width // 2]}{gap}{name[len(name) - end :]}"
