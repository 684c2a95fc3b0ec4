"""compress: a student made smaller in steps, each followed by a fine-tune and measured.

restore -> layers -> shared weights -> table in factors -> heads -> FFN columns -> whatever fits flash or board
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm2c import __version__
from slm2c.board import Board
from slm2c.compile import Progress
from slm2c.distill import choose, export, shrink
from slm2c.distill.batches import encode, predict
from slm2c.distill.data import UNLABELLED, Data, Sentences, as_student, augmented, key, read_data
from slm2c.distill.files import reading, replace_file, save_tensors
from slm2c.distill.footprint import Footprint, footprint
from slm2c.distill.importance import Gates, importance
from slm2c.distill.losses import average_teachers
from slm2c.distill.parts import GRAIN, Part
from slm2c.distill.prune import prune, without_layers
from slm2c.distill.refine import Made, Refinery, refine
from slm2c.distill.restore import Restored, restore
from slm2c.distill.squeeze import Squeeze
from slm2c.distill.student import Course, Student, judge, read_all
from slm2c.distill.targets import Targets
from slm2c.distill.teacher import Teacher, load_teacher
from slm2c.distill.vocabulary import neighbours
from slm2c.distill.work import alone, files_digest, require_apart, stage
from slm2c.errors import CompileError, Problem
from slm2c.folders import RECIPE, replace_folder, require_replaceable, scratch

_ROUND = 0.2  # of the flash, at most, goes in one step towards a budget
_SOURCES = ("*.json", "*.onnx", "*.npz", "*.toml", "*.safetensors", "*.bin", "*.pt")
_JUDGED, _TRIED = 8192, 1024
"""Sentences, at most, on which importance is measured, and on which layers are tried."""


@dataclass(frozen=True)
class Request:
    """What the user asks for: the folder of a student, sentences, and what is to become smaller; None for what is not.

    teacher: a folder of one that knows the labels; None: the student as it was
    layers: how many stay; share: how many in a row have the same weights; rank: of the table of pieces
    heads, ffn: how many heads and FFN columns stay, over all layers
    flash: bytes that the blob may have; fit: whether the student has to fit `board`, which sizes are measured on
    epochs: of the fine-tune after each step
    """

    student: Path
    train: Path
    valid: Path
    out: Path
    board: Board
    teacher: Path | None = None
    layers: int | None = None
    share: int | None = None
    rank: int | None = None
    heads: Part | None = None
    ffn: Part | None = None
    flash: int | None = None
    fit: bool = False
    epochs: int = 2
    seed: int = 1


@dataclass(frozen=True)
class _Work:
    """What cuts are decided by: sentences as ids, and the class that each is to have."""

    request: Request
    run: Refinery
    ids: Sequence[Sequence[int]]
    answers: Sequence[int]

    def loss(self, student: Student) -> float:
        """Mean cross-entropy on the first sentences."""
        logits = predict(student, self.ids[:_TRIED])
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(self.answers[:_TRIED])))

    def importance(self, student: Student) -> Gates:
        """Of everything that can go."""
        return importance(student, self.ids, self.answers, self.run.progress)

    @property
    def squeeze(self) -> Squeeze:
        """What cuts to a budget."""
        wish = "--flash" if self.request.flash is not None else self.request.board.name
        return Squeeze(self.footprint, self.importance, self.request.rank is not None, wish)

    def footprint(self, student: Student) -> Footprint:
        """Of a student as it is, without calibration."""
        with scratch() as folder:
            export.write_model(student, self.run.pieces, self.run.calibration, folder)
            return footprint(folder, self.request.board, self.run.progress)


def compress(request: Request, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Make the student smaller and write its folder; returns what metrics.json holds.

    Raises CompileError for what is wrong with files and wishes, and for a budget that cannot be met, before anything is
    trained.
    """
    sources = (request.student, request.teacher, request.train, request.valid)
    require_replaceable(request.out, RECIPE, sources)
    out = request.out.resolve()
    folder = out.parent / f"{out.name}.work"
    require_apart(folder, sources)
    _require_wishes(request)
    restored = restore(request.student)
    _require_sense(request, restored.student)
    data = as_student(read_data(request.train, request.valid), restored.student.labels, request.train)
    with alone(folder):
        return _made(request, restored, data, folder, progress)


