"""The command line: options, progress, exit codes. What the commands do is elsewhere, and imported when one runs.

Exit codes: 0 success; 1 a CompileError, or a check that failed; 2 wrong usage; 70 a bug of ours; 128 + the number of
the signal that stopped it.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from slm2c import __version__
from slm2c.errors import CompileError, Problem, printable
from slm2c.text import duration, share, table

if TYPE_CHECKING:
    from slm2c.compile import Progress

EXIT_FAILED, EXIT_BUG = 1, 70
_DETAILS = 20  # lines that an error of ours may have
_PATIENCE = 2.0  # seconds until a stage says that it is running, where there is no terminal for a bar
_PATH = click.Path(path_type=Path)
_BYTES = click.IntRange(min=1)
_BYTES.name = "number of bytes"  # for messages


@dataclass
class _State:
    """What options set for the whole run: whether facts and errors are printed as JSON."""

    json: bool = False


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit."""
    # BLAS threads cost more than they gain on matrices of this size, and must not decide about the last bit.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda caught, _: sys.exit(128 + caught))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_flushed(invoke(args)))


def invoke(args: Sequence[str] | None) -> int:
    """Run a command; what goes wrong becomes a message and an exit code."""
    state = _State()
    try:
        return cli.main(args, prog_name="slm2c", obj=state, standalone_mode=False) or 0
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


def _fail(error: CompileError, state: _State) -> int:
    try:
        if state.json:
            _print_json({"error": error.to_json()})
    except OSError:  # a full disk behind the standard output: the other stream may do
        state.json = False
    if not state.json:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
    return EXIT_FAILED


def _bug(error: Exception, state: _State) -> int:
    fact, *details = (printable(line) for line in f"{type(error).__name__}: {error}".splitlines())
    message = f"a bug in slm2c {__version__}: {fact}; please report it, with the model if you can"
    if state.json:
        _print_json({"error": {"message": message, "nodes": []}})
    else:
        click.echo(f"error: {message} (SLM2C_DEBUG=1 shows where it happened)", err=True)
        for line in details[:_DETAILS]:  # a compiler's own words; an edited output folder is the user's to mend
            click.echo(f"  {line}", err=True)
    if os.environ.get("SLM2C_DEBUG"):
        traceback.print_exception(error)
    return EXIT_BUG


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=1, allow_nan=False))


def _show(facts: object, text: Callable[[], str]) -> None:
    """Print `facts` under --json, else the text."""
    if click.get_current_context().ensure_object(_State).json:
        _print_json(facts)
    else:
        click.echo(text())


@contextmanager
def _progress() -> Iterator[Progress]:
    """Stage and bar on a terminal; else one line for each stage that takes long; nothing under --json."""
    quiet = click.get_current_context().ensure_object(_State).json
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
    context.ensure_object(_State).json = value


