"""The importer on whole models: against onnxruntime's stored outputs, and quantized files."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slm2c import core
from slm2c.errors import CompileError, Problem
from slm2c.importer import Imported, Port, load, require_supported
from slm2c.ir import Array, Graph, Quant
from tests.onnx_models import failure, feeds, model, quantized, real, save, value_info

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


def sample(samples: Mapping[str, Array], j: int) -> dict[str, Array]:
    """The inputs of sample j."""
    return {key[3:]: samples[key][j] for key in samples if key.startswith("in/")}


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
        values = core.run(imported.graph, feeds(imported, sample(samples, j)))
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
        values = fake_quantized(imported.graph, feeds(imported, sample(samples, j)))
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
    values = core.run(imported.graph, feeds(imported, sample(samples, 0)))
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


# ---- quantized ----


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


@pytest.mark.parametrize(
    "op,more,superfluous",
    [
        ("Sigmoid", (), True),
        ("Erf", ("one",), True),
        ("Mul", ("x",), True),
        ("Pow", ("two",), True),
        ("Exp", ("one",), True),
        ("Tanh", (), False),
        ("Tanh", ("half",), False),
        ("Mul", ("half",), False),
        ("Pow", ("three",), False),
    ],
)
def test_no_relu_comes_back_where_values_cannot_be_negative(
    op: str, more: tuple[str, ...], superfluous: bool, tmp_path: Path
) -> None:
    """An operator on x, with the second operand added where it takes only one: 1 + erf x, say."""
    binary = op in ("Mul", "Pow")
    nodes = [helper.make_node(op, ["x", *more] if binary else ["x"], ["a"])]
    last = "a"
    if more and not binary:
        nodes.append(helper.make_node("Add", ["a", *more], ["b"]))
        last = "b"
    nodes += [
        helper.make_node("QuantizeLinear", [last, "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    numbers = {"one": 1, "half": 0.5, "two": 2, "three": 3, "s": 0.01}
    weights = {**{k: np.float32(v) for k, v in numbers.items()}, "z": np.int8(-128)}
    imported = load(save(tmp_path, model(nodes, [value_info("x", (3, 5))], [value_info("y", None)], weights)))
    assert superfluous != ("relu" in [node.op for node in imported.graph.nodes])


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


def test_an_output_of_a_dynamic_scale_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["y"]),
    ]
    output = value_info("y", None, TensorProto.INT32)
    proto = model(nodes, [value_info("x", (4, 4))], [output], {"w": np.ones((4, 3), np.int8)})
    assert "'y': output holds integers whose scale" in failure(save(tmp_path, proto))


def positions(rows: int) -> onnx.ModelProto:
    """Embeddings of ids of any length, and those of their positions, from a table of `rows`."""
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["x"], "word"),
        helper.make_node("Shape", ["input_ids"], ["n"], start=1, end=2),
        helper.make_node("Slice", ["table", "zero", "n"], ["p"]),
        helper.make_node("Add", ["x", "p"], ["y"], "inner/Add"),
    ]
    weights = {
        "words": np.ones((9, 4), np.float32),
        "table": np.ones((rows, 4), np.float32),
        "zero": np.int64([0]),
    }
    ids = value_info("input_ids", [1, "n"], TensorProto.INT64)
    return model(nodes, [ids], [value_info("y", None)], weights)


@pytest.mark.parametrize("asked", [13, 14, 40])
def test_a_length_beyond_the_table_of_positions_names_the_limit(asked: int, tmp_path: Path) -> None:
    path = save(tmp_path, positions(12))
    text = failure(path, {"input_ids": (1, asked)})
    assert text.startswith(f"'input_ids': is bound to {asked}, the model takes 12 at most")
    assert text.endswith("bind --shape input_ids=1,12, or less")
    require_supported(load(path, {"input_ids": (1, 12)}))


def test_a_length_is_not_blamed_for_other_problems(tmp_path: Path) -> None:
    proto = positions(12)
    proto.graph.node.append(helper.make_node("Unheard", ["y"], ["z"], "strange"))
    proto.graph.output[0].name = "z"
    assert "Unheard 'strange'" in failure(save(tmp_path, proto), {"input_ids": (1, 40)})
