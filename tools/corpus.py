"""One command over a folder of ONNX models with a manifest: expected against actual outcome, and how far each rung
holds.

    python tools/corpus.py ../shared/models [--only ID] [--family encoder] [--json table.json]

For every model: import and fuse; the fused float graph against the stored onnxruntime outputs (<= 1e-4 of the
output's scale); quantize on the stored inputs; the generated C on the host against the integer reference (==); the
integer outputs against onnxruntime's (signal-to-noise ratio). The manifest's format is described in its own "doc"
key.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slm2c import board, compile, importer, interpret, output, passes, samples, validate
from slm2c.errors import CompileError
from slm2c.fixedpoint import dequantize
from slm2c.ir import Array, Graph, Tensor
from slm2c.quantize import run_int

TOLERANCE = 1e-4  # of the fused float graph, relative to the largest stored output


@dataclass(frozen=True)
class Row:
    """The outcome for one model. error: relative to the output's scale; sqnr_db: of the integer outputs."""

    id: str
    family: str
    expected: str
    actual: str  # supported, error, wrong, crash
    ok: bool
    float_error: float | None = None
    sqnr_db: float | None = None
    agreement: float | None = None
    mismatches: int | None = None
    seconds: float = 0.0
    message: str = ""


def check(entry: Mapping[str, Any], root: Path, host: bool = True) -> Row:
    """Try one entry of the manifest."""
    start = time.perf_counter()
    expected = entry["expected"]["outcome"]
    try:
        actual, facts = _try(entry, root, host)
    except CompileError as error:
        actual, facts = "error", {"message": str(error).splitlines()[0]}
    except Exception:  # noqa: BLE001 - the table is there to show crashes
        actual, facts = "crash", {"message": traceback.format_exc(limit=-3)}
    ok = actual == expected or (actual in ("supported", "error") and expected in ("stretch", "error_or_supported"))
    if entry["klass"] not in ("encoder", "mlp", "op", "bad"):  # decoders, cnn, rnn: a clear error will do for now
        ok = actual in ("supported", "error")
    return Row(entry["id"], entry["family"], expected, actual, ok, seconds=time.perf_counter() - start, **facts)


def _try(entry: Mapping[str, Any], root: Path, host: bool) -> tuple[str, dict[str, Any]]:
    path = root / entry["file"]
    shapes = (
        {k: tuple(v) for k, v in (entry.get("suggest_shapes") or {}).items()}
        if entry["expected"]["needs_shapes"]
        else {}
    )
    imported = importer.load(path, shapes)
    importer.require_supported(imported)
    fused = passes.fuse(imported.graph)
    stored = np.load(root / entry["samples"]) if entry.get("samples") else None
    arrays = {} if stored is None else {k[3:]: stored[k] for k in stored.files if k.startswith("in/")}
    given = (
        samples.from_arrays(arrays, fused.graph, fused.interface, entry["id"])
        if stored is not None and all(x in arrays for x in fused.graph.inputs)
        else []
    )
    outputs = (
        []
        if stored is None
        else [
            samples.real(stored[k], fused.graph.tensors[x].quant)
            for k, x in zip([k for k in stored.files if k.startswith("out/")], fused.graph.outputs, strict=False)
        ]
    )
    facts: dict[str, Any] = {}
    finite = [i for i in range(len(given)) if all(np.isfinite(o[i]).all() for o in outputs)]
    if finite and len(outputs) == len(fused.graph.outputs):
        facts["float_error"] = max(
            _distance(fused.graph, interpret.run_fused(fused.graph, given[i]), [o[i] for o in outputs]) for i in finite
        )
    with tempfile.TemporaryDirectory() as work:
        calibration = Path(work) / "calib.npz"
        options = compile.Options(name="model_under_test", shapes=shapes)
        if given:
            np.savez(calibration, **arrays)
            options = compile.Options(name="model_under_test", shapes=shapes, calibration=calibration)
        compiled = compile.compile_model(path, board.load_board("generic-m7-512k-4m"), options)
        graph = compiled.lowered.program.graph
        if finite and len(outputs) == len(graph.outputs):
            got = [run_int(graph, given[i]) for i in finite]
            real = [[dequantize(g[x], graph.tensors[x].quant) for x in graph.outputs] for g in got]
            facts["sqnr_db"] = _sqnr(graph, real, [[o[i] for o in outputs] for i in finite])
            facts["agreement"] = _agreement(
                graph.tensors[graph.outputs[0]], [r[0] for r in real], [outputs[0][i] for i in finite]
            )
        if host:
            folder = Path(work) / "out"
            folder.mkdir()
            output.write(folder, compiled)
            some = [*given[:4], *samples.synthetic(fused.graph, fused.interface, 4)]
            facts["mismatches"] = validate.host_rung(folder, compiled.name, graph, some, Path(work)).mismatches
    wrong = (facts.get("float_error", 0.0) > TOLERANCE and not _quantized(entry)) or facts.get("mismatches")
    return "wrong" if wrong else "supported", facts


