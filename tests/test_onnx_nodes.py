"""The official node tests of ONNX that matter here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from slm2c.errors import CompileError
from slm2c.importer import load, require_supported
from slm2c.ir import Array
from tests.onnx_models import check, run

_LIST = Path(__file__).resolve().parents[2] / "shared" / "models" / "data" / "onnx_nodetests.json"

DIFFERENT = ("training_dropout",)
"""Random on purpose."""

REFUSED = (
    "e4m3fn",
    "e5m2",
    "float4e2m1",
    "uint2",
    "int2",
    "uint4",
    "int4",
    "uint16",
    "uint32",
    "uint64",
    "FLOAT8",
    "FLOAT4",
    "INT4",
    "INT2",
    "E8M0",
    "e8m0",
    "STRING",
    "string",
    "sequence",
    "_empty_set",
    "zero_size",
    "_zero",
    "allowzero_reordered",
    "training_mode",
    "argmax_2d",
    "ext_cache",
    "scatternd_add",
    "scatternd_max",
    "scatternd_min",
    "scatternd_multiply",
    "dynamicquantizelinear",
)
"""Types without a counterpart in the IR, values without elements, and what is deliberately left out."""


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    with np.errstate(all="ignore"):
        from onnx.backend.test.case import node

        return {test.name: test for test in node.collect_testcases(None)}


def baked(proto: onnx.ModelProto, values: list[Array], constant: range) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model with some of its inputs as initializers; the other inputs' values."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    feeds = {}
    for i, (value, array) in enumerate(zip(proto.graph.input, values, strict=True)):
        if i in constant:
            made.graph.initializer.append(numpy_helper.from_array(array, value.name))
        else:
            feeds[value.name] = array
    return made, feeds


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_official_node_tests(official: dict[str, Any], tmp_path: Path) -> None:
    """Inputs that only a constant can be (shapes, axes) are made so; all others stay inputs."""
    if not _LIST.is_file():
        pytest.skip("../shared/models is absent")
    listed = [t["name"] for t in json.loads(_LIST.read_text())["tests"]]
    names = [name for name in listed if name in official and not any(d in name for d in DIFFERENT)]
    path = tmp_path / "m.onnx"
    passed = 0
    for name in names:
        test = official[name]
        inputs, wanted = test.data_sets[0]
        if any(isinstance(x, (list, type(None))) for x in (*inputs, *wanted)):
            continue
        values = [numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else np.asarray(x) for x in inputs]
        message = ""
        for constant in (range(0), range(1, 9), range(3, 9), range(2, 9), range(9)):
            proto, feeds = baked(test.model, values, constant)
            path.write_bytes(proto.SerializeToString())
            try:
                imported = require_supported(load(path))
                break
            except CompileError as error:
                message = message or str(error)
        else:
            assert any(part in name for part in REFUSED), f"{name}: {message}"
            continue
        for got, want, port in zip(run(imported, feeds), wanted, imported.outputs, strict=True):
            want = numpy_helper.to_array(want) if isinstance(want, onnx.TensorProto) else np.asarray(want)
            half = want.dtype.name in ("float16", "bfloat16")
            want = want.astype(np.float32) if half else want
            check(got, want, 2e-2 if half else 1e-4, coded=port.code is not None)
        passed += 1
    assert passed > 0.8 * len(names)
