"""The same student through each exporter gives the same fused graph."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from slm2c import importer
from slm2c.ir import Array, Graph
from slm2c.ops.lut import evaluate_expression
from slm2c.passes import fuse

BASE = "bert_s_legacy_op17_eager"
SAME_STUDENT = {  # exporter -> how far its weights may be from those of BASE, relative to the largest
    "bert_s_legacy_op17_sdpa_dyn": 1e-6,
    "bert_s_dynamo_op18_sdpa": 1e-6,
    "bert_s_dynamo_op23_sdpa": 1e-6,
    "bert_s_external_data": 1e-6,
    "bert_s_onnxsim": 1e-6,
    "bert_s_ids_only_legacy_op17": 1e-6,
    "tf440_bert_s_op11_dyn": 1e-6,
    "bert_s_ort_bert_fused": 1e-6,
    "bert_s_fp16_keepio": 1e-3,  # rounded to float16 in the file
    "bert_s_qdq_matmul_only": 2e-2,  # rounded to 8 bits in the file
    "bert_s_qdynamic_u8": 2e-2,
}


def structure(graph: Graph) -> tuple[list[object], list[Array]]:
    """Nodes in order of what they need, tensors by position instead of name; and all numbers in the order of their
    use.
    """
    producers = graph.producers()
    numbers: dict[str, int] = {}
    nodes: list[object] = []
    consts: list[Array] = []

    def visit(name: str) -> object:
        if name in numbers:
            return numbers[name]
        if name in graph.consts:
            numbers[name] = len(numbers)
            consts.append(graph.consts[name])
            return "const", graph.consts[name].shape
        node = producers.get(name)
        if node is None:
            numbers[name] = len(numbers)
            return "input", graph.tensors[name].shape, graph.tensors[name].token_axis
        inputs = tuple(visit(x) if x else None for x in node.inputs)
        consts.extend(np.array([v]) for k, v in sorted(node.attrs.items()) if isinstance(v, float))
        consts.extend(evaluate_expression(v, np.linspace(-6, 6, 97)) for k, v in node.attrs.items() if k == "fn")
        attrs = {
            k: v.tobytes() if isinstance(v, np.ndarray) else v
            for k, v in node.attrs.items()
            if k != "fn" and not isinstance(v, float)
        }
        nodes.append(
            (node.op, inputs, sorted(attrs.items(), key=str), graph.tensors[name].shape, graph.tensors[name].token_axis)
        )
        numbers[name] = len(numbers)
        return numbers[name]

    for output in graph.outputs:
        visit(output)
    return nodes, consts


def fused(shared: Path, model: str) -> Graph:
    entries = {e["id"]: e for e in json.loads((shared / "models" / "manifest.json").read_text())["models"]}
    shapes = {k: tuple(v) for k, v in entries[model].get("suggest_shapes", {}).items()}
    return fuse(importer.load(shared / "models" / entries[model]["file"], shapes or None).graph).graph


@pytest.mark.parametrize("model", SAME_STUDENT)
def test_each_exporter_gives_the_same_fused_graph(shared: Path, model: str) -> None:
    base, base_consts = structure(fused(shared, BASE))
    other, other_consts = structure(fused(shared, model))
    assert other == base
    for mine, theirs in zip(base_consts, other_consts, strict=True):
        assert mine.shape == theirs.shape
        assert np.abs(mine - theirs).max() <= SAME_STUDENT[model] * max(1e-6, np.abs(mine).max())


def test_two_students_differ(shared: Path) -> None:
    """The comparison sees what differs: another head count, another activation."""
    base, _ = structure(fused(shared, BASE))
    assert structure(fused(shared, "distilbert_legacy_op17"))[0] != base
    assert structure(fused(shared, "handbert_legacy_op17"))[0] != base
