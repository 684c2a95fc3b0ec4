"""run: all stages of a distillation, in their order; each takes up where a run that was killed left it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from slm2c import __version__
from slm2c.compile import Progress, replace_folder, require_replaceable
from slm2c.distill import export, integer, targets, vocabulary
from slm2c.distill.batches import encode, predict
from slm2c.distill.data import Data, Sentences, augmented, key, read_data, unlabelled_sentences
from slm2c.distill.finish import finish
from slm2c.distill.losses import average_teachers, layer_map
from slm2c.distill.recipe import Finish, Recipe
from slm2c.distill.student import Course, Student, judge, lessons, read_all, start_from_teacher
from slm2c.distill.teacher import Teacher, load_teacher
from slm2c.distill.training import fit
from slm2c.distill.tune import tuned
from slm2c.distill.work import files_digest, stage
from slm2c.errors import CompileError, Problem


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
class Pool:
    """Everything the student reads, labelled sentences first, `altered` augmented ones next; and its tokenizer."""

    sentences: Sentences
    altered: int
    pieces: Tokenizer


def distill(request: Request, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Train the student and write its folder; returns what metrics.json holds.

    Raises CompileError for what is wrong with the files, before anything is trained.
    """
    start = time.monotonic()
    recipe, seed, tokens, bf16 = (
        request.recipe,
        request.seed,
        request.recipe.student.tokens,
        request.recipe.training.bf16,
    )
    require_replaceable(request.out, export.MARK)
    data = read_data(request.train, request.valid, request.unlabelled)
    loaded = [load_teacher(folder, data.names, tokens) for folder in request.teachers]
    pairs = _pairs(recipe, loaded[0])
    threads = recipe.training.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    work = request.out.resolve().with_name(f"{request.out.resolve().name}.work")

    teachers, keys = [], []
    for i, (folder, teacher) in enumerate(zip(request.teachers, loaded, strict=True)):
        given = (data, tokens, bf16, threads, recipe.teacher, seed + i, files_digest(folder))
        at, made_of = stage(work, f"teacher-{i + 1}", *given)
        teachers.append(tuned(teacher, data, recipe, seed + i, at, progress))
        keys.append(made_of)

    pool = _pool(data, teachers[0], recipe, seed)
    layers = tuple(dict.fromkeys(other for _, other in pairs))
    hidden, attention = (layers if _uses(recipe, loss) else () for loss in ("hidden", "attention"))
    at, made_of = stage(work, "targets", keys, pool.sentences, hidden, attention)
    if not (at / targets.DONE).is_file():
        targets.ask(teachers, pool.sentences.texts, tokens, hidden, attention, at, bf16, progress)
    valid = [e.ids for e in encode(pool.pieces, data.valid.texts, tokens)]
    reading = read_all(pool.pieces, pool.sentences, tokens)
    asked = targets.open_targets(at, hidden, attention)
    course = Course(reading, asked, pairs, valid, data.valid.labels)

    at, made_of = stage(work, "student", made_of, pool.pieces.to_str(), replace(recipe, finish=Finish()), seed, pairs)
    torch.manual_seed(seed)
    student = Student(recipe.student, pool.pieces.get_vocab_size(), data.names, recipe.training.dropout)
    start_from_teacher(student, pool.pieces, teachers[0])
    features = int(teachers[0].config.hidden_size)
    history = fit(lessons("student", student, course, features, recipe.phases, recipe, seed), at, progress)

    metrics = {"slm2c": __version__, "seed": seed, **_facts(data, pool, teachers, student, tokens)}
    calibration = export.calibration(data.train, reading.ids, tokens, seed)

    def compiled(name: str) -> tuple[Path, integer.Compiled, integer.Judged]:
        folder = work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        export.write_model(student, pool.pieces, calibration, folder)
        found = integer.compile_folder(folder, progress)
        return folder, found, integer.judge(found, folder / "tokenizer.json", data.valid, progress)

    chosen, integers, judged = compiled("distilled")
    if recipe.finish.epochs:
        at, _ = stage(work, "finish", made_of, recipe.finish)
        more = finish(student, integers, course, recipe, seed, at, progress)
        other, _, after = compiled("finished")
        better = after.accuracy_integer > judged.accuracy_integer
        metrics["finish"] = {"before": asdict(judged), "after": asdict(after), "kept": better}
        if better:
            chosen, judged = other, after
            history = history + [{**record, "finish": True} for record in more]
    metrics["student"] |= {**asdict(judged), "of_teacher": judged.accuracy_float / metrics["teacher"]["accuracy"]}
    metrics["seconds"] = round(time.monotonic() - start)

    def fill(new: Path) -> None:
        for path in chosen.iterdir():
            shutil.copyfile(path, new / path.name)
        export.write_records(recipe, metrics, history, new)

    replace_folder(request.out, fill, export.MARK)
    shutil.rmtree(work / "targets", ignore_errors=True)  # gigabytes, and minutes to make anew
    return metrics


