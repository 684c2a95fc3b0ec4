"""squeeze: a student cut to a number of bytes, by what its parts are worth and what the compiler says they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from slm2c.distill import choose, shrink
from slm2c.distill.choose import Unit
from slm2c.distill.footprint import Footprint
from slm2c.distill.importance import Gates, gates
from slm2c.distill.prune import prune
from slm2c.distill.student import Student
from slm2c.errors import CompileError, Problem

_MORE = 1.01
"""Of the bytes that are to go: calibration makes some tensors int16 in one student and not in the other."""


@dataclass(frozen=True)
class Prices:
    """Bytes of flash: what a unit of each kind takes, and what a table takes more as a product of the same rank."""

    unit: Mapping[str, int]
    apart: int


@dataclass(frozen=True)
class Squeeze:
    """How to judge a student: by the compiler's stages, without calibration, and by its parts.

    keep_table: whether the table of pieces stays as it is
    wish: what asks for the cuts, an option or a board
    """

    footprint: Callable[[Student], Footprint]
    importance: Callable[[Student], Gates]
    keep_table: bool
    wish: str

    def prices(self, student: Student) -> Prices:
        """Measured on this student, and good for what is cut from it: each is a difference of two footprints."""
        ways, flash, found = self._ways(student), [], dict[str, int]()
        for way in ways:
            flash.append(self.footprint(way).flash)
            for unit in self._units(way, gates(way.shape, torch.ones)):
                if unit.kind not in found:
                    cut = prune(way, choose.without(way.shape, [unit]))
                    found[unit.kind] = flash[-1] - self.footprint(cut).flash
        return Prices(found, flash[-1] - flash[0])

    def cut(self, student: Student, prices: Prices, needed: int) -> Student:
        """Without what matters least for its bytes, `needed` of them in all, or all that can go.

        A table of pieces is taken apart into two factors where columns of these matter less than the rest.
        Raises CompileError if nothing can go.
        """
        found = []
        for i, way in enumerate(self._ways(student)):
            units = self._units(way, self.importance(way))
            wanted = round(_MORE * needed) + i * prices.apart
            gone = choose.cheapest(units, prices.unit, wanted)
            enough = sum(prices.unit[unit.kind] for unit in gone) >= wanted
            if gone:
                found.append((not enough, sum(unit.importance for unit in gone), i, way, gone))
        if not found:
            fact = f"nothing is left of this student that could go, and {needed:,} bytes are still too many"
            raise CompileError(Problem(self.wish, "", fact, "ask for less, or distil a smaller student"))
        *_, way, gone = min(found, key=lambda x: x[:3])
        return prune(way, choose.without(way.shape, gone))

    def least(self, student: Student) -> list[Footprint]:
        """Of what is left when all has gone that can: with the table as it is, and in factors if it may be."""
        found = []
        for way in self._ways(student):
            units = self._units(way, gates(way.shape, torch.ones))
            found.append(self.footprint(prune(way, choose.without(way.shape, units))))
        return found

    def _ways(self, student: Student) -> list[Student]:
        """The student, and the student with its table in factors, as far as they may be cut; both compute the same."""
        if self.keep_table:
            return [student]
        if student.shape.rank:
            return [shrink.factored(student, student.shape.rank)]  # the factors orthogonal again
        return [student, shrink.factored(student, student.shape.hidden)]

    def _units(self, student: Student, importance: Gates) -> list[Unit]:
        found = choose.units(student.shape, importance)
        return [unit for unit in found if not (self.keep_table and unit.kind == "components")]
