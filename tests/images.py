"""Firmware of small models for any board, and a terminal at an emulated one."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from slm2c import firmware, output
from slm2c.board import Board, load_board
from tests.generated import Built, compile_into, mlp, run, text_folder

_PATIENCE = 60.0  # seconds that an emulator may take


class Images:
    """Output folders with firmware/, made by `make` when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        source = folder / "source"
        source.mkdir()
        self.models: dict[str, Built] = {
            "text": compile_into(source, text_folder(folder / "in"), "text", method="minmax"),
            "mlp": compile_into(source, mlp(), "mlp", method="minmax"),
        }
        self._made: dict[tuple[str, str], Path] = {}

    def folder(self, board: str | Board, model: str = "text") -> Path:
        """The output folder for a board, its firmware not yet built."""
        board = load_board(board) if isinstance(board, str) else board
        path = self._folder / f"{board.name}-{model}"
        if not path.exists():
            path.mkdir()
            compiled = replace(self.models[model].compiled, board=board)
            output.write(path, compiled)
            firmware.write(path, compiled, None)
            output.finish(path, compiled)
        return path

    def built(self, board: str | Board, model: str = "text") -> Path:
        """The same with build/<model>.elf and what else `make` makes; it has to do so without a word of warning."""
        path = self.folder(board, model)
        if not (path / "firmware" / "build" / f"{model}.bin").exists():
            printed = run(["make", "-j2", "CFLAGS=-O2 -Werror"], path / "firmware")
            assert "warning" not in printed, printed
        return path


@dataclass(frozen=True)
class Terminal:
    """The console of a running image."""

    process: subprocess.Popen[bytes]

    def type(self, text: bytes) -> None:
        """What a user types, with the Enter keys."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def until(self, token: bytes) -> bytes:
        """What the image prints up to and with `token`."""
        assert self.process.stdout is not None
        printed, deadline = b"", time.monotonic() + _PATIENCE
        while not printed.endswith(token):
            ready = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]
            byte = os.read(self.process.stdout.fileno(), 1) if ready else b""
            assert byte, f"{token!r} did not come: {printed!r}"
            printed += byte
        return printed


@contextmanager
def terminal(board: Board, elf: Path) -> Iterator[Terminal]:
    """An emulated board that runs `elf`, as `make run` starts it."""
    command = [*firmware.qemu_command(board).split(), "-kernel", str(elf)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            yield Terminal(process)
        finally:
            process.kill()
