"""tune: a pretrained encoder becomes a teacher of the user's labels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from slm2c.compile import Progress
from slm2c.distill.batches import Indices, encode, pad, predict, shuffled
from slm2c.distill.data import Data
from slm2c.distill.files import writing
from slm2c.distill.recipe import Phase, Recipe, Tuning
from slm2c.distill.student import judge
from slm2c.distill.teacher import Classifier, Teacher, load_teacher, save_teacher
from slm2c.distill.training import Group, Job, Moment, fit
from slm2c.errors import CompileError, Problem


def tuned(teacher: Teacher, data: Data, recipe: Recipe, seed: int, work: Path, progress: Progress) -> Teacher:
    """The teacher, fine-tuned unless it knows the labels already. `work`/model keeps it, as a folder to give again.

    Raises CompileError if `work` cannot be written, or holds something damaged.
    """
    if teacher.tuned:
        return teacher
    kept = work / "model"
    if not kept.is_dir():
        job = tuning(teacher, data, recipe, seed, work.name)
        fit(job, work, progress)
        part = work / "model.part"
        shutil.rmtree(part, ignore_errors=True)
        with writing(kept):
            save_teacher(teacher, data.names, part)
            os.replace(part, kept)
        (work / f"{job.name}.pt").unlink()
    remedy = f"remove the folder {work}, and it is fine-tuned again"
    try:
        found = load_teacher(kept, data.names, recipe.student.tokens)
    except CompileError as error:
        raise CompileError(replace(problem, remedy=remedy) for problem in error.problems) from error
    if not found.tuned:
        raise CompileError(Problem(str(kept), "", "has lost its labels, or the file with its head", remedy))
    return found


def tuning(teacher: Teacher, data: Data, recipe: Recipe, seed: int, name: str) -> Job:
    """The job: a new head, and cross-entropy with smoothed labels (Szegedy et al., arXiv 1512.00567)."""
    options, tokens, model = recipe.teacher, recipe.student.tokens, teacher.model
    assert isinstance(model, Classifier), "what is not tuned has a head of ours"
    torch.manual_seed(seed)
    nn.init.normal_(model.head.weight, std=0.02)
    nn.init.zeros_(model.head.bias)
    ids, valid = ([e.ids for e in encode(teacher.tokenizer, x.texts, tokens)] for x in (data.train, data.valid))
    labels = torch.tensor(data.train.labels)

    def loss(batch: Indices, moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits = model(*pad([ids[i] for i in batch])).logits.float()
        wanted = labels[torch.from_numpy(batch)]
        return functional.cross_entropy(logits, wanted, label_smoothing=options.smoothing), {}

    def plan(epoch: int, phase: Phase) -> Sequence[Indices]:
        rng = np.random.default_rng([seed, epoch])
        return shuffled(np.arange(len(ids)), [len(x) for x in ids], options.batch, rng)

    encoder, head = list(model.encoder.parameters()), list(model.head.parameters())
    return Job(
        name=name,
        model=model,
        aids=nn.Module(),
        groups=[Group(encoder, decay=0.01), Group(head, options.head_rate, 0.01)],
        phases=_phases(options),
        plan=plan,
        loss=loss,
        judge=lambda judged: judge(predict(judged, valid), data.valid.labels),
        seed=seed,
        bf16=recipe.training.bf16,
        betas=(0.9, 0.999),
    )


def _phases(options: Tuning) -> dict[str, Phase]:
    """A tenth of the epochs, at least one, on the way up, the rest down; as one alone, down."""
    warm = min(options.epochs - 1, -(-options.epochs // 10))
    down = Phase(options.epochs - warm, (options.rate, 0.02 * options.rate))
    return {"warm-up": Phase(warm, (0.0, options.rate)), "fine-tune": down} if warm else {"fine-tune": down}
