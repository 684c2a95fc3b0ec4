"""The importer: whole models against onnxruntime's stored outputs, and files that are wrong in every way we know."""

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slm2c import core, onnx_file, onnx_graph
from slm2c.errors import CompileError, Problem
from slm2c.importer import Imported, Port, load, require_supported
from slm2c.ir import DTYPES, Array, Graph, Quant

_MANIFEST = Path(__file__).resolve().parents[2] / "shared" / "models" / "manifest.json"
_ENTRIES: list[dict[str, Any]] = json.loads(_MANIFEST.read_text())["models"] if _MANIFEST.is_file() else []

FLOAT_TOLERANCE = 1e-4
"""Largest difference to onnxruntime, relative to the largest output: float32 sums in another order."""

NOT_BY_IMPORT = {"bad_too_large_sram"}
"""Entries that must fail, but at a later stage."""

UNSUPPORTED = {"llama_staticcache_legacy_op17"}
"""Entries that are meant to be supported and are not: run-time Scatter into a KV cache."""


def entries(chosen: Callable[[dict[str, Any]], bool] = lambda _: True) -> list[Any]:
    """One test parameter per manifest entry that is `chosen`."""
    found = [e for e in _ENTRIES if chosen(e)]
    skip = pytest.param({}, marks=pytest.mark.skip(reason="../shared/models is absent"), id="manifest")
    return [pytest.param(e, id=e["id"]) for e in found] or [skip]


def load_entry(entry: Mapping[str, Any], shared: Path) -> Imported:
    shapes = {k: tuple(v) for k, v in entry.get("suggest_shapes", {}).items()}
    return load(shared / "models" / entry["file"], shapes)


def feeds(imported: Imported, samples: Mapping[str, Array], j: int) -> dict[str, Array]:
    """Sample j as the graph takes it."""
    return {
        port.name: real(port, samples[f"in/{port.name}"][j]).astype(DTYPES[imported.graph.tensors[port.name].dtype])
        for port in imported.inputs
    }


def real(port: Port, stored: Array) -> Array:
    """The values that the file's integers stand for."""
    if port.code is None:
        return np.asarray(stored)
    return (stored.astype(np.float32) - port.code.quant.zero_point) * np.float32(port.code.quant.scale)


def distance(got: Array, want: Array) -> float:
    """Largest difference over the largest magnitude; shapes and NaN must agree."""
    want = np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.array_equal(np.isnan(got), np.isnan(want))
    return float(np.nanmax(np.abs(got - want), initial=0) / max(np.nanmax(np.abs(want), initial=0), 1e-9))