def _pairs(recipe: Recipe, teacher: Teacher) -> tuple[tuple[int, int], ...]:
    """(layer of the student, layer of the teacher) that are matched."""
    own, other = recipe.student.layers, int(teacher.config.num_hidden_layers)
    pairs = recipe.training.map or layer_map(own, other, recipe.training.matched)
    wrong = [pair for pair in pairs if not (1 <= pair[0] <= own and 1 <= pair[1] <= other)]
    if wrong:
        fact = f"pairs layer {wrong[0][0]} of {own} with layer {wrong[0][1]} of the teacher's {other}"
        raise CompileError(Problem("training.map", "", fact, "layers count from 1"))
    return pairs


def _uses(recipe: Recipe, loss: str) -> bool:
    return any(max(getattr(phase, loss)) > 0 for phase in recipe.phases.values())


def _pool(data: Data, teacher: Teacher, recipe: Recipe, seed: int) -> Pool:
    """All sentences, and the student's vocabulary for them."""
    options, shape = recipe.data, recipe.student
    chosen = np.random.default_rng(seed).permutation(len(data.unlabelled))[: options.unlabelled]
    others = unlabelled_sentences([data.unlabelled.texts[i] for i in chosen])
    taken = {key(text) for text in (*data.valid.texts, *others.texts)}
    wanted = max(options.augment * len(data.train), options.augmented if options.augment else 0)
    seen = {word for text in data.train.texts for word in text.lower().split()}
    near = vocabulary.neighbours(teacher.tokenizer, teacher.table, seen)
    altered = augmented(data.train, wanted, taken, near, seed)
    sentences = data.train + altered + others
    if shape.pieces == "own":
        pieces = vocabulary.own_vocabulary(sentences.texts, shape.vocabulary)
    else:
        more = (*altered.texts, *others.texts)
        pieces = vocabulary.cut_vocabulary(teacher.tokenizer, data.train.texts, more, shape.vocabulary)
    return Pool(sentences, len(altered), pieces)


def _facts(data: Data, pool: Pool, teachers: Sequence[Teacher], student: Student, tokens: int) -> dict[str, Any]:
    """What metrics.json says about sentences, teachers and student, but for the student's accuracy."""
    texts, labels = data.valid.texts, data.valid.labels
    answers = [predict(t.model.eval(), [e.ids for e in encode(t.tokenizer, texts, tokens)]) for t in teachers]
    accuracies = [judge(x, labels)[1]["valid_accuracy"] for x in (*answers, average_teachers(answers))]
    return {
        "sentences": {
            "labelled": len(data.train),
            "augmented": pool.altered,
            "unlabelled": len(pool.sentences) - len(data.train) - pool.altered,
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
            "vocabulary": pool.pieces.get_vocab_size(),
        },
    }
