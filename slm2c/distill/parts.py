"""parts: how much of something is to stay; apart from what needs PyTorch, so that options can be read without."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """How many of some parts stay: a share of them, from 0 to 1, or a number."""

    value: float
    share: bool

    def of(self, total: int) -> int:
        """Of so many parts, at least 1."""
        return max(1, min(total, round(self.value * total) if self.share else int(self.value)))

    def __str__(self) -> str:
        return f"{100 * self.value:g} %" if self.share else f"{self.value:g}"
