"""refine: what follows each cut of a compression: a fine-tune, the files of a build, accuracy and footprint."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from slm2c.board import Board
from slm2c.compile import Progress
from slm2c.distill import export, integer
from slm2c.distill.batches import predict
from slm2c.distill.data import Data
from slm2c.distill.files import reading, replace_file
from slm2c.distill.footprint import Footprint, footprint_of, texts_of
from slm2c.distill.recipe import Phase, Recipe
from slm2c.distill.student import Course, Student, judge, lessons
from slm2c.distill.training import fit
from slm2c.distill.work import stage
from slm2c.folders import scratch

RATE, ALPHA, TEMPERATURE = (2e-4, 1e-5), 0.3, (2.0, 1.0)
"""Of a fine-tune: learning rate, weight of the labels, temperature of the soft targets."""

_FACTS = "facts.json"


@dataclass(frozen=True)
class Refinery:
    """What every step knows. `key`: of all that it depends on but the cut; `calibration`: the arrays of calib.npz."""

    course: Course
    data: Data
    pieces: Tokenizer
    calibration: Mapping[str, NDArray[np.int64]]
    recipe: Recipe
    epochs: int
    seed: int
    board: Board
    key: str
    work: Path
    progress: Progress


@dataclass(frozen=True)
class Made:
    """A student after a step, what metrics.json says of the step, how training went: before its first epoch a record of
    the cut student, as that of an epoch's end.
    """

    student: Student
    facts: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]


def refine(run: Refinery, number: int, step: str, student: Student, before: Made | None) -> Made:
    """Fine-tune a student that was cut, unless it is what one starts from (without `before`), and measure it.

    `step` says what was cut. Where no epoch is better than the cut student was, that is what stays. A stage of
    `run.work` keeps training and figures: what is there is not made again. Raises CompileError for what is damaged.
    """
    at, _ = stage(run.work, f"step-{number}", run.key, _digest(student), run.epochs, run.seed, run.board)
    start, figures = _judge(student, run)
    history: list[dict[str, Any]] = [{"epoch_ends": -1, "phase": step, "steps": 0, **figures}]
    kept = False
    if before is not None:
        cut = copy.deepcopy(student.state_dict())
        phases = {step: Phase(run.epochs, RATE, ALPHA, TEMPERATURE, (0.0, 0.0), (0.0, 0.0))}
        job = lessons("student", student, run.course, 0, phases, run.recipe, run.seed + number)
        history += fit(job, at, run.progress)
        kept = _judge(student, run)[0] > start
        if not kept:
            student.load_state_dict(cut)
    if not (at / _FACTS).is_file():
        judged, takes = _measured(student, run)
        text = json.dumps({"judged": asdict(judged), "takes": asdict(takes)})
        replace_file(at / _FACTS, lambda part: part.write_text(text, encoding="utf-8"))
    with reading(at / _FACTS):
        known = json.loads((at / _FACTS).read_text(encoding="utf-8"))
        judged, takes = integer.Judged(**known["judged"]), Footprint(**known["takes"])
        saved = 0 if before is None else before.facts["flash"] - takes.flash
    tuned = {"accuracy_cut": figures["valid_accuracy"], "fine_tune_kept": kept}
    facts = {"step": step, **sizes(student), **tuned, **asdict(judged), **asdict(takes), "saved": saved}
    return Made(student, facts, history)


def _measured(student: Student, run: Refinery) -> tuple[integer.Judged, Footprint]:
    """Accuracy and footprint of the files that a build would read."""
    with scratch() as folder:
        export.write_model(student, run.pieces, run.calibration, folder)
        compiled = integer.compile_folder(folder, run.progress)
        judged = integer.judge(compiled, folder / "tokenizer.json", run.data.valid, run.progress)
        return judged, footprint_of(compiled, texts_of(folder, compiled.fused), run.board)


def sizes(student: Student) -> dict[str, Any]:
    """What metrics.json says of a student's shape."""
    shape = student.shape
    return {
        "layers": shape.layers,
        "heads": list(shape.heads_of),
        "ffn": list(shape.ffn_of),
        "share": shape.share,
        "rank": shape.rank,
        "parameters": sum(p.numel() for p in student.parameters()),
    }


def _judge(student: Student, run: Refinery) -> tuple[float, dict[str, float]]:
    return judge(predict(student, run.course.valid), run.course.valid_labels)


def _digest(student: Student) -> str:
    """A key of a student's weights."""
    found = hashlib.sha256()
    for name, value in student.state_dict().items():
        found.update(name.encode())
        found.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
