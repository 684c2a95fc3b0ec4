"""recipe: the student and how it is trained, from a TOML file. docs/DISTILL.md has the reasons for the defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from slm2c import toml_file
from slm2c.toml_file import Fault

Pair = tuple[float, float]
"""A value at the start of a phase and at its end."""


@dataclass(frozen=True)
class Shape:
    """The student: a BERT encoder of `layers`, `hidden` features, `heads`, inner size `ffn`, for up to `tokens` tokens.

    vocabulary: pieces at most
    pieces: "teacher": the pieces of the teacher's that the sentences use; "own": WordPiece trained on the sentences
    """

    layers: int = 6
    hidden: int = 128
    heads: int = 4
    ffn: int = 512
    vocabulary: int = 8192
    tokens: int = 32
    pieces: str = "teacher"


@dataclass(frozen=True)
class Tuning:
    """How a pretrained encoder becomes a teacher. `head_rate`: the new head's learning rate, times `rate`."""

    epochs: int = 6
    batch: int = 32
    rate: float = 1e-4
    head_rate: float = 10.0
    smoothing: float = 0.05


@dataclass(frozen=True)
class Pool:
    """What the student reads.

    augment: altered copies of each labelled sentence, and at least `augmented` in all; the teachers label them
    unlabelled: sentences taken of the unlabelled files, at most
    repeats: how often an epoch has each labelled sentence
    share: of the other sentences, drawn anew for each epoch
    steps: of an epoch at least; few sentences are read several times
    """

    augment: int = 6
    augmented: int = 3_000
    unlabelled: int = 25_000
    repeats: int = 1
    share: float = 0.5
    steps: int = 60


@dataclass(frozen=True)
class Phase:
    """A stretch of training. Pairs go from their first value to the second: `rate` along a cosine, the others linearly.

    alpha: weight of the labels' cross-entropy; that of the teachers' soft targets is 1 - alpha
    temperature: of the soft targets; hidden, attention: weights of the matching losses
    labelled: only sentences that have a label
    """

    epochs: int = 0
    rate: Pair = (0.0, 0.0)
    alpha: float = 0.3
    temperature: Pair = (5.0, 5.0)
    hidden: Pair = (1.0, 1.0)
    attention: Pair = (0.0, 0.0)
    labelled: bool = False


@dataclass(frozen=True)
class Training:
    """What all phases share.

    decay: weight decay of matrices; average: of the weights, an exponential one, which is what is judged and kept
    matched: layers of the student that are matched with the teacher's, evenly spread; or `map`, pairs of both
    bf16: matrix products in bfloat16; threads: of the machine, 0 for all
    """

    batch: int = 64
    decay: float = 0.02
    clip: float = 1.0
    dropout: float = 0.05
    average: float = 0.998
    matched: int = 3
    map: tuple[tuple[int, int], ...] = ()
    bf16: bool = False
    threads: int = 0


@dataclass(frozen=True)
class Finish:
    """The fine-tune with the compiler's quantizer in the graph; none where epochs is 0."""

    epochs: int = 1
    rate: float = 2e-5


@dataclass(frozen=True)
class Recipe:
    """A student and how to train it."""

    student: Shape = field(default_factory=Shape)
    teacher: Tuning = field(default_factory=Tuning)
    data: Pool = field(default_factory=Pool)
    training: Training = field(default_factory=Training)
    warm_up: Phase = Phase(epochs=1, rate=(0.0, 1e-3))
    distil: Phase = Phase(epochs=10, rate=(1e-3, 1e-4), temperature=(5.0, 1.0), hidden=(1.0, 0.0))
    fine_tune: Phase = Phase(epochs=1, rate=(1e-4, 1e-5), alpha=0.5, temperature=(1.0, 1.0), hidden=(0.0, 0.0))
    finish: Finish = field(default_factory=Finish)

    @property
    def phases(self) -> dict[str, Phase]:
        """Those that last, in their order."""
        found = {"warm-up": self.warm_up, "distil": self.distil, "fine-tune": self.fine_tune}
        return {name: phase for name, phase in found.items() if phase.epochs}