def fake_quantized(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """`core.run`, with every tensor that has a hint rounded and saturated as the file says."""

    def rounded(name: str, x: Array) -> Array:
        quant = graph.tensors[name].quant
        if quant is None:
            return x
        q = np.clip(np.rint(x / np.float32(quant.scale)) + quant.zero_point, -128, 127)
        return ((q - quant.zero_point) * np.float32(quant.scale)).astype(np.float32)

    values = {**graph.consts, **{name: rounded(name, x) for name, x in inputs.items()}}
    for node in graph.nodes:
        y = core.evaluate(node.op, [values[x] if x else None for x in node.inputs], node.attrs)
        values[node.outputs[0]] = rounded(node.outputs[0], y)
    return values


# ---- whole models ----


@pytest.mark.parametrize("entry", entries())
def test_every_model_ends_as_the_manifest_says(entry: dict[str, Any], shared: Path) -> None:
    outcome = entry["expected"]["outcome"]
    problems: tuple[Problem, ...] = ()
    try:
        require_supported(load_entry(entry, shared))
    except CompileError as error:
        problems = error.problems
    assert all(p.reason and "\n" not in str(p) and p.remedy for p in problems)
    ended = "error" if problems else "supported"
    if entry["id"] in NOT_BY_IMPORT:
        assert ended == "supported"
    elif entry["id"] in UNSUPPORTED:
        assert ended == "error"
    elif outcome in ("supported", "error"):
        assert ended == outcome


def _compares(entry: dict[str, Any]) -> bool:
    """Whether an entry is a float model with samples. Where it may also be refused, import decides."""
    quantized = entry["family"] == "quantized" or "int8" in entry["id"]
    return bool(entry.get("samples")) and not quantized and entry["expected"]["outcome"] != "error"


@pytest.mark.parametrize("entry", entries(_compares))
def test_float_models_agree_with_onnxruntime(entry: dict[str, Any], shared: Path) -> None:
    imported = load_entry(entry, shared)
    if imported.problems:
        assert entry["expected"]["outcome"] != "supported" or entry["id"] in UNSUPPORTED
        return
    assert not imported.hints
    samples = np.load(shared / "models" / entry["samples"])
    for j in range(min(2, entry["n_samples"])):
        values = core.run(imported.graph, feeds(imported, samples, j))
        for name, port in zip(imported.graph.outputs, imported.outputs, strict=True):
            assert distance(values[name], samples[f"out/{port.name}"][j]) < FLOAT_TOLERANCE


@pytest.mark.parametrize(
    "name",
    [
        "ae_toycar_qop_u8u8",
        "bert_s_qdq_matmul_only",
        "dscnn_kws_qdq_pc_s8s8",
        "mlperf_ad_int8_tflite",
        "mlperf_kws_int8_tflite",
        "tcn_kws_qdq_pc_s8s8",
    ],
)
def test_hints_reproduce_onnxruntime(name: str, shared: Path) -> None:
    """Rounding at the hints and nowhere else gives what onnxruntime's integer kernels gave, but for a step at ties."""
    entry = next(e for e in _ENTRIES if e["id"] == name)
    imported = require_supported(load_entry(entry, shared))
    assert imported.hints
    samples = np.load(shared / "models" / entry["samples"])
    for j in range(min(2, entry["n_samples"])):
        values = fake_quantized(imported.graph, feeds(imported, samples, j))
        for out, port in zip(imported.graph.outputs, imported.outputs, strict=True):
            quant = imported.graph.tensors[out].quant
            step = quant.scale if quant else 1e-3 * float(np.abs(values[out]).max())
            assert np.abs(values[out] - real(port, samples[f"out/{port.name}"][j])).max() < 1.5 * step


@pytest.mark.parametrize(
    "name,limit",
    [
        ("bert_s_fp16_keepio", 1e-3),
        ("bert_s_qdynamic_u8", 5e-3),
        ("bert_s_qdq_pc_s8s8", 1e-2),
        ("bert_s_qop_u8s8", 1e-2),
        ("llama_qdq_pc_s8s8", 1e-2),
    ],
)
def test_rounded_weights_stay_close_to_the_float_model(name: str, limit: float, shared: Path) -> None:
    """Also where a calibrated mask has ruined the file's own activations: that scale is ignored, and said to be."""
    entry = next(e for e in _ENTRIES if e["id"] == name)
    base = next(e for e in _ENTRIES if e["id"] == entry["base"])
    imported = require_supported(load_entry(entry, shared))
    samples = np.load(shared / "models" / base["samples"])
    values = core.run(imported.graph, feeds(imported, samples, 0))
    for out, port in zip(imported.graph.outputs, imported.outputs, strict=True):
        assert distance(values[out], samples[f"out/{port.name}"][0]) < limit
    absurd = [w for w in imported.warnings if "absurd" in w.reason]
    assert bool(absurd) == ("absurd" in name or entry["expected"]["outcome"] == "error_or_supported")


def test_facts_about_a_model(shared: Path) -> None:
    imported = load(shared / "students" / "homecmd")
    assert imported.graph.name == "homecmd"
    assert imported.inputs == (Port("input_ids", "int64", (1, 32)), Port("attention_mask", "int64", (1, 32)))
    assert imported.outputs == (Port("logits", "float32", (1, 64)),)
    assert imported.ops["LayerNormalization"] == 13
    assert 2.26e6 < imported.parameters < 2.28e6
    assert (imported.opset, imported.hints, imported.problems) == (17, 0, ())
    assert imported.producer.startswith("pytorch")


# ---- own models ----


def value_info(name: str, shape: Any, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: Mapping[str, Array] | None = None,
    *,
    opset: int = 17,
    **more: Any,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(v, k) for k, v in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in more.pop("domains", ()))]
    return helper.make_model(graph, opset_imports=imports, **more)


