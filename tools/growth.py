"""How compile time and memory grow with the model: parameters, CPU seconds and peak megabytes of `slm2c build`.

    python tools/growth.py MODEL [MODEL ...]

A MODEL is an .onnx file or an exported folder. Each is built in a process of its own, without measuring the linked
image.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path


def measure(path: Path) -> dict[str, object]:
    """Compile one model in this process and say what it took."""
    from slm2c import board, compile

    compiled = compile.compile_model(path, board.load_board("generic-m7-512k-4m"), compile.Options(name="growing"))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "model": path.stem,
        "parameters": compiled.imported.parameters,
        "nodes": len(compiled.fused.graph.nodes),
        "samples": len(compiled.samples),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_megabytes": round(used.ru_maxrss / 1024),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.models[0])))
        return
    rows = []
    for model in args.models:
        out = subprocess.run(
            [sys.executable, __file__, "--one", model], check=True, capture_output=True, text=True
        ).stdout
        rows.append(json.loads(out))
    print(f"{'model':36}{'parameters':>12}{'nodes':>7}{'samples':>9}{'CPU s':>8}{'peak MB':>9}")
    for row in sorted(rows, key=lambda r: r["parameters"]):
        print(
            f"{row['model']:36}{row['parameters']:>12,}{row['nodes']:>7}{row['samples']:>9}{row['cpu_seconds']:>8}"
            f"{row['peak_megabytes']:>9}"
        )


if __name__ == "__main__":
    main()
