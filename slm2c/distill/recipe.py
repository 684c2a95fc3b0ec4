"""recipe: the student and how it is trained, from a TOML file. docs/DISTILL.md has the reasons for the defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from slm2c import toml_file
from slm2c.toml_file import Fault, shown

Pair = tuple[float, float]
"""A value at the start of a phase and at its end."""


@dataclass(frozen=True)
class Shape:
    """The student: a BERT encoder of `layers`, `hidden` features, `heads`, inner size `ffn`, for up to `tokens` tokens.

    heads, ffn: of all layers, or of each
    vocabulary: pieces at most
    pieces: "teacher": the pieces of the teacher's that the sentences use; "own": WordPiece trained on the sentences
    head_size: features of a head; 0 for hidden / heads
    share: layers in a row that have the same weights
    rank: of the table of pieces, as a product of [vocabulary, rank] and [rank, hidden]; 0 for one table
    """

    layers: int = 6
    hidden: int = 128
    heads: int | tuple[int, ...] = 4
    ffn: int | tuple[int, ...] = 512
    vocabulary: int = 8192
    tokens: int = 32
    pieces: str = "teacher"
    head_size: int = 0
    share: int = 1
    rank: int = 0

    @property
    def heads_of(self) -> tuple[int, ...]:
        """Heads of each layer."""
        return self.heads if isinstance(self.heads, tuple) else (self.heads,) * self.layers

    @property
    def ffn_of(self) -> tuple[int, ...]:
        """Inner size of each layer."""
        return self.ffn if isinstance(self.ffn, tuple) else (self.ffn,) * self.layers

    @property
    def size_of_head(self) -> int:
        """Features of a head."""
        return self.head_size or self.hidden // max(self.heads_of)

    def source(self, layer: int) -> int:
        """The first of the layers that have the weights of `layer`; both count from 0."""
        return layer - layer % self.share


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

    def copies(self, labelled: int) -> int:
        """Altered copies of so many labelled sentences, all together."""
        return max(self.augment * labelled, self.augmented) if self.augment else 0


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
    """A third of the work, for a first look. Hidden states are not matched: that costs steps before it helps."""

    def third(epochs: int) -> int:
        return -(-epochs // 3)

    return replace(
        recipe,
        teacher=replace(recipe.teacher, epochs=third(recipe.teacher.epochs)),
        data=replace(recipe.data, augment=min(recipe.data.augment, 1), augmented=min(recipe.data.augmented, 2_000)),
        warm_up=replace(recipe.warm_up, hidden=(0.0, 0.0)),
        distil=replace(recipe.distil, epochs=third(recipe.distil.epochs), hidden=(0.0, 0.0)),
        fine_tune=replace(recipe.fine_tune, epochs=third(recipe.fine_tune.epochs)),
        finish=replace(recipe.finish, epochs=third(recipe.finish.epochs)),
    )


def read_recipe(path: Path) -> Recipe:
    """The recipe of a TOML file. Raises CompileError for what is not in a recipe, or makes no sense."""
    recipe = toml_file.record(Recipe, toml_file.load(path), str(path), Recipe())
    toml_file.refuse(str(path), _faults(recipe))
    return recipe


@dataclass(frozen=True)
class _Range:
    """Numbers that a key may have; `above` and `below`: without the one at that end."""

    least: float
    most: float
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether it is one of them."""
        low = self.least < value if self.above else self.least <= value
        return low and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        low = f"above {self.least}" if self.above else f"from {self.least}"
        return f"it is {low} {'and below' if self.below else 'to'} {self.most}"


