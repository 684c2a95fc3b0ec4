"""losses: what the student is trained to make small, and how temperature and weights change over time.

    L = alpha * hard + (1 - alpha) * T**2 * KL(teacher_T || student_T) + hidden * MSE + attention * KL

Sources: soft targets and T**2 (so that the gradients' size does not depend on T): Hinton, Vinyals and Dean, arXiv
1503.02531; hidden states through a learned projection, and the layer map: TinyBERT, Jiao et al., arXiv 1909.10351;
attention distributions by KL: MiniLM, Wang et al., arXiv 2002.10957.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from slm2c.distill.data import UNLABELLED
from slm2c.distill.recipe import Pair


def hard_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of [batch, classes] with [batch] labels, over the whole batch; a sentence without label adds 0."""
    total = functional.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    return total / len(labels)


def soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T**2 * KL(teacher_T || student_T), mean over the batch; both are logits [batch, classes]."""
    student = functional.log_softmax(logits / temperature, -1)
    target = functional.log_softmax(teacher / temperature, -1)
    return temperature**2 * functional.kl_div(student, target, log_target=True, reduction="batchmean")


def hidden_loss(projected: Tensor, teacher: Tensor, variance: float) -> Tensor:
    """Mean square error of [words, features], in units of the teacher's variance; 0 without words."""
    if not len(teacher):
        return projected.sum() * 0
    return functional.mse_loss(projected, teacher) / variance


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of distributions over words [rows, words], mean over the rows."""
    if not len(teacher):
        return student.sum() * 0
    tiny = torch.finfo(student.dtype).tiny
    ratio = teacher.clamp_min(tiny).log() - student.clamp_min(tiny).log()
    return (teacher * ratio).sum(-1).mean()


def average_teachers(logits: Sequence[Tensor]) -> Tensor:
    """The logits of the normalized geometric mean of the teachers' distributions: the mean of their log-probabilities.

    (Hinton et al. allow either mean; this one has logits, which a temperature needs.)
    """
    return torch.stack([functional.log_softmax(x, -1) for x in logits]).mean(0)


def linear(pair: Pair, share: float) -> float:
    """Between both values, at 0 <= share <= 1 of the way."""
    return pair[0] + (pair[1] - pair[0]) * share


def cosine(pair: Pair, share: float) -> float:
    """As `linear`, along half a cosine: level at both ends (Loshchilov and Hutter, arXiv 1608.03983)."""
    return linear(pair, (1 - math.cos(math.pi * share)) / 2)


def layer_map(student: int, teacher: int, matched: int) -> tuple[tuple[int, int], ...]:
    """(layer of the student, layer of the teacher) for `matched` layers, evenly spread; layers count from 1.

    The last is matched with the last; layer s learns from layer s * teacher / student, as in TinyBERT.
    """
    matched = min(matched, student)
    layers = [-(-student * (i + 1) // matched) for i in range(matched)]
    return tuple((s, max(1, round(s * teacher / student))) for s in layers)
