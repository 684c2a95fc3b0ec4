"""parts: in what parts a student is cut, and how many are to stay; without PyTorch, so that options need none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

GRAIN: Mapping[str, int] = MappingProxyType({"heads": 1, "columns": 16, "components": 8})
"""Parts that go together: kernels read the inputs of a linear layer in words of 8, and rows of the blob are aligned to
16 bytes, so that odd sizes would be padded and save nothing."""


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
