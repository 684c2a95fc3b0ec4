"""restore: the folder of a student back as a model that can be trained, from its model.onnx.

Weights are found by the names that PyTorch's exporter gives to nodes: those of the modules they come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from tokenizers import Tokenizer
from torch import Tensor, nn

from slm2c import importer, samples
from slm2c.compile import read_labels
from slm2c.distill.batches import pad
from slm2c.distill.recipe import Recipe, read_recipe
from slm2c.distill.student import Student
from slm2c.errors import CompileError, Problem
from slm2c.folders import RECIPE
from slm2c.interpret import run_fused
from slm2c.onnx_file import read_model
from slm2c.passes import fuse

_FILES = ("model.onnx", RECIPE, "tokenizer.json", "config.json", "calib.npz")
_REMEDY = "name a folder that `slm2c distill` or `slm2c compress` wrote"
_TABLE = "/bert/bert/embeddings/word_embeddings"
_COMPARED = 8  # sentences
_CLOSE = 1e-3
"""Of the largest score: how far a restored student's may be from those of the file, both in single precision."""


@dataclass(frozen=True)
class Restored:
    """A student, its tokenizer, and the recipe by which it was trained."""

    student: Student
    pieces: Tokenizer
    recipe: Recipe


def restore(folder: Path) -> Restored:
    """The student of a folder. Raises CompileError naming the file or node that is missing, or is not what it was."""
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        fact = f"has no {', '.join(missing)}" if folder.is_dir() else "is not a folder"
        raise CompileError(Problem(str(folder), "", f"{fact}, so it is not the folder of a student", _REMEDY))
    recipe = read_recipe(folder / RECIPE)
    path = folder / "model.onnx"
    fused = fuse(importer.require_supported(importer.load(path)).graph)
    labels = read_labels(folder / "config.json", fused)
    if labels is None:
        raise CompileError(Problem(str(folder / "config.json"), "", "names no labels in id2label", _REMEDY))
    if twice := sorted({name for name in labels if labels.count(name) > 1}):
        fact, remedy = f"has the label {twice[0]!r} twice", "give each class a name of its own"
        raise CompileError(Problem(str(folder / "config.json"), "", fact, remedy))
    nodes = _Nodes(path, read_model(path))
    rows = nodes.of(_TABLE if not recipe.student.rank else f"{_TABLE}/table", "Gather").shape[0]
    pieces = _pieces(folder / "tokenizer.json", rows)
    student = Student(recipe.student, rows, labels, recipe.training.dropout).eval()
    student.load_state_dict(_state(student, nodes))
    for sample in samples.read_arrays(folder / "calib.npz", fused.graph, fused.interface)[:_COMPARED]:
        wanted = torch.from_numpy(run_fused(fused.graph, sample)[fused.graph.outputs[0]]).flatten()
        ids = next(iter(sample.values())).tolist()
        with torch.no_grad():
            found = student(*pad([ids])).flatten()
        if not torch.allclose(found, wanted, rtol=0, atol=_CLOSE * float(wanted.abs().max())):
            fact = "computes something else than the student that student.toml describes"
            raise CompileError(Problem(str(path), "", fact, _REMEDY))
    return Restored(student, pieces, recipe)


def _pieces(path: Path, rows: int) -> Tokenizer:
    """The tokenizer of a student whose table has so many rows. Raises CompileError for another."""
    try:
        found = Tokenizer.from_file(str(path))
    except Exception as error:
        raise CompileError(Problem(str(path), "", f"cannot be read: {error}", _REMEDY)) from error
    found.no_padding()
    found.no_truncation()
    absent = [name for name in ("[CLS]", "[SEP]") if found.token_to_id(name) is None]
    if absent:
        raise CompileError(Problem(str(path), "", f"has no {' and no '.join(absent)}", _REMEDY))
    if (count := 1 + max(found.get_vocab().values())) != rows:
        fact = f"has {count:,} pieces, the student's table {rows:,} rows"
        raise CompileError(Problem(str(path), "", fact, _REMEDY))
    return found


class _Nodes:
    """The constants of a file by the node that reads them."""

    def __init__(self, path: Path, model: onnx.ModelProto) -> None:
        self.path = path
        self.constants = {x.name: x for x in model.graph.initializer}
        # The exporter stores equal constants once, and names them by identities elsewhere.
        for node in model.graph.node:
            if node.op_type == "Identity" and node.input[0] in self.constants:
                self.constants[node.output[0]] = self.constants[node.input[0]]
        self.inputs: Mapping[str, list[str]] = {
            node.name: [x for x in node.input if x in self.constants] for node in model.graph.node
        }

    def of(self, module: str, op: str, position: int = 0) -> Tensor:
        """The constant number `position` of the node that stands for a module."""
        name = f"{module}/{op}"
        found = self.inputs.get(name, [])
        if position >= len(found):
            fact = "has no such node" if name not in self.inputs else "has no constant there that can be trained"
            raise CompileError(Problem(name, op, f"{self.path} {fact}", _REMEDY))
        return torch.from_numpy(np.array(numpy_helper.to_array(self.constants[found[position]])))


def _state(student: Student, nodes: _Nodes) -> dict[str, Tensor]:
    """Every parameter of the student, from the nodes."""
    wanted = student.state_dict()
    found: dict[str, Tensor] = {}
    for path, module in student.named_modules():
        node = "/" + path.replace(".", "/").replace("/encoder/layer/", "/encoder/layer.")
        values: dict[str, Tensor] = {}
        if isinstance(module, nn.Embedding):
            values = {"weight": nodes.of(node, "Gather")}
        elif isinstance(module, nn.LayerNorm):
            values = {name: nodes.of(node, "LayerNormalization", i) for i, name in enumerate(("weight", "bias"))}
        elif isinstance(module, nn.Linear) and f"{node}/Gemm" in nodes.inputs:
            values = {name: nodes.of(node, "Gemm", i) for i, name in enumerate(("weight", "bias"))}
        elif isinstance(module, nn.Linear):
            values = {"weight": nodes.of(node, "MatMul").T}
            if module.bias is not None:
                values["bias"] = nodes.of(node, "Add")
        for name, value in values.items():
            shape = tuple(wanted[f"{path}.{name}"].shape)
            if tuple(value.shape) != shape:
                fact = f"{nodes.path} has {list(value.shape)} where student.toml says {list(shape)}"
                raise CompileError(Problem(node, "", fact, _REMEDY))
            found[f"{path}.{name}"] = value.contiguous()
    return found
