"""process: programs that run in a process group of their own, and are dead with all they started when the call returns.

Nothing here goes through a shell; every child has a timeout. POSIX only.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from slm2c.errors import CompileError, Problem
from slm2c.folders import MORE_ROOM

BUILD_TIMEOUT = 300.0
"""Seconds for one file. A generated file takes a few seconds with sanitizers on a slow machine."""

_TELLING = re.compile(r"error:|fatal:|undefined|overflowed|not found|syntax error|No rule to make target")


class ToolError(AssertionError):
    """A compiler refused what slm2c wrote, or a program did not end: our fault, in the tool's own words."""

    def __init__(self, fact: str, command: Sequence[str], output: str) -> None:
        self.fact, self.command, self.output = fact, tuple(command), output
        super().__init__(f"{fact}\n$ {shlex.join(command)}\n{output}".rstrip())

    @property
    def complaint(self) -> str:
        """The line of the tool's output that says what is wrong."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        telling = [line for line in lines if _TELLING.search(line) and "ld returned" not in line]
        return next(iter(telling or lines[-1:]), "it says nothing")


@dataclass(frozen=True)
class RunResult:
    """How a program ended: exit code (-N if signal N killed it), stdout and stderr as printed, seconds."""

    exit_code: int
    output: str
    seconds: float


def build(command: Sequence[str], cwd: Path | None = None, path: Path | None = None) -> str:
    """Run one tool to its end, with `path` before all of PATH; what it printed."""
    with child(command, cwd, path) as process:
        return expect_success(command, process)


def expect_success(command: Sequence[str], process: subprocess.Popen[bytes]) -> str:
    """What a tool prints until it ends; ToolError if that is not with exit code 0."""
    output = _output(command, process, BUILD_TIMEOUT)
    if process.returncode != 0:
        if os.strerror(errno.ENOSPC) in output:
            raise _full_disk(command, output)
        raise ToolError(f"{Path(command[0]).name} failed with exit code {process.returncode}", command, output)
    return output


def _full_disk(command: Sequence[str], output: str) -> CompileError:
    """For a tool that found a disk full: that of what it was to write, if it says so, else that of its own files."""
    temporary, fact = tempfile.gettempdir(), f"is full: {os.strerror(errno.ENOSPC)}"
    for option, path in pairwise(command):
        folder = Path(path).parent
        if option == "-o" and path in output and not _within(folder, Path(temporary)):
            return CompileError(Problem(str(folder), "", fact, "make room there"))
    return CompileError(Problem(temporary, "", fact, MORE_ROOM))


def _within(folder: Path, other: Path) -> bool:
    """Whether a folder lies in another, on the same disk."""
    there = folder.is_relative_to(other)
    return there and (not folder.exists() or folder.stat().st_dev == other.stat().st_dev)


def run(command: Sequence[str], *, cwd: Path | None = None, timeout: float, stdin: bytes = b"") -> RunResult:
    """Run a command on `stdin`; ToolError with what it printed if it takes longer than `timeout` seconds."""
    start = time.monotonic()
    with child(command, cwd) as process:
        output = _output(command, process, timeout, stdin)
    return RunResult(process.returncode, output, time.monotonic() - start)


def _output(command: Sequence[str], process: subprocess.Popen[bytes], timeout: float, stdin: bytes = b"") -> str:
    """What `process` prints until it ends."""
    try:
        return process.communicate(stdin, timeout=timeout)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired as late:
        printed = (late.output or b"").decode("utf-8", "replace")
        fact = f"{Path(command[0]).name} did not end within {timeout:g} s"
        raise ToolError(fact, command, printed) from None


@contextmanager
def child(
    command: Sequence[str], cwd: Path | None = None, path: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, with a folder of its own for what it keeps while it runs.

    When the block is left, by Ctrl-C too, the group is killed and the folder is gone: GCC, killed, removes nothing.
    """
    # A signal between the start and the `try` would leave a process behind.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        with tempfile.TemporaryDirectory(prefix="slm2c-", ignore_cleanup_errors=True) as scratch:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=os.environ | {"LC_ALL": "C", "TMPDIR": scratch} | _first_on_path(path),  # what tools print is read
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                for stream in (process.stdin, process.stdout):
                    assert stream is not None
                    stream.close()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _first_on_path(folder: Path | None) -> dict[str, str]:
    return {} if folder is None else {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
