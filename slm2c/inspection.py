"""inspection: what a model is, what of it is not supported, and what it would take on each board."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slm2c import budget, importer
from slm2c.board import list_boards, load_board
from slm2c.compile import Options, model_files
from slm2c.emit import Texts
from slm2c.errors import CompileError, Problem
from slm2c.lower import Lowered, sketch, target_of
from slm2c.ops import TABLE
from slm2c.ops.base import Target
from slm2c.passes import Fused, fuse
from slm2c.text import WIDTH, table, title
from slm2c.tokenizer import read_tokenizer

_BASIS = "scheduled and laid out without calibration, which may make some tensors int16; without labels and code"


def inspect(model: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Facts of an .onnx file or an exported folder, as `--json` prints them.

    `error`, in the form of every command's errors, is there if something prevents a build, and lists all of it; what
    needs a supported model is null then. Raises CompileError where there is no graph to speak of.
    """
    imported = importer.load(model, shapes or None)
    problems = list(imported.problems)
    tokenizer, fused = None, None
    try:
        if path := model_files(model, Options()).tokenizer:
            tokenizer = read_tokenizer(path).to_bytes()
    except CompileError as error:
        problems += error.problems
    if not imported.problems:
        try:
            fused = fuse(imported.graph)
        except CompileError as error:
            problems += error.problems
    lowered = None if fused is None else sketch(fused, Texts(tokenizer), "model", Target(dsp=True))
    return {
        "producer": imported.producer,
        "opset": imported.opset,
        "inputs": [
            {"name": p.name, "dtype": p.dtype, "shape": list(p.shape), "role": _role(p.name, fused)}
            for p in imported.inputs
        ],
        "outputs": [{"name": p.name, "dtype": p.dtype, "shape": list(p.shape)} for p in imported.outputs],
        "parameters": imported.parameters,
        "onnx_operators": dict(imported.ops),
        "operators": None if fused is None else dict(sorted(Counter(n.op for n in fused.graph.nodes).items())),
        **_work(fused),
        "warnings": [str(warning) for warning in imported.warnings],
        "estimate": None if lowered is None else _estimate(lowered),
        "boards": None if lowered is None else [_fit(name, fused, lowered) for name in list_boards()],
        **({"error": CompileError(problems).to_json()} if problems else {}),
    }


def _role(name: str, fused: Fused | None) -> str | None:
    """What an input becomes in C."""
    if fused is None:
        return None
    interface = fused.interface
    if interface is not None and name in interface.masks:
        return "mask, replaced by the token count n"
    if name not in fused.graph.inputs:
        return "unused"
    if interface is not None and name in interface.lookups:
        return "token ids" if name == interface.lookups[0] else "ids"
    return "data"


def _work(fused: Fused | None) -> dict[str, Any]:
    if fused is None:
        return {"macs": None, "max_tokens": None, "macs_per_token": None, "length_fixed_by": None}
    macs = sum(TABLE[node.op].macs(node, fused.graph.tensors) for node in fused.graph.nodes)
    tokens = None if fused.interface is None else fused.interface.max_tokens
    return {
        "macs": macs,
        "max_tokens": tokens,
        "macs_per_token": macs // tokens if tokens else None,
        "length_fixed_by": fused.fixed_by or None,
    }


def _estimate(lowered: Lowered) -> dict[str, Any]:
    emitted, plan = lowered.emitted, lowered.plan
    return {
        "basis": _BASIS,
        "blob_bytes": len(emitted.blob),
        "sections": dict(emitted.sections),
        "arena_bytes": emitted.arena_bytes,
        "arena_lower_bound_bytes": plan.lower_bound_bytes + emitted.arena_bytes - plan.arena_bytes,
        "caller_bytes": budget.caller_bytes(lowered.program.graph, lowered.texts),
    }


def _fit(name: str, fused: Fused | None, lowered: Lowered) -> dict[str, Any]:
    """What a board needs, by the schedule that fits it if the fastest does not."""
    board = load_board(name)
    room = budget.arena_room(board, lowered.program.graph, lowered.texts)
    if fused is not None and lowered.chosen.arena_bytes > room:
        lowered = sketch(fused, lowered.texts, "model", target_of(board), room)
    found = budget.needs(board, lowered)
    return {
        "name": name,
        "fits": not budget.excess(board, found),
        "regions": [
            {"region": region, "needed": sum(n.bytes for n in group), "available": board.region(region).size}
            for region, group in budget.by_region(found).items()
        ],
    }


def render(facts: Mapping[str, Any]) -> str:
    """The facts as text."""
    parts = [table(_overview(facts), "l*")]
    before = [(op, count) for op, count in sorted(facts["onnx_operators"].items(), key=lambda x: (-x[1], x[0]))]
    after = sorted((facts["operators"] or {}).items(), key=lambda x: (-x[1], x[0]))
    parts += [title(f"operators: {sum(facts['onnx_operators'].values())} in the file"), _flow(before)]
    if facts["operators"] is not None:
        parts += [title(f"operators: {sum(facts['operators'].values())} after fusion"), _flow(after)]
    if "error" in facts:
        problems = [Problem(**p) for p in facts["error"]["nodes"]]
        parts += [title(f"not supported: {len(problems)}"), "\n".join(f"  {problem}" for problem in problems)]
    if facts["estimate"] is not None:
        estimate = facts["estimate"]
        rows = [(key, f"{estimate[f'{key}_bytes']:,} bytes") for key in ("blob", "arena", "caller")]
        parts += [title("estimate"), f"{table(rows, 'lr')}\n  ({estimate['basis']})", title("boards"), _boards(facts)]
    return "\n\n".join(parts)


def _overview(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("input", f"{p['name']}: {p['dtype']} {p['shape']}" + (f", {p['role']}" if p["role"] else ""))
        for p in facts["inputs"]
    ]
    rows += [("output", f"{p['name']}: {p['dtype']} {p['shape']}") for p in facts["outputs"]]
    rows.append(("parameters", f"{facts['parameters']:,}"))
    if facts["macs"] is not None:
        tokens = facts["max_tokens"]
        per = f" at {tokens} tokens, {facts['macs_per_token']:,} a token" if tokens else ""
        rows.append(("MACs", f"{facts['macs']:,}{per}"))
    if facts["max_tokens"]:
        fixed = facts["length_fixed_by"]
        rows.append(
            (
                "length",
                f"always {facts['max_tokens']} tokens, because of '{fixed}'"
                if fixed
                else f"1 to {facts['max_tokens']} tokens, a run costs what its own take",
            )
        )
    rows.append(("exporter", f"{facts['producer'] or 'unknown'}, opset {facts['opset']}"))
    return rows + [("warning", warning) for warning in facts["warnings"]]


def _flow(counts: list[tuple[str, int]]) -> str:
    """Names and counts, as many to a line as fit."""
    cells = [f"{count:>4} {name}" for name, count in counts]
    for columns in (4, 3, 2, 1):
        rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
        text = table([row + [""] * (columns - len(row)) for row in rows], "l" * columns, indent=0)
        if max(map(len, text.splitlines()), default=0) <= WIDTH:
            break
    return text


def _boards(facts: Mapping[str, Any]) -> str:
    rows = []
    for fit in facts["boards"]:
        uses = ", ".join(f"{r['region']} {100 * r['needed'] / r['available']:.0f} %" for r in fit["regions"])
        rows.append((fit["name"], "fits" if fit["fits"] else "too small", uses))
    return table(rows, "ll*")
