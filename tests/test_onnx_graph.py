"""ONNX graphs that are bound, translated or refused: inputs, names, weights, control flow, sizes, and random damage."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from slm2c import core, onnx_graph
from slm2c.errors import CompileError
from slm2c.importer import load, require_supported
from slm2c.ir import Array
from tests.onnx_models import branches, failure, linear, model, quantized, save, two_symbols, value_info

# ---- binding ----


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


def test_nan_in_a_constant_is_named_by_its_node(tmp_path: Path) -> None:
    nan = helper.make_tensor("", TensorProto.FLOAT, (2,), [1.0, np.nan])
    nodes = [helper.make_node("Constant", [], ["c"], "here", value=nan), helper.make_node("Add", ["x", "c"], ["y"])]
    assert "'here': holds 1 NaN" in failure(
        save(tmp_path, model(nodes, [value_info("x", (2,))], [value_info("y", (2,))]))
    )


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


# ---- control flow, functions ----


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
