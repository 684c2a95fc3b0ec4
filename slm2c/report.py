"""report: what a build costs and what was decided, as report.json. summary.py shows it as text.

`flash` and `sram` hold the bytes on the board. What was measured with tools of this machine stands under `measured`,
with the tools' versions; code_bytes, stack_bytes and what the board's regions hold come from there. Without the tools
the first two are null, and the regions hold what is expected. The rest is the same on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slm2c import __version__, budget, costs, image, seal, timing
from slm2c.board import Board
from slm2c.compile import Compiled
from slm2c.folders import replaced
from slm2c.ir import Graph
from slm2c.lower import Schedule
from slm2c.measure import Emulated, Footprint
from slm2c.ops import TABLE
from slm2c.validate import tensor_numbers

FILE = "report.json"


def build(compiled: Compiled, measured: Footprint | str) -> dict[str, Any]:
    """The content of report.json. `measured` is the footprint on the board, or why there is none."""
    lowered, board = compiled.lowered, compiled.board
    plan, emitted, graph = lowered.plan, lowered.emitted, lowered.program.graph
    known = measured if isinstance(measured, Footprint) else None
    code = None if known is None else known.image.code
    counted = known.emulated if known and isinstance(known.emulated, Emulated) else None
    lengths = [length.rows for length in timing.lengths(compiled)]
    instructions = [costs.instructions_by_output(lowered.program, tokens) for tokens in lengths]
    kept = emitted.arena_bytes - plan.arena_bytes  # ids and scores of a text model, beside the plan
    facts = {
        "slm2c": __version__,
        "name": compiled.name,
        "flash": {"blob_bytes": len(emitted.blob), "code_bytes": code, "sections": dict(emitted.sections)},
        "sram": {
            "arena_bytes": emitted.arena_bytes,
            "arena_lower_bound_bytes": plan.lower_bound_bytes + kept,
            "arena_is_optimal": plan.optimal,
            "stack_bytes": None if known is None else known.stack.bytes,
            "caller_bytes": budget.caller_bytes(graph, lowered.texts),
        },
        "board": {
            "name": board.name,
            "description": board.description,
            "regions": _regions(board, compiled, known),
        },
        "model": _model(compiled),
        "cost": timing.cost(compiled, counted),
        "calibration": {
            "samples": len(compiled.samples),
            "source": None if compiled.calibration is None else compiled.calibration.name,
            "method": compiled.method,
            "judged": compiled.judged,
            "agreeing": compiled.agreeing,
            "output_sqnr_db": {name: _round(db) for name, db in compiled.methods.items()},
        },
        "evaluation": None,  # until `slm2c eval` measures it
        "schedule": _schedule(compiled),
        "layers": [
            {
                "node": node.name,
                "op": node.op,
                "output": node.outputs[0],
                "kernel": call.symbol or None,
                "macs": macs,
                "instructions": [round(found.get(node.outputs[0], 0)) for found in instructions],
                "weight_bytes": emitted.weights.get(node.outputs[0], 0),
            }
            for node, call, macs in zip(graph.nodes, lowered.program.calls, _macs(graph), strict=True)
        ],
        "tensors": _tensors(compiled),
        "memory": _memory(compiled),
        "measured": _measured(measured, compiled.name),
    }
    return seal.signed(facts)


def write(folder: Path, report: Mapping[str, Any]) -> None:
    """Write report.json, or replace it."""
    with replaced(folder / FILE) as part:
        part.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """report.json of an output folder. Raises CompileError as `seal.read`."""
    return seal.read(folder, FILE)


def _model(compiled: Compiled) -> dict[str, Any]:
    imported, interface = compiled.imported, compiled.fused.interface
    return {
        "producer": imported.producer,
        "opset": imported.opset,
        "parameters": imported.parameters,
        "macs": sum(_macs(compiled.fused.graph)),
        "max_tokens": None if interface is None else interface.max_tokens,
        "length_fixed_by": compiled.fused.fixed_by or None,
        "inputs": [{"name": p.name, "dtype": p.dtype, "shape": list(p.shape)} for p in imported.inputs],
        "outputs": [{"name": p.name, "dtype": p.dtype, "shape": list(p.shape)} for p in imported.outputs],
        "tokenizer": compiled.tokenizer is not None,
        "labels": None if compiled.labels is None else len(compiled.labels),
        "warnings": [str(warning) for warning in imported.warnings],
    }


def _schedule(compiled: Compiled) -> dict[str, Any]:
    """How the calls are ordered and tiled, what that is expected to take at the maximum token count, and what was
    traded for a smaller arena: the same figures of the fastest schedule.
    """
    lowered = compiled.lowered

    def facts(way: Schedule) -> dict[str, Any]:
        return {
            "rows_of_a_tile": way.tiling.rows,
            "groups_of_heads": way.tiling.groups,
            "loops": len(way.program.loops),
            "arena_bytes": way.arena_bytes,
            "instructions": way.instructions,
            "weight_bytes_read": way.weight_bytes,
        }

    return {**facts(lowered.chosen), "fastest": facts(lowered.fastest)}


def _macs(graph: Graph) -> list[int]:
    """Multiply-accumulates of each node at the maximum token count."""
    return [TABLE[node.op].macs(node, graph.tensors) for node in graph.nodes]


def _regions(board: Board, compiled: Compiled, known: Footprint | None) -> list[dict[str, Any]]:
    """The board's memories and what lies in them, by purpose: as linked, else as expected."""
    caller = budget.caller_bytes(compiled.lowered.program.graph, compiled.lowered.texts)
    if known is not None:
        found = image.used(known.image, board, caller)
    else:
        needs = budget.by_region(budget.needs(board, compiled.lowered))
        found = {name: {need.what: need.bytes for need in group} for name, group in needs.items()}
    return [
        {"name": region.name, "kind": region.kind, "bytes": region.size, "used": found.get(region.name, {})}
        for region in board.memory
    ]


