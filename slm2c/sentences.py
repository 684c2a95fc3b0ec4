"""sentences: text files and CSV files of them, each faulty line named with what helps."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm2c.errors import CompileError, Problem
from slm2c.text import shortened

_SHOWN = 5  # faulty lines of a file that an error names

_Fault = tuple[str, str]
"""(fact, remedy) of a line that cannot be used."""


@dataclass(frozen=True)
class Row:
    """A line of a CSV file; `line` counts from 1, the header included."""

    line: int
    text: str
    label: str


def read_texts(path: Path) -> list[str]:
    """The sentences of a text file, a line each, or of the column `text` of a CSV file.

    Raises CompileError if the file cannot be read or holds none, and naming faulty lines.
    """
    if path.suffix.lower() == ".csv":
        return [text for _, (text,) in _rows(path, ("text",))]
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise CompileError(Problem(str(path), "", f"cannot be read: {error}", "name a text file in UTF-8")) from error
    if not any(lines):
        raise CompileError(Problem(str(path), "", "holds no sentence", "add some, each on a line"))
    _refuse(path, [(i, fault) for i, line in enumerate(lines, 1) if (fault := _zero(line))])
    return [line for line in lines if line]


def read_labelled(path: Path) -> list[Row]:
    """The rows of a CSV file with the columns text and label; other columns are passed over. Raises as `read_texts`."""
    return [Row(line, text, label) for line, (text, label) in _rows(path, ("text", "label"))]


def _rows(path: Path, wanted: Sequence[str]) -> list[tuple[int, list[str]]]:
    """(line, the columns `wanted` without blanks around them) of a CSV file; empty lines are passed over."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, lines = _parsed(path, csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError) as error:
        raise CompileError(Problem(str(path), "", f"cannot be read: {error}", "name a CSV file in UTF-8")) from error
    missing = [name for name in wanted if name not in header]
    if missing:
        fact = f"has no column {' and no column '.join(missing)} in its first line"
        raise CompileError(Problem(str(path), "", fact, f"its first line is: {','.join(wanted)}"))
    if not lines:
        raise CompileError(Problem(str(path), "", "holds no sentence", f"add lines: {','.join(wanted)}"))
    columns = {name: header.index(name) for name in wanted}
    _refuse(path, [(line, fault) for line, row in lines if (fault := _fault(row, len(header), columns))])
    return [(line, [row[i].strip() for i in columns.values()]) for line, row in lines]


def _parsed(path: Path, reader: Any) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(names of the columns, (line, cells) of each row that is not empty) of a csv.reader."""
    try:
        header = [name.strip() for name in next(reader, [])]
        return header, [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        remedy = 'put a text that holds commas or quotes in "quotes", quotes in it doubled'
        fact = f"is not CSV: {error}"
        raise CompileError(Problem(f"{path}, line {reader.line_num}", "", fact, remedy)) from error


def _fault(row: Sequence[str], fields: int, columns: dict[str, int]) -> _Fault | None:
    if len(row) > fields:
        return f"has {len(row)} fields, the header {fields}", 'put a text that holds commas in "quotes"'
    for name, at in reversed(columns.items()):
        if len(row) <= at or not row[at].strip():
            remedy = "give it one, or leave the line out"
            return f"has no {name}: {shortened(','.join(row), 40)}", remedy
        if "\n" in row[at] or "\r" in row[at]:
            return f"has a {name} of several lines: {shortened(row[at], 40)}", "close its quotes on the same line"
    return _zero("".join(row))


def _zero(text: str) -> _Fault | None:
    return ("holds a zero byte, which ends strings in C", "remove it") if "\0" in text else None


def _refuse(path: Path, faults: Sequence[tuple[int, _Fault]]) -> None:
    """Raises CompileError naming the first of the lines; returns if there are none."""
    if faults:
        raise CompileError(Problem(f"{path}, line {line}", "", *fault) for line, fault in faults[:_SHOWN])
