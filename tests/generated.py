"""Small models, compiled: what the tests of the generated C and of what runs it start from."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slm2c import output, toolchain
from slm2c.board import load_board
from slm2c.compile import Compiled, Options, compile_model
from slm2c.output import Output

WORDS = "turn on off the light lamp kitchen play music stop set alarm for seven what is weather today"
LABELS = ("lights", "music", "alarm", "weather", "other")
SENTENCES = ("turn on the light", "play music", "set alarm for seven", "what is the weather today", "stop", "lamps off")

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_CTYPES = {"i8": "int8_t", "i16": "int16_t", "i32": "int32_t"}


@dataclass(frozen=True)
class Built:
    """A compiled model and its output folder."""

    compiled: Compiled
    output: Output

    @property
    def folder(self) -> Path:
        return self.output.folder

    @property
    def name(self) -> str:
        return self.output.name

    @property
    def blob(self) -> Path:
        return self.folder / f"{self.name}_blob.bin"

    def sources(self) -> list[Path]:
        """The C of a firmware."""
        return [self.folder / f"{self.name}.c", *sorted((self.folder / "slm").glob("*.c"))]

    def includes(self) -> list[Path]:
        return [self.folder, self.folder / "slm"]


def compile_into(folder: Path, model: onnx.ModelProto | Path, name: str, **options: Any) -> Built:
    """Compile a model, or a folder with one, into the new folder `folder`/`name`."""
    if isinstance(model, onnx.ModelProto):
        onnx.save(model, folder / f"{name}.onnx")
        model = folder / f"{name}.onnx"
    compiled = compile_model(model, load_board("generic-m7-512k-4m"), Options(name=name, **options))
    (folder / name).mkdir()
    output.write(folder / name, compiled)
    output.finish(folder / name, compiled)
    return Built(compiled, output.read(folder / name))


def facts(built: Built) -> dict[str, Any]:
    """What tests/c/robust.c.j2 is rendered with: the interface of the generated C, from the graphs alone."""
    graph, floats, interface = built.compiled.quantized.graph, built.output.float_graph, built.output.interface

    def array(name: str, variable: str) -> dict[str, Any]:
        tensor = graph.tensors[name]
        lookup = interface is not None and name in interface.lookups
        readers = [n.inputs for n in floats.nodes if n.op == "embedding" and name in n.inputs]
        rows = [len(floats.consts[inputs[inputs.index(name) + 1]]) for inputs in readers if lookup]
        return {
            "variable": variable, "size": tensor.size, "ctype": _CTYPES[tensor.dtype], "lookup": lookup,
            "tokens": tensor.token_axis is not None, "limit": min(rows, default=0),
        }  # fmt: skip

    inputs = [array(x, f"input_{i}") for i, x in enumerate(graph.inputs)]
    outputs = [array(x, f"output_{i}") for i, x in enumerate(graph.outputs)]
    vector = len(outputs) == 1 and not outputs[0]["tokens"] and outputs[0]["ctype"] == "int16_t"
    named = built.output.tokenizer is not None or built.output.labels is not None
    return {
        "name": built.name, "upper": built.name.upper(), "inputs": inputs, "outputs": outputs,
        "tokens": interface is not None, "max_tokens": interface.max_tokens if interface else 0,
        "fixed": bool(built.compiled.fused.fixed_by), "tokenizer": built.output.tokenizer is not None,
        "classes": outputs[0]["size"] if vector and named else 0,
    }  # fmt: skip


def run(command: Sequence[str | Path], cwd: Path, **environment: str) -> str:
    """What a command prints; it has to succeed. A make that runs the tests has no say in it."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    result = subprocess.run(
        [str(x) for x in command], cwd=cwd, env={**inherited, **environment}, timeout=300, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    return result.stdout


def build_template(built: Built, template: str, output: Path, *others: Built, **more: Any) -> Path:
    """A program from tests/c/<template>, rendered with the facts of `built`, under ASan and UBSan."""
    text = (Path(__file__).parent / "c" / template).read_text(encoding="utf-8")
    jinja = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    main = output.with_suffix(".c")
    main.write_text(jinja.from_string(text).render(m=facts(built), **more), encoding="utf-8")
    every = {path.name: path for b in (built, *others) for path in b.sources()}
    includes = [path for b in (built, *others) for path in b.includes()]
    return toolchain.build_host([main, *every.values()], output, includes=includes, sanitize=True, opt="-O1")


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int]]],
    outputs: Mapping[str, Sequence[int]],
    weights: Mapping[str, Any],
) -> onnx.ModelProto:
    arrays = {k: np.asarray(v, None if np.asarray(v).dtype == np.int64 else np.float32) for k, v in weights.items()}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(k, kind, shape) for k, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, shape) for k, shape in outputs.items()],
        [numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def mlp(
    sizes: Sequence[int] = (7, 33, 5), seed: int = 0, source: str = "x", target: str = "y", node: str = "fc{}"
) -> onnx.ModelProto:
    """Gemm and Relu in turn, without one at the end. `node` names the nodes, from 1."""
    rng = np.random.default_rng(seed)
    nodes, weights, x = [], {}, source
    for i, (a, b) in enumerate(pairwise(sizes), 1):
        weights |= {f"w{i}": rng.normal(size=(a, b)) / a**0.5, f"b{i}": rng.normal(size=b) / 3}
        last = i == len(sizes) - 1
        out = target if last else f"h{i}"
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [out], name=node.format(i)))
        x = out
        if not last:
            nodes.append(helper.make_node("Relu", [x], [f"r{i}"]))
            x = f"r{i}"
    shapes = {source: (TensorProto.FLOAT, [1, sizes[0]])}
    return model_of(nodes, shapes, {target: [1, sizes[-1]]}, weights)


