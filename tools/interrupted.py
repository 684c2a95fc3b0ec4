#!/usr/bin/env python3
"""How long `slm2c distill` takes on a small CSV, left alone and killed in the middle; and whether both leave the same.

    python tools/interrupted.py --teacher all-MiniLM-L6-v2/ --train train.csv -o small/ --kill 60 --quick

Takes 75 sentences of each of the first 8 labels that have enough of them to learn from, and 30 others to judge by.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from slm2c.sentences import Row, read_labelled

_LABELS, _TRAIN, _VALID = 8, 75, 30


def chosen(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """(to learn from, to judge by)."""
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(row.label, []).append(row)
    enough = [label for label in sorted(by_label) if len(by_label[label]) >= _TRAIN + _VALID][:_LABELS]
    rng, train, valid = random.Random(seed), list[Row](), list[Row]()
    for label in enough:
        found = rng.sample(by_label[label], _TRAIN + _VALID)
        train += found[:_TRAIN]
        valid += found[_TRAIN:]
    return train, valid


def write(path: Path, rows: Sequence[Row]) -> Path:
    """As `slm2c distill` reads it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((row.text, row.label) for row in rows)])
    return path


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--kill", type=float, required=True, help="after so many seconds")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    args.output.mkdir(parents=True)
    train, valid = chosen(read_labelled(args.train), seed=1)
    files = write(args.output / "train.csv", train), write(args.output / "valid.csv", valid)
    command = [sys.executable, "-m", "slm2c", "distill", "--teacher", args.teacher, "--train", files[0]]
    command += ["--valid", files[1], *(["--quick"] if args.quick else []), "-o"]

    def seconds(name: str, limit: float | None = None) -> float:
        start = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):  # at which it sends SIGKILL
            subprocess.run([*command, args.output / name], check=True, stderr=subprocess.DEVNULL, timeout=limit)
        return time.monotonic() - start

    alone = seconds("alone")
    killed = seconds("killed", args.kill)
    resumed = seconds("killed")
    names = sorted(path.name for path in (args.output / "alone").iterdir())
    same = [x for x in names if (args.output / "alone" / x).read_bytes() == (args.output / "killed" / x).read_bytes()]
    print(
        f"\nleft alone {alone:.0f} s; killed after {killed:.0f} s, and {resumed:.0f} s more, {killed + resumed:.0f} s"
    )
    print(f"{len(same)} of {len(names)} files are the same")
    sys.exit(same != names)


if __name__ == "__main__":
    main()