def save(tmp_path: Path, proto: onnx.ModelProto) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def failure(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> str:
    """The message with which a file is refused."""
    with pytest.raises(CompileError) as caught:
        require_supported(load(path, shapes))
    return str(caught.value)


def linear(in_shape: Any = (1, 8), out_shape: Any = None, weight: Array | None = None) -> onnx.ModelProto:
    """y = x w."""
    weight = np.ones((8, 3), np.float32) if weight is None else weight
    return model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")],
        [value_info("x", in_shape)],
        [value_info("y", out_shape)],
        {"w": weight},
    )


# ---- binding ----


def two_symbols() -> onnx.ModelProto:
    return model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [value_info("a", ("batch", "seq", 3)), value_info("b", ("batch", "seq", 3))],
        [value_info("y", ("batch", "seq", 3))],
    )


def test_a_symbol_bound_for_one_input_holds_for_all(tmp_path: Path) -> None:
    imported = require_supported(load(save(tmp_path, two_symbols()), {"a": (1, 17, 3)}))
    assert [port.shape for port in (*imported.inputs, *imported.outputs)] == [(1, 17, 3)] * 3


def test_open_dims_are_all_named_with_the_option_that_binds_them(tmp_path: Path) -> None:
    message = failure(save(tmp_path, two_symbols()))
    assert "'a'" in message
    assert "'b'" in message
    assert "axis 1 ('seq')" in message
    assert "--shape a=1,32,3" in message


@pytest.mark.parametrize(
    "shapes,words",
    [
        ({"a": (1, 17)}, "rank 3"),
        ({"a": (1, 17, 4)}, "declares"),
        ({"a": (1, 17, 3), "b": (1, 5, 3)}, "'seq' is bound to"),
        ({"z": (1,)}, "its inputs are a, b"),
        ({"a": (1, 0, 3)}, "no elements"),
        ({"a": (1, -5, 3)}, "no usable shape"),
        ({"a": (1, 1 << 40, 3)}, "no usable shape"),
        ({"a": (1 << 12, 1 << 12, 3)}, "the limit is"),
    ],
)
def test_wrong_shapes_are_refused(shapes: dict[str, tuple[int, ...]], words: str, tmp_path: Path) -> None:
    assert words in failure(save(tmp_path, two_symbols()), shapes)


@pytest.mark.parametrize("shape", [("N", 8), (None, 8), (-1, 8)])
def test_an_open_batch_alone_becomes_one(shape: Any, tmp_path: Path) -> None:
    assert require_supported(load(save(tmp_path, linear(shape)))).inputs[0].shape == (1, 8)


@pytest.mark.parametrize("shape", [("N",), (8, "N"), None])
def test_any_other_open_axis_does_not(shape: Any, tmp_path: Path) -> None:
    assert "--shape x=" in failure(save(tmp_path, linear(shape)))


