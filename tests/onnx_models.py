"""Small ONNX models that the importer's tests share, and how an imported one is fed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slm2c import core
from slm2c.errors import CompileError
from slm2c.importer import Imported, Port, load, require_supported
from slm2c.ir import DTYPES, Array


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


def two_symbols() -> onnx.ModelProto:
    return model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [value_info("a", ("batch", "seq", 3)), value_info("b", ("batch", "seq", 3))],
        [value_info("y", ("batch", "seq", 3))],
    )


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


def real(port: Port, stored: Array) -> Array:
    """The values that the file's integers stand for."""
    if port.code is None:
        return np.asarray(stored)
    return (stored.astype(np.float32) - port.code.quant.zero_point) * np.float32(port.code.quant.scale)


def feeds(imported: Imported, stored: Mapping[str, Array]) -> dict[str, Array]:
    """The file's inputs as the graph takes them."""
    types = {port.name: DTYPES[imported.graph.tensors[port.name].dtype] for port in imported.inputs}
    return {port.name: real(port, stored[port.name]).astype(types[port.name]) for port in imported.inputs}


def run(imported: Imported, stored: Mapping[str, Array]) -> Iterator[Array]:
    """The outputs of an imported model, in the file's integers where it has them."""
    values = core.run(imported.graph, feeds(imported, stored))
    for name, port in zip(imported.graph.outputs, imported.outputs, strict=True):
        y = values[name]
        if port.code is not None:
            info = np.iinfo(DTYPES[port.code.dtype])  # type: ignore[type-var]
            y = np.rint(y / np.float32(port.code.quant.scale)) + port.code.quant.zero_point
            y = np.clip(y, info.min, info.max)
        yield y


def check(got: Array, want: Array, tolerance: float, coded: bool = False) -> None:
    assert got.shape == want.shape
    if coded:  # one step, where rounding was at a tie
        assert np.abs(got - want.astype(np.float64)).max(initial=0) <= 1
    elif want.dtype.kind == "f":
        scale = float(np.nanmax(np.abs(np.where(np.isfinite(want), want, 0)), initial=1.0))
        np.testing.assert_allclose(got, want.astype(np.float32), rtol=tolerance, atol=tolerance * scale)
    else:
        assert np.array_equal(got.astype(np.int64), want.astype(np.int64))
