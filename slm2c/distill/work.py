"""work: the folder <output>.work with each stage's results; what is there and still fits is not made again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from slm2c import __version__
from slm2c.distill.files import replace_file, writing
from slm2c.errors import CompileError, Problem

_KEY = "key.json"


def require_apart(work: Path, sources: Iterable[Path | None]) -> None:
    """Raises CompileError if one of the `sources` lies in the folder `work`, whose stages are emptied."""
    for source in sources:
        if source is not None and source.resolve().is_relative_to(work.resolve()):
            fact = f"is where this run works, and would remove {source}"
            raise CompileError(Problem(str(work), "", fact, "choose another folder with -o"))


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """Around a run in the folder `work`, which is made. Raises CompileError if another run is in it."""
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
        lock = os.open(work, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which ends with the process, however that ends
        except BlockingIOError:
            remedy = "wait until that has ended, or choose another folder with -o"
            raise CompileError(Problem(str(work), "", "is where another run is at work", remedy)) from None
        yield
    finally:
        os.close(lock)


def stage(work: Path, name: str, *given: Any) -> tuple[Path, str]:
    """(folder of a stage, its key); emptied if what lies there was made from something else than `given`.

    `given`: JSON values, dataclasses, and the keys of earlier stages. Raises CompileError for a folder of something
    else, and for one that cannot be written.
    """
    folder, key = work / name, digest(__version__, name, *given)
    try:
        known = json.loads((folder / _KEY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if known != key:
        _empty(folder)
        _write_key(folder, key)
    return folder, key


def require_stages(work: Path, names: Iterable[str]) -> None:
    """Raises CompileError if one of these folders of `work` holds something, and no stage has left it."""
    for folder in (work / name for name in names):
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if _KEY not in found and found - {f".{_KEY}.part"}:  # which a run that was killed at once may leave
            fact = f"is not of slm2c (it has no {_KEY}), and would be emptied"
            raise CompileError(Problem(str(folder), "", fact, "move it away, or choose another folder with -o"))


def _empty(folder: Path) -> None:
    """Make it, or remove all but the key, which fits nothing from the start on: so what a kill leaves is known as ours,
    and as nothing to go on from.
    """
    require_stages(folder.parent, [folder.name])
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _write_key(folder, None)
    with writing(folder):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != _KEY:
                path.unlink()


def _write_key(folder: Path, key: str | None) -> None:
    replace_file(folder / _KEY, lambda part: part.write_text(json.dumps(key), encoding="utf-8"))


def digest(*given: Any) -> str:
    """A key of JSON values and dataclasses."""
    plain = [asdict(x) if is_dataclass(x) and not isinstance(x, type) else x for x in given]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def files_digest(folder: Path, patterns: Sequence[str] = ("*.json", "*.safetensors", "*.bin", "*.pt")) -> str:
    """A key of the contents of a teacher's files."""
    found = hashlib.sha256()
    for path in sorted({p for pattern in patterns for p in folder.glob(pattern)}):
        found.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    return found.hexdigest()
