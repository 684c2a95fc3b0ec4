"""run: all stages of a distillation, in their order; each takes up where a run that was killed left it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from slm2c import __version__
from slm2c.compile import Progress
from slm2c.distill import export, integer, targets, vocabulary
from slm2c.distill.batches import encode, predict
from slm2c.distill.corpus import Corpus, gather
from slm2c.distill.data import Data, read_data
from slm2c.distill.files import writing
from slm2c.distill.finish import finish
from slm2c.distill.losses import average_teachers, layer_map
from slm2c.distill.recipe import Finish, Recipe
from slm2c.distill.student import Course, Student, judge, lessons, read_all, start_from_teacher
from slm2c.distill.teacher import Teacher, load_teacher
from slm2c.distill.training import fit
from slm2c.distill.tune import tuned
from slm2c.distill.work import alone, digest, files_digest, require_apart, require_stages, stage
from slm2c.errors import CompileError, Problem
from slm2c.folders import RECIPE, replace_folder, require_replaceable


@dataclass(frozen=True)
class Request:
    """What the user asks for. Teachers are folders; one that is named twice is fine-tuned twice, from other seeds."""

    teachers: Sequence[Path]
    train: Path
    valid: Path
    unlabelled: Sequence[Path]
    out: Path
    recipe: Recipe
    seed: int = 1


@dataclass(frozen=True)
class _Run:
    """What every stage knows. `pairs`: layers of student and teacher that are matched."""

    recipe: Recipe
    seed: int
    data: Data
    pairs: tuple[tuple[int, int], ...]
    threads: int
    work: Path
    progress: Progress

    @property
    def tokens(self) -> int:
        """How many a sentence may have."""
        return self.recipe.student.tokens


def distill(request: Request, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Train the student and write its folder; returns what metrics.json holds.

    Raises CompileError for what is wrong with the files, before anything is trained.
    """
    recipe = request.recipe
    sources = (*request.teachers, request.train, request.valid, *request.unlabelled)
    require_replaceable(request.out, RECIPE, sources)
    out = request.out.resolve()
    work = out.parent / f"{out.name}.work"
    require_apart(work, sources)
    require_stages(work, (*map(_teacher_stage, range(len(request.teachers))), "targets", "student", "finish"))
    data = read_data(request.train, request.valid, request.unlabelled)
    loaded = [load_teacher(folder, data.names, recipe.student.tokens) for folder in request.teachers]
    vocabulary.require_possible(recipe.student, loaded[0].tokenizer, data.train.texts + data.unlabelled.texts)
    threads = recipe.training.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    run = _Run(recipe, request.seed, data, _pairs(recipe, loaded[0]), threads, work, progress)
    with alone(work):
        return _trained(request, run, loaded)


def _trained(request: Request, run: _Run, loaded: Sequence[Teacher]) -> dict[str, Any]:
    """All stages."""
    data, recipe = run.data, run.recipe
    teachers, key = _teachers(run, request.teachers, loaded)
    corpus = gather(data, teachers[0], recipe, run.seed)
    course, key = _course(run, key, teachers, corpus)
    student, history, key = _student(run, key, teachers[0], corpus, course)
    metrics = {"slm2c": __version__, "seed": run.seed, **_facts(run, corpus, teachers, student)}
    chosen, judged, finished, more = _finished(run, key, corpus, course, student)
    teacher = metrics["teacher"]["accuracy"]
    metrics["student"] |= {**asdict(judged), "of_teacher": judged.accuracy_float / teacher if teacher else None}
    metrics["finish"] = finished

    def fill(new: Path) -> None:
        for path in chosen.iterdir():
            shutil.copyfile(path, new / path.name)
        export.write_records(recipe, metrics, [*history, *more], new)

    replace_folder(request.out, fill, RECIPE)
    shutil.rmtree(run.work / "targets", ignore_errors=True)  # gigabytes, and minutes to make anew
    return metrics


def _teacher_stage(i: int) -> str:
    return f"teacher-{i + 1}"


def _teachers(run: _Run, folders: Sequence[Path], loaded: Sequence[Teacher]) -> tuple[list[Teacher], str]:
    """(teachers that know the labels, their key)."""
    found, keys = [], []
    for i, (folder, teacher) in enumerate(zip(folders, loaded, strict=True)):
        seed, name = run.seed + i, _teacher_stage(i)
        options = (run.recipe.teacher, run.tokens, run.recipe.training.bf16, run.threads)
        at, key = stage(run.work, name, run.data, *options, seed, files_digest(folder))
        found.append(tuned(teacher, run.data, run.recipe, seed, at, run.progress))
        keys.append(key)
    return found, digest(keys)


