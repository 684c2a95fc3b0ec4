"""show: what commands found, as text for a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slm2c.board import Board
from slm2c.errors import printable
from slm2c.evaluate import Answer, Evaluation
from slm2c.text import duration, table
from slm2c.validate import Ladder

_WORST = 10  # disagreements that are shown


def ladder(found: Ladder) -> str:
    """The rungs of a validation, the first difference of each that has one, and what was left out."""
    rows = [
        ("equal" if r.mismatches == 0 else "DIFFERS", r.name, r.samples, r.tensors, r.mismatches) for r in found.rungs
    ]
    lines = [table(rows, "llrrr", ("", "C on", "samples", "tensors", "mismatches"))]
    for rung in found.rungs:
        if (d := rung.first) is not None:
            where = f"sample {d.sample}, {d.op} '{printable(d.node)}', tensor {printable(d.tensor)}{list(d.index)}"
            lines.append(f"  {rung.name}, first difference: {where}: expected {d.expected}, got {d.got}")
        if rung.kept is not None:
            lines.append(f"  {rung.name}, image, trace and log: {printable(rung.kept)}")
    lines += [f"  {name} was left out: {reason}" for name, reason in found.skipped.items()]
    return "\n".join(lines)


def renode(found: Mapping[str, str]) -> str:
    """What was written for Renode, and how to run it."""
    there = shlex.quote(printable(found["output"]))
    rows = [(what, found[what]) for what in ("board", "image", "platform", "script")]
    return f"{table(rows, 'll')}\n\nwrote {printable(found['output'])}; next: cd {there} && renode {found['script']}"


def evaluation(found: Evaluation) -> str:
    """Accuracies, agreement, and the disagreements of which the float model is surest."""
    rows = [
        ("texts", f"{found.n:,}"),
        ("accuracy of the C", f"{found.accuracy_c:.2%}"),
        ("accuracy in float", f"{found.accuracy_float:.2%}"),
        ("agreement", f"{found.agreement:.2%}"),
    ]
    worst = [
        (d.text, d.expected, f"{d.float_label} {d.float_score:.2f}", f"{d.c_label} {d.c_score:.2f}")
        for d in found.worst[:_WORST]
    ]
    if not worst:
        return table(rows, "lr")
    shown = f"{len(found.worst)} disagreements" + (f", the {_WORST} worst" if len(found.worst) > _WORST else "")
    return f"{table(rows, 'lr')}\n\n{shown}:\n{table(worst, '****', ('text', 'expected', 'float', 'C'))}"


def answers(texts: Sequence[str], found: Sequence[Answer]) -> str:
    """Text, label and score."""
    return table([(t, a.label, f"{a.score:.2f}") for t, a in zip(texts, found, strict=True)], "*lr")


def boards(found: Sequence[Board]) -> str:
    """A line a board."""
    rows = [
        (b.name, b.cpu, _mhz(b), f"{b.flash_bytes // 1024:,} KB", f"{b.ram_bytes // 1024:,} KB", _emulator(b))
        for b in found
    ]
    return table(rows, "llrrrl", ("board", "core", "clock", "flash", "RAM", "emulated"))


def board(found: Board) -> str:
    """All facts of one board."""
    users: dict[str, list[str]] = {}
    for what, regions in asdict(found.placement).items():
        for i, region in enumerate(regions if isinstance(regions, tuple) else [regions]):
            users.setdefault(region, []).append(what if i == 0 else f"or {what}")
    has = found.features
    facts = [
        ("core", f"{found.cpu} at {_mhz(found)}"),
        ("features", f"DSP {'yes' if has.dsp else 'no'}, MVE {'yes' if has.mve else 'no'}, FPU {has.fpu}"),
        ("flags", " ".join(found.flags)),
        ("stack", f"{found.stack_size:,} bytes"),
        ("console", _console(found)),
        ("emulated", _emulator(found)),
    ]
    memory = [(r.name, r.kind, f"{r.origin:#010x}", r.size, ", ".join(users.get(r.name, []))) for r in found.memory]
    regions = table(memory, "lllrl", ("memory", "kind", "origin", "bytes", "holds"))
    return f"{found.name}: {printable(found.description)}\n\n{table(facts, 'l*')}\n\n{regions}"


def _mhz(found: Board) -> str:
    return f"{found.clock_hz / 1_000_000:g} MHz"


def _console(board: Board) -> str:
    console = board.console
    return console.kind + (f" at {console.base:#010x}, {console.baud:,} baud" if console.base is not None else "")


def _emulator(found: Board) -> str:
    if found.emulator:
        return f"QEMU {found.emulator.machine}"
    return f"as {found.emulated_by}" if found.emulated_by else "no"


def written(path: Path, shapes: Mapping[str, Sequence[int]]) -> str:
    """The arrays that `run` wrote."""
    return f"{table([(name, list(shape)) for name, shape in shapes.items()], 'll')}\nwrote {printable(str(path))}"


_CLOSE = 0.9
_FAR = """The student is far from its teacher. It may need more steps (data.steps, distil.epochs), none of
them for hidden states (hidden = 0 in warm_up and distil), or to be larger: see --student.

