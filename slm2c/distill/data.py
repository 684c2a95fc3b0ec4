"""data: the sentences: read, checked, augmented. Labels are numbers here; a sentence without one has UNLABELLED."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slm2c.errors import CompileError, Problem
from slm2c.sentences import Row, read_labelled, read_texts

UNLABELLED = -1
_PUNCTUATION = re.compile(r"""[.,;:!?…¿¡"“”„«»()\[\]{}、。，！？；：।]|(?<=\w)[-–—](?=\w)""")
_SHOWN = 5  # faulty lines of a file that an error names


@dataclass(frozen=True)
class Sentences:
    """Sentences and, for each, the number of its label, or UNLABELLED."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def __add__(self, other: Sentences) -> Sentences:
        return Sentences(self.texts + other.texts, self.labels + other.labels)

    @property
    def words(self) -> set[str]:
        """What they are made of, in lower case."""
        return {word for text in self.texts for word in text.lower().split()}


@dataclass(frozen=True)
class Data:
    """What the user gives. `names` of the labels are sorted, or as a student has them (`as_student`); their positions
    are the labels' numbers.

    `left_out`: training and unlabelled sentences that the validation file has, too: to train on them would make its
    figures worthless.
    """

    names: tuple[str, ...]
    train: Sentences
    valid: Sentences
    unlabelled: Sentences
    left_out: int


def read_data(train: Path, valid: Path, unlabelled: Sequence[Path] = ()) -> Data:
    """Read all files. Raises CompileError naming file, line and remedy."""
    rows, judged = read_labelled(train), read_labelled(valid)
    names = tuple(sorted({row.label for row in rows}))
    if len(names) < 2:
        fact = f"has a single label, {names[0]!r}"
        raise CompileError(Problem(str(train), "", fact, "a classifier tells at least two apart"))
    number = {name: i for i, name in enumerate(names)}
    strange = [row for row in judged if row.label not in number]
    if strange:
        raise CompileError(
            Problem(
                f"{valid}, line {row.line}",
                "",
                f"has the label {row.label!r}, which {train.name} has not",
                "correct it, or add sentences of that label to the training",
            )
            for row in strange[:_SHOWN]
        )
    judged_keys = {key(row.text) for row in judged}
    kept = [row for row in rows if key(row.text) not in judged_keys]
    if {row.label for row in kept} != set(names):
        lost = sorted(set(names) - {row.label for row in kept})
        fact = f"has no sentence of {', '.join(lost)} that {valid.name} does not have, too"
        raise CompileError(Problem(str(train), "", fact, "train and validate on different sentences"))
    seen = judged_keys | {key(row.text) for row in kept}
    others: list[str] = []
    dropped = len(rows) - len(kept)
    for path in unlabelled:
        for text in read_texts(path):
            dropped += key(text) in judged_keys
            if key(text) not in seen:
                seen.add(key(text))
                others.append(text)

    def numbered(found: Iterable[Row]) -> Sentences:
        found = tuple(found)
        return Sentences(tuple(r.text for r in found), tuple(number[r.label] for r in found))

    return Data(names, numbered(kept), numbered(judged), unlabelled_sentences(others), dropped)


def as_student(data: Data, labels: Sequence[str], train: Path) -> Data:
    """The data with the numbers that a student gives to the labels; `train` is the file that they are from.

    Raises CompileError if the student's labels are others.
    """
    strange, absent = sorted(set(data.names) - set(labels)), sorted(set(labels) - set(data.names))
    if strange or absent:
        of_file = f"has the label {strange[0]!r}, which the student has not" if strange else ""
        fact = of_file or f"has no sentence of {absent[0]!r}, which the student has"
        raise CompileError(Problem(str(train), "", fact, "give the sentences that the student learned from"))
    number = [labels.index(name) for name in data.names]

    def numbered(found: Sentences) -> Sentences:
        return replace(found, labels=tuple(number[label] for label in found.labels))

    return Data(tuple(labels), numbered(data.train), numbered(data.valid), data.unlabelled, data.left_out)


def unlabelled_sentences(texts: Sequence[str]) -> Sentences:
    """`texts` as sentences without labels."""
    return Sentences(tuple(texts), (UNLABELLED,) * len(texts))


def key(text: str) -> str:
    """What counts as the same sentence: its words in lower case, without what sentences are punctuated by, unless there
    is nothing else. What tells commands apart stays: +, -, #, emoji, signs of vowels.
    """
    folded = text.lower()
    return " ".join(_PUNCTUATION.sub(" ", folded).split()) or " ".join(folded.split())


def augmented(
    train: Sentences, count: int, taken: Collection[str], near: Mapping[str, Sequence[str]], seed: int
) -> Sentences:
    """At most `count` altered copies of the sentences, as even a number of each as possible.

    Half of them cross over to another sentence at a word that both have, which keeps them close to what people say. In
    the others one word in six is left out, moved, replaced or put in (after TinyBERT's data augmentation and EDA: Jiao
    et al., arXiv 1909.10351; Wei and Zou, arXiv 1901.11196). Labels may not survive that, so the copies have none: the
    teachers judge them. `near`: words that may stand for a word. `taken`: keys of sentences that must not come out.
    """
    rng = random.Random(seed)
    words = _Words([text.split() for text in train.texts], near)
    seen = {*taken, *map(key, train.texts)}
    found: list[str] = []
    for attempt in range(3 * count):
        if len(found) == count:
            break
        text = words.altered(attempt % len(train), rng)
        if (name := key(text)) and name not in seen:
            seen.add(name)
            found.append(text)
    return unlabelled_sentences(found)


class _Words:
    """The sentences as words, and where each word stands."""

    def __init__(self, sentences: Sequence[Sequence[str]], near: Mapping[str, Sequence[str]]) -> None:
        self._sentences, self._near = sentences, near
        self._all = [word for sentence in sentences for word in sentence]
        self._places: dict[str, list[tuple[int, int]]] = {}
        for i, sentence in enumerate(sentences):
            for at, word in enumerate(sentence):
                self._places.setdefault(word, []).append((i, at))

    def altered(self, number: int, rng: random.Random) -> str:
        sentence = list(self._sentences[number])
        if rng.random() < 0.5:
            at = rng.randrange(len(sentence))
            other, place = rng.choice(self._places[sentence[at]])
            return " ".join([*sentence[:at], *self._sentences[other][place:]])
        for _ in range(1 + len(sentence) // 6):
            self._alter(sentence, rng)
        return " ".join(sentence)

    def _alter(self, sentence: list[str], rng: random.Random) -> None:
        at, what = rng.randrange(len(sentence)), rng.random()
        if what < 0.2 and len(sentence) > 2:
            del sentence[at]
        elif what < 0.3 and len(sentence) > 2:
            sentence.insert(rng.randrange(len(sentence)), sentence.pop(at))
        elif what < 0.8 and self._near.get(sentence[at].lower()):
            sentence[at] = rng.choice(self._near[sentence[at].lower()])
        elif what < 0.9:
            sentence[at] = rng.choice(self._all)
        else:
            sentence.insert(at, rng.choice(self._all))
