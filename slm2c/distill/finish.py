"""finish: a short fine-tune with the compiler's quantizer in the graph, kept only where it raises integer accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slm2c.compile import Progress
from slm2c.distill.batches import Indices
from slm2c.distill.integer import Compiled
from slm2c.distill.losses import hard_loss, soft_loss
from slm2c.distill.recipe import Phase, Recipe
from slm2c.distill.simulate import Simulation
from slm2c.distill.student import Course, Plan, Reading, Student, groups, judge
from slm2c.distill.targets import Targets
from slm2c.distill.training import Job, Moment, fit


@dataclass(frozen=True)
class _Lesson:
    """Labels and soft targets, as in the last phase, on the simulated logits."""

    simulation: Simulation
    reading: Reading
    targets: Targets

    def __call__(self, batch: Indices, moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits = self.simulation(torch.tensor([self.reading.ids[i] for i in batch]))
        chosen = torch.from_numpy(batch)
        terms = {
            "hard": hard_loss(logits, torch.from_numpy(self.reading.labels[batch])),
            "soft": soft_loss(logits, self.targets.logits[chosen], moment.temperature),
        }
        alpha = moment.phase.alpha
        return alpha * terms["hard"] + (1 - alpha) * terms["soft"], terms


def finish(
    student: Student, compiled: Compiled, course: Course, recipe: Recipe, seed: int, work: Path, progress: Progress
) -> list[dict[str, Any]]:
    """Fine-tune the student's weights under the ranges of `compiled`, which was made of them; returns the history.

    The epoch with the best simulated accuracy is what is left.
    """
    simulation = Simulation(compiled.fused.graph, compiled.quantized.graph, student)
    last = list(recipe.phases.values())[-1]
    pair = (recipe.finish.rate, recipe.finish.rate / 10)
    phase = Phase(recipe.finish.epochs, pair, last.alpha, (1.0, 1.0), (0.0, 0.0), (0.0, 0.0))
    lengths = [len(x) for x in course.reading.ids]
    plan = Plan(lengths, course.reading.labels, recipe.data, recipe.training.batch, seed)
    job = Job(
        name="finish",
        model=student,
        aids=nn.Module(),
        groups=groups(student, nn.Module(), 0.0),
        phases={"finish": phase},
        plan=lambda epoch, phase: same_length(np.concatenate(plan(epoch, phase)), lengths, plan.batch, [seed, epoch]),
        loss=_Lesson(simulation, course.reading, course.targets),
        # What is trained is what the simulation reads, so that no model has to be handed to it.
        judge=lambda _: judge(simulated(simulation, course.valid), course.valid_labels),
        seed=seed,
        clip=recipe.training.clip,
    )
    return fit(job, work, progress)


def same_length(chosen: Indices, lengths: Sequence[int], size: int, seed: Sequence[int] | None = None) -> list[Indices]:
    """`chosen` in batches of one length each, as the fused graph has no padding; with a seed in random order."""
    own = np.asarray(lengths)[chosen]
    alike = [chosen[own == n] for n in np.unique(own)]
    found = [group[i : i + size] for group in alike for i in range(0, len(group), size)]
    return found if seed is None else [found[i] for i in np.random.default_rng(seed).permutation(len(found))]


@torch.no_grad()
def simulated(simulation: Simulation, ids: Sequence[Sequence[int]]) -> Tensor:
    """Logits [sentences, classes] of all sentences."""
    found: dict[int, Tensor] = {}
    for batch in same_length(np.arange(len(ids)), [len(x) for x in ids], 128):
        logits = simulation(torch.tensor([ids[i] for i in batch]))
        found |= {int(i): row for i, row in zip(batch, logits, strict=True)}
    return torch.stack([found[i] for i in range(len(ids))])
