"""seal: whether what a build wrote is still as it was written, so that damage is told from a fault of ours."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slm2c import __version__
from slm2c.errors import CompileError, Problem
from slm2c.folders import BUILT
from slm2c.process import ToolError

_AGAIN = "build it again"


def signed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with the checksum of what they hold, by which `read` knows them."""
    unsigned = {key: value for key, value in facts.items() if key != "checksum"}
    return {**unsigned, "checksum": zlib.crc32(json.dumps(unsigned, sort_keys=True, allow_nan=False).encode())}


def read(folder: Path, name: str) -> dict[str, Any]:
    """The signed facts in the file `name` of an output folder.

    Raises CompileError if the folder is none, or of another version, or if the file is not as it was written.
    """
    path = folder / name
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(facts, dict) and facts.get("slm2c", __version__) != __version__:
            fact = f"is of slm2c {facts['slm2c']}, this is {__version__}"
            raise CompileError(Problem(str(folder), "", fact, _AGAIN))
        if not isinstance(facts, dict) or facts != signed(facts):
            raise ValueError("its checksum is not that of its contents")
    except FileNotFoundError as error:
        fact, remedy = f"has no {name}, so it is not the output of `slm2c build`", "name a folder that it made with -o"
        if path.parent.joinpath(BUILT).exists():
            fact, remedy = f"has lost {name}", _AGAIN
        raise CompileError(Problem(str(folder), "", fact, remedy)) from error
    except OSError as error:
        raise CompileError(Problem(str(path), "", f"cannot be read: {error.strerror}", _AGAIN)) from error
    except (ValueError, RecursionError) as error:
        raise CompileError(Problem(str(path), "", f"is damaged: {error}", _AGAIN)) from error
    return facts


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file below a folder, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def changes(folder: Path, files: Mapping[str, str]) -> list[Problem]:
    """What is missing or different of `files`, digests by path below `folder`."""
    found = []
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            found.append(Problem(str(path), "", "is missing", _AGAIN))
        elif _digest(path) != digest:
            found.append(Problem(str(path), "", "is not what the build wrote", _AGAIN))
    return found


@contextmanager
def blaming(folder: Path, files: Mapping[str, str]) -> Iterator[None]:
    """Around what uses the files of a build, which are their user's to change: where a tool fails on changed ones, or a
    file is missing, that is no fault of ours. Raises CompileError then; an error that is one says it, too.
    """
    try:
        yield
    except (ToolError, OSError) as error:
        if not (found := changes(folder, files)):
            raise
        failed = [Problem("", "", f"{error.fact}: {error.complaint}")] if isinstance(error, ToolError) else []
        raise CompileError([*failed, *found]) from error
    except CompileError as error:
        raise CompileError([*error.problems, *changes(folder, files)]) from error
