#!/usr/bin/env python3
"""What every part of `slm2c distill` brings: a small student trained with one part more from row to row.

    python tools/ablation.py --teacher all-MiniLM-L6-v2/ --train train.csv --valid val.csv -o ablation/

Teacher, sentences and what the teacher says to them are made once; every row trains the same number of steps from the
same seeds. Prints a table in Markdown. What lies in -o already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from slm2c.distill import export, integer, targets, vocabulary
from slm2c.distill.batches import encode
from slm2c.distill.corpus import Corpus, gather
from slm2c.distill.data import Data, Sentences, read_data
from slm2c.distill.finish import finish
from slm2c.distill.losses import layer_map
from slm2c.distill.recipe import Finish, Phase, Pool, Recipe, Shape, Training
from slm2c.distill.student import Course, Student, lessons, read_all, start_from_teacher
from slm2c.distill.teacher import Teacher, load_teacher
from slm2c.distill.training import fit
from slm2c.distill.tune import tuned
from slm2c.distill.work import digest, stage

BUDGET = Recipe(
    student=Shape(layers=3, hidden=96, heads=4, ffn=384, vocabulary=4096),
    data=Pool(augment=4, augmented=0, share=0.25, steps=50),
    training=Training(batch=32, matched=3),
    warm_up=replace(Recipe().warm_up, attention=(1.0, 1.0)),
    distil=replace(Recipe().distil, epochs=8, attention=(1.0, 0.0)),
    fine_tune=replace(Recipe().fine_tune, epochs=1),
    finish=Finish(epochs=1),
)
"""Everything that is looked at, for 500 steps of 32 sentences, with augmented ones or without."""


def _phases(recipe: Recipe, change: Callable[[Phase], Phase]) -> Recipe:
    return replace(
        recipe, warm_up=change(recipe.warm_up), distil=change(recipe.distil), fine_tune=change(recipe.fine_tune)
    )


@dataclass(frozen=True)
class Row:
    """A student: how its recipe differs from BUDGET; if its embeddings start at the teacher's; whose pieces.

    `against`: the row that it is compared with; "" for the one before.
    """

    change: Callable[[Recipe], Recipe]
    start: bool = False
    own: bool = False
    against: str = ""


def _no_others(recipe: Recipe) -> Recipe:
    return replace(recipe, data=replace(recipe.data, share=0.0))


def _no_attention(recipe: Recipe) -> Recipe:
    return _phases(recipe, lambda p: replace(p, attention=(0.0, 0.0)))


def _no_hidden(recipe: Recipe) -> Recipe:
    return _phases(_no_attention(recipe), lambda p: replace(p, hidden=(0.0, 0.0)))


def _no_decay(recipe: Recipe) -> Recipe:
    return _phases(_no_hidden(recipe), lambda p: replace(p, temperature=(5.0, 5.0)))


def _labels(recipe: Recipe) -> Recipe:
    return _phases(_no_hidden(recipe), lambda p: replace(p, alpha=1.0))


DEFAULT = "+ embeddings start at the teacher's"
"""Has the terms of the default recipe; its students are finished in integers, too."""

ROWS: Mapping[str, Row] = {
    "hard labels alone": Row(lambda r: _no_others(_labels(r))),
    "+ soft targets, T = 5": Row(lambda r: _no_others(_no_decay(r))),
    "+ T from 5 to 1": Row(lambda r: _no_others(_no_hidden(r))),
    "+ hidden states": Row(lambda r: _no_others(_no_attention(r))),
    "+ augmented sentences": Row(_no_attention),
    DEFAULT: Row(_no_attention, start=True),
    "all of these, with a vocabulary of its own": Row(_no_attention, start=True, own=True, against=DEFAULT),
    "all of these and attention": Row(lambda r: r, start=True, against=DEFAULT),
    "all of these but hidden states": Row(_no_hidden, start=True, against=DEFAULT),
}


def subset(data: Data, labels: int, each: int) -> Data:
    """`each` training sentences of each of the most frequent labels; what is left of them is for validation, too."""
    counts = Counter(data.train.labels)
    chosen = sorted(sorted(counts, key=lambda label: (-counts[label], label))[:labels])
    order = np.random.default_rng(0).permutation(len(data.train))
    kept, judged = [], []
    for number, label in enumerate(chosen):
        mine = [data.train.texts[i] for i in order if data.train.labels[i] == label]
        kept += [(text, number) for text in mine[:each]]
        judged += [(text, number) for text in mine[each : 2 * each]]
        judged += [(t, number) for t, x in zip(data.valid.texts, data.valid.labels, strict=True) if x == label]

    def sentences(found: Sequence[tuple[str, int]]) -> Sentences:
        return Sentences(tuple(text for text, _ in found), tuple(number for _, number in found))

    return Data(tuple(data.names[x] for x in chosen), sentences(kept), sentences(judged), Sentences((), ()), 0)


@dataclass(frozen=True)
class Bench:
    """What all rows share."""

    data: Data
    teacher: Teacher
    corpus: Corpus
    asked: targets.Targets
    pairs: tuple[tuple[int, int], ...]
    out: Path

    def course(self, pieces: Tokenizer) -> Course:
        """The lessons, read with a vocabulary."""
        tokens, valid = BUDGET.student.tokens, self.data.valid
        reading = read_all(pieces, self.corpus.sentences, tokens)
        judged = [e.ids for e in encode(pieces, valid.texts, tokens)]
        return Course(reading, self.asked, self.pairs, judged, valid.labels)


def prepare(folder: Path, data: Data, out: Path) -> tuple[Bench, str]:
    """(what all rows share, its key): the teacher is tuned and asked unless `out` holds that already."""
    tokens = BUDGET.student.tokens
    at, key = stage(out, "teacher", data, BUDGET.teacher)
    teacher = tuned(load_teacher(folder, data.names, tokens), data, BUDGET, 1, at, _silent)
    corpus = gather(data, teacher, BUDGET, 1)
    pairs = layer_map(BUDGET.student.layers, int(teacher.config.num_hidden_layers), BUDGET.training.matched)
    layers = targets.Layers(*[tuple(other for _, other in pairs)] * 2)
    at, key = stage(out, "targets", key, corpus.sentences, layers)
    if not (at / targets.DONE).is_file():
        targets.ask([teacher], corpus.sentences.texts, tokens, layers, at, _silent)
    return Bench(data, teacher, corpus, targets.open_targets(at, layers), pairs, out), key


def train(bench: Bench, key: str, name: str, row: Row, seed: int) -> dict[str, float]:
    """Accuracies, in percent, of the student of a row and a seed."""
    recipe = row.change(BUDGET)
    at, _ = stage(bench.out, f"{list(ROWS).index(name)}-{seed}", key, recipe, row.start, row.own, seed)
    if (at / "found.json").is_file():
        return json.loads((at / "found.json").read_text())
    print(f"{name}, seed {seed} ...", file=sys.stderr)
    pieces = bench.corpus.pieces
    if row.own:
        pieces = vocabulary.own_vocabulary(bench.corpus.sentences.texts, recipe.student.vocabulary)
    course = bench.course(pieces)
    torch.manual_seed(seed)
    student = Student(recipe.student, pieces.get_vocab_size(), bench.data.names, recipe.training.dropout)
    if row.start:
        start_from_teacher(student, pieces, bench.teacher)
    features = int(bench.teacher.config.hidden_size)
    history = fit(lessons("student", student, course, features, recipe.phases, recipe, seed), at, _silent)
    found = {"float": 100 * max(r["valid_accuracy"] for r in history if "epoch_ends" in r)}
    if name == DEFAULT:
        ids = course.reading.ids
        calibration = export.calibration(bench.data.train, ids, recipe.student.tokens, seed)
        compiled, found["that one in integers"] = _in_integers(student, pieces, calibration, bench.data, at / "before")
        finish(student, compiled, course, recipe, seed, at, _silent)
        _, found["and finished"] = _in_integers(student, pieces, calibration, bench.data, at / "after")
    (at / "found.json").write_text(json.dumps(found))
    return found


def _in_integers(
    student: Student, pieces: Tokenizer, calibration: Mapping[str, np.ndarray], data: Data, folder: Path
) -> tuple[integer.Compiled, float]:
    folder.mkdir(exist_ok=True)
    export.write_model(student, pieces, calibration, folder)
    compiled = integer.compile_folder(folder, _silent)
    third = Sentences(data.valid.texts[::3], data.valid.labels[::3])  # the reference takes its time
    return compiled, 100 * integer.judge(compiled, folder / "tokenizer.json", third, _silent).accuracy_integer


def table(found: Mapping[str, Sequence[float]]) -> str:
    """Rows of accuracies, one a seed, in Markdown, each compared with the row that it is against.

    A difference counts if it is over twice its standard error.
    """
    lines = ["| | right, % | standard deviation | difference | |", "|---|---|---|---|---|"]
    before = ""
    for name, values in found.items():
        mean, spread, compared = statistics.mean(values), statistics.stdev(values), "|"
        if other := found.get(ROWS[name].against if name in ROWS and ROWS[name].against else before):
            change = mean - statistics.mean(other)
            error = ((spread**2 + statistics.stdev(other) ** 2) / len(values)) ** 0.5
            compared = f"{change:+.1f} | {'' if abs(change) > 2 * error else 'within the spread'}"
        lines.append(f"| {name} | {mean:.1f} | {spread:.1f} | {compared} |")
        before = name
    return "\n".join(lines)


def _silent(*_: object) -> None:
    pass


def main() -> None:
    """Train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--teacher", "--train", "--valid"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument("--labels", type=int, default=20, help="how many, the most frequent")
    parser.add_argument("--each", type=int, default=40, help="training sentences of each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.seeds < 2:
        parser.error("--seeds: one has no spread")
    torch.set_num_threads(given.threads)
    data = subset(read_data(given.train, given.valid), given.labels, given.each)
    bench, key = prepare(given.teacher, data, given.out)
    print(f"{len(bench.data.train)} training, {len(bench.data.valid)} validation sentences\n", file=sys.stderr)
    # Seed by seed, so that a table of fewer seeds is there early.
    found: dict[str, list[float]] = {}
    for seed in range(1, given.seeds + 1):
        for name, row in ROWS.items():
            for kind, value in train(bench, digest(key, given.threads), name, row, seed).items():
                found.setdefault(name if kind == "float" else kind, []).append(value)
    print(table(found))


if __name__ == "__main__":
    main()
