"""folders: outputs that appear whole or not at all, folders and single files."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slm2c.errors import CompileError, Problem

BUILT = "slm2c.json"
"""The file by which a folder is known as the output of a build."""

RECIPE = "student.toml"
"""The file by which a folder is known as that of a student, with the recipe that it was trained by."""

MORE_ROOM = "make room there, or set TMPDIR to a folder with more"
"""What helps where the folder for temporary files is full."""


@contextmanager
def room_in(folder: str | Path, remedy: str) -> Iterator[None]:
    """What is written in the block goes to the disk of `folder`: raises CompileError if that is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CompileError(Problem(str(folder), "", f"is full: {error.strerror}", remedy)) from error


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder, gone when the block is left. Raises CompileError if its disk is full."""
    with room_in(tempfile.gettempdir(), MORE_ROOM), tempfile.TemporaryDirectory(prefix="slm2c-") as work:
        yield Path(work)


def require_replaceable(out: Path, mark: str = BUILT, sources: Iterable[Path | None] = ()) -> None:
    """Raises CompileError if `out` cannot be created or used, or is neither an empty folder nor one with the file
    `mark`: the output of an earlier run; or if one of the `sources` that the output is made from would be replaced.
    """
    if "\n" in str(out.resolve()):
        fact = "holds a line break, which neither an assembler nor make takes in a path"
        raise CompileError(Problem(str(out.resolve()), "", fact, "choose another folder with -o"))
    above = next(folder for folder in out.resolve().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        fact = "cannot be written" if above.is_dir() else "is not a folder"
        raise CompileError(
            Problem(str(above), "", f"{fact}, so that {out.name} cannot lie there", "choose another folder with -o")
        )
    if os.path.ismount(out.resolve()):
        remedy = "name a folder below it with -o"
        raise CompileError(Problem(str(out), "", "is where a disk is mounted, which cannot be replaced", remedy))
    if Path.cwd().is_relative_to(out.resolve()):
        fact = "is where this command runs, and its output would replace it"
        raise CompileError(Problem(str(out), "", fact, "name a folder below it with -o"))
    if out.exists() and not (out.is_dir() and ((out / mark).is_file() or not any(out.iterdir()))):
        raise CompileError(
            Problem(str(out), "", "exists and is not the output of slm2c", "choose another folder with -o")
        )
    for source in sources:
        if source is not None and source.resolve().is_relative_to(out.resolve()):
            fact = f"is what {source} lies in, and would be replaced"
            raise CompileError(Problem(str(out), "", fact, "choose another folder with -o"))


def replace_folder(out: Path, write: Callable[[Path], None], mark: str = BUILT) -> None:
    """Fill a new folder beside `out` by `write` and put it in the place of `out`, so that `out` is never half written.

    Raises CompileError if `out` exists without the file `mark`, or if it cannot be written.
    """
    out = out.resolve()
    require_replaceable(out, mark)
    new = old = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        new.chmod(0o755)
        with room_in(out.parent, "make room there, or choose another folder with -o"):
            write(new)
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
            os.replace(out, old / "out")
        os.replace(new, out)
    except OSError as error:
        where = error.filename2 or error.filename or out  # of a copy, what cannot be written is the second
        raise CompileError(Problem(str(where), "", f"cannot be written: {error.strerror or error}")) from error
    finally:
        if old is not None and (old / "out").exists() and not out.exists():  # interrupted between the two renames
            os.replace(old / "out", out)
        for leftover in (new, old):
            if leftover is not None:
                shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A new file beside `path` to be written, which then takes its place. Raises CompileError if it cannot be written;
    the file that is there stays whole.
    """
    part = path.parent / f".{path.name}.{os.getpid()}"  # with_name takes no "/"
    try:
        with room_in(path.parent, "make room there"):
            yield part
        os.replace(part, path)
    except OSError as error:
        remedy = "make it and its folder writable, or name another"
        raise CompileError(Problem(str(path), "", f"cannot be written: {error.strerror or error}", remedy)) from error
    finally:
        with suppress(OSError):
            part.unlink()
