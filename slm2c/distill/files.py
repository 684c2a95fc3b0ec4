"""files: what a run keeps in its work folder is written whole or not at all, and read as if it could be damaged."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from slm2c.errors import CompileError, Problem

_DAMAGE = (
    OSError, EOFError, ValueError, LookupError, TypeError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile
)  # fmt: skip
"""What torch, numpy and we ourselves raise for a file that is cut short, overwritten, or of something else."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Around everything that depends on the contents of `path`, a file that an earlier run left in a stage's folder.

    Raises CompileError if it cannot be used.
    """
    try:
        yield
    except _DAMAGE as error:
        fact = f"cannot be read: {first_line(error)}"
        remedy = f"remove the folder {path.parent}, and what it holds is made again"
        raise CompileError(Problem(str(path), "", fact, remedy)) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes `path`, a file or a folder. Raises CompileError if that fails, as on a full disk."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        fact, remedy = "is a file, where a folder has to be", "move it away, or choose another folder with -o"
        raise CompileError(Problem(str(error.filename), "", fact, remedy)) from error
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        remedy = "make room, or choose another folder with -o; the same command goes on from here"
        raise CompileError(Problem(str(path), "", f"cannot be written: {reason}", remedy)) from error


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file by `write`, so that `path` holds either what it held or all of the new, whenever the power goes.

    Unlike `folders.replaced`, which is for outputs, it waits for the disk, and what a killed run leaves of a checkpoint
    of half a gigabyte is overwritten by the next: its name is always the same.
    Raises CompileError if it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    with writing(path):
        try:
            write(part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def save_tensors(content: object, path: Path) -> None:
    """`torch.save`. Raises OSError where a file cannot be written."""
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # the archive cannot be closed, because of what came before
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def first_line(error: BaseException) -> str:
    """What an error says, in one line. What torch.load says of a strange file is how to run the code in it."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is no file of PyTorch's"
    return str(error).strip().partition("\n")[0] or type(error).__name__
