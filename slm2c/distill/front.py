"""front: a few students for a board, trained by a teacher or cut from one, and the front of accuracy and cost.

    propose -> predict what each takes -> train those that fit -> measure -> front.json, front.svg

What every proposal takes is known before anything is trained: the compiler lowers an untrained student of that shape.
What is finished lies in a folder of its own and is not made again; both files follow after each.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from slm2c import __version__, budget, timing
from slm2c.board import Board
from slm2c.compile import Progress
from slm2c.distill import export, integer, pareto, proposals
from slm2c.distill.candidates import FromStudent, FromTeacher, Proposal, Task
from slm2c.distill.data import read_data
from slm2c.distill.files import replace_file
from slm2c.distill.footprint import CODE_BYTES, Footprint, footprint, footprint_of, texts_of
from slm2c.distill.front_plot import Limit, draw
from slm2c.distill.recipe import Shape, read_recipe
from slm2c.distill.student import Student
from slm2c.distill.work import alone, stage
from slm2c.errors import CompileError, Problem
from slm2c.folders import RECIPE, require_replaceable, scratch

FILE = "front.json"
"""What a folder is known by, and rewritten after each candidate."""

PICTURE = "front.svg"
STUDENT = "student"
"""The folder below a candidate's that `slm2c build` takes."""


@dataclass(frozen=True)
class Request:
    """What the user asks for: students `around` a teacher or a student. `latency`: milliseconds that a run at the most
    tokens may take; None for any.
    """

    board: Board
    around: FromTeacher | FromStudent
    train: Path
    valid: Path
    out: Path
    latency: float | None = None
    tries: int = 5


@dataclass(frozen=True)
class _Limits:
    """What a student may take: the memories of the board, and `latency` milliseconds or any number of them."""

    board: Board
    latency: float | None

    def microseconds(self, found: Footprint) -> int | None:
        """Estimated time of a run at the most tokens; None for a core without a model."""
        return timing.microseconds(found.instructions, self.board.cpu, self.board.clock_hz)

    def faults(self, found: Footprint) -> list[str]:
        """Why it does not fit; empty if it does."""
        over = [f"{size:,} bytes too many for {region}" for region, size in found.over.items()]
        took = self.microseconds(found)
        late = self.latency is not None and took is not None and took > 1000 * self.latency
        return [*over, f"{took / 1000:.3g} ms"] if late and took is not None else over