def test_initializers_listed_as_inputs_are_constants(tmp_path: Path) -> None:
    proto = linear()
    proto.graph.input.append(value_info("w", (8, 3)))
    assert [port.name for port in require_supported(load(save(tmp_path, proto))).inputs] == ["x"]


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda g: g.input[0].type.tensor_type.__setattr__("elem_type", TensorProto.STRING), "element type string"),
        (lambda g: g.input[0].type.tensor_type.__setattr__("elem_type", TensorProto.UINT16), "element type uint16"),
        (lambda g: g.input[0].type.sequence_type.elem_type.tensor_type.__setattr__("elem_type", 1), "is a sequence"),
        (lambda g: g.input[0].ClearField("type"), "is a value without type"),
        (lambda g: g.input.append(g.input[0]), "twice"),
        (lambda g: g.output.add(name="nowhere"), "an output that nothing defines"),
        (lambda g: g.initializer.append(g.initializer[0]), "two initializers"),
        (lambda g: g.node.append(g.node[0]), "already defined"),
        (lambda g: g.node[0].input.__setitem__(1, "y"), "cycle"),
        (lambda g: g.node[0].input.__setitem__(1, "v"), "MatMul 'fc': reads 'v', which nothing defines"),
        (lambda g: g.node[0].input.pop(), "MatMul 'fc'"),
        (lambda g: g.initializer[0].dims.__setitem__(0, 1 << 50), "the limit is"),
        (lambda g: g.initializer[0].dims.__setitem__(0, -8), "impossible dims"),
        (lambda g: g.initializer[0].dims.__setitem__(0, 9), "bytes of data where its dims"),
        (lambda g: g.initializer[0].__setattr__("data_type", TensorProto.FLOAT8E4M3FN), "float8e4m3fn is unsupported"),
        (lambda g: g.initializer[0].__setattr__("data_type", 999), "number 999"),
        (lambda g: g.initializer[0].__setattr__("data_type", TensorProto.INT32), "mixes element types f32 and i32"),
        (lambda g: g.sparse_initializer.add(), "sparse"),
        (lambda g: g.ClearField("output"), "no outputs"),
        (lambda g: g.node[0].__setattr__("op_type", "matmul"), "'fc': operator is not supported"),
        (lambda g: g.node[0].__setattr__("domain", "my.ops"), "my.ops:MatMul 'fc'"),
        (lambda g: g.output[0].CopyFrom(value_info("y", (1, 99))), "declared as [1, 99], but computed as [1, 3]"),
        (lambda g: g.output[0].CopyFrom(value_info("y", (1, 3), TensorProto.INT64)), "int64, but computed as f32"),
    ],
)
def test_damaged_graphs_are_refused(change: Callable[[onnx.GraphProto], None], words: str, tmp_path: Path) -> None:
    proto = linear()
    change(proto.graph)
    assert words in failure(save(tmp_path, proto))


def test_all_unsupported_nodes_are_named_at_once_and_dead_ones_are_not(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["d"], "first"),
        helper.make_node("Celu", ["d"], ["e"], "between"),
        helper.make_node("Odd", ["e"], ["y"], "second", domain="z"),
        helper.make_node("Odd", ["e"], ["unused"], "dead", domain="z"),
    ]
    proto = model(nodes, [value_info("x", (1, 3, 3))], [value_info("y", None)], domains=["z"])
    imported = load(save(tmp_path, proto))
    assert [p.node for p in imported.problems] == ["first", "second"]
    assert [node.op for node in imported.graph.nodes] == ["Det", "Celu", "z:Odd"]
    proto.graph.value_info.append(value_info("d", (1,)))
    assert [node.op for node in load(save(tmp_path, proto)).graph.nodes] == ["Det", "div", "elu", "mul", "z:Odd"]


def test_a_stale_shape_inside_of_the_graph_is_a_warning(tmp_path: Path) -> None:
    proto = linear()
    proto.graph.node.append(helper.make_node("Relu", ["y"], ["z"]))
    proto.graph.output[0].name = "z"
    proto.graph.value_info.append(value_info("y", (1, 99)))
    assert [w.node for w in require_supported(load(save(tmp_path, proto))).warnings] == ["y"]


def test_a_node_named_like_a_core_operator_is_not_taken_for_one(tmp_path: Path) -> None:
    proto = model([helper.make_node("relu", ["x"], ["y"])], [value_info("x", (2,))], [value_info("y", (2,))])
    assert [node.op for node in load(save(tmp_path, proto)).graph.nodes] == ["ai.onnx:relu"]