"""


def student(folder: Path, facts: Mapping[str, Any], seconds: float) -> str:
    """What `slm2c distill` made in so many seconds, and what to do with it."""
    made, teacher, finish = facts["student"], facts["teacher"], facts["finish"]
    of_teacher = "parameters" if made["of_teacher"] is None else f"{made['of_teacher']:.1%} of that"
    rows = [
        ("teacher", f"{teacher['accuracy']:.2%}", teacher["parameters"], "parameters"),
        ("student", f"{made['accuracy_float']:.2%}", made["parameters"], of_teacher),
        ("in integers", f"{made['accuracy_integer']:.2%}", None, f"the same label for {made['agreement']:.2%}"),
    ]
    if finish:
        points = 100 * (finish["after"]["accuracy_integer"] - finish["before"]["accuracy_integer"])
        rows.append(
            ("finish", f"{points:+.2f}", None, "points in integers: " + ("kept" if finish["kept"] else "left out"))
        )
    there = shlex.quote(printable(str(folder)))
    hints = [
        (f"slm2c inspect {there}", "what it is, and which boards it fits"),
        (f"slm2c build {there} -o out --board generic-m7-512k-4m", "compile it"),
    ]
    head = f"right on {facts['sentences']['valid']:,} validation sentences, by which the best epoch was chosen:"
    took = f"wrote {printable(str(folder))} in {duration(seconds)}, curves in curves.svg; next:"
    far = made["of_teacher"] is not None and made["of_teacher"] < _CLOSE
    return f"{head}\n\n{table(rows, 'lrrl')}\n\n{_FAR if far else ''}{took}\n{table(hints, 'll')}"


def compressed(folder: Path, facts: Mapping[str, Any], board: str, seconds: float) -> str:
    """What `slm2c compress` made, step by step; `board` as the user named it."""
    header = ("step", "layers", "heads", "FFN", "rank", "flash", "saved", "arena", "instructions", "float", "integers")
    rows = [
        (
            step["step"],
            step["layers"] if step["share"] == 1 else f"{step['layers']} by {step['share']}",
            sum(step["heads"]),
            sum(step["ffn"]),
            step["rank"] or None,
            step["flash"],
            step["saved"] or None,
            step["arena"],
            step["instructions"],
            f"{step['accuracy_float']:.2%}",
            f"{step['accuracy_integer']:.2%}",
        )
        for step in facts["steps"]
    ]
    there = shlex.quote(printable(str(folder)))
    hints = [
        (f"slm2c build {there} -o out --board {shlex.quote(printable(board))}", "compile it"),
        (f"slm2c compress {there} ...", "make it smaller still"),
    ]
    head = f"for {printable(facts['board'])}, right on {facts['sentences']['valid']:,} validation sentences:"
    took = f"wrote {printable(str(folder))} in {duration(seconds)}; next:"
    return f"{head}\n\n{table(rows, 'lrrrrrrrrrr', header)}\n\n{took}\n{table(hints, 'll')}"


def front(folder: Path, facts: Mapping[str, Any], board: str, seconds: float) -> str:
    """What `slm2c fit` found in so many seconds: students that were tried, those that were not, which to take."""
    timed = facts["latency_ms"] is not None or any(c["microseconds"] is not None for c in facts["candidates"])
    names = ("student", "size", "heads", "FFN", "pieces", "flash", "arena", "instr.", "ms", "right", "")
    tried = [
        (c["name"], *_sizes(c), f"{c['accuracy_integer']:.2%}", _verdict(c, c["name"] == facts["best"]))
        for c in facts["candidates"]
    ]
    lines = [
        f"{len(tried)} of {len(facts['proposals'])} proposals for {facts['board']}, in integers on {facts['valid']:,} "
        "validation sentences;",
        f"instructions{' and time, estimated at least,' * timed} of {facts['tokens']} tokens, the longest text:",
        "",
        table(tried, "lrrrrrrrrrl", names, indent=0),
    ]
    refused = [p for p in facts["proposals"] if not p["fits"] and not p["chosen"]]
    if refused:
        rows = [(p["name"], *_sizes(p), ", ".join(p["faults"])) for p in refused]
        lines += [
            "",
            "not trained, as they do not fit:",
            "",
            table(rows, "lrrrrrrrr*", (*names[:-2], "over"), indent=0),
        ]
    left = [p["name"] for p in facts["proposals"] if p["fits"] and not p["chosen"]]
    if left:
        lines += ["", f"not tried, though they fit (--tries): {', '.join(left)}"]
    lines += ["", f"wrote {printable(str(folder))} in {duration(seconds)}, the picture is front.svg; next:"]
    best = next((c for c in facts["candidates"] if c["name"] == facts["best"]), None)
    if best is None:
        return "\n".join([*lines[:-1], "none that was tried fits; ask for more --tries, or more time"])
    there = shlex.quote(printable(str(folder / best["folder"])))
    hint = (f"slm2c build {there} -o out --board {shlex.quote(printable(board))}", "the best of those that fit")
    return "\n".join([*lines, table([hint], "ll")])


def _sizes(found: Mapping[str, Any]) -> tuple[object, ...]:
    """Columns of a table: what a student is and takes."""
    shape = f"{found['layers']}x{found['hidden']}", _span(found["heads"]), _span(found["ffn"]), found["vocabulary"]
    took = "" if found["microseconds"] is None else f"{found['microseconds'] / 1000:.3g}"
    return *shape, found["flash"], found["arena"], f"{found['instructions'] / 1e6:.3g} M", took


def _span(value: Sequence[int]) -> object:
    """The number of all layers, or the least and the most."""
    return f"{min(value)}-{max(value)}" if min(value) < max(value) else value[0]


def _verdict(candidate: Mapping[str, Any], best: bool) -> str:
    """Whether it fits, is on the front, is the one to take."""
    return "best" if best else "over" if not candidate["fits"] else "front" if candidate["front"] else ""
