"""Students of any shape with the pieces and labels of `tiny`, written as distil writes them."""

from collections.abc import Sequence
from pathlib import Path

import torch

from slm2c.distill import export
from slm2c.distill.batches import encode
from slm2c.distill.data import Sentences
from slm2c.distill.recipe import Shape
from slm2c.distill.student import Student
from slm2c.distill.vocabulary import _bert
from tests.distill import tiny


def student(shape: Shape, seed: int = 1) -> Student:
    """An untrained student with weights so large that every part matters."""
    torch.manual_seed(seed)
    made = Student(shape, len(tiny.PIECES), sorted(tiny.PHRASES), 0.1).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def relabelled(made: Student, labels: Sequence[str]) -> Student:
    """The same student with its classes in another order."""
    order, state = [made.labels.index(name) for name in labels], made.state_dict()
    moved = {name: state[name][order] for name in ("bert.classifier.weight", "bert.classifier.bias")}
    other = Student(made.shape, made.vocabulary, labels, made.dropout)
    other.load_state_dict(state | moved)
    return other.eval()


def write(folder: Path, made: Student) -> Path:
    """The files of a build."""
    folder.mkdir(exist_ok=True)
    pieces, names, tokens = _bert(tiny.PIECES, None, None, 100), sorted(tiny.PHRASES), made.shape.tokens
    texts, labels = zip(*tiny.rows(), strict=True)
    sentences = Sentences(texts, tuple(names.index(label) for label in labels))
    ids = [e.ids for e in encode(pieces, texts, tokens)]
    export.write_model(made, pieces, export.calibration(sentences, ids, tokens, seed=3), folder)
    return folder
