"""Students of any size: valid ONNX, fused wholly, equal to onnxruntime."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from slm2c import importer
from slm2c.interpret import run_fused
from slm2c.passes import fuse
from slm2c.students import student


@pytest.mark.parametrize(
    "layers, hidden, heads, ffn, tokens", [(1, 8, 1, 12, 3), (2, 17, 17, 33, 5), (3, 32, 4, 48, 70)]
)
def test_a_student_is_fused_wholly_and_computes_what_onnxruntime_does(
    layers: int, hidden: int, heads: int, ffn: int, tokens: int, tmp_path: Path
) -> None:
    proto = student(layers, hidden, heads, ffn, tokens, 40, classes=3)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, tmp_path / "model.onnx")
    fused = fuse(importer.load(tmp_path / "model.onnx").graph)
    kinds = Counter(node.op for node in fused.graph.nodes if node.op != "view")
    assert kinds == {
        "embedding": 1,
        "attention": layers,
        "linear": 6 * layers + 2,
        "lut": layers + 1,
        "layernorm": 2 * layers + 1,
    }
    assert fused.interface is not None and fused.interface.max_tokens == tokens and not fused.fixed_by
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for n in {1, tokens // 2, tokens}:
        ids = np.random.default_rng(n).integers(0, 40, (1, tokens))
        (want,) = session.run(
            None, {"input_ids": ids, "attention_mask": (np.arange(tokens) < n)[None].astype(np.int64)}
        )
        got = run_fused(fused.graph, {"input_ids": ids[0, :n].astype(np.int32)})[fused.graph.outputs[0]]
        np.testing.assert_allclose(got.ravel(), want.ravel(), rtol=0, atol=1e-4 * np.abs(want).max())


def test_seeds_give_the_same_student() -> None:
    first = student(1, 8, 2, 12, 5, 10)
    assert first == student(1, 8, 2, 12, 5, 10)
    assert first != student(1, 8, 2, 12, 5, 10, seed=1)