def _parse_shapes(_: click.Context, __: click.Parameter, given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """NAME=1,32 of each --shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in given:
        name, _equals, sizes = text.rpartition("=")
        words = [word.strip() for word in sizes.split(",")]
        if not name or not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
            raise click.BadParameter(f"{text!r} is not NAME=SIZE,SIZE,... as in input_ids=1,32")
        if name in shapes:
            raise click.BadParameter(f"{name!r} is given twice")
        shapes[name] = tuple(map(int, words))
    return shapes


def _parse_reserve(_: click.Context, __: click.Parameter, given: Sequence[str]) -> dict[str, int]:
    """REGION=BYTES of each --reserve."""
    reserve: dict[str, int] = {}
    for text in given:
        region, _equals, size = text.partition("=")
        if not region or not (size.isascii() and size.isdigit()):
            raise click.BadParameter(f"{text!r} is not REGION=BYTES as in sram=65536")
        reserve[region] = int(size)
    return reserve


_json = click.option(
    "--json", is_flag=True, is_eager=True, expose_value=False, callback=_set_json, help="Print facts as JSON."
)
_shape = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=SIZE,...",
    callback=_parse_shapes,
    help="Shape of an input whose export leaves it open, as input_ids=1,32. Repeatable.",
)
_folder = click.argument("folder", metavar="DIR", type=_PATH)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: slm2c demo",
)
@click.version_option(__version__, message="slm2c %(version)s")
def cli() -> None:
    """Compile a small transformer (ONNX) to INT8 C firmware for Cortex-M."""


@cli.command(epilog="Example: slm2c inspect student.onnx")
@click.argument("model", type=_PATH)
@_shape
@_json
def inspect(model: Path, shapes: dict[str, tuple[int, ...]]) -> int:
    """Show what a model is, and whether it can be built.

    Inputs, operators before and after fusion, parameters, what is not supported and why, boards that it would fit.
    MODEL is an .onnx file, or a folder as `optimum-cli export onnx` writes it. Exit code 1 if it cannot be built.
    """
    from slm2c import inspection

    with _progress() as progress:
        progress("inspect", 0, 1)
        facts = inspection.inspect(model, shapes)
    _show(facts, lambda: inspection.render(facts))
    return EXIT_FAILED if "error" in facts else 0


@cli.command(epilog="Example: slm2c build student/ -o out --board generic-m7-512k-4m --calib sentences.txt")
@click.argument("model", type=_PATH)
@click.option("-o", "--output", "out", metavar="DIR", type=_PATH, required=True, help="Where to; replaces a build.")
@click.option("--board", required=True, metavar="NAME", help="One of `slm2c boards`, or a .toml file.")
@click.option("--name", metavar="ID", help="Prefix of C functions and files. Default: the model's name.")
@_shape
@click.option("--tokenizer", metavar="FILE", type=_PATH, help="tokenizer.json, for text in. Default: that in MODEL.")
@click.option("--labels", metavar="FILE", type=_PATH, help="JSON list of class names. Default: those in MODEL.")
@click.option(
    "--calib",
    "calibration",
    metavar="FILE",
    type=_PATH,
    help="Real inputs: an .npz by input name, first axis samples; or, with a tokenizer, a text or CSV file.",
)
@click.option(
    "--method",
    type=click.Choice(["auto", "minmax", "percentile", "mse"]),
    default="auto",
    show_default=True,
    help="How ranges are chosen; auto compares all.",
)
@click.option(
    "--arena",
    metavar="BYTES",
    type=_BYTES,
    help="What the arena may take, at most: less trades speed for memory, more buys larger tiles.",
)
@click.option(
    "--reserve",
    multiple=True,
    metavar="REGION=BYTES",
    callback=_parse_reserve,
    help="What the application keeps of a memory of the board, as sram=65536. Repeatable.",
)
@_json
def build(model: Path, out: Path, board: str, reserve: dict[str, int], **options: Any) -> None:
    """Compile MODEL to C, a weight blob and a report.

    MODEL is an .onnx file, or a folder as `optimum-cli export onnx` writes it: model.onnx, and what is there of
    tokenizer.json, config.json with id2label, calib.npz, calib.csv and calib.txt.
    """
    from slm2c.board import load_board, with_reserve
    from slm2c.build import build as build_folder
    from slm2c.compile import Options
    from slm2c.summary import cost, summary

    start = time.monotonic()
    with _progress() as progress:
        facts = build_folder(model, out, with_reserve(load_board(board), reserve), Options(**options), progress)
    there = shlex.quote(printable(str(out)))
    hints = [
        (f"slm2c validate {there}", "compare the C with the integer reference, bit for bit"),
        (f'slm2c run {there} "..."', "type at it")
        if facts["model"]["tokenizer"]
        else (f"make -C {there}", "build it here"),
        (f"make -C {there}/firmware", f"link a firmware with a console for {printable(facts['board']['name'])}"),
        (f"slm2c report {there}", "see where the bytes go"),
    ]
    wrote = f"wrote {printable(str(out))} in {duration(time.monotonic() - start)}; next:"
    _show(
        {"output": str(out), **facts},
        lambda: f"{summary(facts)}\n\n{cost(facts['cost'])}\n\n{wrote}\n{table(hints, 'll')}",
    )


@cli.command(epilog="Example: slm2c validate out --on host --on qemu --board mps2-an500 --board mps2-an386")
@_folder
@click.option(
    "--on",
    "rungs",
    type=click.Choice(["host", "sanitize", "qemu", "renode"]),
    multiple=True,
    help="Where to run the C. Default: host, and qemu where it is. Repeatable.",
)
@click.option(
    "--board",
    "boards",
    multiple=True,
    metavar="NAME",
    help="A board to emulate in place of the one that the build is for. Repeatable.",
)
@click.option("--samples", "count", type=click.IntRange(min=1), default=32, show_default=True, help="Inputs to try.")
@_json
def validate(folder: Path, rungs: tuple[str, ...], boards: tuple[str, ...], count: int) -> int:
    """Compare the C with the integer reference, bit for bit.

    Every tensor that the C in DIR stores, on each rung of the ladder. Exit code 1 if one differs.
    """
    from slm2c import output, show, validate

    with _progress() as progress:
        found = validate.ladder(output.read(folder), rungs, boards, count, progress)
    facts = {"ok": found.ok, "rungs": [asdict(rung) for rung in found.rungs], "skipped": found.skipped}
    _show(facts, lambda: show.ladder(found))
    return 0 if found.ok else EXIT_FAILED


@cli.command(epilog="Example: slm2c renode out -o out-renode --board stm32f746g-disco")
@_folder
@click.option(
    "-o", "--output", "out", metavar="DIR", type=_PATH, required=True, help="Where to; replaces such a folder."
)
@click.option("--board", metavar="NAME", help="In place of the one that the build is for.")
@click.option("--samples", "count", type=click.IntRange(min=1), default=32, show_default=True, help="Inputs to try.")
@_json
def renode(folder: Path, out: Path, board: str | None, count: int) -> None:
    """Write what `validate --on renode` runs: image, platform and script.

    To look around in Renode, with or without slm2c at hand. What the image needs is in docs/RENODE.md.
    """
    from slm2c import output, show, validate
    from slm2c.board import load_board

    with _progress() as progress:
        progress("build for Renode", 0, 1)
        facts = validate.renode_folder(output.read(folder), out, load_board(board) if board else None, count)
    _show(facts, lambda: show.renode(facts))


@cli.command(epilog="Example: slm2c eval out val.csv")
@_folder
@click.argument("data", metavar="DATA.csv", type=_PATH)
@click.option("--on", type=click.Choice(["host"]), default="host", show_default=True, expose_value=False)
@_json
def eval(folder: Path, data: Path) -> None:
    """Measure the accuracy of the C and of the float model.

    And their agreement, on DATA.csv with the columns text and label.
    """
    from slm2c import evaluate, output, samples, show

    texts, labels = samples.read_texts(data)
    if labels is None:
        raise CompileError(Problem(str(data), "", "has no column `label`", "name the columns text,label"))
    with _progress() as progress:
        found = evaluate.evaluate(output.read(folder), texts, labels, progress)
    _show(asdict(found), lambda: show.evaluation(found))


@cli.command(epilog='Example: slm2c run out "turn on the kitchen light"')
@_folder
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--input", "source", metavar="FILE", type=_PATH, help="An .npz by input name, first axis samples.")
@click.option("--output", "target", metavar="FILE", type=_PATH, help="The .npz to write; keys are out/NAME.")
@_json
def run(folder: Path, texts: tuple[str, ...], source: Path | None, target: Path | None) -> None:
    """Run the C on this machine, on text or on arrays."""
    from slm2c import evaluate, output, samples, show

    if bool(texts) == bool(source) or bool(source) != bool(target):
        raise click.UsageError("give either texts, or --input and --output")
    built = output.read(folder)
    if source is None or target is None:
        with _progress() as progress:
            progress("run", 0, 1)
            answers = evaluate.run_text(built, texts)
        facts = [{"text": text, "n": a.n, **asdict(a)} for text, a in zip(texts, answers, strict=True)]
        _show({"answers": facts}, lambda: show.answers(texts, answers))
    else:
        with _progress() as progress:
            progress("run", 0, 1)
            found = evaluate.run_arrays(built, samples.read_arrays(source, built.float_graph, built.interface))
        shapes = samples.write_arrays(target, found)
        _show({"output": str(target), "shapes": shapes}, lambda: show.written(target, shapes))


@cli.command(epilog="Example: slm2c report out")
@_folder
@_json
def report(folder: Path) -> None:
    """Show what a build costs and what was decided.

    Flash and SRAM, memory plan, layers by size, types and ranges of the tensors. --json has everything.
    """
    from slm2c import report, report_html, summary

    facts = report.read(folder)
    pictures = f"with pictures: {printable(str(folder / report_html.FILE))}"
    _show(facts, lambda: f"{summary.render(facts)}\n\n{pictures}")


@cli.command(name="flash-layout", epilog="Example: slm2c flash-layout out")
@_folder
@click.option("--elf", metavar="FILE", type=_PATH, help="Your own image, linked for the same board, instead.")
@_json
def flash_layout(folder: Path, elf: Path | None) -> None:
    """Show where everything lies.

    Links the firmware in DIR and shows each memory of its board: addresses, bytes, what is free.
    """
    from slm2c import flash_layout, output

    with _progress() as progress:
        progress("flash-layout", 0, 1)
        found = flash_layout.layout(output.read(folder), elf)
    _show(found.facts(), lambda: flash_layout.render(found))


@cli.command(epilog="Example: slm2c boards generic-m7-512k-4m")
@click.argument("name", required=False)
@_json
def boards(name: str | None) -> None:
    """List the boards, or show the one called NAME.

    NAME may be the path of a .toml file.
    """
    from slm2c import show
    from slm2c.board import list_boards, load_board

    found = [load_board(x) for x in ([name] if name else list_boards())]
    facts = [{**asdict(b), "flash_bytes": b.flash_bytes, "ram_bytes": b.ram_bytes} for b in found]
    if name:
        _show(facts[0], lambda: show.board(found[0]))
    else:
        _show(facts, lambda: show.boards(found))


@cli.command(epilog="Example: slm2c distill --teacher all-MiniLM-L6-v2/ --train train.csv --valid val.csv -o student/")
@click.option(
    "--teacher",
    "teachers",
    metavar="DIR",
    type=_PATH,
    multiple=True,
    required=True,
    help="An encoder as `save_pretrained` writes it; fine-tuned first if it does not know the labels. Repeatable: "
    "answers are averaged.",
)
@click.option("--train", metavar="CSV", type=_PATH, required=True, help="Sentences to learn: columns text,label.")
@click.option("--valid", metavar="CSV", type=_PATH, required=True, help="Others, to choose the best epoch by.")
@click.option("-o", "--output", "out", metavar="DIR", type=_PATH, required=True, help="Where to; replaces a student.")
@click.option(
    "--student", "recipe", metavar="TOML", type=_PATH, help="Size and training; what it leaves out is default."
)
@click.option(
    "--unlabelled",
    metavar="FILE",
    type=_PATH,
    multiple=True,
    help="Sentences for the teacher to label: a text file, or a CSV file with a column text. Repeatable.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of everything random.")
@click.option("--quick", is_flag=True, help="A third of the epochs, for a first look.")
@_json
def distill(recipe: Path | None, quick: bool, **given: Any) -> None:
    """Train a small student from a teacher and your sentences.

    Needs the extra slm2c[distill]. DIR becomes a folder that `slm2c build` takes; DIR.work beside it keeps the
    teachers, and from it the same command goes on after a kill.
    """
    from slm2c.distill import recipe as recipes
    from slm2c.distill import require_extra

    require_extra()
    chosen = recipes.read_recipe(recipe) if recipe else recipes.Recipe()
    from slm2c import show
    from slm2c.distill import run

    start = time.monotonic()
    request = run.Request(recipe=recipes.quick(chosen) if quick else chosen, **given)
    with _progress() as progress:
        facts = run.distill(request, progress)
    seconds = time.monotonic() - start
    _show({"output": str(request.out), **facts}, lambda: show.student(request.out, facts, seconds))


@cli.command(epilog="Example: slm2c demo")
@click.option("-o", "--output", "out", metavar="DIR", type=_PATH, default=Path("slm2c-demo"), show_default=True)
@_json
def demo(out: Path) -> None:
    """Compile the example student and let its C answer typed commands."""
    from slm2c import demo

    with _progress() as progress:
        found = demo.run(out, progress)
    _show(found, lambda: demo.render(found))