_SIZE, _COUNT, _EPOCHS = _Range(1, 65_536), _Range(0, 1_000_000_000), _Range(0, 10_000)
_SHARE, _BELOW_ONE, _WEIGHT = _Range(0, 1), _Range(0, 1, below=True), _Range(0, 1_000_000)
_RATE = _Range(0, 10, above=True)
_PHASE = {
    "epochs": _EPOCHS,
    "rate": _Range(0, 10),
    "alpha": _SHARE,
    "temperature": _Range(0, 100, above=True),
    "hidden": _WEIGHT,
    "attention": _WEIGHT,
}
_RANGES = {
    "student": {
        "layers": _Range(1, 256),
        "hidden": _SIZE,
        "heads": _SIZE,
        "ffn": _SIZE,
        "vocabulary": _Range(200, 65_536),
        "tokens": _Range(3, 65_536),  # [CLS], a piece and [SEP]
        "head_size": _Range(0, 65_536),
        "share": _Range(1, 256),
        "rank": _Range(0, 65_536),
    },
    "teacher": {
        "epochs": _Range(1, 10_000),
        "batch": _SIZE,
        "rate": _RATE,
        "head_rate": _Range(0, 1_000_000, above=True),
        "smoothing": _BELOW_ONE,
    },
    "data": {
        "augment": _Range(0, 1_000),
        "augmented": _COUNT,
        "unlabelled": _COUNT,
        "repeats": _Range(1, 1_000),
        "share": _SHARE,
        "steps": _Range(1, 100_000),
    },
    "training": {
        "batch": _SIZE,
        "decay": _Range(0, 10),
        "clip": _Range(0, 1_000_000, above=True),
        "dropout": _BELOW_ONE,
        "average": _BELOW_ONE,
        "matched": _Range(1, 256),
        "threads": _Range(0, 1_024),
    },
    "warm_up": _PHASE,
    "distil": _PHASE,
    "fine_tune": _PHASE,
    "finish": {"epochs": _EPOCHS, "rate": _RATE},
}
"""What a recipe's numbers may be, and each of several where a key has more than one."""


def _faults(recipe: Recipe) -> list[Fault]:
    """What is wrong with values that make no sense."""
    found = _shape_faults(recipe.student)
    for part in fields(recipe)[1:]:  # the student is the first
        found += _out_of_range(part.name, getattr(recipe, part.name))
    if recipe.student.pieces not in ("teacher", "own"):
        found.append((f"student.pieces = {shown(recipe.student.pieces)}", "it is 'teacher' or 'own'"))
    if not recipe.phases:
        found.append(("no phase has an epoch", "set distil.epochs"))
    for name, phase in recipe.phases.items():
        if max(phase.rate) == 0:
            found.append((f"rate = {list(phase.rate)} of {name}", "it is above 0 at one end"))
    return found


def _out_of_range(name: str, table: object) -> list[Fault]:
    """(fact, remedy) for the numbers of a table of the recipe that are not in `_RANGES`."""
    found = []
    for key, allowed in _RANGES[name].items():
        given = getattr(table, key)
        several = list(given) if isinstance(given, tuple) else [given]
        if not several or not all(map(allowed.holds, several)):
            found.append((f"{name}.{key} = {shown(several if isinstance(given, tuple) else given)}", str(allowed)))
    return found


def _shape_faults(shape: Shape) -> list[Fault]:
    """(fact, remedy) for layers, heads and sizes that make no sense."""
    found = _out_of_range("student", shape)
    if found:
        return found
    for name in ("heads", "ffn"):
        given = getattr(shape, name)
        if isinstance(given, tuple) and len(given) != shape.layers:
            found.append((f"student.{name} has {len(given)} numbers, student.layers = {shape.layers}", "one each"))
        elif isinstance(given, tuple) and any(given[i] != given[shape.source(i)] for i in range(shape.layers)):
            found.append((f"student.{name} differs in layers that share weights", "change it, or student.share"))
    if isinstance(shape.heads, tuple) and not shape.head_size:
        found.append(("student.heads is of each layer, and student.head_size is not given", "give it"))
    elif not shape.head_size and shape.hidden % max(shape.heads_of):
        found.append((f"student.hidden = {shape.hidden} does not divide into {shape.heads} heads", "change either"))
    elif shape.hidden % shape.size_of_head or max(shape.heads_of) * shape.size_of_head > shape.hidden:
        fact = (
            f"student.head_size = {shape.size_of_head} of {max(shape.heads_of)} heads, student.hidden = {shape.hidden}"
        )
        found.append((fact, "head_size divides hidden, and heads have no more features than hidden"))
    if shape.rank > shape.hidden:
        found.append((f"student.rank = {shape.rank}, student.hidden = {shape.hidden}", "it is hidden at most"))
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
