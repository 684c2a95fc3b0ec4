"""Teachers as users bring them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import RobertaConfig, RobertaModel

from slm2c.distill.batches import encode, predict
from slm2c.distill.data import read_data
from slm2c.distill.recipe import Recipe, read_recipe
from slm2c.distill.teacher import Classifier, load_teacher, save_teacher
from slm2c.distill.tune import tuned, tuning
from slm2c.distill.work import alone, files_digest, stage
from slm2c.errors import CompileError
from tests.distill import tiny

LABELS = ("ask", "off", "on")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_teacher(tmp_path_factory.mktemp("teacher"))


def test_an_encoder_is_not_tuned_and_a_classifier_is(folder: Path, tmp_path: Path) -> None:
    assert not load_teacher(folder, LABELS, 12).tuned
    ready = load_teacher(tiny.write_teacher(tmp_path / "a", ("on", "ask", "off")), LABELS, 12)
    assert ready.tuned
    ids = [[2, 60, 61, 3]]
    with torch.no_grad():
        whole = ready.model.eval().model(torch.tensor(ids), torch.ones(1, 4)).logits
    assert torch.allclose(predict(ready.model, ids), whole[:, [1, 2, 0]])  # in the order of the user's labels
    assert not load_teacher(tiny.write_teacher(tmp_path / "b", ("on", "off")), LABELS, 12).tuned


def test_a_teacher_is_tuned_once_and_saved_whole(folder: Path, tmp_path: Path) -> None:
    data = read_data(*tiny.write_data(tmp_path))
    (tmp_path / "r.toml").write_text(tiny.RECIPE)
    recipe, work = read_recipe(tmp_path / "r.toml"), tmp_path / "teacher-1"
    teacher = load_teacher(folder, data.names, 12)
    made = tuned(teacher, data, recipe, 1, work, lambda *_: None)
    ids = [e.ids for e in encode(made.tokenizer, data.valid.texts, 12)]
    answers = predict(made.model.eval(), ids)
    right = (answers.argmax(1) == torch.tensor(data.valid.labels)).double().mean().item()
    assert made.tuned and right > 0.8  # a third by chance
    assert sorted(p.name for p in work.iterdir()) == ["model", "teacher-1.jsonl"]
    again = load_teacher(work / "model", ("on", "ask", "off"), 12)  # as another run may name the labels
    assert again.tuned and torch.allclose(predict(again.model.eval(), ids), answers[:, [2, 0, 1]], atol=1e-6)
    assert tuned(made, data, recipe, 1, tmp_path / "nowhere", lambda *_: None) is made


def test_an_encoder_under_the_name_of_a_classifier_is_tuned(tmp_path: Path) -> None:
    """Its head would be random, or its pooler, on which the head stands."""
    for gone in ("classifier.", "bert.pooler."):
        _weights(tiny.write_teacher(tmp_path / "t", LABELS), lambda w, gone=gone: _without(w, gone))
        teacher = load_teacher(tmp_path / "t", LABELS, 12)
        assert not teacher.tuned and isinstance(teacher.model, Classifier)


def test_an_encoder_needs_no_pooler(tmp_path: Path) -> None:
    folder = tiny.write_teacher(tmp_path / "t")
    _weights(folder, lambda w: _without(w, "pooler."))
    assert not load_teacher(folder, LABELS, 12).tuned


@pytest.mark.parametrize("labels", [(), LABELS])
@pytest.mark.parametrize(
    "change, expected",
    [
        (
            lambda f: _configure(f, num_hidden_layers=3),
            "has no weights for encoder.layer.2.attention.output.LayerNorm.bias and 15 others of its config.json; save",
        ),
        (
            lambda f: _weights(f, lambda w: {f"my.{name}": value for name, value in w.items()}),
            "has no weights for embeddings.LayerNorm.bias and 36 others",
        ),
        (
            lambda f: _weights(f, lambda w: {**w, _table(w): float("nan") * w[_table(w)]}),
            "has weights that are no numbers (nan or infinite), in ",
        ),
        (
            lambda f: _configure(f, intermediate_size=50),
            "encoder.layer.0.intermediate.dense.bias of 48 numbers, and by its config.json 50; put the config.json",
        ),
        (
            lambda f: _configure(f, hidden_size=30),
            "embeddings.LayerNorm.bias of 24 numbers, and by its config.json 30; put the config.json",
        ),
    ],
)
def test_weights_that_are_not_those_of_the_model(
    change: object, expected: str, labels: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tiny.write_teacher(tmp_path / "t", labels)
    change(folder)
    with pytest.raises(CompileError) as caught:
        load_teacher(folder, LABELS, 12)
    assert expected in str(caught.value)


def test_code_of_a_teacher_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.write_teacher(tmp_path / "t")
    (folder / "theirs.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    _configure(folder, model_type="theirs", auto_map={"AutoConfig": "theirs.Config", "AutoModel": "theirs.Model"})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(
        CompileError, match=r"code of its own \(auto_map in config\.json\), which is not run; take a mod"
    ):
        load_teacher(folder, LABELS, 12)
    assert not (tmp_path / "run").exists()


def test_positions_that_count_from_the_one_behind_padding(tmp_path: Path) -> None:
    """RoBERTa of 24 positions, whose pad_token_id is 1: the first token has position 2."""
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 48}
    config = RobertaConfig(vocab_size=len(tiny.PIECES), max_position_embeddings=24, pad_token_id=1, **sizes)
    RobertaModel(config).save_pretrained(tmp_path)
    tiny.write_tokenizer(tmp_path)
    teacher = load_teacher(tmp_path, LABELS, 22)
    assert predict(teacher.model.eval(), [[2] * 22]).shape == (1, 3)
    with pytest.raises(CompileError, match=r"takes 22 tokens, the student 23; lower student\.tokens"):
        load_teacher(tmp_path, LABELS, 23)
    with pytest.raises(CompileError, match=r"takes 24 tokens, the student 25; lower student\.tokens"):
        load_teacher(tiny.write_teacher(tmp_path / "bert"), LABELS, 25)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "slm2c_head.pt"])
def test_a_tuned_teacher_that_is_damaged(name: str, folder: Path, tmp_path: Path) -> None:
    data = read_data(*tiny.write_data(tmp_path))
    kept = tmp_path / "teacher-1" / "model"
    kept.mkdir(parents=True)
    save_teacher(load_teacher(folder, data.names, 12), data.names, kept)
    recipe = replace(Recipe(), student=replace(Recipe().student, tokens=12))
    for damage in (lambda path: path.write_bytes(path.read_bytes()[:50]), lambda path: path.unlink()):
        damage(kept / name)
        with pytest.raises(CompileError, match=r"remove the folder .*teacher-1, and it is fine-tuned again$"):
            tuned(load_teacher(folder, data.names, 12), data, recipe, 1, kept.parent, lambda *_: None)


def test_seeds_make_teachers_differ(folder: Path, tmp_path: Path) -> None:
    data = read_data(*tiny.write_data(tmp_path))
    heads = []
    for seed in (1, 1, 2):
        teacher = load_teacher(folder, data.names, 12)
        tuning(teacher, data, Recipe(), seed, "t")
        heads.append(teacher.model.head.weight.detach().clone())
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_saved_encoder_is_one_of_transformers(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    teacher = load_teacher(folder, LABELS, 12)
    save_teacher(teacher, LABELS, tmp_path / "saved")
    found = AutoModel.from_pretrained(tmp_path / "saved").state_dict()
    expected = teacher.model.encoder.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["id2label"]["1"] == "off"


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json, so it is no model of transformers"),
        (lambda f: (f / "config.json").write_text("{"), "config.json': is not a JSON file"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json; save its tokenizer there"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "cannot be loaded"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 100), "cannot be loaded"),
        (lambda f: _configure(f, is_decoder=True), "is a decoder (bert); a teacher is an encoder"),
        (lambda f: _configure(f, model_type="nonesuch"), "cannot be loaded"),
        (
            lambda f: tiny.write_tokenizer(f, more=["strange"]),
            "has 86 embeddings, and a tokenizer whose pieces count to 87",
        ),
    ],
)
def test_folders_that_are_no_teacher(change: object, expected: str, tmp_path: Path) -> None:
    folder = tiny.write_teacher(tmp_path / "t")
    change(folder)
    with pytest.raises(CompileError) as caught:
        load_teacher(folder, LABELS, 12)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"is not a folder; name one with config\.json"):
        load_teacher(tmp_path / "nowhere", LABELS, 12)


def _weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


def _without(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    kept = {name: value for name, value in weights.items() if not name.startswith(prefix)}
    assert len(kept) < len(weights)
    return kept


def _table(weights: dict[str, torch.Tensor]) -> str:
    (name,) = (name for name in weights if name.endswith("word_embeddings.weight"))
    return name


def _configure(folder: Path, **more: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **more}))


def test_stages_are_emptied_when_what_they_were_made_of_changes(folder: Path, tmp_path: Path) -> None:
    at, key = stage(tmp_path, "student", Recipe(), 1)
    (at / "student.pt").write_text("weights")
    assert stage(tmp_path, "student", Recipe(), 1) == (at, key) and (at / "student.pt").is_file()
    other, new = stage(tmp_path, "student", Recipe(), 2)
    assert other == at and new != key and not (at / "student.pt").exists()
    assert files_digest(folder) == files_digest(folder) != files_digest(tmp_path)


def test_a_stage_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "thesis.txt").write_text("mine")
    with pytest.raises(CompileError, match=r"student': is not of slm2c \(it has no key\.json\), and would be emptied"):
        stage(tmp_path, "student", 1)
    assert [path.name for path in (tmp_path / "student").iterdir()] == ["thesis.txt"]


def test_a_stage_that_was_killed_while_it_was_emptied_is_emptied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, key = stage(tmp_path, "student", 1)
    for name in ("a", "b", "c"):
        (at / name).mkdir()
    kept = shutil.rmtree

    def killed(path: Path) -> None:
        kept(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path, "student", 2)
    monkeypatch.undo()
    assert len(list(at.iterdir())) == 3
    (at / ".key.json.part").write_text("half")
    assert stage(tmp_path, "student", 1) == (at, key)
    assert [path.name for path in at.iterdir()] == ["key.json"]


def test_a_stage_that_was_killed_before_it_had_a_key(tmp_path: Path) -> None:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / ".key.json.part").write_text("half")
    at, _ = stage(tmp_path, "student", 1)
    assert [path.name for path in at.iterdir()] == ["key.json"]


def test_what_is_raised_in_a_run_is_not_taken_for_another_run(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), alone(tmp_path):
        raise BlockingIOError
    with alone(tmp_path), pytest.raises(CompileError, match="another run is at work"), alone(tmp_path):
        pass


def test_a_file_where_a_folder_has_to_be(tmp_path: Path) -> None:
    (tmp_path / "a.work").write_text("mine")
    (tmp_path / "student").write_text("mine")
    fact = "is a file, where a folder has to be; move it away, or choose another folder with -o"
    with pytest.raises(CompileError, match=f"a.work': {fact}"), alone(tmp_path / "a.work"):
        pass
    with pytest.raises(CompileError, match=f"student': {fact}"):
        stage(tmp_path, "student", 1)
