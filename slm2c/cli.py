"""The command line: commands and their options. What the commands do is elsewhere, and imported when one runs."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click

from slm2c import __version__, cli_training, console
from slm2c.console import EXIT_FAILED, PATH, as_json, folder_argument, present, progress_bar
from slm2c.errors import printable
from slm2c.text import duration, table

_BYTES = click.IntRange(min=1)
_BYTES.name = "number of bytes"  # for messages


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit."""
    console.run(cli, args)


def invoke(args: Sequence[str] | None) -> int:
    """Run a command; what goes wrong becomes a message and an exit code."""
    return console.invoke(cli, args)


_NUMBER = re.compile(r"[0-9]{1,18}")


def _parse_shapes(_: click.Context, __: click.Parameter, given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """NAME=1,32 of each --shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in given:
        name, _equals, sizes = text.rpartition("=")
        words = [word.strip() for word in sizes.split(",")]
        if not name or not all(_NUMBER.fullmatch(word) and int(word) > 0 for word in words):
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
        if not region or not _NUMBER.fullmatch(size):
            raise click.BadParameter(f"{text[:60]!r} is not REGION=BYTES as in sram=65536")
        if region in reserve:
            raise click.BadParameter(f"{region!r} is given twice")
        reserve[region] = int(size)
    return reserve


_shape = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=SIZE,...",
    callback=_parse_shapes,
    help="Shape of an input whose export leaves it open, as input_ids=1,32. Repeatable.",
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: slm2c demo",
)
@click.version_option(__version__, message="slm2c %(version)s")
def cli() -> None:
    """Compile a small transformer (ONNX) to INT8 C firmware for Cortex-M."""


@cli.command(epilog="Example: slm2c inspect student.onnx")
@click.argument("model", type=PATH)
@_shape
@as_json
def inspect(model: Path, shapes: dict[str, tuple[int, ...]]) -> int:
    """Show what a model is, and whether it can be built.

    Inputs, operators before and after fusion, parameters, what is not supported and why, boards that it would fit.
    MODEL is an .onnx file, or a folder as `optimum-cli export onnx` writes it. Exit code 1 if it cannot be built.
    """
    from slm2c import inspection

    with progress_bar() as progress:
        progress("inspect", 0, 1)
        facts = inspection.inspect(model, shapes)
    present(facts, lambda: inspection.render(facts))
    return EXIT_FAILED if "error" in facts else 0


@cli.command(epilog="Example: slm2c build student/ -o out --board generic-m7-512k-4m --calib sentences.txt")
@click.argument("model", type=PATH)
@click.option("-o", "--output", "out", metavar="DIR", type=PATH, required=True, help="Where to; replaces a build.")
@click.option("--board", required=True, metavar="NAME", help="One of `slm2c boards`, or a .toml file.")
@click.option("--name", metavar="ID", help="Prefix of C functions and files. Default: the model's name.")
@_shape
@click.option("--tokenizer", metavar="FILE", type=PATH, help="tokenizer.json, for text in. Default: that in MODEL.")
@click.option("--labels", metavar="FILE", type=PATH, help="JSON list of class names. Default: those in MODEL.")
@click.option(
    "--calib",
    "calibration",
    metavar="FILE",
    type=PATH,
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
@as_json
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
    with progress_bar() as progress:
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
    present(
        {"output": str(out), **facts},
        lambda: f"{summary(facts)}\n\n{cost(facts['cost'])}\n\n{wrote}\n{table(hints, 'll')}",
    )


@cli.command(epilog="Example: slm2c validate out --on host --on qemu --board mps2-an500 --board mps2-an386")
@folder_argument
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
@as_json
def validate(folder: Path, rungs: tuple[str, ...], boards: tuple[str, ...], count: int) -> int:
    """Compare the C with the integer reference, bit for bit.

    Every tensor that the C in DIR stores, on each rung of the ladder. Exit code 1 if one differs.
    """
    from slm2c import output, show, validate

    with progress_bar() as progress:
        found = validate.ladder(output.read(folder), rungs, boards, count, progress)
    facts = {"ok": found.ok, "rungs": [asdict(rung) for rung in found.rungs], "skipped": found.skipped}
    present(facts, lambda: show.ladder(found))
    return 0 if found.ok else EXIT_FAILED


@cli.command(epilog="Example: slm2c renode out -o out-renode --board stm32f746g-disco")
@folder_argument
@click.option(
    "-o", "--output", "out", metavar="DIR", type=PATH, required=True, help="Where to; replaces such a folder."
)
@click.option("--board", metavar="NAME", help="In place of the one that the build is for.")
@click.option("--samples", "count", type=click.IntRange(min=1), default=32, show_default=True, help="Inputs to try.")
@as_json
def renode(folder: Path, out: Path, board: str | None, count: int) -> None:
    """Write what `validate --on renode` runs: image, platform and script.

    To look around in Renode, with or without slm2c at hand. What the image needs is in docs/RENODE.md.
    """
    from slm2c import output, show, validate
    from slm2c.board import load_board

    with progress_bar() as progress:
        progress("build for Renode", 0, 1)
        facts = validate.renode_folder(output.read(folder), out, None if board is None else load_board(board), count)
    present(facts, lambda: show.renode(facts))


@cli.command(epilog="Example: slm2c eval out val.csv")
@folder_argument
@click.argument("data", metavar="DATA.csv", type=PATH)
@click.option("--on", type=click.Choice(["host"]), default="host", show_default=True, expose_value=False)
@as_json
def eval(folder: Path, data: Path) -> None:
    """Measure the accuracy of the C and of the float model.

    And their agreement, on DATA.csv with the columns text and label. The report of DIR then shows it, too.
    """
    from slm2c import evaluate, output, report, sentences, show

    rows = sentences.read_labelled(data)
    built = output.read(folder)
    report.read(folder)  # into which the figures go: what is wrong with it is told before they are made
    with progress_bar() as progress:
        found = evaluate.evaluate(built, [row.text for row in rows], [row.label for row in rows], progress)
    present(asdict(found), lambda: show.evaluation(found))
    evaluate.keep(built, data.name, found)


@cli.command(epilog='Example: slm2c run out "turn on the kitchen light"')
@folder_argument
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--input", "source", metavar="FILE", type=PATH, help="An .npz by input name, first axis samples.")
@click.option("--output", "target", metavar="FILE", type=PATH, help="The .npz to write; keys are out/NAME.")
@as_json
def run(folder: Path, texts: tuple[str, ...], source: Path | None, target: Path | None) -> None:
    """Run the C on this machine, on text or on arrays."""
    from slm2c import evaluate, output, samples, show

    if bool(texts) == bool(source) or bool(source) != bool(target):
        raise click.UsageError("give either texts, or --input and --output")
    built = output.read(folder)
    if source is None or target is None:
        with progress_bar() as progress:
            progress("run", 0, 1)
            answers = evaluate.run_text(built, texts)
        facts = [{"text": text, "n": a.n, **asdict(a)} for text, a in zip(texts, answers, strict=True)]
        present({"answers": facts}, lambda: show.answers(texts, answers))
    else:
        with progress_bar() as progress:
            progress("run", 0, 1)
            found = evaluate.run_arrays(built, samples.read_arrays(source, built.float_graph, built.interface))
        shapes = samples.write_arrays(target, found)
        present({"output": str(target), "shapes": shapes}, lambda: show.written(target, shapes))


@cli.command(epilog="Example: slm2c report out")
@folder_argument
@as_json
def report(folder: Path) -> None:
    """Show what a build costs and what was decided.

    Flash and SRAM, memory plan, layers by size, types and ranges of the tensors. --json has everything.
    """
    from slm2c import report, report_html, summary

    facts = report.read(folder)
    html = folder / report_html.FILE
    pictures = f"\n\nwith pictures: {printable(str(html))}" if html.is_file() else ""
    present(facts, lambda: summary.render(facts) + pictures)


@cli.command(name="flash-layout", epilog="Example: slm2c flash-layout out")
@folder_argument
@click.option("--elf", metavar="FILE", type=PATH, help="Your own image, linked for the same board, instead.")
@as_json
def flash_layout(folder: Path, elf: Path | None) -> None:
    """Show where everything lies.

    Links the firmware in DIR and shows each memory of its board: addresses, bytes, what is free.
    """
    from slm2c import flash_layout, output

    with progress_bar() as progress:
        progress("flash-layout", 0, 1)
        found = flash_layout.layout(output.read(folder), elf)
    present(found.facts(), lambda: flash_layout.render(found))


@cli.command(epilog="Example: slm2c boards generic-m7-512k-4m")
@click.argument("name", required=False)
@as_json
def boards(name: str | None) -> None:
    """List the boards, or show the one called NAME.

    NAME may be the path of a .toml file.
    """
    from slm2c import show
    from slm2c.board import list_boards, load_board

    found = [load_board(x) for x in (list_boards() if name is None else [name])]
    facts = [{**asdict(b), "flash_bytes": b.flash_bytes, "ram_bytes": b.ram_bytes} for b in found]
    if name is not None:
        present(facts[0], lambda: show.board(found[0]))
    else:
        present(facts, lambda: show.boards(found))


@cli.command(epilog="Example: slm2c demo")
@click.option("-o", "--output", "out", metavar="DIR", type=PATH, default=Path("slm2c-demo"), show_default=True)
@as_json
def demo(out: Path) -> None:
    """Compile the example student and let its C answer typed commands."""
    from slm2c import demo

    with progress_bar() as progress:
        found = demo.run(out, progress)
    present(found, lambda: demo.render(found))


cli.add_command(cli_training.distill)
cli.add_command(cli_training.compress)
cli.add_command(cli_training.fit)