def _quantized(entry: Mapping[str, Any]) -> bool:
    """Whether the file itself computes with rounded activations, so that onnxruntime's outputs hold its noise."""
    return (
        entry["family"] == "quantized"
        or any("uant" in op or "Integer" in op or op == "Round" for op in entry["ops"])
        or "fp16" in entry["id"]
    )


def _rows(stored: Array, tensor: Tensor, got: Array) -> Array:
    """The stored output of a padded run, cut to the actual tokens."""
    full = stored.reshape(tensor.shape)
    return (
        full
        if tensor.token_axis is None
        else np.take(full, np.arange(got.shape[tensor.token_axis]), axis=tensor.token_axis)
    )


def _agreement(tensor: Tensor, real: Sequence[Array], stored: Sequence[Array]) -> float:
    """Share of the vectors along the last axis whose largest element is the same."""
    same = [np.argmax(g, axis=-1) == np.argmax(_rows(w, tensor, g), axis=-1) for g, w in zip(real, stored, strict=True)]
    return float(np.mean(np.concatenate([s.ravel() for s in same])))


def _distance(graph: Graph, values: Mapping[str, Array], stored: Sequence[Array]) -> float:
    worst = 0.0
    for name, want in zip(graph.outputs, stored, strict=True):
        error = np.abs(values[name] - _rows(want, graph.tensors[name], values[name])).max(initial=0)
        worst = max(worst, float(error / max(1e-6, float(np.abs(want).max(initial=0)))))
    return worst


def _sqnr(graph: Graph, real: Sequence[Sequence[Array]], stored: Sequence[Sequence[Array]]) -> float:
    signal = noise = 0.0
    for got, want in zip(real, stored, strict=True):
        for name, g, w in zip(graph.outputs, got, want, strict=True):
            reference = _rows(w, graph.tensors[name], g).astype(np.float64)
            signal += float(np.square(reference).sum())
            noise += float(np.square(g - reference).sum())
    return 120.0 if noise <= signal * 1e-12 else float(10 * np.log10(max(signal, 1e-30) / noise))


def render(rows: Sequence[Row]) -> str:
    """The table as text, and its sums."""

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    head = ("", "model", "expected", "actual", "float err", "SQNR dB", "argmax", "C differs", "s")
    form = "{:4}{:44}{:20}{:11}{:>10}{:>9}{:>8}{:>11}{:>6}"
    lines = [form.format(*head)]
    for row in rows:
        numbers = (
            number(row.float_error, ".1e"),
            number(row.sqnr_db, ".1f"),
            number(row.agreement, ".2f"),
            number(row.mismatches, "d"),
            f"{row.seconds:.1f}",
        )
        lines.append(form.format("ok" if row.ok else "NO", row.id, row.expected, row.actual, *numbers))
        if row.message:
            lines.append(f"      {row.message[:400]}" if row.actual != "crash" else row.message)
    counts = {kind: sum(row.actual == kind for row in rows) for kind in ("supported", "error", "wrong", "crash")}
    lines.append(f"{sum(r.ok for r in rows)} of {len(rows)} as expected: {counts}")
    return "\n".join(lines)


def main() -> int:
    """Run from the command line; exit code 1 if any outcome is not as expected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--family")
    parser.add_argument("--klass", nargs="*")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-host", action="store_true")
    args = parser.parse_args()
    entries = json.loads((args.models / "manifest.json").read_text(encoding="utf-8"))["models"]
    rows = []
    for entry in entries:
        if (
            (args.only and entry["id"] not in args.only)
            or (args.family and entry["family"] != args.family)
            or (args.klass and entry["klass"] not in args.klass)
        ):
            continue
        rows.append(check(entry, args.models, not args.no_host))
        print(f"\r{len(rows)} {entry['id']:50}", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    print(render(rows))
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n", encoding="utf-8")
    return 0 if all(r.ok for r in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
