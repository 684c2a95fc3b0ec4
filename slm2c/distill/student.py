"""student: the model that is trained, how it starts, and what it learns from a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from slm2c.distill.batches import Indices, encode, pad, predict, shuffled, words
from slm2c.distill.data import UNLABELLED, Sentences
from slm2c.distill.losses import attention_loss, hard_loss, hidden_loss, soft_loss
from slm2c.distill.recipe import Phase, Pool, Recipe, Shape
from slm2c.distill.targets import Targets, by_word, pooling
from slm2c.distill.teacher import Teacher
from slm2c.distill.training import Group, Job, Moment
from slm2c.distill.vocabulary import principal, teacher_rows

_NORM, _SPREAD = 0.04, 0.02
"""Of an embedding at the start, per square root of its size; and what BERT's random weights have."""


class Factors(nn.Module):
    """A table of embeddings [pieces, hidden] as a product of two: `table` [pieces, rank], and `up` [hidden, rank]."""

    def __init__(self, pieces: int, rank: int, hidden: int, padding: int) -> None:
        super().__init__()
        self.table = nn.Embedding(pieces, rank, padding_idx=padding)
        self.up = _linear(rank, hidden, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [batch, tokens] to embeddings [batch, tokens, hidden]."""
        return self.up(self.table(ids))

    @property
    def weight(self) -> Tensor:
        """The product."""
        return self.table.weight @ self.up.weight.T


def _linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear layer that starts as BERT's do."""
    made = nn.Linear(inputs, outputs, bias)
    nn.init.normal_(made.weight, std=_SPREAD)
    if bias:
        nn.init.zeros_(made.bias)
    return made


class Student(nn.Module):
    """BERT with a classifier, as `transformers` has it; input_ids and attention_mask [batch, tokens] to logits.

    Beyond BERT, `shape` may give each layer its own number of heads and inner size, let layers share their weights, and
    have the table of pieces as a product of two.
    """

    def __init__(self, shape: Shape, vocabulary: int, labels: Sequence[str], dropout: float) -> None:
        from transformers import BertConfig, BertForSequenceClassification

        super().__init__()
        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.hidden // shape.size_of_head,
            intermediate_size=max(shape.ffn_of),
            max_position_embeddings=shape.tokens,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            id2label=dict(enumerate(labels)),
            label2id={name: i for i, name in enumerate(labels)},
            attn_implementation="eager",
        )
        self.bert = BertForSequenceClassification(config)
        self.shape = shape
        self.labels, self.dropout = tuple(labels), dropout
        for layer, heads, ffn in zip(self.layers, shape.heads_of, shape.ffn_of, strict=True):
            _resize(layer, shape.hidden, heads, shape.size_of_head, ffn)
        for i, layer in enumerate(self.layers):
            _tie(layer, self.layers[shape.source(i)])
        if shape.rank:
            factors = Factors(vocabulary, shape.rank, shape.hidden, config.pad_token_id)
            self.bert.bert.embeddings.word_embeddings = factors

    @property
    def layers(self) -> Sequence[Any]:
        """The encoder's, as `transformers` has them."""
        return self.bert.bert.encoder.layer

    @property
    def vocabulary(self) -> int:
        """Pieces in the table."""
        return int(self.bert.config.vocab_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The logits [batch, classes]."""
        return self.bert(input_ids=input_ids, attention_mask=attention_mask).logits


def _resize(layer: Any, hidden: int, heads: int, size: int, ffn: int) -> None:
    """Give a layer of BERT so many heads and so large an inner size, with new weights where it has another."""
    attention, width = layer.attention, heads * size
    if attention.self.num_attention_heads != heads:
        attention.self.num_attention_heads, attention.self.all_head_size = heads, width
        for name in ("query", "key", "value"):
            setattr(attention.self, name, _linear(hidden, width))
        attention.output.dense = _linear(width, hidden)
    if layer.intermediate.dense.out_features != ffn:
        layer.intermediate.dense, layer.output.dense = _linear(hidden, ffn), _linear(ffn, hidden)


def _tie(layer: nn.Module, source: nn.Module) -> None:
    """Let a layer have the parameters of `source`. The modules stay its own, so that an export tells them apart."""
    for (path, module), (_, other) in zip(layer.named_modules(), source.named_modules(), strict=True):
        assert isinstance(module, type(other)), path
        for name, parameter in other.named_parameters(recurse=False):
            setattr(module, name, parameter)


def set_table(student: Student, rows: Tensor) -> None:
    """Make `rows` [pieces, hidden] the embeddings of the pieces, or what is nearest to them of the student's rank."""
    embeddings = student.bert.bert.embeddings.word_embeddings
    if isinstance(embeddings, Factors):
        table, up = factors(rows, student.shape.rank)
        embeddings.table.weight.copy_(table)
        embeddings.up.weight.copy_(up)
    else:
        embeddings.weight.copy_(rows)


def factors(rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(table [pieces, rank], up [hidden, rank]): the product of this rank that is nearest to `rows` [pieces, hidden] by
    the sum of squares (Eckart and Young, doi 10.1007/BF02288367), the most important column first.

    A column of both has the same length, so that neither spends its eight bits on few columns. Signs do not hang on the
    solver.
    """
    left, values, right = torch.linalg.svd(rows.double(), full_matrices=False)
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    largest = right.gather(1, right.abs().argmax(1, keepdim=True)).sign().T
    root = values.sqrt()
    return (left * largest * root).to(rows.dtype), (right.T * largest * root).to(rows.dtype)


@torch.no_grad()
def start_from_teacher(student: Student, pieces: Tokenizer, teacher: Teacher) -> None:
    """Embeddings of pieces and positions: the teacher's, on the principal directions of its pieces."""
    rows = teacher_rows(pieces, teacher.tokenizer, teacher.table)
    size = student.bert.config.hidden_size
    mean, basis = principal(rows, size)
    start = (rows - mean) @ basis
    scale = _NORM * size**0.5 / start.norm(dim=1).mean()
    embeddings = student.bert.bert.embeddings
    start[pieces.token_to_id("[PAD]")] = 0
    set_table(student, start * scale)
    positions = _positions(teacher)
    own = embeddings.position_embeddings.weight
    if positions is not None and len(positions) >= len(own):
        own.copy_((positions[: len(own)] - positions.mean(0)) @ basis * scale)
    embeddings.token_type_embeddings.weight.zero_()


def _positions(teacher: Teacher) -> Tensor | None:
    """The teacher's table of absolute positions, if it has one, and counts them from 0."""
    tables = [m.weight for name, m in teacher.model.named_modules() if name.endswith("embeddings.position_embeddings")]
    return tables[0].detach() if tables and teacher.config.model_type in ("bert", "distilbert", "electra") else None


def groups(student: nn.Module, aids: nn.Module, decay: float) -> list[Group]:
    """Matrices decay; embeddings, biases and norms do not, nor what is thrown away."""
    named = list(student.named_parameters())
    matrices = [p for name, p in named if p.ndim > 1 and "embeddings" not in name]
    others = [p for name, p in named if p.ndim <= 1 or "embeddings" in name]
    return [Group(matrices, decay=decay), Group(others), Group(list(aids.parameters()))]


@dataclass(frozen=True)
class Reading:
    """What the student reads: of each sentence of the pool ids, to which word each token belongs, and the label."""

    ids: Sequence[Sequence[int]]
    words: Sequence[Sequence[int]]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Lesson:
    """The distillation loss of a batch: a `Loss` of `training`.

    layers: (student's, teacher's) that are matched; projections: one for each of them, to the teacher's features
    """

    student: Student
    reading: Reading
    targets: Targets
    layers: Sequence[tuple[int, int]]
    projections: nn.ModuleList

    def __call__(self, batch: Indices, moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The weighted loss, and its terms without their weights."""
        ids, mask = pad([self.reading.ids[i] for i in batch])
        out = self.student.bert(
            input_ids=ids,
            attention_mask=mask,
            output_hidden_states=moment.hidden > 0,
            output_attentions=moment.attention > 0,
        )
        chosen = torch.from_numpy(batch)
        labels = torch.from_numpy(self.reading.labels[batch])
        logits, alpha = out.logits.float(), moment.phase.alpha
        terms = {
            "hard": hard_loss(logits, labels),
            "soft": soft_loss(logits, self.targets.logits[chosen], moment.temperature),
        }
        loss = alpha * terms["hard"] + (1 - alpha) * terms["soft"]
        if moment.hidden > 0 or moment.attention > 0:
            for name, weight, term in self._matching(batch, ids.shape[1], out, moment):
                loss, terms[name] = loss + weight * term, term
        return loss, terms

    def _matching(self, batch: Indices, tokens: int, out: Any, moment: Moment) -> list[tuple[str, float, Tensor]]:
        """(term, weight, value) of hidden states and attention, over the sentences in which both see the same words."""
        alike = [j for j, i in enumerate(batch) if self.reading.words[i][-1] + 1 == self.targets.words(i)]
        if not alike:
            return []
        sentences = [int(batch[j]) for j in alike]
        pool = pooling([self.reading.words[i] for i in sentences], tokens)
        real = pool.sum(-1) > 0
        rows = torch.tensor(alike)
        found = []
        if moment.hidden > 0:
            values = []
            for (own, other), project in zip(self.layers, self.projections, strict=True):
                # Means of projections are projections of means: first to words, which are fewer.
                projected = project(pool @ out.hidden_states[own][rows].float())[real].float()
                target = self.targets.hidden_of(other, sentences)
                values.append(hidden_loss(projected, target, self.targets.variance[other]))
            found.append(("hidden", moment.hidden, torch.stack(values).sum()))
        if moment.attention > 0:
            values = []
            for own, other in self.layers:
                mean = by_word(out.attentions[own - 1][rows].float().mean(1), pool)
                target = torch.zeros_like(mean)
                for j, i in enumerate(sentences):
                    n = self.targets.words(i)
                    target[j, :n, :n] = self.targets.attention_of(other, i)
                values.append(attention_loss(mean[real], target[real]))
            found.append(("attention", moment.attention, torch.stack(values).sum()))
        return found


@dataclass(frozen=True)
class Plan:
    """The batches of an epoch: each labelled sentence some times, and a share of the others, drawn anew."""

    lengths: Sequence[int]
    labels: NDArray[np.int64]
    pool: Pool
    batch: int
    seed: int

    def __call__(self, epoch: int, phase: Phase) -> list[Indices]:
        """Positions in the pool."""
        rng = np.random.default_rng([self.seed, epoch])
        labelled = np.flatnonzero(self.labels != UNLABELLED)
        others = np.flatnonzero(self.labels == UNLABELLED)
        count = round(len(others) * self.pool.share) if not phase.labelled else 0
        chosen: list[Indices] = []
        while -(-sum(map(len, chosen)) // self.batch) < self.pool.steps:
            chosen += [np.tile(labelled, self.pool.repeats), rng.choice(others, count, replace=False)]
        return shuffled(np.concatenate(chosen), self.lengths, self.batch, rng)


def judge(logits: Tensor, labels: Sequence[int]) -> tuple[float, dict[str, float]]:
    """(the share that is right, less a hundred-thousandth of the loss for ties; figures to log)."""
    wanted = torch.tensor(labels)
    right = float((logits.argmax(-1) == wanted).double().mean())
    loss = float(nn.functional.cross_entropy(logits, wanted))
    return right - 1e-5 * min(loss, 100.0), {"valid_accuracy": right, "valid_loss": float(f"{loss:.5g}")}


@dataclass(frozen=True)
class Course:
    """What the student reads while it is trained, what the teachers say to it, and who judges: ids and labels."""

    reading: Reading
    targets: Targets
    pairs: Sequence[tuple[int, int]]
    valid: Sequence[Sequence[int]]
    valid_labels: Sequence[int]


def read_all(pieces: Tokenizer, sentences: Sentences, tokens: int) -> Reading:
    """The sentences as the student reads them."""
    encodings = encode(pieces, sentences.texts, tokens)
    return Reading([e.ids for e in encodings], [words(e) for e in encodings], np.array(sentences.labels))


def lessons(
    name: str, student: Student, course: Course, features: int, phases: Mapping[str, Phase], recipe: Recipe, seed: int
) -> Job:
    """The job that takes a student, new or cut down, through phases of distillation. `features`: the teacher's."""
    matched = course.pairs if any(max(phase.hidden) > 0 for phase in phases.values()) else ()
    projections = nn.ModuleList(nn.Linear(recipe.student.hidden, features) for _ in matched)
    training, reading = recipe.training, course.reading
    return Job(
        name=name,
        model=student,
        aids=projections,
        groups=groups(student, projections, training.decay),
        phases=phases,
        plan=Plan([len(x) for x in reading.ids], reading.labels, recipe.data, training.batch, seed),
        loss=Lesson(student, reading, course.targets, course.pairs, projections),
        judge=lambda judged: judge(predict(judged, course.valid), course.valid_labels),
        seed=seed,
        average=training.average,
        clip=training.clip,
        bf16=training.bf16,
    )
