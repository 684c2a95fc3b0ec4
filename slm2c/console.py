"""The command line's plumbing: running a command, its exit code, progress, JSON or text, what options have in common.

Exit codes: 0 success; 1 a CompileError, or a check that failed; 2 wrong usage; 70 a bug of ours; 128 + the number of
the signal that stopped it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from slm2c import __version__
from slm2c.errors import CompileError, Problem, printable
from slm2c.text import share

if TYPE_CHECKING:
    from slm2c.compile import Progress

EXIT_FAILED, EXIT_BUG = 1, 70
PATH = click.Path(path_type=Path)
_DETAILS = 20  # lines that an error of ours may have
_PATIENCE = 2.0  # seconds until a stage says that it is running, where there is no terminal for a bar


@dataclass
class State:
    """What options set for the whole run: whether facts and errors are printed as JSON."""

    json: bool = False


def run(command: click.Command, args: Sequence[str] | None) -> NoReturn:
    """Run a command and exit."""
    # BLAS threads cost more than they gain on matrices of this size, and must not decide about the last bit.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda caught, _: sys.exit(128 + caught))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_flushed(invoke(command, args)))


def invoke(command: click.Command, args: Sequence[str] | None) -> int:
    """Run a command; what goes wrong becomes a message and an exit code."""
    state = State()
    try:
        return command.main(args, prog_name="slm2c", obj=state, standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:  # Ctrl-C
        click.echo("interrupted", err=True)
        return 128 + signal.SIGINT
    except CompileError as error:
        return _fail(error, state)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(CompileError(Problem("", "", f"{where}{error.strerror or error}")), state)
    except MemoryError:
        return _fail(CompileError(Problem("", "", "this machine has not enough memory for it")), state)
    except Exception as error:  # noqa: BLE001 - the outermost boundary: a bug, too, ends as a message
        return _bug(error, state)


def _flushed(code: int) -> int:
    """The exit code, once all is written. What cannot be is given up, or Python would try again and complain."""
    try:
        if sys.stdout is not None:  # none, if it was closed before we began
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if code == 0:
            click.echo(f"error: standard output: {error.strerror}", err=True)
            return EXIT_FAILED
    return code


def _fail(error: CompileError, state: State) -> int:
    try:
        if state.json:
            click.echo(_json({"error": error.to_json()}))
    except OSError:  # a full disk behind the standard output: the other stream may do
        state.json = False
    if not state.json:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
    return EXIT_FAILED


def _bug(error: Exception, state: State) -> int:
    fact, *details = (printable(line) for line in f"{type(error).__name__}: {error}".splitlines())
    message = f"a bug in slm2c {__version__}: {fact}; please report it, with the model if you can"
    if state.json:
        click.echo(_json({"error": {"message": message, "nodes": []}}))
    else:
        click.echo(f"error: {message} (SLM2C_DEBUG=1 shows where it happened)", err=True)
        for line in details[:_DETAILS]:  # a compiler's own words; an edited output folder is the user's to mend
            click.echo(f"  {line}", err=True)
    if os.environ.get("SLM2C_DEBUG"):
        traceback.print_exception(error)
    return EXIT_BUG


def _json(value: object) -> str:
    return json.dumps(value, indent=1, allow_nan=False)


def present(facts: object, text: Callable[[], str]) -> None:
    """Print `facts` under --json, else the text."""
    as_facts = click.get_current_context().ensure_object(State).json
    shown = _json(facts) if as_facts else text()
    try:
        click.echo(shown)
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever read it has enough
            raise
        raise CompileError(Problem("standard output", "", f"cannot be written: {error.strerror}")) from error


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Stage and bar on a terminal; else one line for each stage that takes long; nothing under --json."""
    quiet = click.get_current_context().ensure_object(State).json
    terminal = sys.stderr.isatty()
    current, last, timer = "", 0.0, threading.Timer(0, lambda: None)

    def show(stage: str, done: int, total: int) -> None:
        nonlocal current, last, timer
        if quiet or (stage == current and (not terminal or time.monotonic() < last + 0.1)):
            return
        if terminal:
            bar = f"  {share(done, total)}  {done} of {total}" if total > 1 else " ..."
            click.echo(f"\r\x1b[K{stage}{bar}", nl=False, err=True)
        else:
            timer.cancel()
            timer = threading.Timer(_PATIENCE, click.echo, [f"{stage} ..."], {"err": True})
            timer.daemon = True
            timer.start()
        current, last = stage, time.monotonic()

    try:
        yield show
    finally:
        timer.cancel()
        if terminal and current:
            click.echo("\r\x1b[K", nl=False, err=True)


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.ensure_object(State).json = value


as_json = click.option(
    "--json", is_flag=True, is_eager=True, expose_value=False, callback=_set_json, help="Print facts as JSON."
)
folder_argument = click.argument("folder", metavar="DIR", type=PATH)
