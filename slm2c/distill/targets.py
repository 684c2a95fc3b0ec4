"""targets: what the teachers say about each sentence of the pool, asked once and kept in files.

Hidden states and attention are kept by word, as means over the pieces of a word: so a student whose pieces are not the
teacher's can still be compared with it, word by word.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm2c.compile import Progress
from slm2c.distill.batches import Indices, by_length, encode, pad, words
from slm2c.distill.files import reading, replace_file, writing
from slm2c.distill.losses import average_teachers
from slm2c.distill.teacher import Answer, Teacher

_INDEX = "index.npz"
DONE = "logits.npy"
"""What `ask` writes last: the others are whole where this is."""

_BATCH = 128


@dataclass(frozen=True)
class Targets:
    """logits [sentences, classes]: log-probabilities, averaged over the teachers.

    Of the first teacher, by its layers' numbers: hidden [all words, features], float16, and its variance; attention, of
    each sentence words * words numbers, the mean over the heads. `starts`, `squares`: where a sentence's begin in them.
    """

    logits: Tensor
    starts: Indices
    squares: Indices
    hidden: Mapping[int, Any]
    variance: Mapping[int, float]
    attention: Mapping[int, Any]

    def words(self, sentence: int) -> int:
        """How many words the teacher saw in a sentence, special tokens included."""
        return int(self.starts[sentence + 1] - self.starts[sentence])

    def hidden_of(self, layer: int, sentences: Sequence[int]) -> Tensor:
        """[words of all these sentences, features]."""
        rows = [self.hidden[layer][self.starts[i] : self.starts[i + 1]] for i in sentences]
        return torch.from_numpy(np.concatenate(rows)).float()

    def attention_of(self, layer: int, sentence: int) -> Tensor:
        """[words, words]; rows sum to 1."""
        n = self.words(sentence)
        flat = self.attention[layer][self.squares[sentence] : self.squares[sentence + 1]]
        return torch.from_numpy(np.array(flat)).float().reshape(n, n)


def pooling(groups: Sequence[Sequence[int]], tokens: int) -> Tensor:
    """[batch, words, tokens]: what makes means over words of states of tokens; words that there are not are rows of 0.

    `groups`: of each sentence, to which word each token belongs.
    """
    most = max(g[-1] for g in groups) + 1
    found = torch.zeros(len(groups), most, tokens)
    for i, group in enumerate(groups):
        found[i, torch.tensor(group), torch.arange(len(group))] = 1
    return found / found.sum(-1, keepdim=True).clamp_min(1)


def by_word(attention: Tensor, pool: Tensor) -> Tensor:
    """Attention [batch, tokens, tokens] over words: mean over a word's tokens as queries, sum over them as keys."""
    return pool @ attention @ (pool > 0).to(attention.dtype).transpose(1, 2)


@dataclass(frozen=True)
class Layers:
    """Of which layers of the first teacher, counted from 1, hidden states and attention are kept."""

    hidden: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Files:
    """Hidden states and attention by layer, mapped from files and filled batch by batch; see `Targets`."""

    groups: Sequence[Sequence[int]]
    starts: Indices
    squares: Indices
    hidden: Mapping[int, Any]
    attention: Mapping[int, Any]

    def fill(self, batch: Indices, answer: Answer, tokens: int) -> None:
        """`batch`: positions of the sentences that a teacher has answered, padded to `tokens`."""
        pool = pooling([self.groups[i] for i in batch], tokens)
        for layer, rows in self.hidden.items():
            states = (pool @ answer.hidden[layer].float()).numpy().astype(np.float16)
            for j, i in enumerate(batch):
                rows[self.starts[i] : self.starts[i + 1]] = states[j, : self.groups[i][-1] + 1]
        for layer, rows in self.attention.items():
            mean = by_word(answer.attention[layer - 1].float().mean(1), pool).numpy().astype(np.float16)
            for j, i in enumerate(batch):
                n = self.groups[i][-1] + 1
                rows[self.squares[i] : self.squares[i + 1]] = mean[j, :n, :n].ravel()

    def flush(self) -> None:
        """Bring what was filled in to the disk."""
        for rows in (*self.hidden.values(), *self.attention.values()):
            rows.flush()