@pytest.mark.parametrize("name", ["v0", "v1", "v2", "x\x1b[31m\n", "../../y", 'a"; system("x"); "'])
def test_names_are_only_data(name: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", [name], ["a"]), helper.make_node("Det", ["a"], [name + "y"], name)]
    imported = load(save(tmp_path, model(nodes, [value_info(name, (1, 3, 3))], [value_info(name + "y", None)])))
    assert imported.graph.inputs == (name,)
    assert "\n" not in str(imported.problems[0])
    assert "\x1b" not in str(imported.problems[0])


# ---- weights ----


@pytest.mark.parametrize(
    "value,words", [(np.nan, "'w': holds 1 NaN"), (np.inf, "as large as inf"), (3e38, "as large as 3e+38")]
)
def test_weights_that_cannot_be_right_are_refused(value: float, words: str, tmp_path: Path) -> None:
    weight = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
    weight[3, 1] = value
    assert words in failure(save(tmp_path, linear(weight=weight)))


def test_an_outlier_is_a_warning(tmp_path: Path) -> None:
    weight = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
    weight[3, 1] = 1e6
    warnings = require_supported(load(save(tmp_path, linear(weight=weight)))).warnings
    assert [w.node for w in warnings] == ["w"]


def test_masks_of_minus_infinity_are_no_weights(tmp_path: Path) -> None:
    mask = np.where(np.tri(4, dtype=bool), 0, -np.inf).astype(np.float32)
    nodes = [helper.make_node("Gather", ["mask", "i"], ["m"]), helper.make_node("Add", ["x", "m"], ["y"])]
    inputs = [value_info("x", (2, 4)), value_info("i", (2,), TensorProto.INT64)]
    proto = model(nodes, inputs, [value_info("y", (2, 4))], {"mask": mask})
    assert not load(save(tmp_path, proto)).problems


@pytest.mark.parametrize("kind", [np.float16, np.float64, "bfloat16"])
def test_every_float_becomes_float32(kind: Any, tmp_path: Path) -> None:
    elem = TensorProto.BFLOAT16 if kind == "bfloat16" else helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    values = [0.5, -1.5, 2.0, 3.0]
    product = helper.make_node("Mul", ["x", "w"], ["y"])
    proto = model([product], [value_info("x", (4,), elem)], [value_info("y", (4,), elem)])
    proto.graph.initializer.append(helper.make_tensor("w", elem, (4,), values))
    imported = require_supported(load(save(tmp_path, proto)))
    got = core.run(imported.graph, {"x": np.ones(4, np.float32)})[imported.graph.outputs[0]]
    assert got.dtype == np.float32
    assert got.tolist() == values


# ---- files ----


@pytest.mark.parametrize(
    "data,words",
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"hello world\n" * 9, "text file"),
        (b"PK\x03\x04" + bytes(50), "PyTorch checkpoint"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(20), "TensorFlow Lite"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs"),
        (bytes(range(256)), "not an ONNX model"),
        (b"\x08\x07", "not an ONNX model"),
    ],
)
def test_other_files_are_recognized(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    assert words in failure(tmp_path / "m.onnx")


def test_missing_file_and_folders(tmp_path: Path) -> None:
    assert "No such file" in failure(tmp_path / "none.onnx")
    assert "no ONNX file" in failure(tmp_path)
    save(tmp_path, linear())
    assert load(tmp_path).graph.name == tmp_path.name
    shutil.copy(tmp_path / "m.onnx", tmp_path / "n.onnx")
    assert "2 ONNX files: m.onnx, n.onnx" in failure(tmp_path)
    shutil.copy(tmp_path / "m.onnx", tmp_path / "model.onnx")
    assert load(tmp_path, name="given").graph.name == "given"


def test_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, linear())
    monkeypatch.setattr(onnx_file, "MAX_FILE_BYTES", path.stat().st_size - 1)
    assert "the limit is" in failure(path)


def external(tmp_path: Path, location: str, offset: int = 0, length: int | None = 96) -> Path:
    proto = linear()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    (tmp_path / "m").mkdir()
    return save(tmp_path / "m", proto)


def test_external_data_is_read_from_the_models_folder(tmp_path: Path) -> None:
    path = external(tmp_path, "sub/w.bin", offset=4, length=None)
    (tmp_path / "m" / "sub").mkdir()
    (tmp_path / "m" / "sub" / "w.bin").write_bytes(b"\0\0\0\0" + np.full(24, 2, np.float32).tobytes())
    imported = require_supported(load(path))
    got = core.run(imported.graph, {"x": np.ones((1, 8), np.float32)})
    assert got[imported.graph.outputs[0]].tolist() == [[16.0] * 3]


