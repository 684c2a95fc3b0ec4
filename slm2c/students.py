"""students: BERT encoders of any size with random weights, to measure what size costs; nothing is learned in them.

The graph is what PyTorch exports of a `BertForSequenceClassification`: word and position embeddings, post-LN encoder
layers, the pooler on the first token, a classifier. Inputs are `input_ids` and `attention_mask`, [1, tokens].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slm2c.ir import Array

_OPSET = 17
_MASKED = np.float32(np.finfo(np.float32).min)


def student(
    layers: int, hidden: int, heads: int, ffn: int, tokens: int, vocabulary: int, seed: int = 0, classes: int = 64
) -> onnx.ModelProto:
    """A BERT classifier; the same arguments give the same weights."""
    assert hidden % heads == 0, f"hidden size {hidden} of {heads} heads"
    g = _Graph(np.random.default_rng(seed))
    head = hidden // heads
    words = g.op("Gather", g.random("word_embeddings", vocabulary, hidden), "input_ids", name="embeddings/word")
    positions = g.random("position_embeddings", 1, tokens, hidden)
    x = g.norm("embeddings/norm", g.op("Add", words, positions, name="embeddings/position"), hidden)
    present = g.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    present = g.op("Unsqueeze", present, g.const("axes", np.array([1, 2])))
    absent = g.op("Sub", g.const("one", np.float32(1)), present)
    mask = g.op("Mul", absent, g.const("masked", _MASKED))
    split = g.const("split", np.array([1, tokens, heads, head]))
    joined = g.const("joined", np.array([1, tokens, hidden]))
    root = g.const("root", np.float32(math.sqrt(head)))
    for layer in (f"layer.{i}" for i in range(layers)):
        q, k, v = (
            g.op(
                "Transpose",
                g.op("Reshape", g.dense(f"{layer}/{name}", x, hidden, hidden), split),
                perm=(0, 2, 3, 1) if name == "key" else (0, 2, 1, 3),
            )
            for name in ("query", "key", "value")
        )
        scores = g.op("Div", g.op("MatMul", q, k, name=f"{layer}/scores"), root)
        weights = g.op("Softmax", g.op("Add", scores, mask), name=f"{layer}/softmax", axis=-1)
        context = g.op("Transpose", g.op("MatMul", weights, v, name=f"{layer}/context"), perm=(0, 2, 1, 3))
        context = g.op("Reshape", context, joined)
        x = g.norm(f"{layer}/norm1", g.op("Add", x, g.dense(f"{layer}/out", context, hidden, hidden)), hidden)
        inner = g.gelu(g.dense(f"{layer}/up", x, hidden, ffn))
        x = g.norm(f"{layer}/norm2", g.op("Add", x, g.dense(f"{layer}/down", inner, ffn, hidden)), hidden)
    first = g.op("Gather", x, g.const("zero", np.array(0)), name="first", axis=1)
    pooled = g.op("Tanh", g.dense("pooler", first, hidden, hidden))
    g.dense("classifier", pooled, hidden, classes, "logits")
    return g.model(dict.fromkeys(("input_ids", "attention_mask"), tokens), "logits", [1, classes])


def linear_layers(hidden: int, ffn: int, tokens: int, vocabulary: int, seed: int = 0) -> onnx.ModelProto:
    """Embeddings, then the three kinds of linear layer of an encoder with nothing between them, for each token."""
    g = _Graph(np.random.default_rng(seed))
    x = g.op("Gather", g.random("word_embeddings", vocabulary, hidden), "input_ids", name="embeddings/word")
    x = g.dense("up", g.dense("projection", x, hidden, hidden), hidden, ffn)
    g.dense("down", x, ffn, hidden, "y")
    return g.model({"input_ids": tokens}, "y", [1, tokens, hidden])


class _Graph:
    """Nodes and weights while they are written; each method returns the name of what it adds."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, Array] = {}

    def op(self, kind: str, *inputs: str, name: str = "", output: str = "", **attributes: Any) -> str:
        name = name or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output or f"{name}:0"], name, **attributes))
        return output or f"{name}:0"

    def const(self, name: str, value: Array | np.generic) -> str:
        self._weights[name] = np.asarray(value)
        return name

    def random(self, name: str, *shape: int, scale: float = 1.0) -> str:
        return self.const(name, (scale * self._rng.standard_normal(shape, np.float32)).astype(np.float32))

    def dense(self, name: str, x: str, inputs: int, outputs: int, output: str = "") -> str:
        weight = self.random(f"{name}.weight", inputs, outputs, scale=inputs**-0.5)
        bias = self.random(f"{name}.bias", outputs, scale=0.1)
        return self.op("Add", bias, self.op("MatMul", x, weight, name=name), output=output)

    def norm(self, name: str, x: str, size: int) -> str:
        gamma = self.const(f"{name}.gamma", np.ones(size, np.float32))
        beta = self.random(f"{name}.beta", size, scale=0.1)
        return self.op("LayerNormalization", x, gamma, beta, name=name, axis=-1, epsilon=1e-12)

    def gelu(self, x: str) -> str:
        half = self.op("Mul", x, self.const("half", np.float32(0.5)))
        erf = self.op("Erf", self.op("Div", x, self.const("root2", np.float32(math.sqrt(2)))))
        return self.op("Mul", half, self.op("Add", erf, self.const("one", np.float32(1))))

    def model(self, inputs: Mapping[str, int], output: str, shape: Sequence[int]) -> onnx.ModelProto:
        ids = [helper.make_tensor_value_info(x, TensorProto.INT64, [1, tokens]) for x, tokens in inputs.items()]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
        weights = [numpy_helper.from_array(value, name) for name, value in self._weights.items()]
        graph = helper.make_graph(self._nodes, "student", ids, outputs, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
