"""The command from end to end: what it leaves, that the compiler takes it, and that a kill changes no bit."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from slm2c import cli, evaluate, output
from slm2c.distill import run
from slm2c.distill.batches import predict
from slm2c.distill.recipe import read_recipe
from slm2c.distill.teacher import load_teacher
from slm2c.sentences import read_labelled
from tests.distill import tiny

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    "calib.npz",
    "config.json",
    "curves.svg",
    "log.jsonl",
    "metrics.json",
    "model.onnx",
    "student.toml",
    "tokenizer.json",
]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with teacher, train.csv, valid.csv, more.txt and recipe.toml."""
    folder = tmp_path_factory.mktemp("given")
    tiny.write_teacher(folder / "teacher")
    tiny.write_data(folder)
    (folder / "more.txt").write_text("what is the light doing\nplease turn the light on now\n")
    (folder / "recipe.toml").write_text(tiny.RECIPE)
    return folder


def command(given: Path, out: Path, *more: str) -> list[str]:
    args = ["distill", "--teacher", given / "teacher", "--train", given / "train.csv", "--valid", given / "valid.csv"]
    args += ["--student", given / "recipe.toml", "--unlabelled", given / "more.txt", "-o", out, *more]
    return [str(arg) for arg in args]


@pytest.fixture(scope="module")
def student(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run leaves."""
    out = tmp_path_factory.mktemp("student") / "student"
    assert cli.invoke(command(given, out)) == 0
    return out


def test_what_it_leaves(student: Path, given: Path) -> None:
    assert sorted(p.name for p in student.iterdir()) == FILES
    assert read_recipe(student / "student.toml") == read_recipe(given / "recipe.toml")
    metrics = json.loads((student / "metrics.json").read_text())
    assert metrics["sentences"] == {"labelled": 54, "augmented": 60, "unlabelled": 2, "valid": 18, "left_out": 0}
    assert metrics["teacher"]["accuracy"] > 0.8 and metrics["student"]["accuracy_float"] > 0.6
    config = json.loads((student / "config.json").read_text())
    assert config["id2label"] == {"0": "ask", "1": "off", "2": "on"} and config["model_type"] == "bert"
    calib = np.load(student / "calib.npz")
    assert calib["input_ids"].shape == (54, 12) and sorted(set(calib["labels"].tolist())) == [0, 1, 2]


def test_metrics_are_those_of_the_model_that_was_written(student: Path, given: Path) -> None:
    session = onnxruntime.InferenceSession(student / "model.onnx", providers=["CPUExecutionProvider"])
    pieces = Tokenizer.from_file(str(student / "tokenizer.json"))
    rows = read_labelled(given / "valid.csv")
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    names = list(json.loads((student / "config.json").read_text())["id2label"].values())
    right = []
    for text, label in zip(texts, labels, strict=True):
        ids = pieces.encode(text).ids
        feeds = np.zeros((2, 1, 12), np.int64)
        feeds[0, 0, : len(ids)], feeds[1, 0, : len(ids)] = ids, 1
        (logits,) = session.run(None, {"input_ids": feeds[0], "attention_mask": feeds[1]})
        right.append(names[int(logits.argmax())] == label)
    metrics = json.loads((student / "metrics.json").read_text())
    assert metrics["student"]["accuracy_float"] == pytest.approx(np.mean(right))


def test_the_log_tells_the_phases(student: Path) -> None:
    history = [json.loads(line) for line in (student / "log.jsonl").read_text().splitlines()]
    trained = [record for record in history if not record.get("finish")]
    ends = [record for record in trained if "epoch_ends" in record]
    assert [record["phase"] for record in ends] == ["warm-up"] + ["distil"] * 4 + ["fine-tune"] * 2
    steps = [record for record in trained if "step" in record]
    warm = [r for r in steps if r["phase"] == "warm-up"]
    distil = [r["temperature"] for r in steps if r["phase"] == "distil"]
    tune = [r for r in steps if r["phase"] == "fine-tune"]
    assert {"hard", "soft", "hidden", "attention", "loss", "rate"} <= set(warm[0])
    assert 5 > distil[0] > distil[1] > distil[2] > distil[3] > 1
    assert all(r["temperature"] == 1 and "hidden" not in r for r in tune)
    assert steps[-1]["soft"] < steps[0]["soft"]


def test_the_picture_names_the_best_epoch_and_the_teacher(student: Path) -> None:
    history = [json.loads(line) for line in (student / "log.jsonl").read_text().splitlines()]
    best = max(r["valid_accuracy"] for r in history if "epoch_ends" in r and not r.get("finish"))
    teacher = json.loads((student / "metrics.json").read_text())["teacher"]["accuracy"]
    texts = [e.text for e in ElementTree.parse(student / "curves.svg").iter()]
    assert {f"at best, {100 * best:.1f} %", f"teacher, {100 * teacher:.1f} %", "soft", "attention"} <= set(texts)


def test_the_compiler_takes_it_and_says_the_same(student: Path, given: Path, tmp_path: Path, host_cc: str) -> None:
    assert cli.invoke(["build", str(student), "-o", str(tmp_path / "out"), "--board", "generic-m7-512k-4m"]) == 0
    rows = read_labelled(given / "valid.csv")
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    found = evaluate.evaluate(output.read(tmp_path / "out"), texts, labels)
    metrics = json.loads((student / "metrics.json").read_text())["student"]
    assert found.accuracy_c == pytest.approx(metrics["accuracy_integer"])
    assert found.accuracy_float == pytest.approx(metrics["accuracy_float"])


def test_the_finish_is_kept_only_where_it_helps(student: Path) -> None:
    metrics = json.loads((student / "metrics.json").read_text())
    before, after = (metrics["finish"][when]["accuracy_integer"] for when in ("before", "after"))
    assert metrics["finish"]["kept"] == (after > before)
    assert metrics["student"]["accuracy_integer"] == max(before, after)


def test_killed_twice_and_resumed_it_leaves_the_same_bytes(student: Path, given: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    program = [sys.executable, "-m", "slm2c", *command(given, out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for stage in ("teacher-1", "student"):
        running = subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        log = tmp_path / "student.work" / stage / f"{stage}.jsonl"
        while not log.is_file() or log.read_text().count("epoch_ends") < 2:
            assert running.poll() is None, running.stderr.read().decode()
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        assert running.returncode == -signal.SIGKILL and not out.exists()
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    assert "right on 18 validation sentences" in done.stdout
    for path in FILES:
        assert (out / path).read_bytes() == (student / path).read_bytes(), path


def test_stopped_at_every_stage_it_goes_on_and_leaves_the_same_bytes(
    student: Path, given: Path, tmp_path: Path
) -> None:
    """As Ctrl-C does: whatever the stage was doing, the next call takes it up."""
    seen: set[str] = set()

    def stop(title: str, done: int, total: int) -> None:
        stage = title.split(",")[0]
        if stage not in seen:
            seen.add(stage)
            raise KeyboardInterrupt

    recipe = read_recipe(given / "recipe.toml")
    out = tmp_path / "student"
    request = run.Request(
        [given / "teacher"], given / "train.csv", given / "valid.csv", [given / "more.txt"], out, recipe
    )
    while not out.exists():
        before = len(seen)
        with contextlib.suppress(KeyboardInterrupt):
            run.distill(request, stop)
        assert out.exists() or len(seen) == before + 1
    assert {"teacher-1: fine-tune 1 of 7", "teacher 1 of 1 labels 116 sentences", "student: distil 4 of 4"} < seen
    assert {"calibrate", "integer accuracy", "finish: finish 1 of 1"} < seen
    for path in FILES:
        assert (out / path).read_bytes() == (student / path).read_bytes(), path


def test_a_teacher_that_is_never_right(given: Path, tmp_path: Path) -> None:
    """A few validation sentences may all be hard: figures and curves do without shares of nothing."""
    names, text = ("ask", "off", "on"), "is the lamp on now"
    teacher = load_teacher(tiny.write_teacher(tmp_path / "teacher", names), names, 12)
    (answer,) = predict(teacher.model.eval(), [teacher.tokenizer.encode(text).ids])
    wrong = tiny.write_csv(tmp_path / "wrong.csv", [(text, names[int(answer.argmin())])])
    args = command(given, tmp_path / "student", "--quick")
    for old, new in ((given / "teacher", tmp_path / "teacher"), (given / "valid.csv", wrong)):
        args[args.index(str(old))] = str(new)
    assert cli.invoke(args) == 0
    metrics = json.loads((tmp_path / "student" / "metrics.json").read_text())
    assert metrics["teacher"]["accuracy"] == 0 and metrics["student"]["of_teacher"] is None


def test_a_second_run_replaces_the_first_and_keeps_its_teacher(given: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    quick = command(given, out, "--quick", "--json")
    assert cli.invoke(quick) == 0
    kept = tmp_path / "student.work" / "teacher-1" / "model"
    written = (kept / "model.safetensors").stat().st_mtime_ns
    other = given / "smaller.toml"
    other.write_text(tiny.RECIPE.replace("ffn = 32", "ffn = 16"))
    quick[quick.index(str(given / "recipe.toml"))] = str(other)
    assert cli.invoke(quick) == 0
    assert (kept / "model.safetensors").stat().st_mtime_ns == written
    assert json.loads((out / "config.json").read_text())["intermediate_size"] == 16
    assert not (tmp_path / "student.work" / "targets").exists()


def test_own_vocabulary_and_two_teachers(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = given / "own.toml"
    recipe.write_text(tiny.RECIPE.replace("[teacher]", 'pieces = "own"\n[teacher]', 1))
    args = command(given, tmp_path / "student", "--teacher", str(given / "teacher"), "--json")
    args[args.index(str(given / "recipe.toml"))] = str(recipe)
    assert cli.invoke(args) == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["teacher"]["accuracies"]) == 2
    history = [json.loads(line) for line in (tmp_path / "student" / "log.jsonl").read_text().splitlines()]
    assert "hidden" in history[0] and "attention" in history[0]  # by word, whatever the pieces


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda given, out: out.mkdir() or (out / "mine").write_text(""), "exists and is not the output of slm2c"),
        (
            lambda given, out: (given / "recipe.toml").write_text("[student]\ntokens = 12\n[training]\nmap = [[7, 1]]"),
            "pairs layer 7 of 6",
        ),
        (lambda given, out: (given / "train.csv").write_text("text,label\nno\n"), "line 2': has no label"),
        (lambda given, out: _put(given / "out.work" / "finish" / "mine"), "out.work/finish': is not of slm2c"),
        (lambda given, out: (given / "teacher" / "config.json").unlink(), "has no config.json"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    change: object, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_teacher(tmp_path / "teacher")
    tiny.write_data(tmp_path)
    (tmp_path / "more.txt").write_text("a sentence\n")
    (tmp_path / "recipe.toml").write_text(tiny.RECIPE)
    change(tmp_path, tmp_path / "out")
    capsys.readouterr()
    assert cli.invoke(command(tmp_path, tmp_path / "out")) == 1
    assert expected in capsys.readouterr().err
    kept = [path for path in (tmp_path / "out.work").rglob("*") if path.is_file()]
    assert all(path.name == "mine" for path in kept) and not (tmp_path / "out" / "model.onnx").exists()


def _put(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("")


@pytest.mark.parametrize("name", ["teacher", "train.csv", "more.txt"])
def test_what_the_student_is_made_of_does_not_lie_in_the_work_folder(
    name: str, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the teacher that an earlier run fine-tuned: its folder is emptied for the new one."""
    kept = tmp_path / "out.work" / "teacher-1" / name
    kept.parent.mkdir(parents=True)
    (tmp_path / "link").symlink_to(kept)
    (shutil.copytree if (given / name).is_dir() else shutil.copyfile)(given / name, kept)
    args = command(given, tmp_path / "out")
    args[args.index(str(given / name))] = str(tmp_path / "link")
    assert cli.invoke(args) == 1
    error = capsys.readouterr().err
    assert f"out.work': is where this run works, and would remove {tmp_path / 'link'}" in error
    assert "choose another folder with -o" in error
    assert kept.exists() and [p.name for p in kept.parent.iterdir()] == [name]