@pytest.mark.parametrize(
    "location,offset,length,words",
    [
        ("{tmp}/secret", 0, 96, "outside"),
        ("../secret", 0, 96, "outside"),
        ("link", 0, 96, "outside"),
        ("sub/../w.bin", 0, 96, "outside"),
        ("", 0, 96, "outside"),
        ("w\0.bin", 0, 96, "not a usable path"),
        ("none", 0, 96, "missing"),
        ("x" * 300, 0, 96, "too long"),
        (".", 0, 96, "missing"),
        ("w.bin", 1, 96, "needs bytes 1 to 97"),
        ("w.bin", -4, 96, "needs"),
        ("w.bin", 0, 97, "needs"),
        ("w.bin", 0, 1 << 62, "needs"),
        ("w.bin", "zero", 96, "no number"),
        ("w.bin", 0, 92, "92 bytes"),
    ],
)
def test_external_data_elsewhere_is_refused(
    location: str, offset: Any, length: int, words: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(bytes(96))
    path = external(tmp_path, location.replace("{tmp}", str(tmp_path)), offset, length)
    (tmp_path / "m" / "w.bin").write_bytes(bytes(96))
    os.symlink(tmp_path / "secret", tmp_path / "m" / "link")
    message = failure(path)
    assert message.startswith("'w': ")
    assert words in message


# ---- control flow, functions ----


def branches(condition: Array) -> onnx.ModelProto:
    """y = x + 1 if condition else x * k."""
    then = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], ["t"])],
        "then",
        [],
        [value_info("t", None)],
        [numpy_helper.from_array(np.float32([1]), "one")],
    )
    other = helper.make_graph([helper.make_node("Mul", ["x", "k"], ["e"])], "else", [], [value_info("e", None)])
    node = helper.make_node("If", ["c"], ["y"], "choice", then_branch=then, else_branch=other)
    return model([node], [value_info("x", (1, 3))], [value_info("y", (1, 3))], {"c": condition, "k": np.float32([5])})


@pytest.mark.parametrize("condition,want", [(np.bool_([True]), 3.0), (np.bool_(False), 10.0)])
def test_if_of_a_constant_takes_its_branch(condition: Array, want: float, tmp_path: Path) -> None:
    imported = require_supported(load(save(tmp_path, branches(np.asarray(condition)))))
    got = core.run(imported.graph, {"x": np.full((1, 3), 2, np.float32)})
    assert got[imported.graph.outputs[0]].tolist() == [[want] * 3]


def test_if_at_run_time_is_unsupported(tmp_path: Path) -> None:
    proto = branches(np.bool_([True]))
    del proto.graph.initializer[0]
    proto.graph.input.append(value_info("c", (1,), TensorProto.BOOL))
    assert "If 'choice': the condition is computed at run time" in failure(save(tmp_path, proto))


def with_functions(functions: list[onnx.FunctionProto], call: onnx.NodeProto) -> onnx.ModelProto:
    return model([call], [value_info("x", (1, 3))], [value_info("y", None)], domains=["f"], functions=functions)


def test_functions_are_inlined_with_their_attributes(tmp_path: Path) -> None:
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    inner = helper.make_function("f", "Inner", ["a"], ["b"], [leaky], [helper.make_opsetid("", 17)], ["slope"])
    call = helper.make_node("Inner", ["p"], ["q"], domain="f", slope=0.5)
    outer = helper.make_function(
        "f",
        "Outer",
        ["p", "unused"],
        ["r"],
        [call, helper.make_node("Neg", ["q"], ["r"])],
        [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)],
    )
    proto = with_functions([inner, outer], helper.make_node("Outer", ["x"], ["y"], domain="f"))
    imported = require_supported(load(save(tmp_path, proto)))
    got = core.run(imported.graph, {"x": np.float32([[-4, 0, 2]])})
    assert got[imported.graph.outputs[0]].tolist() == [[2.0, -0.0, -2.0]]


def test_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    again = helper.make_function(
        "f", "F", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain="f")], [helper.make_opsetid("f", 1)]
    )
    proto = with_functions([again], helper.make_node("F", ["x"], ["y"], domain="f"))
    assert "nested deeper" in failure(save(tmp_path, proto))


