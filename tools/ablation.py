#!/usr/bin/env python3
"""What every term of the distillation loss brings: the same student without it, over several seeds.

    python tools/ablation.py --teacher TEACHER --train train.csv --valid val.csv --recipe small.toml -o ablation/

The teacher should know the labels already (DIR.work/teacher-1/model of a run): then only the students are trained.
Prints a table in Markdown; what is in -o already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from slm2c.distill import require_extra
from slm2c.distill.recipe import Phase, Recipe, read_recipe


def _phases(recipe: Recipe, change: Callable[[Phase], Phase]) -> Recipe:
    return replace(
        recipe, warm_up=change(recipe.warm_up), distil=change(recipe.distil), fine_tune=change(recipe.fine_tune)
    )


VARIANTS: Mapping[str, Callable[[Recipe], Recipe]] = {
    "all terms": lambda r: r,
    "labels alone": lambda r: replace(
        _phases(r, lambda p: replace(p, alpha=1.0, hidden=(0.0, 0.0), attention=(0.0, 0.0))),
        data=replace(r.data, augment=0),
    ),
    "no labels (alpha = 0)": lambda r: _phases(r, lambda p: replace(p, alpha=0.0)),
    "no soft targets (alpha = 1)": lambda r: _phases(r, lambda p: replace(p, alpha=1.0)),
    "no hidden states": lambda r: _phases(r, lambda p: replace(p, hidden=(0.0, 0.0))),
    "attention, too": lambda r: _phases(r, lambda p: replace(p, attention=p.hidden)),
    "T = 1 throughout": lambda r: _phases(r, lambda p: replace(p, temperature=(1.0, 1.0))),
    "no augmentation": lambda r: replace(r, data=replace(r.data, augment=0)),
}


def main() -> None:
    """Train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--teacher", "--train", "--valid", "--recipe"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    require_extra()
    from slm2c.distill.run import Request, distill

    base = read_recipe(given.recipe)
    given.out.mkdir(parents=True, exist_ok=True)
    print("| | right, % | lost | spread of the seeds |\n|---|---|---|---|")
    reference = 0.0
    for name, change in VARIANTS.items():
        found = []
        for seed in range(1, given.seeds + 1):
            out = given.out / f"{name.replace(' ', '-')}-{seed}"
            if not (out / "metrics.json").is_file():
                print(f"{name}, seed {seed} ...", file=sys.stderr)
                distill(Request([given.teacher], given.train, given.valid, [], out, change(base), seed))
            found.append(100 * json.loads((out / "metrics.json").read_text())["student"]["accuracy_float"])
        mean = statistics.mean(found)
        reference = reference or mean
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(f"| {name} | {mean:.1f} | {mean - reference:+.1f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
