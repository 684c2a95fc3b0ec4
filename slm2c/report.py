"""report: what a build costs and what was decided, as report.json and as tables.

`flash` and `sram` hold the bytes on the board. What was measured with tools of this machine stands under `measured`, with
the tools' versions; code_bytes and stack_bytes come from there and are null without the tools. The rest is the same on
every machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slm2c import __version__, budget
from slm2c.board import Board
from slm2c.compile import Compiled
from slm2c.errors import CompileError, Problem
from slm2c.measure import Footprint
from slm2c.ops import TABLE
from slm2c.text import share, table, title

FILE = "report.json"
_LISTED = 12  # rows of a table that may be long


def build(compiled: Compiled, measured: Footprint | str) -> dict[str, Any]:
    """The content of report.json. `measured` is the footprint on the board, or why there is none."""
    lowered, board = compiled.lowered, compiled.board
    plan, emitted, graph = lowered.plan, lowered.emitted, lowered.program.graph
    known = measured if isinstance(measured, Footprint) else None
    code = None if known is None else known.code
    kept = emitted.arena_bytes - plan.arena_bytes  # ids and scores of a text model, beside the plan
    return {
        "slm2c": __version__,
        "name": compiled.name,
        "flash": {"blob_bytes": len(emitted.blob), "code_bytes": code, "sections": dict(emitted.sections)},
        "sram": {
            "arena_bytes": emitted.arena_bytes,
            "arena_lower_bound_bytes": plan.lower_bound_bytes + kept,
            "arena_is_optimal": plan.optimal,
            "stack_bytes": None if known is None else known.stack.bytes,
            "caller_bytes": budget.caller_bytes(lowered),
        },
        "board": {
            "name": board.name,
            "description": board.description,
            "regions": _regions(board, compiled, code or 0),
        },
        "model": _model(compiled),
        "calibration": {
            "samples": len(compiled.samples),
            "source": None if compiled.calibration is None else compiled.calibration.name,
            "method": compiled.method,
            "output_sqnr_db": {name: _round(db) for name, db in compiled.methods.items()},
        },
        "layers": [
            {
                "node": node.name,
                "op": node.op,
                "output": node.outputs[0],
                "kernel": call.symbol or None,
                "macs": macs,
                "weight_bytes": emitted.weights.get(node.outputs[0], 0),
            }
            for node, call, macs in zip(graph.nodes, lowered.program.calls, _macs(compiled), strict=True)
        ],
        "tensors": _tensors(compiled),
        "memory": {
            "placements": [
                {
                    "buffer": p.buffer.name,
                    "offset": p.offset,
                    "bytes": p.buffer.size,
                    "first": p.buffer.first,
                    "last": p.buffer.last,
                }
                for p in plan.placements
            ],
            "peak": {
                "call": plan.peak.step,
                "node": graph.nodes[plan.peak.step].name if graph.nodes else "",
                "bytes": plan.peak.bytes,
                "buffers": [b.name for b in plan.peak.buffers],
            },
        },
        "measured": _measured(measured),
    }


def write(folder: Path, report: Mapping[str, Any]) -> None:
    """Write report.json."""
    (folder / FILE).write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """report.json of an output folder. Raises CompileError if it is none."""
    try:
        report: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if report["slm2c"] != __version__:
            raise ValueError(f"its report is of slm2c {report['slm2c']}, this is {__version__}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CompileError(
            Problem(
                str(folder),
                "",
                f"is not the output of `slm2c build`: {error}",
                "name a folder that `slm2c build ... -o DIR` made",
            )
        ) from error
    return report


def _model(compiled: Compiled) -> dict[str, Any]:
    imported, interface = compiled.imported, compiled.fused.interface
    return {
        "producer": imported.producer,
        "opset": imported.opset,
        "parameters": imported.parameters,
        "macs": sum(_macs(compiled)),
        "max_tokens": None if interface is None else interface.max_tokens,
        "length_fixed_by": compiled.fused.fixed_by or None,
        "inputs": [{"name": p.name, "dtype": p.dtype, "shape": list(p.shape)} for p in imported.inputs],
        "outputs": [{"name": p.name, "dtype": p.dtype, "shape": list(p.shape)} for p in imported.outputs],
        "tokenizer": compiled.tokenizer is not None,
        "labels": None if compiled.labels is None else len(compiled.labels),
        "warnings": [str(warning) for warning in imported.warnings],
    }


def _macs(compiled: Compiled) -> list[int]:
    """Multiply-accumulates of each node at the maximum token count."""
    graph = compiled.fused.graph
    return [TABLE[node.op].macs(node, graph.tensors) for node in graph.nodes]


def _regions(board: Board, compiled: Compiled, code: int) -> list[dict[str, Any]]:
    found = budget.by_region(budget.needs(board, compiled.lowered, code))
    return [
        {
            "name": region.name,
            "kind": region.kind,
            "bytes": region.size,
            "used": {need.what: need.bytes for need in found.get(region.name, ())},
        }
        for region in board.memory
    ]


def _tensors(compiled: Compiled) -> list[dict[str, Any]]:
    """What was chosen for each activation, and why."""
    graph, rows = compiled.quantized.graph, []
    producers = graph.producers()
    for name, choice in compiled.quantized.choices.items():
        tensor = graph.tensors[name]
        assert tensor.quant is not None
        maker = producers.get(name)
        rows.append(
            {
                "tensor": name,
                "node": maker.name if maker else "",
                "op": maker.op if maker else "input",
                "shape": list(tensor.shape),
                "dtype": choice.dtype,
                "method": choice.method,
                "reason": choice.reason,
                "low": _round(choice.low),
                "high": _round(choice.high),
                "scale": _round(tensor.quant.scale),
                "zero_point": tensor.quant.zero_point,
                "sqnr_db": _round(choice.sqnr_db, 4),
            }
        )
    return rows


def _measured(measured: Footprint | str) -> dict[str, Any]:
    if isinstance(measured, str):
        return {"reason": measured}
    stack = measured.stack
    return {
        "compiler": measured.compiler,
        "image_flash_bytes": measured.image.flash,
        "stack_path": [{"function": function, "bytes": size} for function, size in stack.path],
        "stack_unbounded": list(stack.unbounded),
    }


def _round(value: float, digits: int = 7) -> float:
    """As many digits as a float32 has: what differs behind them is not a fact of the model."""
    assert np.isfinite(value), value
    return float(f"{value:.{digits}g}")


def summary(report: Mapping[str, Any]) -> str:
    """The bytes, and how they came about: what `build` ends with."""
    flash, sram, board = report["flash"], report["sram"], report["board"]
    bound = sram["arena_lower_bound_bytes"]
    gap = (
        "the lower bound"
        if sram["arena_bytes"] == bound
        else (f"lower bound {bound:,}" + (", no smaller one exists" if sram["arena_is_optimal"] else ""))
    )
    sections = ", ".join(f"{name} {size:,}" for name, size in flash["sections"].items())
    missing = f"not measured: {report['measured']['reason']}" if "reason" in report["measured"] else ""
    code = missing or f"linked by {report['measured']['compiler'].split(' ')[0]}, without C library"
    unbounded = report["measured"].get("stack_unbounded")
    stack = missing or (f"no bound: {unbounded[0]}" if unbounded else "worst case, without interrupts")
    rows = [
        ("flash", "blob", _bytes(flash["blob_bytes"]), sections),
        ("", "code", _bytes(flash["code_bytes"]), code),
        ("SRAM", "arena", _bytes(sram["arena_bytes"]), gap),
        ("", "stack", _bytes(sram["stack_bytes"]), stack),
    ]
    if sram["caller_bytes"]:
        rows.append(("", "caller", _bytes(sram["caller_bytes"]), "inputs and outputs"))
    used = [
        (
            region["name"],
            share(sum(region["used"].values()), region["bytes"]),
            f"{_percent(region)} % of",
            _bytes(region["bytes"]),
        )
        for region in board["regions"]
        if region["used"]
    ]
    return "\n".join(
        [
            f"{report['name']} for {board['name']}",
            "",
            table(rows, "llr*"),
            "",
            table(used, "llrr"),
            "",
            calibration(report),
        ]
    )


def calibration(report: Mapping[str, Any]) -> str:
    """One or two lines on where the ranges come from."""
    facts = report["calibration"]
    scores = ", ".join(f"{name} {db:.1f} dB" for name, db in facts["output_sqnr_db"].items())
    if facts["source"] is None:
        return (
            f"  not calibrated: no data was given, so {facts['samples']} random inputs set the ranges ({facts['method']}).\n"
            "  Accuracy was not measured and may be poor; give real inputs with --calib FILE."
        )
    return f"  calibrated on {facts['samples']} samples of {facts['source']}: {facts['method']} (outputs: {scores})"


def render(report: Mapping[str, Any]) -> str:
    """All of the report that fits a terminal; report.json has the rest."""
    parts = [
        summary(report),
        title("model"),
        _render_model(report["model"]),
        title("memory plan"),
        _render_memory(report),
        title("layers by bytes of weights"),
        _render_layers(report["layers"], report["flash"]["blob_bytes"]),
        title("tensors by noise"),
        _render_tensors(report["tensors"]),
    ]
    if path := report["measured"].get("stack_path"):
        parts += [title("deepest stack"), table([(row["function"], row["bytes"]) for row in path], "lr")]
    return "\n\n".join(parts)


def _render_model(model: Mapping[str, Any]) -> str:
    tokens = model["max_tokens"]
    macs = f"{model['macs']:,}" + (f" at {tokens} tokens, {model['macs'] // tokens:,} a token" if tokens else "")
    rows: list[Sequence[object]] = [("parameters", f"{model['parameters']:,}"), ("MACs", macs)]
    rows += [
        (kind, f"{port['name']}: {port['dtype']} {port['shape']}")
        for kind, ports in (("input", model["inputs"]), ("output", model["outputs"]))
        for port in ports
    ]
    rows += [("warning", warning) for warning in model["warnings"]]
    return table(rows, "l*")


def _render_memory(report: Mapping[str, Any]) -> str:
    placements, peak = report["memory"]["placements"], report["memory"]["peak"]
    largest = sorted(placements, key=lambda p: (-p["bytes"], p["offset"]))
    rows = [
        (
            p["buffer"],
            p["offset"],
            p["offset"] + p["bytes"],
            p["bytes"],
            f"{p['first']}..{p['last']}",
            "peak" if p["buffer"] in peak["buffers"] else "",
        )
        for p in largest[:_LISTED]
    ]
    return "\n".join(
        [
            table(rows, "*rrrll", ("buffer", "from", "to", "bytes", "calls", "")),
            *_more(len(placements)),
            f"  peak: {peak['bytes']:,} bytes in call {peak['call']}",
        ]
    )


def _render_layers(layers: Sequence[Mapping[str, Any]], blob: int) -> str:
    largest = sorted(layers, key=lambda layer: -layer["weight_bytes"])
    rows = [
        (
            layer["node"],
            layer["op"],
            layer["weight_bytes"],
            f"{100 * layer['weight_bytes'] / blob:.1f} %",
            layer["macs"],
        )
        for layer in largest[:_LISTED]
        if layer["weight_bytes"]
    ]
    return "\n".join([table(rows, "*lrrr", ("node", "operator", "bytes", "of blob", "MACs")), *_more(len(layers))])


def _render_tensors(tensors: Sequence[Mapping[str, Any]]) -> str:
    noisiest = sorted(tensors, key=lambda t: t["sqnr_db"])
    rows = [
        (
            t["node"] or t["tensor"],
            t["op"],
            t["dtype"],
            t["method"],
            f"{t['low']:.3g}",
            f"{t['high']:.3g}",
            f"{t['sqnr_db']:.1f}",
            t["reason"],
        )
        for t in noisiest[:_LISTED]
    ]
    header = ("node", "operator", "type", "range by", "low", "high", "SQNR dB", "why")
    wide = sum(t["dtype"] == "i16" for t in tensors)
    return "\n".join(
        [table(rows, "*lllrrr*", header), *_more(len(tensors)), f"  {len(tensors)} tensors, {wide} of them int16"]
    )


def _more(count: int) -> list[str]:
    return [f"  ... and {count - _LISTED} more, see `slm2c report --json`"] if count > _LISTED else []


def _bytes(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _percent(region: Mapping[str, Any]) -> str:
    return f"{100 * sum(region['used'].values()) / region['bytes']:.1f}"
