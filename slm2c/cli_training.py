"""The commands that train students. They need the extra slm2c[distill]."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from slm2c.console import PATH, as_json, present, progress_bar

if TYPE_CHECKING:
    from slm2c.distill.parts import Part


class _Finite(click.FloatRange):
    """A number of a range, which nan is not in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Raises click.BadParameter for others."""
        number = float(super().convert(value, param, ctx))
        return number if math.isfinite(number) else self.fail(f"{value!r} is not a number", param, ctx)


_train = click.option(
    "--train", metavar="CSV", type=PATH, required=True, help="Sentences to learn: columns text,label."
)
_valid = click.option(
    "--valid", metavar="CSV", type=PATH, required=True, help="Others, to choose the best epoch, and student, by."
)
_seed = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True, help="Of everything random."
)
_quick = click.option("--quick", is_flag=True, help="A third of the epochs, for a first look.")


@click.command(
    epilog="Example: slm2c distill --teacher all-MiniLM-L6-v2/ --train train.csv --valid val.csv -o student/"
)
@click.option(
    "--teacher",
    "teachers",
    metavar="DIR",
    type=PATH,
    multiple=True,
    required=True,
    help="An encoder as `save_pretrained` writes it; fine-tuned first if it does not know the labels. Repeatable: "
    "answers are averaged.",
)
@_train
@_valid
@click.option("-o", "--output", "out", metavar="DIR", type=PATH, required=True, help="Where to; replaces a student.")
@click.option(
    "--student", "recipe", metavar="TOML", type=PATH, help="Size and training; what it leaves out is default."
)
@click.option(
    "--unlabelled",
    metavar="FILE",
    type=PATH,
    multiple=True,
    help="Sentences for the teacher to label: a text file, or a CSV file with a column text. Repeatable.",
)
@_seed
@_quick
@as_json
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
    with progress_bar() as progress:
        facts = run.distill(request, progress)
    seconds = time.monotonic() - start
    present({"output": str(request.out), **facts}, lambda: show.student(request.out, facts, seconds))


def _part(_: click.Context, __: click.Parameter, text: str | None) -> Part | None:
    """19 or 80% of --heads and --ffn."""
    if text is None:
        return None
    from slm2c.distill.parts import Part

    number, most = text.removesuffix("%"), 100 if text.endswith("%") else 999_999
    if number.isascii() and number.isdigit() and len(number) <= 6 and 0 < int(number) <= most:
        return Part(int(number) / 100, True) if text.endswith("%") else Part(int(number), False)
    raise click.BadParameter(f"{text!r} is neither a share that stays, as 80%, nor a number, as 19")


@click.command(epilog="Example: slm2c compress student/ -o small/ --train train.csv --valid val.csv --flash 1200000")
@click.argument("student", metavar="STUDENT_DIR", type=PATH)
@click.option("-o", "--output", "out", metavar="DIR", type=PATH, required=True, help="Where to; replaces a student.")
@_train
@_valid
@click.option("--layers", metavar="N", type=click.IntRange(min=1), help="Layers that stay.")
@click.option("--share", metavar="N", type=click.IntRange(min=2), help="Layers in a row that share their weights.")
@click.option("--rank", metavar="N", type=click.IntRange(min=1), help="Table of pieces as a product of this rank.")
@click.option("--heads", metavar="N|P%", callback=_part, help="Attention heads that stay, over all layers.")
@click.option("--ffn", metavar="N|P%", callback=_part, help="FFN columns that stay, over all layers.")
@click.option(
    "--flash",
    metavar="BYTES",
    type=click.IntRange(min=1),
    help="What the blob may take, at most: of heads, FFN columns and the table goes what matters least for its bytes.",
)
@click.option("--fit", is_flag=True, help="The same, until the student fits --board.")
@click.option("--board", metavar="NAME", default="generic-m7-512k-4m", show_default=True, help="Where sizes count.")
@click.option("--teacher", metavar="DIR", type=PATH, help="One that knows the labels. Default: the student as it was.")
@click.option(
    "--epochs", type=click.IntRange(1, 10_000), default=2, show_default=True, help="Of training after each step."
)
@_seed
@as_json
def compress(board: str, **given: Any) -> None:
    """Make a student smaller, with a fine-tune after each step.

    STUDENT_DIR is a folder that `slm2c distill` or this command wrote; DIR becomes such a folder. Needs the extra
    slm2c[distill]. Steps come in the order of the options; each is shown with its bytes and accuracy. From DIR.work the
    same command goes on after a kill.
    """
    from slm2c.board import load_board
    from slm2c.distill import require_extra

    require_extra()
    from slm2c import show
    from slm2c.distill import compress as compression

    start = time.monotonic()
    request = compression.Request(board=load_board(board), **given)
    with progress_bar() as progress:
        facts = compression.compress(request, progress)
    seconds = time.monotonic() - start
    present({"output": str(request.out), **facts}, lambda: show.compressed(request.out, facts, board, seconds))


@click.command(
    epilog="Example: slm2c fit --teacher all-MiniLM-L6-v2/ --board stm32h743zi --train train.csv --valid val.csv "
    "--latency 40 -o front/"
)
@click.option("--board", required=True, metavar="NAME", help="One of `slm2c boards`, or a .toml file.")
@click.option("--teacher", metavar="DIR", type=PATH, help="Of students of several sizes; as of `slm2c distill`.")
@click.option(
    "--from",
    "student",
    metavar="DIR",
    type=PATH,
    help="A student to make smaller instead, as `slm2c compress` does; --teacher is then of its fine-tunes, if at all.",
)
@_train
@_valid
@click.option("-o", "--output", "out", metavar="DIR", type=PATH, required=True, help="Where to; goes on in a front.")
@click.option("--latency", metavar="MS", type=_Finite(min=0.001, max=1e9), help="Of the longest text, at most.")
@click.option(
    "--clock",
    metavar="MHZ",
    type=_Finite(min=0.001, max=4000),
    help="Of the core, in place of what the board's file says.",
)
@click.option("--tries", type=click.IntRange(min=1), default=5, show_default=True, help="Students to train, at most.")
@click.option(
    "--student",
    "recipe",
    metavar="TOML",
    type=PATH,
    help="Training by --teacher, and the size to propose others around.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1, 10_000),
    default=2,
    show_default=True,
    help="Of the fine-tune behind each step of a cut (--from).",
)
@_seed
@_quick
@as_json
def fit(
    board: str,
    clock: float | None,
    teacher: Path | None,
    student: Path | None,
    recipe: Path | None,
    epochs: int,
    seed: int,
    quick: bool,
    **given: Any,
) -> None:
    """Try a few students for a board, and show what accuracy costs.

    Needs the extra slm2c[distill]. What fits neither board nor latency is not trained. DIR gets each student in a
    folder of its own, front.json with all figures, and front.svg: accuracy against flash, arena and instructions. The
    same command goes on after a kill; with more --tries it adds to what is there.
    """
    if not (teacher or student):
        raise click.UsageError("give --teacher for new students, or --from for cuts of one")
    if student and recipe:
        raise click.UsageError("--student is for new students; cuts are trained by the recipe in the folder of --from")
    if not student and click.get_current_context().get_parameter_source("epochs") is not ParameterSource.DEFAULT:
        raise click.UsageError("--epochs is for cuts (--from); new students are trained by the recipe of --student")
    from slm2c.board import load_board
    from slm2c.distill import recipe as recipes
    from slm2c.distill import require_extra

    require_extra()
    target = load_board(board)
    target = replace(target, clock_hz=round(1e6 * clock)) if clock else target
    chosen = recipes.read_recipe(recipe) if recipe else recipes.Recipe()
    from slm2c import show
    from slm2c.distill import front
    from slm2c.distill.candidates import FromStudent, FromTeacher

    start = time.monotonic()
    around: FromStudent | FromTeacher
    if student:
        around = FromStudent(student, target, teacher, -(-epochs // 3) if quick else epochs, seed)
    else:
        assert teacher is not None, "one of both is there"
        around = FromTeacher(teacher, recipes.quick(chosen) if quick else chosen, seed)
    request = front.Request(target, around, **given)
    with progress_bar() as progress:
        facts = front.fit(request, progress)
    seconds = time.monotonic() - start
    present({"output": str(request.out), **facts}, lambda: show.front(request.out, facts, board, seconds))