def ask(
    teachers: Sequence[Teacher],
    texts: Sequence[str],
    tokens: int,
    layers: Layers,
    folder: Path,
    progress: Progress,
    bf16: bool = False,
) -> None:
    """Let all teachers judge the sentences, cut to `tokens`; `open_targets` reads what this leaves in `folder`.

    Raises CompileError if that cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    logits = []
    for number, teacher in enumerate(teachers):
        encodings = encode(teacher.tokenizer, texts, tokens)
        title = f"teacher {number + 1} of {len(teachers)} labels {len(texts):,} sentences"
        files = None if number else _new_files(folder, [words(e) for e in encodings], layers, teacher)
        logits.append(_answers(teacher, [e.ids for e in encodings], files, bf16, partial(progress, title)))
        if files is not None:
            with writing(folder):
                files.flush()
    replace_file(folder / DONE, lambda part: _save(part, average_teachers(logits)))


@torch.no_grad()
def _answers(
    teacher: Teacher, ids: Sequence[Sequence[int]], files: _Files | None, bf16: bool, done: Callable[[int, int], None]
) -> Tensor:
    """Logits [sentences, classes]; hidden states and attention go to the files."""
    found: dict[int, Tensor] = {}
    internals = files is not None and bool(files.hidden or files.attention)
    teacher.model.eval()
    batches = by_length([len(x) for x in ids], _BATCH)
    for number, batch in enumerate(batches):
        done(number, len(batches))
        padded, mask = pad([ids[i] for i in batch])
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            answer = teacher.model(padded, mask, internals)
        found |= {int(i): row for i, row in zip(batch, answer.logits.float(), strict=True)}
        if files is not None and internals:
            files.fill(batch, answer, padded.shape[1])
    return torch.stack([found[i] for i in range(len(ids))])


def _new_files(folder: Path, groups: Sequence[Sequence[int]], layers: Layers, teacher: Teacher) -> _Files:
    counts = np.array([g[-1] + 1 for g in groups])
    starts, squares = (np.concatenate([[0], np.cumsum(n)]) for n in (counts, counts**2))
    width = int(teacher.config.hidden_size)
    with writing(folder):
        np.savez(folder / _INDEX, starts=starts, squares=squares)
        return _Files(
            groups,
            starts,
            squares,
            {x: _new_array(_hidden(folder, x), (int(starts[-1]), width)) for x in layers.hidden},
            {x: _new_array(_attention(folder, x), (int(squares[-1]),)) for x in layers.attention},
        )


def _new_array(path: Path, shape: tuple[int, ...]) -> Any:
    """A file of float16, mapped. Its room is taken now: what a full disk does to a mapped hole later is SIGBUS."""
    array = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _hidden(folder: Path, layer: int) -> Path:
    return folder / f"hidden-{layer}.npy"


def _attention(folder: Path, layer: int) -> Path:
    return folder / f"attention-{layer}.npy"


def _save(path: Path, values: Tensor) -> None:
    with path.open("wb") as file:  # a path would get .npy appended
        np.save(file, values.numpy())


def open_targets(folder: Path, layers: Layers) -> Targets:
    """What `ask` wrote; hidden states and attention are mapped into memory, not read.

    Raises CompileError for a file that is not as it was written.
    """
    with reading(folder / DONE):
        logits = torch.from_numpy(np.load(folder / DONE))
    with reading(folder / _INDEX):
        index = np.load(folder / _INDEX)
        starts, squares = index["starts"], index["squares"]
    hidden = {x: _mapped(_hidden(folder, x), int(starts[-1])) for x in layers.hidden}
    attention = {x: _mapped(_attention(folder, x), int(squares[-1])) for x in layers.attention}
    variance = {x: float(v[:20_000].astype(np.float32).var(0).mean()) for x, v in hidden.items()}
    return Targets(logits, starts, squares, hidden, variance, attention)


def _mapped(path: Path, rows: int) -> Any:
    with reading(path):
        found = np.load(path, mmap_mode="r")
        if len(found) != rows:
            raise ValueError(f"{len(found)} rows instead of {rows}")
        return found