def _names(compiled: Compiled) -> dict[str, str]:
    """Names of tensors for a reader: those of the variables in C, of the model for inputs; "" of what is not stored."""
    graph = compiled.lowered.program.graph
    stored = {name: name if name in graph.inputs else f"t{number}" for number, name in tensor_numbers(graph).items()}
    return dict.fromkeys(compiled.quantized.graph.tensors, "") | stored


def _tensors(compiled: Compiled) -> list[dict[str, Any]]:
    """What was chosen for each activation, and why."""
    graph, names, rows = compiled.quantized.graph, _names(compiled), []
    producers = graph.producers()
    for name, choice in compiled.quantized.choices.items():
        tensor, maker = graph.tensors[name], producers.get(name)
        assert tensor.quant is not None
        source = choice.reason.removeprefix("as ")
        row = {
            "tensor": names[name],
            "node": maker.name if maker else "",
            "op": maker.op if maker else "input",
            "shape": list(tensor.shape),
            "dtype": choice.dtype,
            "method": choice.method,
            "reason": f"as {names[source]}" if source in names else choice.reason,
            "low": _round(choice.low),
            "high": _round(choice.high),
            "scale": _round(tensor.quant.scale),
            "zero_point": tensor.quant.zero_point,
            "sqnr_db": _round(choice.sqnr_db, 4),
        }
        rows.append(row)
    return rows


def _memory(compiled: Compiled) -> dict[str, Any]:
    """Where every buffer of the arena lies; `first` and `last` are the calls that it lives through."""
    plan, program, names = compiled.lowered.plan, compiled.lowered.program, _names(compiled)
    owners = {node.outputs[0]: (names[node.outputs[0]], node.name) for node in program.graph.nodes}
    owners |= {buffer: (f"scratch of {owners[out][0]}", owners[out][1]) for out, buffer in program.scratch.items()}
    placements = []
    for p in plan.placements:
        tensor, node = owners[p.buffer.name]
        place = {"offset": p.offset, "bytes": p.buffer.size, "first": p.buffer.first, "last": p.buffer.last}
        placements.append({"tensor": tensor, "node": node, **place})
    return {
        "arena_bytes": plan.arena_bytes,
        "lower_bound_bytes": plan.lower_bound_bytes,
        "optimal": plan.optimal,
        "search_steps": plan.steps,
        "peak": {"call": plan.peak.step, "tensors": [owners[b.name][0] for b in plan.peak.buffers]},
        "placements": placements,
    }


def _measured(measured: Footprint | str, name: str) -> dict[str, Any]:
    if isinstance(measured, str):
        return {"reason": measured}
    emulated = measured.emulated
    known = None if isinstance(emulated, str) else emulated
    return {
        "compiler": measured.compiler,
        "emulated": {"reason": emulated} if known is None else {"board": known.core, "emulator": known.emulator},
        "sections": [
            {"section": p.section, "region": p.region, "address": p.address, "bytes": p.bytes, "load": p.load}
            for p in measured.image.pieces
        ],
        "code": [{"file": file, "bytes": size} for file, size in measured.image.files.items()],
        "stacks": [
            {
                "entry": entry,
                "bytes": bound.bytes,
                "measured_bytes": None if known is None else known.stack(entry.removeprefix(f"{name}_")),
                "path": [{"function": function, "bytes": size} for function, size in bound.path],
                "unbounded": list(bound.unbounded),
            }
            for entry, bound in measured.stacks.items()
        ],
    }


def _round(value: float, digits: int = 7) -> float:
    """As many digits as a float32 has: what differs behind them is not a fact of the model."""
    assert np.isfinite(value), value
    return float(f"{value:.{digits}g}")