def fit(request: Request, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Propose, try and compare students; returns what front.json holds.

    Raises CompileError for what is wrong with the files, or if no proposal fits, before anything is trained.
    """
    limits = _Limits(request.board, request.latency)
    _require_estimate(limits)
    require_replaceable(request.out, FILE, (*request.around.sources, request.train, request.valid))
    data = read_data(request.train, request.valid)
    found = request.around.proposals(Task(request.train, request.valid, data, request.out))
    predicted = _predicted(found, data.names, limits, progress)
    found = sorted(found, key=lambda p: -predicted[p.name].instructions)
    fitting = [p for p in found if not limits.faults(predicted[p.name])]
    if not fitting:
        raise CompileError(_hopeless(found, predicted, limits))
    chosen = [*(p for p in found if p.given), *proposals.spread([p for p in fitting if not p.given], request.tries)]
    names = {p.name for p in chosen}
    facts: dict[str, Any] = {
        "slm2c": __version__,
        "board": request.board.name,
        "cpu": request.board.cpu,
        "clock_hz": request.board.clock_hz,
        "latency_ms": request.latency,
        "tokens": found[0].shape.tokens,
        "valid": len(data.valid),
        "seed": request.around.seed,
        "proposals": [_proposed(p, predicted[p.name], limits, p.name in names) for p in found],
        "candidates": [],
        "best": None,
    }
    with alone(request.out):
        _write(request.out, facts, limits)
        made: dict[str, Any] = {}
        for number, proposal in enumerate(chosen, 1):
            title = f"candidate {number} of {len(chosen)}: {proposal.what}"
            made[proposal.name] = _tried(proposal, request.out, limits, _titled(title, progress))
            facts |= _compared([made[p.name] for p in found if p.name in made])
            _write(request.out, facts, limits)
    return facts


def _require_estimate(limits: _Limits) -> None:
    board = limits.board
    if limits.latency is not None and timing.microseconds(1, board.cpu, board.clock_hz) is None:
        fact = f"has a {board.cpu}, for which there is no estimate of time"
        raise CompileError(Problem(board.name, "", fact, "leave out --latency, and choose by instructions"))


def _titled(title: str, progress: Progress) -> Progress:
    return lambda stage, done, total: progress(f"{title}: {stage}", done, total)


def _predicted(
    found: Sequence[Proposal], labels: Sequence[str], limits: _Limits, progress: Progress
) -> dict[str, Footprint]:
    """What each takes by its name: the compiler lowers one with random weights.

    All of them are random: biases and norms of a new student are alike, and equal constants lie in the blob once.
    """
    costs = {}
    for i, proposal in enumerate(found):
        progress("what each proposal takes", i, len(found))
        torch.manual_seed(0)
        student = Student(proposal.shape, proposal.pieces.get_vocab_size(), labels, 0.0)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        with scratch() as folder:
            export.write_model(student, proposal.pieces, {}, folder)
            costs[proposal.name] = footprint(folder, limits.board)
    return costs


def _hopeless(found: Sequence[Proposal], predicted: Mapping[str, Footprint], limits: _Limits) -> Problem:
    """That nothing fits, by the proposal with the fewest instructions."""
    least = found[-1]
    faults = ", ".join(limits.faults(predicted[least.name]))
    fact = f"none of {len(found)} proposals fits; the smallest, {least.what}, is over: {faults}"
    remedy = "start from a smaller student or recipe (layers, pieces, tokens), allow more, or take another board"
    return Problem(limits.board.name, "", fact, remedy)


def _tried(proposal: Proposal, out: Path, limits: _Limits, progress: Progress) -> dict[str, Any]:
    """What front.json has about a candidate, which is made unless it is there."""
    at, _ = stage(out, proposal.name, *proposal.key)
    folder = at / STUDENT
    if not (folder / RECIPE).is_file():
        proposal.make(folder, progress)
    shutil.rmtree(at / f"{STUDENT}.work", ignore_errors=True)  # checkpoints of what is done
    judged = _accuracies(folder / "metrics.json")
    compiled = integer.compile_folder(folder, progress)
    takes = footprint_of(compiled, texts_of(folder, compiled.fused), limits.board)
    return {
        "name": proposal.name,
        "folder": str(folder.relative_to(out)),
        **_size(read_recipe(folder / RECIPE).student, proposal),
        **judged,
        **_cost(takes, limits),
    }


def _accuracies(path: Path) -> dict[str, float]:
    """Those of a finished student."""
    try:
        made = json.loads(path.read_text(encoding="utf-8"))["student"]
        return {key: float(made[key]) for key in ("accuracy_integer", "accuracy_float")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        fact, remedy = "does not hold the student's accuracy any more", f"remove {path.parent}, to make it again"
        raise CompileError(Problem(str(path), "", fact, remedy)) from error


def _size(shape: Shape, proposal: Proposal) -> dict[str, Any]:
    sizes = {name: getattr(shape, name) for name in ("layers", "hidden", "share", "rank")}
    return {
        **sizes,
        "heads": list(shape.heads_of),
        "ffn": list(shape.ffn_of),
        "vocabulary": proposal.pieces.get_vocab_size(),
    }


def _cost(takes: Footprint, limits: _Limits) -> dict[str, Any]:
    faults = limits.faults(takes)
    return {**asdict(takes), "microseconds": limits.microseconds(takes), "fits": not faults, "faults": faults}


def _proposed(proposal: Proposal, takes: Footprint, limits: _Limits, chosen: bool) -> dict[str, Any]:
    return {"name": proposal.name, **_size(proposal.shape, proposal), **_cost(takes, limits), "chosen": chosen}


def _points(candidates: Sequence[Mapping[str, Any]]) -> list[pareto.Point]:
    keys = ("flash", "arena", "instructions", "fits")
    return [pareto.Point(c["name"], c["accuracy_integer"], *(c[key] for key in keys)) for c in candidates]


def _compared(candidates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Candidates with whether each is on the front, and the name of the best."""
    points = _points(candidates)
    on_front = {point.name for point in pareto.front(points)}
    best = pareto.best(points)
    return {
        "candidates": [{**c, "front": c["name"] in on_front} for c in candidates],
        "best": best.name if best else None,
    }


def _write(out: Path, facts: Mapping[str, Any], limits: _Limits) -> None:
    """Both files, each whole."""
    text = json.dumps(facts, indent=1) + "\n"
    replace_file(out / FILE, lambda part: part.write_text(text, encoding="utf-8"))
    if not facts["candidates"]:
        (out / PICTURE).unlink(missing_ok=True)  # of other students
    else:
        subtitle = f"in integers, on {facts['valid']:,} validation sentences"
        picture = draw(_points(facts["candidates"]), _drawn(facts, limits), f"Students for {facts['board']}", subtitle)
        replace_file(out / PICTURE, lambda part: part.write_text(picture, encoding="utf-8"))


def _drawn(facts: Mapping[str, Any], limits: _Limits) -> dict[str, Limit]:
    """The limits as lines: what the memories leave for blob and arena, and the instructions that the time allows."""
    board = limits.board
    blob = board.region(board.placement.blob)
    flash = blob.size - blob.reserve - (CODE_BYTES if board.placement.code == blob.name else 0)
    arena = board.arena_limit - budget.DATA_BYTES
    found = {"flash": Limit(flash, f"room: {flash // 1024:,} KB"), "arena": Limit(arena, f"room: {arena // 1024:,} KB")}
    each = timing.CYCLES_PER_INSTRUCTION.get(board.cpu)
    if limits.latency is not None and each is not None:
        most = limits.latency / 1000 * board.clock_hz / each
        found["instructions"] = Limit(most, f"{limits.latency:g} ms")
    return found