def _course(run: _Run, key: str, teachers: Sequence[Teacher], corpus: Corpus) -> tuple[Course, str]:
    """(what there is to learn, its key): the teachers are asked about each sentence."""
    layers = _layers(run.recipe, run.pairs)
    at, key = stage(run.work, "targets", key, corpus.sentences, layers)
    if not (at / targets.DONE).is_file():
        bf16 = run.recipe.training.bf16
        targets.ask(teachers, corpus.sentences.texts, run.tokens, layers, at, run.progress, bf16)
    asked = targets.open_targets(at, layers)
    valid = [e.ids for e in encode(corpus.pieces, run.data.valid.texts, run.tokens)]
    reading = read_all(corpus.pieces, corpus.sentences, run.tokens)
    return Course(reading, asked, run.pairs, valid, run.data.valid.labels), key


def _student(
    run: _Run, key: str, teacher: Teacher, corpus: Corpus, course: Course
) -> tuple[Student, list[dict[str, Any]], str]:
    """(the distilled student, the history of its training, its key)."""
    recipe = replace(run.recipe, finish=Finish())  # which may change without a new student
    at, key = stage(run.work, "student", key, corpus.pieces.to_str(), recipe, run.seed, run.pairs)
    torch.manual_seed(run.seed)
    student = Student(recipe.student, corpus.pieces.get_vocab_size(), run.data.names, recipe.training.dropout)
    start_from_teacher(student, corpus.pieces, teacher)
    features = int(teacher.config.hidden_size)
    job = lessons("student", student, course, features, recipe.phases, recipe, run.seed)
    return student, fit(job, at, run.progress), key


def _finished(
    run: _Run, key: str, corpus: Corpus, course: Course, student: Student
) -> tuple[Path, integer.Judged, dict[str, Any] | None, list[dict[str, Any]]]:
    """(folder with the better of the distilled and the finished student, its accuracy, both accuracies, the finish's
    history if it is the better).
    """
    calibration = export.calibration(run.data.train, course.reading.ids, run.tokens, run.seed)

    def compiled(name: str) -> tuple[Path, integer.Compiled, integer.Judged]:
        folder = run.work / name / "model"
        shutil.rmtree(folder, ignore_errors=True)
        with writing(folder):
            folder.mkdir()
            export.write_model(student, corpus.pieces, calibration, folder)
        found = integer.compile_folder(folder, run.progress)
        return folder, found, integer.judge(found, folder / "tokenizer.json", run.data.valid, run.progress)

    folder, integers, before = compiled("student")
    if not run.recipe.finish.epochs:
        return folder, before, None, []
    at, _ = stage(run.work, "finish", key, run.recipe.finish)
    history = finish(student, integers, course, run.recipe, run.seed, at, run.progress)
    other, _, after = compiled("finish")
    kept = after.accuracy_integer > before.accuracy_integer
    both = {"before": asdict(before), "after": asdict(after), "kept": kept}
    if not kept:
        return folder, before, both, []
    return other, after, both, [{**record, "finish": True} for record in history]


def _pairs(recipe: Recipe, teacher: Teacher) -> tuple[tuple[int, int], ...]:
    """(layer of the student, layer of the teacher) that are matched."""
    own, other = recipe.student.layers, int(teacher.config.num_hidden_layers)
    pairs = recipe.training.map or layer_map(own, other, recipe.training.matched)
    wrong = [pair for pair in pairs if not (1 <= pair[0] <= own and 1 <= pair[1] <= other)]
    if wrong:
        fact = f"pairs layer {wrong[0][0]} of {own} with layer {wrong[0][1]} of the teacher's {other}"
        raise CompileError(Problem("training.map", "", fact, "layers count from 1"))
    return pairs


def _layers(recipe: Recipe, pairs: Sequence[tuple[int, int]]) -> targets.Layers:
    """The teacher's layers that a phase matches."""
    others = tuple(dict.fromkeys(other for _, other in pairs))
    phases = recipe.phases.values()
    hidden, attention = any(max(p.hidden) > 0 for p in phases), any(max(p.attention) > 0 for p in phases)
    return targets.Layers(others if hidden else (), others if attention else ())


def _facts(run: _Run, corpus: Corpus, teachers: Sequence[Teacher], student: Student) -> dict[str, Any]:
    """What metrics.json says about sentences, teachers and student, but for the student's accuracy."""
    data, tokens = run.data, run.tokens
    texts, labels = data.valid.texts, data.valid.labels
    answers = [predict(t.model.eval(), [e.ids for e in encode(t.tokenizer, texts, tokens)]) for t in teachers]
    accuracies = [judge(x, labels)[1]["valid_accuracy"] for x in (*answers, average_teachers(answers))]
    return {
        "sentences": {
            "labelled": len(data.train),
            "augmented": corpus.altered,
            "unlabelled": len(corpus.sentences) - len(data.train) - corpus.altered,
            "valid": len(data.valid),
            "left_out": data.left_out,
        },
        "teacher": {
            "parameters": sum(p.numel() for p in teachers[0].model.parameters()),
            "accuracies": accuracies[:-1],
            "accuracy": accuracies[-1],
        },
        "student": {
            "parameters": sum(p.numel() for p in student.parameters()),
            "labels": len(data.names),
            "vocabulary": corpus.pieces.get_vocab_size(),
        },
    }
