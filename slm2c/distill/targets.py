"""targets: what the teachers say about each sentence of the pool, asked once and kept in files.

Hidden states and attention are kept by word, as means over the pieces of a word: so a student whose pieces are not the
teacher's can still be compared with it, word by word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm2c.compile import Progress
from slm2c.distill.batches import Indices, by_length, encode, pad, words
from slm2c.distill.losses import average_teachers
from slm2c.distill.teacher import Teacher
from slm2c.distill.training import replace_file

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


@torch.no_grad()
def ask(
    teachers: Sequence[Teacher],
    texts: Sequence[str],
    tokens: int,
    hidden: Sequence[int],
    attention: Sequence[int],
    folder: Path,
    bf16: bool,
    progress: Progress,
) -> None:
    """Let all teachers judge the sentences; `open_targets` reads what this leaves in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    logits: list[Tensor] = []
    for number, teacher in enumerate(teachers):
        encodings = encode(teacher.tokenizer, texts, tokens)
        groups = [words(e) for e in encodings]
        of_layers: dict[str, Any] = {}
        if number == 0:
            counts = np.array([g[-1] + 1 for g in groups])
            starts, squares = (np.concatenate([[0], np.cumsum(n)]) for n in (counts, counts**2))
            np.savez(folder / "index.npz", starts=starts, squares=squares)
            width = int(teacher.config.hidden_size)
            shapes: dict[str, tuple[int, ...]] = {f"hidden-{x}": (int(starts[-1]), width) for x in hidden}
            shapes |= {f"attention-{x}": (int(squares[-1]),) for x in attention}
            of_layers = {
                name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, shape)
                for name, shape in shapes.items()
            }
        rows = torch.zeros(0)
        teacher.model.eval()
        order = by_length([len(e.ids) for e in encodings], _BATCH)
        for done, batch in enumerate(order):
            progress(f"teacher {number + 1} of {len(teachers)} labels {len(texts):,} sentences", done, len(order))
            ids, mask = pad([encodings[i].ids for i in batch])
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                answer = teacher.model(ids, mask, bool(of_layers))
            if not len(rows):
                rows = torch.zeros(len(texts), answer.logits.shape[1])
            rows[torch.from_numpy(batch)] = answer.logits.float()
            if of_layers:
                pool = pooling([groups[i] for i in batch], ids.shape[1])
                for x in hidden:
                    states = (pool @ answer.hidden[x].float()).numpy().astype(np.float16)
                    for j, i in enumerate(batch):
                        of_layers[f"hidden-{x}"][starts[i] : starts[i + 1]] = states[j, : counts[i]]
                for x in attention:
                    mean = by_word(answer.attention[x - 1].float().mean(1), pool).numpy().astype(np.float16)
                    for j, i in enumerate(batch):
                        part = mean[j, : counts[i], : counts[i]]
                        of_layers[f"attention-{x}"][squares[i] : squares[i + 1]] = part.ravel()
        for array in of_layers.values():
            array.flush()
        logits.append(rows)
    replace_file(folder / DONE, lambda part: _save(part, average_teachers(logits)))


def _save(path: Path, values: Tensor) -> None:
    with path.open("wb") as file:  # a path would get .npy appended
        np.save(file, values.numpy())


def open_targets(folder: Path, hidden: Sequence[int], attention: Sequence[int]) -> Targets:
    """What `ask` wrote; hidden states and attention are mapped into memory, not read."""
    index = np.load(folder / "index.npz")
    states = {x: np.load(folder / f"hidden-{x}.npy", mmap_mode="r") for x in hidden}
    return Targets(
        torch.from_numpy(np.load(folder / DONE)),
        index["starts"],
        index["squares"],
        states,
        {x: float(v[:20_000].astype(np.float32).var(0).mean()) for x, v in states.items()},
        {x: np.load(folder / f"attention-{x}.npy", mmap_mode="r") for x in attention},
    )