def two_by_two() -> onnx.ModelProto:
    """Two inputs, two outputs."""
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Gemm", ["a", "wa", "ba"], ["ya"]),
        helper.make_node("Gemm", ["b", "wb", "bb"], ["yb"]),
        helper.make_node("Add", ["ya", "yb"], ["sum"]),
    ]
    weights = {"wa": rng.normal(size=(3, 17)), "ba": rng.normal(size=17),
               "wb": rng.normal(size=(5, 17)), "bb": rng.normal(size=17)}  # fmt: skip
    shapes = {"a": (TensorProto.FLOAT, [1, 3]), "b": (TensorProto.FLOAT, [1, 5])}
    return model_of(nodes, shapes, {"ya": [1, 17], "sum": [1, 17]}, weights)


def vocabulary() -> dict[str, int]:
    pieces = [*_SPECIAL, *WORDS.split(" "), "##s", *_LETTERS, *(f"##{c}" for c in _LETTERS)]
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}


def text_classifier(seed: int = 0, tokens: int = 12, features: int = 16) -> onnx.ModelProto:
    """The mean of the tokens' embeddings, masked, through a linear layer: [1, 5] logits."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"], name="embed"),
        helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "two"], ["m3"]),
        helper.make_node("Mul", ["x", "m3"], ["xm"]),
        helper.make_node("ReduceSum", ["xm", "one"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["m3", "one"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["mean"], name="mean"),
        helper.make_node("Gemm", ["mean", "w", "b"], ["logits"], name="head"),
    ]
    weights = {"table": rng.normal(size=(len(vocabulary()), features)), "w": rng.normal(size=(features, len(LABELS))),
               "b": rng.normal(size=len(LABELS)) / 4, "one": np.array([1]), "two": np.array([2])}  # fmt: skip
    ids = {name: (TensorProto.INT64, [1, tokens]) for name in ("input_ids", "attention_mask")}
    return model_of(nodes, ids, {"logits": [1, len(LABELS)]}, weights)


def tagger(tokens: int = 9, features: int = 17) -> onnx.ModelProto:
    """A linear layer on each token: [1, tokens, 3]."""
    rng = np.random.default_rng(4)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Add", ["y", "b"], ["tags"]),
    ]
    weights = {"table": rng.normal(size=(50, features)), "w": rng.normal(size=(features, 3)), "b": rng.normal(size=3)}
    return model_of(nodes, {"input_ids": (TensorProto.INT64, [1, tokens])}, {"tags": [1, tokens, 3]}, weights)


def fixed_length(tokens: int = 6, features: int = 5) -> onnx.ModelProto:
    """A linear layer on all tokens at once, which needs all of them."""
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "w", "b"], ["y"]),
    ]
    weights = {"table": rng.normal(size=(50, features)), "w": rng.normal(size=(tokens * features, 3)),
               "b": rng.normal(size=3)}  # fmt: skip
    return model_of(nodes, {"input_ids": (TensorProto.INT64, [1, tokens])}, {"y": [1, 3]}, weights)


def text_folder(folder: Path, seed: int = 0, labels: Sequence[str] = LABELS) -> Path:
    """`text_classifier` as a folder, with tokenizer.json, labels and calibration texts."""
    folder.mkdir()
    onnx.save(text_classifier(seed), folder / "model.onnx")
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()), encoding="utf-8")
    (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    (folder / "calib.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    return folder


def _tokenizer() -> dict[str, Any]:
    vocab = vocabulary()
    added = [{"id": vocab[t], "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for t in _SPECIAL]  # fmt: skip
    single = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
              {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]  # fmt: skip
    special = {t: {"id": t, "ids": [vocab[t]], "tokens": [t]} for t in ("[CLS]", "[SEP]")}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "decoder": None,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab},
    }  # fmt: skip


MODELS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "mlp": mlp,
    "two": two_by_two,
    "tagger": tagger,
    "fixed": fixed_length,
}


def built_models(folder: Path) -> dict[str, Built]:
    """MODELS and `text`, compiled into `folder`."""
    found = {name: compile_into(folder, make(), name) for name, make in MODELS.items()}
    return found | {"text": compile_into(folder, text_folder(folder / "in"), "text")}
