"""Brings the table of docs/BOARDS.md up to date: what homecmd takes on every board, from its linked firmware.

    python tools/boards.py

Builds homecmd for each board, which takes some seconds each. Needs both cross compilers and make.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from slm2c import flash_layout, output
from slm2c.board import Board, list_boards, load_board
from slm2c.build import build
from slm2c.compile import Options
from slm2c.errors import CompileError
from slm2c.resources import data_dir

PAGE = Path(__file__).resolve().parent.parent / "docs" / "BOARDS.md"
START, END = "<!-- tools/boards.py -->\n", "<!-- end -->"
HEADER = ("board", "core", "console", "flash", "SRAM", "of it arena", "stack at worst")


def row(board: Board) -> tuple[str, ...]:
    """The cells of a board: bytes of the linked firmware, or why there is none."""
    first = (f"`{board.name}`", board.cpu, board.console.kind)
    with tempfile.TemporaryDirectory(prefix="slm2c-") as work:
        out = Path(work) / "out"
        try:
            report = build(data_dir("examples") / "homecmd", out, board, Options(method="minmax"))
        except CompileError as error:
            return (*first, f"refused: {error.problems[0].reason}", "", "", "")
        found = flash_layout.layout(output.read(out))
    used = {True: 0, False: 0}
    for region in found.regions:
        used[board.region(region.name).writable] += region.used
    arena = next(part.bytes for region in found.regions for part in region.parts if part.name == "arena")
    return (*first, *(f"{x:,}" for x in (used[False], used[True], arena, report["sram"]["stack_bytes"])))


def main() -> None:
    """Write the table."""
    rows = [HEADER, ("---",) * len(HEADER)]
    for name in list_boards():
        rows.append(row(load_board(name)))
        print(" | ".join(rows[-1]), flush=True)
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
    text = PAGE.read_text(encoding="utf-8")
    changed = re.sub(f"{START}.*?{END}", lambda _: f"{START}\n{table}\n{END}", text, flags=re.DOTALL)
    PAGE.write_text(changed, encoding="utf-8")


if __name__ == "__main__":
    main()
