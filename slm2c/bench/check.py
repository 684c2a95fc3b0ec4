"""check: what grew since docs/performance.json was written. Counts are exact, so a growth is a change of the code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from slm2c.bench.results import Op, Results, Total

PERCENT = 1
"""By how much a figure may grow."""

_SHOWN = 20  # rows of a table

Key: TypeAlias = tuple[str, ...]
"""Board, model, what was measured, and the quantity."""


_TOTAL = 4  # length of the key of a total; those of kernel calls go on with operator and node


@dataclass(frozen=True)
class Change:
    """A figure that changed by more than the tolerance."""

    key: Key
    old: int
    new: int

    @property
    def ratio(self) -> float:
        """New to old; the old one counts as at least 1."""
        return self.new / max(1, self.old)


@dataclass(frozen=True)
class Comparison:
    """What became of the committed figures: totals before kernel calls, the largest changes first."""

    grown: tuple[Change, ...]
    shrunk: tuple[Change, ...]
    added: tuple[Key, ...]
    gone: tuple[Key, ...]
    tools: tuple[str, ...]
    """Tools of another version, in words."""

    @property
    def lost(self) -> tuple[Key, ...]:
        """Whole runs that are no longer measured: a model that does not fit any more, say."""
        return tuple(key for key in self.gone if len(key) == _TOTAL)

    @property
    def failed(self) -> bool:
        """Whether anything has grown, or is not measured any more."""
        return bool(self.grown or self.lost)


def compare(old: Results, new: Results) -> Comparison:
    """Every figure of `new` that must not grow against the same one of `old`."""
    before, after = ({**_totals(side.totals), **_ops(side.ops)} for side in (old, new))
    changes = sorted(
        (Change(key, before[key], after[key]) for key in before if key in after),
        key=lambda change: (len(change.key) > _TOTAL, -abs(change.ratio - 1)),
    )
    return Comparison(
        tuple(c for c in changes if _exceeds(c.new, c.old)),
        tuple(c for c in changes if _exceeds(c.old, c.new)),
        tuple(key for key in after if key not in before),
        tuple(key for key in before if key not in after),
        tuple(
            f"{name}: {new.tools.get(name)}, not {version}"
            for name, version in old.tools.items()
            if new.tools.get(name) != version
        ),
    )


def _exceeds(figure: int, than: int) -> bool:
    """By more than the tolerance; in integers, as 1.0 % is not more than 1 %, whatever floating point makes of it."""
    return 100 * (figure - than) > PERCENT * than


def _totals(totals: Sequence[Total]) -> dict[Key, int]:
    found: dict[Key, int] = {}
    for t in totals:
        model = t.model if t.arena_limit is None else f"{t.model} in {t.arena_limit:,} bytes"
        found[t.board, model, f"n = {t.tokens}", "instructions"] = t.instructions
        found[t.board, model, "any n", "code, bytes"] = t.code
        found[t.board, model, "any n", "arena, bytes"] = t.arena
    return found


def _ops(ops: Sequence[Op]) -> dict[Key, int]:
    """By the names of operator and node, which stay when other calls come or go; equal ones are numbered."""
    found: dict[Key, int] = {}
    for op in ops:
        key = (op.board, op.model, f"n = {op.tokens}", "instructions", op.op, op.node)
        names = (key, *((*key, str(again)) for again in range(2, len(ops) + 1)))
        found[next(name for name in names if name not in found)] = op.instructions
    return found


def report(comparison: Comparison, where: str) -> str:
    """What `make bench-check` prints; `where` names the file of the committed figures."""
    lines: list[str] = []
    if comparison.tools:
        lines += ["The tools are not those of the committed figures:", *(f"  {x}" for x in comparison.tools), ""]
    for keys, word in ((comparison.added, "new"), (comparison.gone, "gone")):
        if keys:
            lines += [f"{len(keys):,} figures are {word}: {_models(keys)}", ""]
    if comparison.shrunk:
        lines += [f"Less than in {where}, by more than 1 %:", *_table(comparison.shrunk), ""]
    if comparison.lost:
        lines += [f"FAILED: no longer measured: {_models(comparison.lost)}"]
    if comparison.grown:
        lines += [f"More than in {where}, by more than 1 %:", *_table(comparison.grown), ""]
        lines += [
            "FAILED. To find the cause: `make bench` writes all figures anew, `git diff docs/performance.json` shows",
            "them call by call. If it is worth the growth, commit the new figures and say why.",
        ]
    if not comparison.failed:
        lines += [f"passed: nothing is more than 1 % above {where}"]
        if comparison.shrunk or comparison.added or comparison.gone:
            lines += ["`make bench` brings the committed figures up to date"]
    return "\n".join(lines)


def _models(keys: Sequence[Key]) -> str:
    counts = Counter(f"{key[1]} on {key[0]}" + (f", {key[4]}" if len(key) > _TOTAL else "") for key in keys)
    return "; ".join(f"{name} ({count})" for name, count in counts.items())


def _table(changes: Sequence[Change]) -> list[str]:
    rows = [("  where", "what", "committed", "now", "change")]
    for c in changes[:_SHOWN]:
        figures = f"{c.old:,}", f"{c.new:,}", f"{100 * (c.ratio - 1):+.1f} %"
        rows.append((f"  {' '.join(c.key[:2])}", ", ".join(c.key[2:]), *figures))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(x.ljust(w) if i < 2 else x.rjust(w) for i, (x, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    more = len(changes) - _SHOWN
    return [*lines, f"  and {more:,} more"] if more > 0 else lines
