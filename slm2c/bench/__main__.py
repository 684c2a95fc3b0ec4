"""`python -m slm2c.bench`: measure, and write the documents or compare with them."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from slm2c.bench import check, render, suite
from slm2c.bench.results import Results, read, to_json
from slm2c.errors import CompileError

JSON = "performance.json"


def main() -> int:
    """The exit code: 1 if something has grown, or cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m slm2c.bench", description="Measure what the kernels cost.")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="the folder of the committed figures (docs)")
    parser.add_argument("--check", action="store_true", help="compare with the committed figures, and leave them")
    parser.add_argument(
        "--out", type=Path, help="where the new ones go (the folder of the committed ones; with --check: nowhere)"
    )
    args = parser.parse_args()
    out = args.out or (None if args.check else args.docs)
    try:
        committed = _committed(args.docs / JSON, args.check)
        with tempfile.TemporaryDirectory(prefix="slm2c-") as work:
            results = suite.run(Path(work), committed, _progress)
        if out is not None:
            write(out, results)
    except (CompileError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if not args.check:
        print(render.summary(results))
        return 0
    assert committed is not None
    comparison = check.compare(committed, results)
    print(check.report(comparison, str(args.docs / JSON)))
    return 1 if comparison.failed else 0


def _committed(path: Path, needed: bool) -> Results | None:
    try:
        return read(path)
    except CompileError as error:
        if needed:
            raise
        _progress(str(error))
        return None


def _progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def write(folder: Path, results: Results) -> None:
    """The documents, into a folder: all of them, or none if there is no room."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {JSON: to_json(results), "PERFORMANCE.md": render.document(results), **render.pictures(results)}
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=folder) as new:
        for name, text in files.items():
            (Path(new) / name).write_text(text, encoding="utf-8", newline="\n")
        for name in files:
            os.replace(Path(new) / name, folder / name)


if __name__ == "__main__":
    sys.exit(main())
