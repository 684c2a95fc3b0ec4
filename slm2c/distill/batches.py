"""batches: token ids in batches of like length, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

Indices = NDArray[np.int64]


def encode(tokenizer: Tokenizer, texts: Sequence[str], tokens: int) -> list[Any]:
    """Encodings of the texts, cut to `tokens`."""
    tokenizer.enable_truncation(tokens)
    found = tokenizer.encode_batch(list(texts))
    tokenizer.no_truncation()
    return found


def words(encoding: Any) -> list[int]:
    """To which word each token belongs, counted from 0; special tokens are words of their own."""
    found: list[int] = []
    previous: object = object()
    for word, special in zip(encoding.word_ids, encoding.special_tokens_mask, strict=True):
        new = special or word != previous
        found.append((found[-1] if found else -1) + new)
        previous = object() if special else word
    return found


def pad(ids: Sequence[Sequence[int]], padding: int = 0) -> tuple[Tensor, Tensor]:
    """(ids, mask), [batch, longest], int64."""
    longest = max(map(len, ids))
    found = torch.full((len(ids), longest), padding)
    mask = torch.zeros(len(ids), longest, dtype=torch.long)
    for i, row in enumerate(ids):
        found[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return found, mask


def by_length(lengths: Sequence[int], size: int) -> list[Indices]:
    """Positions in batches of at most `size`, the shortest first."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    return [order[i : i + size] for i in range(0, len(order), size)]


def shuffled(chosen: Indices, lengths: Sequence[int], size: int, rng: np.random.Generator) -> list[Indices]:
    """`chosen` in random batches of about one length, in random order: little padding, and no two epochs alike."""
    jittered = np.asarray(lengths)[chosen] + rng.uniform(0, 1.5, len(chosen))
    order = chosen[np.argsort(jittered, kind="stable")]
    found = [order[i : i + size] for i in range(0, len(order), size)]
    return [found[i] for i in rng.permutation(len(found))]


@torch.no_grad()
def predict(model: Any, ids: Sequence[Sequence[int]], size: int = 128) -> Tensor:
    """Logits [sentences, classes] of a model that takes ids and mask; float32."""
    found: dict[int, Tensor] = {}
    for batch in by_length([len(x) for x in ids], size):
        answer = model(*pad([ids[i] for i in batch]))
        logits = answer if isinstance(answer, Tensor) else answer.logits
        found |= {int(i): row for i, row in zip(batch, logits.float(), strict=True)}
    return torch.stack([found[i] for i in range(len(ids))])
