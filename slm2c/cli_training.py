"""The commands that train students. They need the extra slm2c[distill]."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from slm2c.console import PATH, as_json, present, progress_bar


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
@click.option("--train", metavar="CSV", type=PATH, required=True, help="Sentences to learn: columns text,label.")
@click.option("--valid", metavar="CSV", type=PATH, required=True, help="Others, to choose the best epoch by.")
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
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of everything random.")
@click.option("--quick", is_flag=True, help="A third of the epochs, for a first look.")
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