def _made(request: Request, restored: Restored, data: Data, folder: Path, progress: Progress) -> dict[str, Any]:
    """All steps, in the work folder `folder`."""
    work, facts = _prepared(request, restored, data, folder, progress)
    made = [refine(work.run, 0, "as it was", restored.student, None)]
    _require_possible(work, made[0])
    for name, cut in _cuts(work, restored.student):
        made.append(refine(work.run, len(made), name, cut(made[-1].student), made[-1]))
    for name, student in _rounds(work, made):
        made.append(refine(work.run, len(made), name, student, made[-1]))
    last = made[-1]
    metrics = {"slm2c": __version__, "seed": request.seed, **facts, "student": _result(work, last)}
    metrics["steps"] = [dict(x.facts) for x in made]

    def fill(new: Path) -> None:
        export.write_model(last.student, work.run.pieces, work.run.calibration, new)
        recipe = replace(restored.recipe, student=last.student.shape)
        export.write_records(recipe, metrics, _history(made), new)

    replace_folder(request.out, fill, RECIPE)
    return metrics


# ---------------------------------------------------------------- what is asked, and what is given


def _require_wishes(request: Request) -> None:
    """Raises CompileError if there are none."""
    wishes = (request.layers, request.share, request.rank, request.heads, request.ffn, request.flash)
    if all(wish is None for wish in wishes) and not request.fit:
        raise CompileError(Problem("", "", "nothing is to become smaller", "give --heads, --ffn, --flash, --fit, ..."))


def _require_sense(request: Request, student: Student) -> None:
    """Raises CompileError for wishes that this student cannot grant."""
    shape, faults = student.shape, []
    layers = request.layers or shape.layers
    if layers > shape.layers:
        faults.append(("--layers", f"is {layers}, the student has {shape.layers} layers", "ask for fewer"))
    if request.layers and shape.share > 1:
        remedy = "leave it out, or cut a student before its layers share weights"
        faults.append(("--layers", "cuts layers that share their weights", remedy))
    if request.share and shape.share > 1:
        faults.append(("--share", f"is asked of a student whose layers share weights by {shape.share}", "leave it out"))
    elif request.share and not 2 <= request.share <= layers:
        faults.append(("--share", f"is {request.share}, the student has {layers} layers", "ask for 2 or more of them"))
    most = shape.rank or shape.hidden
    if request.rank and request.rank >= most:
        faults.append(("--rank", f"is {request.rank}, the table has {most} columns", "ask for fewer"))
    for option, part, sizes in (("--heads", request.heads, shape.heads_of), ("--ffn", request.ffn, shape.ffn_of)):
        there = sum(size for i, size in enumerate(sizes) if shape.source(i) == i)
        if part is not None and not part.share and part.value > there:
            faults.append((option, f"is {part}, the student has {there}", "ask for fewer"))
    if faults:
        raise CompileError(Problem(name, "", fact, remedy) for name, fact, remedy in faults)


def load_judge(folder: Path, labels: Sequence[str], tokens: int) -> Teacher:
    """The teacher of a fine-tune. Raises CompileError if it does not know the labels."""
    found = load_teacher(folder, labels, tokens)
    if not found.tuned:
        fact, remedy = "does not know the labels", "give the one that `slm2c distill` left: *.work/teacher-1/model"
        raise CompileError(Problem(str(folder), "", fact, remedy))
    return found


