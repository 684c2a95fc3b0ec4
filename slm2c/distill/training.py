"""training: the one loop that fine-tunes teachers, distils students and finishes them; a kill costs it a minute.

An epoch's batches depend on its number and the seed alone, and a checkpoint holds everything else: weights, their
average, optimizer, random numbers, history. So a run that was killed and taken up ends with the very weights of one
that was not.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from slm2c.compile import Progress
from slm2c.distill.batches import Indices
from slm2c.distill.files import reading, replace_file, save_tensors, writing
from slm2c.distill.losses import cosine, linear
from slm2c.distill.recipe import Phase
from slm2c.errors import CompileError, Problem

_PERIOD = 60.0  # seconds between checkpoints
_LOGGED = 50  # steps between records


@dataclass(frozen=True)
class Moment:
    """Where training is: the phase, what of it is done (0 to 1), and what follows from both."""

    phase: Phase
    share: float

    @property
    def rate(self) -> float:
        """The learning rate."""
        return cosine(self.phase.rate, self.share)

    @property
    def temperature(self) -> float:
        """That of the soft targets."""
        return linear(self.phase.temperature, self.share)

    @property
    def hidden(self) -> float:
        """The weight of the hidden states' loss."""
        return linear(self.phase.hidden, self.share)

    @property
    def attention(self) -> float:
        """The weight of the attention's loss."""
        return linear(self.phase.attention, self.share)


class Loss(Protocol):
    """What a batch costs: the loss to go down, and the terms to log."""

    def __call__(self, batch: Indices, moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:
        """`batch`: positions of sentences."""
        ...


@dataclass(frozen=True)
class Group:
    """Parameters with a learning rate of `factor` times the phase's, and their weight decay."""

    parameters: Sequence[nn.Parameter]
    factor: float = 1.0
    decay: float = 0.0


@dataclass(frozen=True)
class Job:
    """What to train and how.

    model: what is averaged, judged and kept; aids: what is trained with it and thrown away (projections)
    plan: the batches of an epoch, whose number counts from 0 over all phases
    judge: (what to maximize, figures to log) of a model in evaluation mode
    average: of the exponential moving average, 0 for none
    """

    name: str
    model: nn.Module
    aids: nn.Module
    groups: Sequence[Group]
    phases: Mapping[str, Phase]
    plan: Callable[[int, Phase], Sequence[Indices]]
    loss: Loss
    judge: Callable[[nn.Module], tuple[float, Mapping[str, float]]]
    seed: int
    average: float = 0.0
    clip: float = 1.0
    bf16: bool = False
    betas: tuple[float, float] = (0.9, 0.98)


@dataclass
class _State:
    """What a checkpoint holds beside weights, optimizer and random numbers."""

    epoch: int = 0
    step: int = 0  # of the epoch
    steps: int = 0  # of all
    best: float = -1.0
    best_epoch: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)


def fit(job: Job, work: Path, progress: Progress, period: float = _PERIOD) -> list[dict[str, Any]]:
    """Train `job.model`; it ends with the best epoch's weights (the average, if there is one) in evaluation mode.

    `work` holds <name>.pt, a checkpoint each `period` seconds, from which a call with the same job goes on. Returns the
    history: records of steps and, with `epoch_ends`, of epochs; also in <name>.jsonl. Raises CompileError if `work`
    cannot be written, or holds a checkpoint that is damaged, and if the loss is no longer finite.
    """
    loop = _Loop(job, work / f"{job.name}.pt")
    state = loop.state
    epochs = [(name, phase, i) for name, phase in job.phases.items() for i in range(phase.epochs)]
    saved = time.monotonic()
    for number in range(state.epoch, len(epochs)):
        name, phase, i = epochs[number]
        plan = job.plan(number, phase)
        job.model.train()
        job.aids.train()
        title = f"{job.name}: {name} {i + 1} of {phase.epochs}" + (f", {state.best:.2%} so far" if number else "")
        while state.step < len(plan):
            progress(title, state.step, len(plan))
            moment = Moment(phase, (i + state.step / len(plan)) / phase.epochs)
            loop.learn(plan[state.step], moment)
            if state.step % _LOGGED == 0 or state.step == len(plan):
                _record(state, name, moment)
            if time.monotonic() > saved + period:
                loop.save()
                saved = time.monotonic()
        loop.end_epoch(number, name)
        loop.save()
    job.model.load_state_dict(loop.best)
    job.model.eval()
    return state.history