def test_functions_that_multiply_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "MAX_NODES", 200)
    functions = []
    for i in range(12):
        kind, domain = (f"F{i - 1}", "f") if i else ("Neg", "")
        nodes = [helper.make_node(kind, [x], [y], domain=domain) for x, y in ("ab", "bc")]
        functions.append(
            helper.make_function(
                "f", f"F{i}", ["a"], ["c"], nodes, [helper.make_opsetid("f", 1), helper.make_opsetid("", 17)]
            )
        )
    assert "more than 200 nodes" in failure(
        save(tmp_path, with_functions(functions, helper.make_node("F11", ["x"], ["y"], domain="f")))
    )


# ---- hostile sizes ----

BILLION = np.int64([1 << 15, 1 << 15])


@pytest.mark.parametrize(
    "node,weights",
    [
        (helper.make_node("Expand", ["x", "s"], ["y"]), {"s": BILLION}),
        (helper.make_node("ConstantOfShape", ["s"], ["y"]), {"s": BILLION}),
        (helper.make_node("ConstantOfShape", ["s"], ["y"]), {"s": np.int64([1 << 62, 1 << 62])}),
        (helper.make_node("Tile", ["x", "s"], ["y"]), {"s": BILLION}),
        (helper.make_node("Tile", ["x", "s"], ["y"]), {"s": np.int64([1 << 62, 0])}),
        (
            helper.make_node("Range", ["a", "s", "b"], ["y"]),
            {"a": np.int64(0), "s": np.int64(1 << 62), "b": np.int64(1)},
        ),
        (helper.make_node("Pad", ["x", "s"], ["y"]), {"s": np.int64([0, 0, 1 << 40, 0])}),
        (
            helper.make_node("OneHot", ["i", "s", "v"], ["y"]),
            {"i": np.int64([[1]]), "s": np.int64(1 << 40), "v": np.float32([0, 1])},
        ),
        (
            helper.make_node("MatMul", ["a", "b"], ["y"]),
            {"a": np.ones((1 << 13, 1), np.float32), "b": np.ones((1, 1 << 13), np.float32)},
        ),
        (helper.make_node("Resize", ["x", "", "s"], ["y"]), {"s": np.float32([1e9, 1e9])}),
        (helper.make_node("CenterCropPad", ["x", "s"], ["y"]), {"s": BILLION}),
    ],
)
def test_a_small_file_cannot_ask_for_much_memory(
    node: onnx.NodeProto, weights: dict[str, Array], tmp_path: Path
) -> None:
    proto = model([node], [value_info("x", (1, 2))], [value_info("y", None)], weights, opset=18)
    message = failure(save(tmp_path, proto))
    assert "the limit is" in message or "do not suit" in message


def test_many_medium_values_cannot_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm2c.onnx_ops.base.MAX_TOTAL_ELEMENTS", 100_000)
    nodes = [helper.make_node("Expand", ["x", "s"], [f"y{i}"]) for i in range(20)]
    outputs = [value_info(f"y{i}", None) for i in range(20)]
    proto = model(nodes, [value_info("x", (1, 2))], outputs, {"s": np.int64([5000, 2])})
    assert "exceed 100,000 elements" in failure(save(tmp_path, proto))


# ---- quantized ----