def _prepared(
    request: Request, restored: Restored, data: Data, folder: Path, progress: Progress
) -> tuple[_Work, dict[str, Any]]:
    """(what all steps need, what metrics.json says of it): the teacher is asked about each sentence."""
    recipe, pieces, tokens = restored.recipe, restored.pieces, restored.recipe.student.tokens
    threads = recipe.training.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    sentences = _pool(restored, data, request.seed)
    sources = [files_digest(x, _SOURCES) for x in (request.student, request.teacher) if x is not None]
    options = (recipe.data, recipe.training, threads)
    at, key = stage(folder, "targets", data, sentences, *options, *sources)
    logits, accuracy = _taught(request, restored, data, sentences, at, progress)
    reading, nothing = read_all(pieces, sentences, tokens), np.zeros(0, np.int64)
    valid = [e.ids for e in encode(pieces, data.valid.texts, tokens)]
    course = Course(reading, Targets(logits, nothing, nothing, {}, {}, {}), (), valid, data.valid.labels)
    # A processor without bfloat16 takes ten times as long for it, and fine-tunes are short.
    single = replace(recipe, training=replace(recipe.training, bf16=False))
    with np.load(request.student / "calib.npz") as arrays:
        calibration = dict(arrays)
    run = Refinery(
        course, data, pieces, calibration, single, request.epochs, request.seed, request.board, key, folder, progress
    )
    answers = np.where(reading.labels == UNLABELLED, logits.argmax(-1).numpy(), reading.labels)
    chosen = np.random.default_rng(request.seed).permutation(len(sentences))[:_JUDGED]
    work = _Work(request, run, [reading.ids[i] for i in chosen], [int(answers[i]) for i in chosen])
    counts = {"labelled": len(data.train), "augmented": len(sentences) - len(data.train), "valid": len(data.valid)}
    facts = {
        "sentences": {**counts, "left_out": data.left_out},
        "teacher": {"accuracy": accuracy, "is_the_student": request.teacher is None},
        "board": request.board.name,
    }
    return work, facts


def _taught(
    request: Request, restored: Restored, data: Data, sentences: Sentences, at: Path, progress: Progress
) -> tuple[Tensor, float]:
    """(the teacher's log-probabilities [sentences, classes], its accuracy); the first are kept in the stage `at`."""
    teacher: Any = restored.student
    pieces, tokens = restored.pieces, restored.recipe.student.tokens
    if request.teacher is not None:
        loaded = load_judge(request.teacher, data.names, tokens)
        teacher, pieces = loaded.model.eval(), loaded.tokenizer
    kept = at / "answers.pt"
    if not kept.is_file():
        who = "the teacher" if request.teacher else "the student"
        progress(f"{who} labels {len(sentences):,} sentences", 0, 1)
        asked = predict(teacher, [e.ids for e in encode(pieces, sentences.texts, tokens)])
        replace_file(kept, lambda part: save_tensors(average_teachers([asked]), part))
    answers = predict(teacher, [e.ids for e in encode(pieces, data.valid.texts, tokens)])
    accuracy = judge(answers, data.valid.labels)[1]["valid_accuracy"]
    with reading(kept):
        found, shape = torch.load(kept, weights_only=True), (len(sentences), len(data.names))
        if not isinstance(found, Tensor) or tuple(found.shape) != shape:
            raise ValueError(f"it does not hold {shape[0]:,} answers of {shape[1]} labels")
    return found, accuracy


def _pool(restored: Restored, data: Data, seed: int) -> Sentences:
    """Labelled sentences and altered ones, by the student's recipe."""
    pieces = restored.pieces
    table = restored.student.bert.bert.embeddings.word_embeddings.weight.detach()
    near = neighbours(pieces, table, data.train.words, pieces.get_vocab())
    wanted = restored.recipe.data.copies(len(data.train))
    return data.train + augmented(data.train, wanted, {key(text) for text in data.valid.texts}, near, seed)


# ---------------------------------------------------------------- steps

Cut = Callable[[Student], Student]


def _cuts(work: _Work, student: Student) -> Iterator[tuple[str, Cut]]:
    """(what it says, what it does) of each step that is asked for by number."""
    request, loss = work.request, work.loss
    if request.layers and request.layers < student.shape.layers:
        yield f"layers {request.layers}", lambda s: shrink.fewer_layers(s, request.layers or 0, loss)
    if request.share:
        yield f"share {request.share}", lambda s: shrink.shared(s, request.share or 0, loss)
    if request.rank:
        yield f"rank {request.rank}", lambda s: shrink.factored(s, request.rank or 0)
    for kind, name, part in (("heads", "heads", request.heads), ("columns", "ffn", request.ffn)):
        if part is not None:
            yield f"{name} {part}", partial(_least, work, kind, part)