def quick(recipe: Recipe) -> Recipe:
    """A third of the work, for a first look."""

    def third(epochs: int) -> int:
        return -(-epochs // 3)

    return replace(
        recipe,
        teacher=replace(recipe.teacher, epochs=third(recipe.teacher.epochs)),
        data=replace(recipe.data, augment=1, augmented=min(recipe.data.augmented, 2_000)),
        distil=replace(recipe.distil, epochs=third(recipe.distil.epochs)),
        fine_tune=replace(recipe.fine_tune, epochs=third(recipe.fine_tune.epochs)),
        finish=replace(recipe.finish, epochs=third(recipe.finish.epochs)),
    )


def read_recipe(path: Path) -> Recipe:
    """The recipe of a TOML file. Raises CompileError for what is not in a recipe, or makes no sense."""
    recipe = toml_file.record(Recipe, toml_file.load(path), str(path), Recipe())
    toml_file.refuse(str(path), _faults(recipe))
    return recipe


def _faults(recipe: Recipe) -> list[Fault]:
    """What is wrong with values that make no sense."""
    shape, training, found = recipe.student, recipe.training, []
    for name in ("layers", "hidden", "heads", "ffn"):
        if getattr(shape, name) < 1:
            found.append((f"student.{name} = {getattr(shape, name)}", "it is at least 1"))
    if shape.heads >= 1 and shape.hidden % shape.heads:
        found.append((f"student.hidden = {shape.hidden} does not divide into {shape.heads} heads", "change either"))
    if shape.tokens < 3:
        found.append((f"student.tokens = {shape.tokens}", "[CLS], a piece and [SEP] are 3"))
    if not 200 <= shape.vocabulary <= 65536:
        found.append((f"student.vocabulary = {shape.vocabulary}", "it is from 200 to 65536"))
    if shape.pieces not in ("teacher", "own"):
        found.append((f"student.pieces = '{shape.pieces}'", "it is 'teacher' or 'own'"))
    for name in ("batch", "matched"):
        if getattr(training, name) < 1:
            found.append((f"training.{name} = {getattr(training, name)}", "it is at least 1"))
    if not 0 <= training.average < 1:
        found.append((f"training.average = {training.average}", "it is at least 0 and below 1"))
    if recipe.data.repeats < 1 or recipe.data.augment < 0 or not 0 <= recipe.data.share <= 1 or recipe.data.steps < 1:
        found.append(("data.repeats, augment, share and steps", "at least 1, at least 0, from 0 to 1, at least 1"))
    if recipe.teacher.epochs < 1 or recipe.teacher.batch < 1:
        found.append(("teacher.epochs and teacher.batch", "they are at least 1"))
    if not recipe.phases:
        found.append(("no phase has an epoch", "set distil.epochs"))
    for name, phase in recipe.phases.items():
        if not 0 <= phase.alpha <= 1:
            found.append((f"alpha = {phase.alpha} of {name}", "it is from 0 to 1"))
        if min(phase.temperature) <= 0:
            found.append((f"temperature = {list(phase.temperature)} of {name}", "it is above 0"))
        if min(phase.rate) < 0 or max(phase.rate) == 0:
            found.append((f"rate = {list(phase.rate)} of {name}", "it is above 0 at one end"))
        if min(*phase.hidden, *phase.attention) < 0:
            found.append((f"a weight of {name} is negative", "weights are at least 0"))
    return found


def to_toml(recipe: Recipe) -> str:
    """The file that `read_recipe` would read back to the same recipe, every default written out."""
    parts = []
    for part in fields(recipe):
        table = getattr(recipe, part.name)
        lines = [f"{f.name} = {_toml(getattr(table, f.name))}" for f in fields(table)]
        parts.append("\n".join([f"[{part.name}]", *lines]))
    return "\n\n".join(parts) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)
