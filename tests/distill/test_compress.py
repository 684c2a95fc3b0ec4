"""The command from end to end: what it leaves is smaller, is what it says, and is trained."""

import io
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from slm2c import cli, evaluate, output
from slm2c.board import load_board
from slm2c.distill import compress, export, refine
from slm2c.distill.footprint import footprint
from slm2c.distill.restore import restore
from slm2c.distill.work import alone
from slm2c.sentences import read_labelled
from tests.distill import students, tiny

ROOT = Path(__file__).resolve().parents[2]
BOARD = "generic-m7-512k-4m"
RECIPE = tiny.RECIPE.replace("ffn = 32", "ffn = 48").replace("vocabulary = 200", "vocabulary = 400")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with teacher, student, train.csv and valid.csv."""
    folder = tmp_path_factory.mktemp("given")
    tiny.write_teacher(folder / "teacher")
    tiny.write_data(folder)
    (folder / "recipe.toml").write_text(RECIPE)
    args = ["distill", "--teacher", "teacher", "--student", "recipe.toml", "-o", "student"]
    args += ["--train", "train.csv", "--valid", "valid.csv"]
    assert cli.invoke([str(folder / x) if (folder / x).exists() or x == "student" else x for x in args]) == 0
    return folder


def run(given: Path, out: Path, *more: str) -> int:
    data = ["--train", str(given / "train.csv"), "--valid", str(given / "valid.csv")]
    return cli.invoke(["compress", str(given / "student"), "-o", str(out), *data, "--epochs", "1", *more])


def flash(given: Path) -> int:
    """Of the student as it was."""
    return footprint(given / "student", load_board(BOARD)).flash


def metrics(folder: Path) -> dict[str, object]:
    return json.loads((folder / "metrics.json").read_text())


def test_steps_follow_each_other_and_the_last_is_what_is_written(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], host_cc: str
) -> None:
    small = tmp_path / "small"
    assert run(given, small, "--rank", "8", "--heads", "3", "--ffn", "50%") == 0
    told = capsys.readouterr().out
    steps = metrics(small)["steps"]
    assert [step["step"] for step in steps] == ["as it was", "rank 8", "heads 3", "ffn 50 %"]
    assert all(step["step"] in told and f"{step['flash']:,}" in told for step in steps)
    assert [step["rank"] for step in steps] == [0, 8, 8, 8]
    assert [sum(step["heads"]) for step in steps] == [4, 4, 3, 3]
    assert [sum(step["ffn"]) for step in steps] == [96, 96, 96, 48]
    assert [a["flash"] - b["flash"] for a, b in pairwise(steps)] == [s["saved"] for s in steps[1:]]
    assert all(step["saved"] > 0 for step in steps[1:])
    assert restore(small).student.shape == replace(
        restore(given / "student").student.shape,
        heads=tuple(steps[-1]["heads"]) if len(set(steps[-1]["heads"])) > 1 else 2,
        ffn=tuple(steps[-1]["ffn"]) if len(set(steps[-1]["ffn"])) > 1 else 24,
        head_size=8,
        rank=8,
    )
    out = tmp_path / "out"
    assert cli.invoke(["build", str(small), "-o", str(out), "--board", BOARD]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["flash"]["blob_bytes"] == steps[-1]["flash"]
    assert report["sram"]["arena_bytes"] == steps[-1]["arena"]
    rows = read_labelled(given / "valid.csv")
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    found = evaluate.evaluate(output.read(out), texts, labels)
    assert found.accuracy_c == pytest.approx(steps[-1]["accuracy_integer"])
    assert found.accuracy_float == pytest.approx(metrics(small)["student"]["accuracy_float"])


def test_layers_and_shared_weights_and_a_second_time(given: Path, tmp_path: Path) -> None:
    small, smaller = tmp_path / "small", tmp_path / "smaller"
    assert run(given, small, "--share", "2") == 0
    first = metrics(small)["steps"]
    assert first[1]["saved"] >= 4 * 16 * 16 + 2 * 16 * 48 and first[1]["instructions"] == first[0]["instructions"]
    assert restore(small).student.shape.share == 2
    data = ["--train", str(given / "train.csv"), "--valid", str(given / "valid.csv"), "--epochs", "1"]
    assert cli.invoke(["compress", str(small), "-o", str(smaller), *data, "--heads", "1"]) == 0
    assert metrics(smaller)["steps"][0]["flash"] == first[1]["flash"]
    assert metrics(smaller)["steps"][1]["heads"] == [1, 1]
    assert run(given, small, "--layers", "1") == 0
    assert metrics(small)["steps"][1]["layers"] == 1


def test_a_budget_of_flash_is_met(given: Path, tmp_path: Path) -> None:
    whole = flash(given)
    budget = round(0.8 * whole)
    assert run(given, tmp_path / "small", "--flash", str(budget)) == 0
    steps = metrics(tmp_path / "small")["steps"]
    assert steps[-1]["flash"] <= budget < steps[-2]["flash"] and len(steps) >= 3
    assert min(steps[-1]["heads"]) >= 1


def test_what_is_small_enough_stays_as_it_was(given: Path, tmp_path: Path) -> None:
    assert run(given, tmp_path / "small", "--flash", str(flash(given) + 1000)) == 0
    found = metrics(tmp_path / "small")
    assert [step["step"] for step in found["steps"]] == ["as it was"]
    assert restore(tmp_path / "small").student.shape == restore(given / "student").student.shape
    assert found["student"]["accuracy_float"] == metrics(given / "student")["student"]["accuracy_float"]


def test_labels_may_have_any_order(given: Path, tmp_path: Path) -> None:
    """What a student knows stays right if its classes change places."""
    found, other = restore(given / "student"), tmp_path / "other"
    shutil.copytree(given / "student", other)
    moved = students.relabelled(found.student, ("on", "ask", "off"))
    with np.load(other / "calib.npz") as arrays:
        export.write_model(moved, found.pieces, dict(arrays), other)
    data = ["--train", str(given / "train.csv"), "--valid", str(given / "valid.csv"), "--epochs", "1"]
    assert cli.invoke(["compress", str(other), "-o", str(tmp_path / "small"), *data, "--heads", "3"]) == 0
    before, after = metrics(given / "student"), metrics(tmp_path / "small")
    for name in ("accuracy_float", "accuracy_integer"):
        assert after["steps"][0][name] == before["student"][name]
    assert after["teacher"]["accuracy"] == before["student"]["accuracy_float"]
    assert restore(tmp_path / "small").student.labels == ("on", "ask", "off")


def test_two_runs_do_not_share_a_folder(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with alone(tmp_path / "small.work"):
        assert run(given, tmp_path / "small", "--heads", "3") == 1
    told = capsys.readouterr().err
    assert f"'{tmp_path / 'small.work'}': is where another run is at work; wait" in told
    assert not (tmp_path / "small").exists()


def test_a_teacher_does_not_lie_in_the_work_folder(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = tmp_path / "small.work" / "targets" / "teacher"
    shutil.copytree(given / "teacher", teacher)
    assert run(given, tmp_path / "small", "--heads", "3", "--teacher", str(teacher)) == 1
    assert f"is where this run works, and would remove {teacher}" in capsys.readouterr().err
    assert (teacher / "config.json").is_file()


def test_a_board_that_is_too_small_is_made_to_do(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "boards" / f"{BOARD}.toml").read_text()
    whole = flash(given)
    board = tmp_path / "tiny.toml"
    size = whole + 32 * 1024 - 2000
    assert text.count("0x0040_0000") == 1
    board.write_text(text.replace("0x0040_0000", str(size)))
    assert run(given, tmp_path / "small", "--fit", "--board", str(board)) == 0
    steps = metrics(tmp_path / "small")["steps"]
    assert steps[0]["over"] and not steps[-1]["over"]
    assert cli.invoke(["build", str(tmp_path / "small"), "-o", str(tmp_path / "out"), "--board", str(board)]) == 0
    told = capsys.readouterr().out
    assert f"slm2c build {tmp_path / 'small'} -o out --board {board}" in told
    # A board of the same name with less flash.
    board.write_text(text.replace("0x0040_0000", str(size - 1000)))
    assert run(given, tmp_path / "small", "--fit", "--board", str(board)) == 0
    again = metrics(tmp_path / "small")["steps"]
    assert again[0]["over"] == {"flash": steps[0]["over"]["flash"] + 1000} and not again[-1]["over"]


def test_a_budget_that_cannot_be_met_is_told_before_training(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refine, "fit", lambda *_: pytest.fail("trained"))
    assert run(given, tmp_path / "small", "--flash", "2000") == 1
    told = capsys.readouterr().err
    assert "still takes" in told and "2,000 are asked" in told
    assert not (tmp_path / "small").exists()


def test_stopped_and_called_again_it_leaves_the_same_bytes(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--heads", "3", "--ffn", "50%")
    assert run(given, tmp_path / "whole", *asked) == 0
    train, trained = refine.fit, []

    def stop(job: object, work: Path, *rest: object) -> object:
        trained.append(work.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(job, work, *rest)

    monkeypatch.setattr(refine, "fit", stop)
    assert run(given, tmp_path / "small", *asked) == 130 and not (tmp_path / "small").exists()
    kept = tmp_path / "small.work" / "step-1" / "facts.json"
    written = kept.stat().st_mtime_ns
    assert run(given, tmp_path / "small", *asked) == 0
    assert kept.stat().st_mtime_ns == written
    for path in sorted((tmp_path / "whole").iterdir()):
        assert path.read_bytes() == (tmp_path / "small" / path.name).read_bytes(), path.name


def test_what_is_damaged_in_the_work_folder_is_named_or_made_anew(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    assert run(given, small, "--heads", "3") == 0
    whole = {path.name: path.read_bytes() for path in small.iterdir()}
    work = tmp_path / "small.work"
    answers, facts = work / "targets" / "answers.pt", [work / f"step-{i}" / "facts.json" for i in (0, 1)]
    other = io.BytesIO()
    torch.save(torch.zeros(3, 2), other)
    damages = [(answers, answers.read_bytes()[:-20]), (answers, other.getvalue())]
    damages += [(facts[0], facts[0].read_bytes()[:-20]), (facts[0], b"{}"), (facts[1], b"[]")]
    for damaged, content in damages:
        kept = damaged.read_bytes()
        damaged.write_bytes(content)
        capsys.readouterr()
        assert run(given, small, "--heads", "3") == 1
        told = capsys.readouterr().err
        assert f"'{damaged}': cannot be read" in told and f"remove the folder {damaged.parent}" in told
        damaged.write_bytes(kept)
    for path in (work / "step-1").rglob("*"):  # the checkpoint and the figures are read, and nothing else
        if path.is_file() and path.name not in ("student.pt", "facts.json"):
            path.write_bytes(path.read_bytes()[:40])
    assert run(given, small, "--heads", "3") == 0
    assert {path.name: path.read_bytes() for path in small.iterdir()} == whole


def test_another_teacher_teaches(given: Path, tmp_path: Path) -> None:
    tuned = given / "student.work" / "teacher-1" / "model"
    assert run(given, tmp_path / "small", "--heads", "3", "--teacher", str(tuned)) == 0
    found = metrics(tmp_path / "small")["teacher"]
    assert found == {"accuracy": metrics(given / "student")["teacher"]["accuracy"], "is_the_student": False}


@pytest.mark.parametrize(
    "more, expected",
    [
        ((), "nothing is to become smaller"),
        (("--heads", "5"), "is 5, the student has 4; ask for fewer"),
        (("--ffn", "97"), "is 97, the student has 96; ask for fewer"),
        (("--heads", "1", "-o", "{given}/student"), "would be replaced; choose another folder with -o"),
        (("--layers", "3"), "is 3, the student has 2 layers"),
        (("--share", "3"), "is 3, the student has 2 layers"),
        (("--rank", "16"), "is 16, the table has 16 columns"),
        (("--heads", "1", "--teacher", "{given}/teacher"), "does not know the labels"),
        (("--heads", "1", "--train", "{given}/other.csv"), "has the label 'no', which the student has not"),
        (("--heads", "1", "--train", "{given}/fewer.csv"), "has no sentence of 'ask', which the student has"),
        (("--heads", "1", "--board", "none"), "none"),
        (("--heads", "1", "-o", "{given}"), "exists and is not the output of slm2c"),
    ],
)
def test_mistakes_are_told(
    more: tuple[str, ...], expected: str, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_csv(given / "other.csv", [("light", "no"), ("lamp please", "on")])
    tiny.write_csv(given / "fewer.csv", [row for row in tiny.rows() if row[1] != "ask"])
    if ".csv" in str(more):
        more = (*more, "--valid", str(tiny.write_csv(given / "on.csv", [("on with it", "on")])))
    assert run(given, tmp_path / "small", *(x.format(given=given) for x in more)) == 1
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("text", ["0%", "101%", "half", "-3", "1.5", "9" * 5000])
def test_shares_that_are_none(text: str, given: Path, tmp_path: Path) -> None:
    assert run(given, tmp_path / "small", "--heads", text) == 2


def test_a_fine_tune_that_brings_nothing_is_left_out(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(job: object, work: Path, *_: object) -> list[dict[str, object]]:
        with torch.no_grad():
            for parameter in job.model.parameters():
                parameter.add_(torch.ones_like(parameter))
        end = {"epoch_ends": 0, "steps": 1, "valid_accuracy": 0.0, "valid_loss": 9.0}
        return [{"step": 1, "hard": 1.0}, end]

    monkeypatch.setattr(refine, "fit", spoil)
    assert run(given, tmp_path / "small", "--heads", "3") == 0
    step = metrics(tmp_path / "small")["steps"][1]
    assert not step["fine_tune_kept"] and step["accuracy_float"] == pytest.approx(step["accuracy_cut"])


def test_the_picture_rings_what_stays_of_the_last_step() -> None:
    accuracies = ((-1, 0, 0.9), (-1, 0, 0.8), (0, 5, 0.7), (-1, 5, 0.4), (0, 10, 0.6), (1, 15, 0.5))
    history = [{"epoch_ends": i, "steps": n, "valid_accuracy": a, "valid_loss": 1.0} for i, n, a in accuracies]
    assert "at best, 60.0 %" in export.curves([*history, {"step": 15, "hard": 1.0}], 0.9)


def test_rounds_are_as_many_as_a_budget_takes() -> None:
    request = compress.Request(*[Path()] * 4, board=None, flash=800)
    assert compress._too_many(request, {"flash": 1000, "over": {}}) == 200
    assert compress._too_many(request, {"flash": 800, "over": {"sram": 5}}) == 0
