"""The loop: it learns, and a kill changes nothing but the time."""

import errno
import json
import resource
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from slm2c.distill import batches, files
from slm2c.distill.batches import Indices
from slm2c.distill.recipe import Phase
from slm2c.distill.training import Group, Job, Moment, fit
from slm2c.errors import CompileError

PHASES = {"warm-up": Phase(1, (0.0, 0.02)), "distil": Phase(3, (0.02, 0.001))}


class Killed(Exception):
    pass


def job(kill_at: int = -1, average: float = 0.9) -> Job:
    """Points of two moons' kind, a net with dropout, so that random numbers matter; batch number `kill_at` is fatal."""
    torch.manual_seed(7)
    points = torch.randn(64, 2)
    labels = (points[:, 0] * points[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2))
    aids = nn.Linear(2, 2)
    calls = 0

    def loss(batch: Indices, moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            raise Killed
        chosen = torch.from_numpy(batch)
        hard = functional.cross_entropy(model(points[chosen]), labels[chosen])
        other = aids(points[chosen]).square().mean()
        return hard + 0.1 * other, {"hard": hard, "other": other}

    def judge(judged: nn.Module) -> tuple[float, Mapping[str, float]]:
        with torch.no_grad():
            right = float((judged(points).argmax(1) == labels).double().mean())
        return right, {"valid_accuracy": right}

    def plan(epoch: int, phase: Phase) -> list[Indices]:
        return batches.shuffled(np.arange(64), [1] * 64, 8, np.random.default_rng([1, epoch]))

    groups = [Group(list(model.parameters()), decay=0.01), Group(list(aids.parameters()), 2.0)]
    return Job("net", model, aids, groups, PHASES, plan, loss, judge, 5, average)


def weights(made: Job) -> dict[str, Tensor]:
    return {**made.model.state_dict(), **{f"aid.{k}": v for k, v in made.aids.state_dict().items()}}


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("kill_at", [1, 2, 8, 9, 13, 32])
def test_a_killed_run_ends_with_the_same_bits(kill_at: int, average: float, tmp_path: Path) -> None:
    whole, first, second = job(average=average), job(kill_at, average), job(average=average)
    history = fit(whole, tmp_path / "whole", lambda *_: None, period=0)
    with pytest.raises(Killed):
        fit(first, tmp_path / "cut", lambda *_: None, period=0)
    torch.manual_seed(99)  # a new process has other random numbers
    assert fit(second, tmp_path / "cut", lambda *_: None, period=0) == history
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(second).items())
    lines = (tmp_path / "cut" / "net.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history


def test_checkpoints_do_not_change_the_result(tmp_path: Path) -> None:
    often, seldom = job(), job()
    fit(often, tmp_path / "often", lambda *_: None, period=0)
    fit(seldom, tmp_path / "seldom", lambda *_: None, period=1e9)
    assert all(torch.equal(v, weights(often)[name]) for name, v in weights(seldom).items())


def test_it_learns_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    made = job()
    before, _ = made.judge(made.model)
    history = fit(made, tmp_path, lambda *_: None)
    judged = [record["valid_accuracy"] for record in history if "epoch_ends" in record]
    assert len(judged) == 4 and max(judged) > before
    assert made.judge(made.model)[0] == max(judged) and not made.model.training
    steps = [record for record in history if "step" in record]
    assert steps[-1]["step"] == 32 and {"loss", "hard", "other", "rate", "temperature"} <= set(steps[0])


def test_groups_have_their_own_rates(tmp_path: Path) -> None:
    """With plain gradient descent's sign only: Adam's first step moves each parameter by its learning rate."""
    torch.manual_seed(0)
    model, aids = nn.Linear(1, 1), nn.Linear(1, 1)
    before = [p.detach().clone() for p in (model.weight, aids.weight)]

    def loss(batch: Indices, moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:
        return model.weight.sum() + aids.weight.sum(), {}

    groups = [Group([model.weight]), Group([aids.weight], 3.0)]
    one = {"once": Phase(1, (0.5, 0.5))}
    fit(
        Job("n", model, aids, groups, one, lambda *_: [np.arange(1)], loss, lambda m: (1.0, {}), 0),
        tmp_path,
        lambda *_: None,
    )
    assert (before[0] - model.weight).item() == pytest.approx(0.5, rel=1e-4)
    assert (before[1] - aids.weight).item() == pytest.approx(1.5, rel=1e-4)


def test_average_of_weights(tmp_path: Path) -> None:
    """average' = keep * average + (1 - keep) * weight with keep = min(average, (1 + n) / (10 + n)) after step n."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)

    def loss(batch: Indices, moment: Moment) -> tuple[Tensor, Mapping[str, Tensor]]:
        return model.weight.sum(), {}

    def plan(epoch: int, phase: Phase) -> list[Indices]:
        return [np.arange(1)] * 2

    groups = [Group([model.weight])]
    made = Job("n", model, nn.Module(), groups, {"x": Phase(1, (0.5, 0.5))}, plan, loss, lambda m: (1.0, {}), 0, 0.2)
    fit(made, tmp_path, lambda *_: None)
    first = 2 / 11 * 1.0 + 9 / 11 * 0.5  # (1 + 1) / (10 + 1) is less than 0.2
    assert model.weight.item() == pytest.approx(0.2 * first + 0.8 * 0.0, rel=1e-3)


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    path.write_text("old")

    def fails(part: Path) -> None:
        part.write_text("half of the n")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CompileError, match=r"state\.pt': cannot be written: No space left on device; make room"):
        files.replace_file(path, fails)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    files.replace_file(path, lambda part: part.write_text("new"))
    assert path.read_text() == "new"


@pytest.mark.parametrize("limit", [10, 1_000, 50_000, 399_000])
def test_a_checkpoint_that_does_not_fit(limit: int, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(CompileError, match=r"state\.pt': cannot be written: File too large; make room"):
            files.replace_file(tmp_path / "state.pt", lambda part: files.save_tensors(torch.zeros(100_000), part))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(job(kill_at=13), tmp_path, lambda *_: None, period=0)
    path = tmp_path / "net.pt"
    whole = path.read_bytes()
    other = job()
    other.model.add_module("more", nn.Linear(2, 2))
    torch.save({"model": other.model.state_dict()}, tmp_path / "other.pt")
    for content in (whole[:-100], whole[:100], b"", b"text", b"\x80\x02garbage", (tmp_path / "other.pt").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(CompileError, match=r"net\.pt': cannot be read: .+; remove the folder") as caught:
            fit(job(), tmp_path, lambda *_: None)
        assert "weights_only" not in str(caught.value)  # how PyTorch would run what the file says


def test_a_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    made = Job(
        "n",
        model,
        nn.Module(),
        [Group(list(model.parameters()))],
        PHASES,
        lambda *_: [np.arange(1)],
        lambda *_: (model.weight.sum() * float("nan"), {}),
        lambda m: (1.0, {}),
        0,
    )
    with pytest.raises(CompileError, match="'n': the loss is nan at step 0; lower the learning rate"):
        fit(made, tmp_path, lambda *_: None)


def test_batches_hold_each_sentence_once_and_little_padding() -> None:
    lengths = [3, 9, 4, 4, 12, 3, 9, 9, 5, 12, 3]
    found = batches.shuffled(np.arange(11), lengths, 3, np.random.default_rng(0))
    assert sorted(np.concatenate(found).tolist()) == list(range(11)) and max(map(len, found)) == 3
    again = batches.shuffled(np.arange(11), lengths, 3, np.random.default_rng(0))
    other = batches.shuffled(np.arange(11), lengths, 3, np.random.default_rng(1))
    assert [b.tolist() for b in found] == [b.tolist() for b in again] != [b.tolist() for b in other]
    assert all(max(lengths[i] for i in b) - min(lengths[i] for i in b) <= 5 for b in found)


def test_padding() -> None:
    ids, mask = batches.pad([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]
