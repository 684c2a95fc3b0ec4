"""candidates: students that could be made, of a teacher by training or of a student by cuts, and how each is made."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from slm2c.board import Board
from slm2c.compile import Progress
from slm2c.distill import compress, integer, parts, proposals, run, vocabulary
from slm2c.distill.data import Data, as_student
from slm2c.distill.recipe import Recipe, Shape
from slm2c.distill.restore import restore
from slm2c.distill.teacher import load_teacher
from slm2c.distill.tune import tuned
from slm2c.distill.work import digest, files_digest, stage
from slm2c.errors import CompileError, Problem
from slm2c.folders import RECIPE, replace_folder

WHOLE = "whole"
"""The name of a student that nothing is cut from."""

_FILES = ("*.onnx", "*.json", "*.npz", "*.toml")


@dataclass(frozen=True)
class Task:
    """The sentences, as files and as read, and the folder in which all is made."""

    train: Path
    valid: Path
    data: Data
    out: Path


@dataclass(frozen=True)
class Proposal:
    """A student that could be made.

    shape: what it will have, about; pieces: its tokenizer
    key: of all that it is made from; make: write its folder, which appears whole
    given: it is there already, and costs no training
    """

    name: str
    what: str
    shape: Shape
    pieces: Tokenizer
    key: Sequence[Any]
    make: Callable[[Path, Progress], None]
    given: bool = False


@dataclass(frozen=True)
class FromTeacher:
    """Students of several sizes around the recipe's, trained by it. The teacher is fine-tuned once for all of them."""

    teacher: Path
    recipe: Recipe
    seed: int

    @property
    def sources(self) -> tuple[Path, ...]:
        """The folders that it reads."""
        return (self.teacher,)

    def proposals(self, task: Task) -> list[Proposal]:
        """Those whose vocabulary can be made. Raises CompileError for a folder that holds no teacher, for a recipe that
        pairs layers, and if there are none.
        """
        recipe, data = self.recipe, task.data
        if recipe.training.map:
            fact, remedy = "pairs layers of a student of one depth, and fit tries several", "leave it out"
            raise CompileError(Problem("training.map", "", fact, f"{remedy}: `matched` of them are spread evenly"))
        teacher = load_teacher(self.teacher, data.names, recipe.student.tokens)
        tuning = (recipe.teacher, recipe.student.tokens, recipe.training)
        key = digest(data, *tuning, self.seed, files_digest(self.teacher))

        @cache
        def pieces(size: int) -> Tokenizer:
            if recipe.student.pieces == "own":
                return vocabulary.own_vocabulary(data.train.texts, size)
            return vocabulary.cut_vocabulary(teacher.tokenizer, data.train.texts, (), size)

        def ready(progress: Progress) -> Path:
            """The folder of a teacher that knows the labels."""
            if teacher.tuned:
                return self.teacher
            torch.set_num_threads(recipe.training.threads or os.cpu_count() or 1)  # the bits hang on it
            at, _ = stage(task.out, "teacher", key)
            tuned(teacher, data, recipe, self.seed, at, progress)
            return at / "model"

        def proposal(name: str, shape: Shape) -> Proposal:
            chosen = replace(recipe, student=shape)

            def make(out: Path, progress: Progress) -> None:
                request = run.Request([ready(progress)], task.train, task.valid, [], out, chosen, self.seed)
                run.distill(request, progress)

            return Proposal(name, proposals.words(shape), shape, pieces(shape.vocabulary), (key, chosen), make)

        found, problems = list[Proposal](), list[Problem]()
        for name, shape in proposals.shapes(recipe.student).items():
            try:
                found.append(proposal(name, shape))
            except CompileError as error:  # a vocabulary smaller than the characters of the sentences
                problems += error.problems
        if not found:
            raise CompileError(problems[0])
        return found


@dataclass(frozen=True)
class FromStudent:
    """A student, and what is left of it after several cuts, with a fine-tune of `epochs` behind each step of a cut.

    teacher: of the fine-tunes, a folder of one that knows the labels; None: the student itself
    board: what sizes on the way are measured on
    """

    student: Path
    board: Board
    teacher: Path | None
    epochs: int
    seed: int

    @property
    def sources(self) -> tuple[Path, ...]:
        """The folders that it reads."""
        return (self.student,) if self.teacher is None else (self.student, self.teacher)

    def proposals(self, task: Task) -> list[Proposal]:
        """The whole student first. Raises CompileError for a folder that holds no student, for labels that are not the
        student's, and for a teacher that does not know them.
        """
        found = restore(self.student)
        whole, pieces = found.student.shape, found.pieces
        data = as_student(task.data, found.student.labels, task.train)
        if self.teacher:
            compress.load_judge(self.teacher, data.names, whole.tokens)
        teacher = files_digest(self.teacher) if self.teacher else ""
        key = digest(data, self.seed, files_digest(self.student, _FILES), teacher)

        def proposal(name: str, cut: proposals.Cut, shape: Shape) -> Proposal:
            def make(out: Path, progress: Progress) -> None:
                request = compress.Request(
                    student=self.student,
                    train=task.train,
                    valid=task.valid,
                    out=out,
                    teacher=self.teacher,
                    board=self.board,
                    layers=cut.layers if cut.layers < whole.layers else None,
                    rank=cut.rank or None,
                    heads=parts.Part(cut.heads, True) if cut.heads < 1 else None,
                    ffn=parts.Part(cut.ffn, True) if cut.ffn < 1 else None,
                    epochs=self.epochs,
                    seed=self.seed,
                )
                compress.compress(request, progress)

            return Proposal(name, name.replace("-", ", "), shape, pieces, (key, asdict(cut), self.epochs), make)

        def copy(out: Path, progress: Progress) -> None:
            _copied(self.student, data, out, progress)

        first = Proposal(WHOLE, "the whole student", whole, pieces, (key,), copy, given=True)
        return [first, *(proposal(name, *cut) for name, cut in proposals.cuts(whole).items())]


def _copied(student: Path, data: Data, out: Path, progress: Progress) -> None:
    """A copy of a student's folder, with its accuracy on the sentences at hand in metrics.json."""
    compiled = integer.compile_folder(student, progress)
    judged = integer.judge(compiled, student / "tokenizer.json", data.valid, progress)

    def fill(new: Path) -> None:
        for path in student.iterdir():
            if path.is_file():
                shutil.copyfile(path, new / path.name)
        (new / "metrics.json").write_text(json.dumps({"student": asdict(judged)}, indent=1) + "\n", encoding="utf-8")

    replace_folder(out, fill, RECIPE)