class _Loop:
    """All that a checkpoint holds, taken from `checkpoint` if that is there."""

    def __init__(self, job: Job, checkpoint: Path) -> None:
        self.job, self.checkpoint, self.state = job, checkpoint, _State()
        self.optimizer = torch.optim.AdamW(
            [{"params": list(g.parameters), "weight_decay": g.decay, "factor": g.factor} for g in job.groups],
            lr=1e-3,
            betas=job.betas,
            eps=1e-6,
            fused=True,
        )
        self.averaged = copy.deepcopy(job.model) if job.average else job.model
        self.best = copy.deepcopy(job.model.state_dict())
        self._parts: dict[str, Any] = {
            "model": job.model,
            "aids": job.aids,
            "averaged": self.averaged,
            "optimizer": self.optimizer,
        }
        torch.manual_seed(job.seed)
        with writing(checkpoint.parent):
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
        if checkpoint.is_file():
            with reading(checkpoint):
                self._load()

    def _load(self) -> None:
        found = torch.load(self.checkpoint, weights_only=True)
        for name, part in self._parts.items():
            part.load_state_dict(found[name])
        self.best, self.state = found["best"], _State(**found["state"])
        torch.set_rng_state(found["random"])

    def save(self) -> None:
        """The checkpoint, and the history so far as text."""
        content = {name: part.state_dict() for name, part in self._parts.items()}
        content |= {"best": self.best, "state": vars(self.state), "random": torch.get_rng_state()}
        replace_file(self.checkpoint, lambda part: save_tensors(content, part))
        log = "".join(json.dumps(record) + "\n" for record in self.state.history)
        replace_file(self.checkpoint.with_suffix(".jsonl"), lambda part: part.write_text(log, encoding="utf-8"))

    def learn(self, batch: Indices, moment: Moment) -> None:
        """One step."""
        job, state = self.job, self.state
        for group in self.optimizer.param_groups:
            group["lr"] = moment.rate * group["factor"]
        with torch.autocast("cpu", torch.bfloat16, enabled=job.bf16):
            loss, terms = job.loss(batch, moment)
        if not torch.isfinite(loss):
            fact = f"the loss is {loss.item()} at step {state.steps}"
            raise CompileError(Problem(job.name, "", fact, "lower the learning rate of the recipe"))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(job.model.parameters(), job.clip)
        self.optimizer.step()
        state.step += 1
        state.steps += 1
        for name, term in {"loss": loss, **terms}.items():
            state.sums[name] = state.sums.get(name, 0.0) + float(term.detach())
        state.sums["steps"] = state.sums.get("steps", 0) + 1
        if job.average:
            # Young averages follow closely, or the random start would weigh on them for long.
            keep = min(job.average, (1 + state.steps) / (10 + state.steps))
            with torch.no_grad():
                for old, new in zip(self.averaged.parameters(), job.model.parameters(), strict=True):
                    old.lerp_(new, 1 - keep)

    def end_epoch(self, number: int, phase: str) -> None:
        """Judge, and keep what is better than before."""
        self.averaged.eval()
        value, figures = self.job.judge(self.averaged)
        state = self.state
        state.history.append({"epoch_ends": number, "phase": phase, "steps": state.steps, **figures})
        if value > state.best:
            state.best, state.best_epoch = value, number
            self.best = copy.deepcopy(self.averaged.state_dict())
        state.epoch, state.step = number + 1, 0


def _record(state: _State, phase: str, moment: Moment) -> None:
    count = state.sums.pop("steps")
    means = {name: value / count for name, value in state.sums.items()}
    state.sums.clear()
    values = {"rate": moment.rate, "temperature": moment.temperature, **means}
    state.history.append(
        {"step": state.steps, "phase": phase, **{name: float(f"{value:.5g}") for name, value in values.items()}}
    )
