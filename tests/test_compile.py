"""What stands beside a model, and where a build may go: refused before anything is computed, with the reason."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from slm2c import output, seal
from slm2c.board import load_board
from slm2c.compile import Options, compile_model
from slm2c.errors import CompileError
from slm2c.folders import require_replaceable
from slm2c.resources import data_dir
from tests.onnx_models import linear, model, save, value_info

BOARD = load_board("generic-m7-512k-4m")
TOKENIZER = data_dir("examples") / "homecmd" / "tokenizer.json"  # 8,192 ids
RNG = np.random.default_rng(0)


def bag(rows: int, tokens: int, *, flat: bool = False) -> onnx.ModelProto:
    """Token ids [1, tokens] -> 4 classes of their mean embedding; if `flat`, of all their embeddings side by side."""
    features = 2 * tokens if flat else 2
    pool = (
        helper.make_node("Reshape", ["e", "shape"], ["p"], "flatten")
        if flat
        else helper.make_node("ReduceMean", ["e"], ["p"], "mean", axes=[1], keepdims=0)
    )
    weights = {
        "table": RNG.normal(size=(rows, 2)).astype(np.float32),
        "w": RNG.normal(size=(features, 4)).astype(np.float32),
        **({"shape": np.array([1, features])} if flat else {}),
    }
    nodes = [helper.make_node("Gather", ["table", "ids"], ["e"]), pool, helper.make_node("MatMul", ["p", "w"], ["y"])]
    return model(nodes, [value_info("ids", [1, tokens], TensorProto.INT64)], [value_info("y", None)], weights)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (linear(), "is for text, and the model takes no token ids"),
        (bag(8191, 8), "has ids up to 8191, the model's embedding 8191 rows"),
        (bag(8192, 8, flat=True), r"'flatten\w*' needs 8 tokens"),
        (bag(8192, 1), "adds 2 special tokens where 1 tokens are the most"),
    ],
    ids=["no ids", "rows", "fixed", "short"],
)
def test_tokenizers_of_other_models_are_refused(student: onnx.ModelProto, message: str, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=message):
        compile_model(save(tmp_path, student), BOARD, Options(tokenizer=TOKENIZER))


def test_a_tokenizer_with_as_many_ids_as_rows_is_taken(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("turn on the light\nwhat is the time\n", encoding="utf-8")
    options = Options(tokenizer=TOKENIZER, calibration=tmp_path / "texts.txt", method="minmax")
    assert len(compile_model(save(tmp_path, bag(8192, 8)), BOARD, options).samples) == 2


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '["\\ud800", "b", "c"]', '["a\\u0000", "b", "c"]', '["a", "b"]', "3"]
)
def test_labels_that_are_none_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(content, encoding="utf-8")
    with pytest.raises(CompileError, match=r"labels\.json"):
        compile_model(save(tmp_path, linear()), BOARD, Options(labels=tmp_path / "labels.json"))


def test_shorter_arrays_than_a_fixed_length_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", ids=np.ones((3, 7), int))
    with pytest.raises(CompileError, match=r"input ids has shape \[3, 7\], expected \[3, 8\]"):
        compile_model(save(tmp_path, bag(50, 8, flat=True)), BOARD, Options(calibration=tmp_path / "c.npz"))


def test_the_folder_that_the_command_runs_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    for out in (Path(), Path("../here"), Path("..")):
        with pytest.raises(CompileError, match="is where this command runs"):
            require_replaceable(out)
    require_replaceable(Path("below"))
    for source in (Path("below"), Path("below/model.onnx"), Path("../here/below/a/b")):
        with pytest.raises(CompileError, match=r"'below': is what .* lies in, and would be replaced; choose another"):
            require_replaceable(Path("below"), sources=(None, source))
    require_replaceable(Path("below"), sources=(Path("beside"), Path()))
    with pytest.raises(CompileError, match="holds a line break, which neither"):
        require_replaceable(Path("a\nb"))


@pytest.mark.parametrize(("outputs", "held"), [(["y"], True), (["y", "z"], False)])
def test_labels_that_no_code_reads_take_no_flash(outputs: list[str], held: bool, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])][: len(outputs)]
    weights = {"w": RNG.normal(size=(8, 3)).astype(np.float32)}
    student = model(nodes, [value_info("x", [1, 8])], [value_info(name, None) for name in outputs], weights)
    (tmp_path / "labels.json").write_text('["a", "b", "c"]', encoding="utf-8")
    compiled = compile_model(save(tmp_path, student), BOARD, Options(labels=tmp_path / "labels.json", method="minmax"))
    assert ("labels" in compiled.lowered.emitted.sections) == held


@pytest.mark.parametrize(("padding", "fits"), [(0, True), (7, False)])
def test_only_the_tokenizer_s_padding_may_decide_what_is_masked(tmp_path: Path, padding: int, fits: bool) -> None:
    """A graph without mask input compares its ids with the padding; with another id it asks for another tokenizer."""
    made = bag(8192, 8)
    nodes = [
        helper.make_node("Equal", ["ids", "pad"], ["masked"]),
        helper.make_node("Unsqueeze", ["masked", "last"], ["rows"]),
        helper.make_node("Where", ["rows", "least", "e"], ["kept"]),
        helper.make_node("ReduceMax", ["kept"], ["p"], "max", axes=[1], keepdims=0),
    ]
    weights = {
        "pad": np.array(padding),
        "last": np.array([-1]),
        "least": np.array(-1e9, np.float32),
        "table": RNG.normal(size=(8192, 2)).astype(np.float32),
        "w": RNG.normal(size=(2, 4)).astype(np.float32),
    }
    chain = [made.graph.node[0], *nodes, made.graph.node[2]]
    onnx_model = model(chain, [value_info("ids", [1, 8], TensorProto.INT64)], [value_info("y", None)], weights)
    path = save(tmp_path, onnx_model)
    options = Options(tokenizer=TOKENIZER)
    if fits:
        assert compile_model(path, BOARD, options).fused.interface.pad_id == 0  # type: ignore[union-attr]
        return
    with pytest.raises(CompileError, match="gives id 7 to"):
        compile_model(path, BOARD, options)


def test_an_output_folder_names_no_path(tmp_path: Path) -> None:
    facts = {"files": {}, "name": "../../x", "interface": None, "board": asdict(BOARD), "labels": None}
    (tmp_path / "slm2c.json").write_text(json.dumps(seal.signed(facts)), encoding="utf-8")
    with pytest.raises(CompileError, match="is no name of a model"):
        output.read(tmp_path)