def quantized(scale: Any, zero: Any, between: list[onnx.NodeProto], last: str = "q") -> onnx.ModelProto:
    """x -> MatMul with the identity -> QuantizeLinear -> `between` -> DequantizeLinear -> y."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "s", "z"], ["q"], "quant"),
        *between,
        helper.make_node("DequantizeLinear", [last, "s", "z"], ["y"]),
    ]
    weights = {"w": np.eye(4, dtype=np.float32), "s": np.asarray(scale, np.float32), "z": np.asarray(zero)}
    return model(nodes, [value_info("x", (4, 4))], [value_info("y", None)], weights)


def test_qdq_on_an_activation_is_a_hint(tmp_path: Path) -> None:
    moved = [helper.make_node("Transpose", ["q"], ["t"]), helper.make_node("Reshape", ["t", "shape"], ["r"])]
    proto = quantized(0.5, np.uint8(100), moved, last="r")
    proto.graph.initializer.append(numpy_helper.from_array(np.int64([16]), "shape"))
    imported = require_supported(load(save(tmp_path, proto)))
    assert [node.op for node in imported.graph.nodes] == ["matmul", "view", "view"]
    assert imported.graph.tensors[imported.graph.nodes[0].outputs[0]].quant == Quant(0.5, -28)


@pytest.mark.parametrize(
    "zero,ops", [(np.int8(-128), ["matmul", "relu"]), (np.uint8(0), ["matmul", "relu"]), (np.int8(-127), ["matmul"])]
)
def test_a_relu_that_lives_in_the_zero_point_comes_back(zero: Any, ops: list[str], tmp_path: Path) -> None:
    imported = require_supported(load(save(tmp_path, quantized(0.5, zero, []))))
    assert [node.op for node in imported.graph.nodes] == ops


def test_a_relu6_that_lives_in_scale_and_zero_point_comes_back(tmp_path: Path) -> None:
    imported = require_supported(load(save(tmp_path, quantized(6 / 255, np.uint8(0), []))))
    assert [node.op for node in imported.graph.nodes] == ["matmul", "relu", "min"]


@pytest.mark.parametrize("scale", [-0.5, np.nan])
def test_impossible_scales_are_refused(scale: float, tmp_path: Path) -> None:
    assert "QuantizeLinear 'quant': the scale is" in failure(save(tmp_path, quantized(scale, np.int8(0), [])))


@pytest.mark.parametrize("scale", [1.3e36, np.inf, 0.0])
def test_absurd_scales_are_ignored_with_a_warning(scale: float, tmp_path: Path) -> None:
    imported = require_supported(load(save(tmp_path, quantized(scale, np.int8(-128), []))))
    assert [node.op for node in imported.graph.nodes] == ["matmul"]
    assert (imported.hints, [w.node for w in imported.warnings]) == (0, ["quant"])


def test_integers_of_a_static_scale_can_be_computed(tmp_path: Path) -> None:
    """Where an operator wants the file's integers, they are rounded and saturated as the file says."""
    proto = quantized(0.5, np.int8(10), [helper.make_node("Cast", ["q"], ["c"], to=TensorProto.INT32)])
    del proto.graph.node[-1]
    proto.graph.output[0].CopyFrom(value_info("c", None, TensorProto.INT32))
    imported = require_supported(load(save(tmp_path, proto)))
    x = np.float32([[0.2, 0.3, -1000, 1000]] * 4)
    got = core.run(imported.graph, {"x": x})[imported.graph.outputs[0]]
    assert got[0].tolist() == [10, 11, -128, 127]


def test_integers_of_a_dynamic_scale_cannot(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("Cast", ["q"], ["y"], "ints", to=TensorProto.INT32),
    ]
    proto = model(nodes, [value_info("x", (4, 4))], [value_info("y", None, TensorProto.INT32)])
    assert "Cast 'ints': needs integers whose scale is computed at run time" in failure(save(tmp_path, proto))


# ---- fuzz ----


def test_random_damage_ends_in_a_graph_or_a_message(tmp_path: Path) -> None:
    """Seeded, so that it gives the same result everywhere; the files are those that the tests above make."""
    seeds = [
        p.SerializeToString()
        for p in (linear(), two_symbols(), branches(np.bool_([True])), quantized(0.5, np.uint8(3), []))
    ]
    rng = random.Random(20260101)
    path = tmp_path / "m.onnx"
    ends = {"graph": 0, "message": 0}
    for _ in range(3000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    del data[at : at + rng.choice((1, 4, 400))]
                case 1:
                    data[at:at] = rng.randbytes(rng.choice((1, 3)))
                case _:
                    data[at] = rng.randrange(256)
            data = data or bytearray(1)
        path.write_bytes(bytes(data))
        try:
            load(path)
            ends["graph"] += 1
        except CompileError:
            ends["message"] += 1
    assert min(ends.values()) > 200