def _least(work: _Work, kind: str, part: Part, student: Student) -> Student:
    """Without the least important heads or columns; those that layers share count once."""
    shape = student.shape
    found = choose.units(shape, work.importance(student))
    sizes = shape.heads_of if kind == "heads" else shape.ffn_of
    total = sum(size for i, size in enumerate(sizes) if shape.source(i) == i)
    return prune(student, choose.without(shape, choose.least(found, kind, total - part.of(total))))


def _rounds(work: _Work, made: Sequence[Made]) -> Iterator[tuple[str, Student]]:
    """(what it says, a student) of each step towards flash or board, until the last of `made`, which grows meanwhile,
    is small enough.
    """
    request, facts = work.request, made[-1].facts
    if not _too_many(request, facts):
        return
    squeeze = work.squeeze
    prices = squeeze.prices(made[-1].student)
    left = math.ceil(_too_many(request, facts) / (_ROUND * facts["flash"]))
    name = f"flash {request.flash:,}" if request.flash is not None else f"fit {request.board.name}"
    while much := _too_many(request, made[-1].facts):
        yield name, squeeze.cut(made[-1].student, prices, math.ceil(much / left))
        left = max(1, left - 1)


def _too_many(request: Request, facts: Mapping[str, Any]) -> int:
    """Bytes of flash that have to go, by footprint's figures. Where a memory is too small that is no flash, a tenth: a
    narrower student has a smaller arena.
    """
    much = 0 if request.flash is None else max(0, facts["flash"] - request.flash)
    if request.fit and facts["over"]:
        flash = facts["over"].get(request.board.placement.blob, 0)
        much = max(much, flash or facts["flash"] // 10)
    return much


def _require_possible(work: _Work, made: Made) -> None:
    """Raises CompileError for a budget that the least there could be of the student is over. What calibration makes of
    the student as it was is taken for what it will make of that.
    """
    request, student = work.request, made.student
    if request.flash is None and not request.fit:
        return
    if request.layers:
        student = without_layers(student, range(request.layers))
    if request.share:
        student = shrink.shared(student, request.share, lambda _: 0.0)
    if request.rank:
        student = shrink.factored(student, request.rank)
    calibrated = made.facts["flash"] - work.footprint(made.student).flash
    found = work.squeeze.least(student)
    least = min(found, key=lambda x: x.flash)
    head = f"with one head and {GRAIN['columns']} FFN columns a layer this student"
    remedy = "or distil a smaller student, with a smaller vocabulary"
    if request.flash is not None and least.flash + calibrated > request.flash:
        fact = f"{head} still takes {least.flash + calibrated:,} bytes, {request.flash:,} are asked"
        raise CompileError(Problem("--flash", "", fact, f"allow more, {remedy}"))
    if request.fit and all(x.over for x in found):
        parts = ", ".join(f"{size:,} bytes of {name}" for name, size in least.over.items())
        fact = f"{head} is still {parts} too large"
        raise CompileError(Problem(request.board.name, "", fact, f"take another board, {remedy}"))


# ---------------------------------------------------------------- what comes of it


def _result(work: _Work, last: Made) -> dict[str, Any]:
    """What metrics.json says of the student, as that of `distill` does."""
    names = ("parameters", "accuracy_integer", "accuracy_float", "agreement")
    student = last.student
    return {
        **{name: last.facts[name] for name in names},
        "labels": len(student.labels),
        "vocabulary": student.vocabulary,
    }


def _history(made: Sequence[Made]) -> list[dict[str, Any]]:
    """That of all steps, one after the other."""
    found: list[dict[str, Any]] = []
    start = 0
    for step in made:
        for record in step.history:
            moved = {name: record[name] + start for name in ("step", "steps") if name in record}
            found.append({**record, **moved})
        start = max((r.get("steps", 0) for r in found), default=0)
    return found
