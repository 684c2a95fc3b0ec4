"""emit: program + memory plan -> C, headers and blob. All text is in templates/; this file only prepares what they
show.

Nothing from the ONNX file becomes an identifier or reaches C unescaped: variables are numbered, names appear in
comments only, through `comment_text`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm2c import __version__, blob, runtime, weights
from slm2c.identifiers import c_string, comment_text, is_identifier
from slm2c.ir import Graph, Tensor
from slm2c.memory import MemoryPlan
from slm2c.ops.base import ROW, Arg, KernelCall, Offset, Special
from slm2c.passes import Interface
from slm2c.resources import data_dir, templates
from slm2c.schedule import ALIGNMENT, Program
from slm2c.text import shortened
from slm2c.tiling import Loop

_CTYPES = {"i8": "int8_t", "u8": "uint8_t", "i16": "int16_t", "i32": "int32_t", "i64": "int64_t"}

_PROFILE = ("slm_profile.c", "slm_profile.h", "slm_profile_clock.h")
"""What a build with SLM_PROFILE needs; in any other it is empty."""

LINE_BYTES = 256
"""Of a text, its end included, for the programs of the output folder that run on a board."""

_TEMPLATES = {
    "{name}.h": "model.h.j2",
    "{name}.c": "model.c.j2",
    "{name}_blob.S": "blob.S.j2",
    "host/main.c": "main.c.j2",
    "firmware/main.c": "firmware.c.j2",
    "test/validate.c": "validate.c.j2",
    "test/cost.c": "cost.c.j2",
    "Makefile": "Makefile.j2",
    "CMakeLists.txt": "CMakeLists.txt.j2",
    "README.md": "README.md.j2",
    "library.json": "library.json.j2",
    "zephyr/module.yml": "zephyr_module.yml.j2",
    "zephyr/CMakeLists.txt": "zephyr_CMakeLists.txt.j2",
    "zephyr/Kconfig": "zephyr_Kconfig.j2",
    "zephyr/blob.ld": "zephyr_blob.ld.j2",
}
"""Paths in the output folder, and the templates of what lies there."""


@dataclass(frozen=True)
class Texts:
    """What a text model needs beside its graph: bytes of the tokenizer section, and class names."""

    tokenizer: bytes | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Emitted:
    """The files of the model itself: C text by path, the blob, and what the C is told about sizes.

    runtime: files of runtime_c/ that the model needs
    traced: tensors that a kernel call stores
    sections: bytes of each part of the blob by name
    weights: bytes that a node has in the weights section, by the node's output; shared ones count for their first
      reader
    entries: functions for the application to call
    """

    files: Mapping[str, str]
    blob: bytes
    arena_bytes: int
    runtime: tuple[str, ...]
    traced: tuple[str, ...]
    sections: Mapping[str, int]
    weights: Mapping[str, int]
    entries: tuple[str, ...]


def class_count(graph: Graph) -> int:
    """Number of classes if the integer graph has one vector of int16 scores, else 0."""
    outputs = set(graph.outputs)
    tensor = graph.tensors[graph.outputs[0]]
    vector = len(outputs) == 1 and tensor.token_axis is None and tensor.shape[-1:] == (tensor.size,) != (1,)
    return tensor.size if vector and tensor.dtype == "i16" else 0


def text_bytes(graph: Graph, interface: Interface | None, texts: Texts) -> int:
    """What a text model keeps in the arena behind the plan: ids and scores."""
    return _ids_bytes(interface) + blob.pad(2 * class_count(graph)) if classifies_text(graph, texts) else 0


def classifies_text(graph: Graph, texts: Texts) -> bool:
    """Whether there is a function from text to class, so that no caller holds ids and scores."""
    return texts.tokenizer is not None and class_count(graph) > 0


def _classes(graph: Graph, texts: Texts) -> int:
    return class_count(graph) if texts.tokenizer is not None or texts.labels else 0


def _ids_bytes(interface: Interface | None) -> int:
    return blob.pad(4 * interface.max_tokens * len(interface.lookups)) if interface else 0


def emit(
    program: Program, plan: MemoryPlan, interface: Interface | None, texts: Texts, name: str, fixed: bool
) -> Emitted:
    """C source, header and blob of a model called `name`."""
    assert is_identifier(name), name
    model = _Model(program, plan, interface, texts, name, fixed)
    context = model.context()
    sections = {blob.WEIGHTS: model.weights.data}
    if texts.tokenizer is not None:
        sections[blob.TOKENIZER] = texts.tokenizer
    if texts.labels is not None and model.classes:  # names of tokens or of one of several outputs: nothing reads them
        sections[blob.LABELS] = blob.pack_labels(texts.labels)
    packed = blob.pack(model.structure, sections)
    context["blob_bytes"] = len(packed)
    context["runtime"] = model.runtime
    context["version"] = __version__
    jinja = templates()
    files = {
        path.format(name=name): jinja.get_template(f"model/{template}").render(m=context)
        for path, template in _TEMPLATES.items()
    }
    return Emitted(
        files,
        packed,
        model.arena_bytes,
        model.runtime,
        tuple(call.node.outputs[0] for call in program.calls if call.symbol),
        {blob.SECTION_NAMES[number]: len(data) for number, data in sections.items()},
        model.weights.by_output,
        model.entries,
    )


def write(folder: Path, name: str, emitted: Emitted) -> None:
    """Put the files of the model `name`, its runtime and its blob into a folder that exists."""
    for path, text in emitted.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8", newline="\n")
    (folder / f"{name}_blob.bin").write_bytes(emitted.blob)
    (folder / "slm").mkdir()
    for file in emitted.runtime:
        shutil.copyfile(data_dir("runtime_c") / file, folder / "slm" / file)


class _Model:
    """The facts that the templates show, computed once from program and plan."""

    def __init__(
        self, program: Program, plan: MemoryPlan, interface: Interface | None, texts: Texts, name: str, fixed: bool
    ):
        self.program, self.plan, self.interface, self.texts, self.name, self.fixed = (
            program,
            plan,
            interface,
            texts,
            name,
            fixed,
        )
        self.graph: Graph = program.graph
        self.numbers = {x: i for i, x in enumerate([*self.graph.inputs, *(n.outputs[0] for n in self.graph.nodes)])}
        self.variables = self._variables()
        self.weights = weights.lay_out(self.graph, program.calls, self.numbers)
        self.text_offset = blob.pad(plan.arena_bytes)
        self.classes = _classes(self.graph, texts)
        self.scores_offset = self.text_offset + _ids_bytes(interface)
        self.arena_bytes = max(ALIGNMENT, self.text_offset + text_bytes(self.graph, interface, texts))
        symbols = {c.symbol for c in program.calls if c.symbol} | self._extra_symbols()
        self.runtime = tuple(sorted(runtime.files_of(symbols) | self._loop_headers() | {*_PROFILE}))

    @property
    def max_tokens(self) -> int:
        return self.interface.max_tokens if self.interface else 0

    @property
    def entries(self) -> tuple[str, ...]:
        text = self.texts.tokenizer is not None
        optional = {"tokenize": text, "classify": text and self.classes, "answer": self.classes and not text}
        return tuple(f"{self.name}_{x}" for x in ("init", "run", *(x for x, there in optional.items() if there)))

    def _extra_symbols(self) -> set[str]:
        return (
            {"slm_blob_check", "slm_status_text"}
            | ({"slm_tokenize"} if self.texts.tokenizer is not None else set())
            | ({"slm_top_s16"} if self.classes else set())
        )

    def _loop_headers(self) -> set[str]:
        return {"slm_tile.h"} if any(loop.index == ROW for loop in self.program.loops) else set()

    def _variables(self) -> dict[str, str]:
        """C variables of all tensors: t<number>, and names with a meaning for inputs and outputs."""
        found = {x: f"t{i}" for x, i in self.numbers.items()}
        lookups = list(self.interface.lookups) if self.interface else []
        found |= {x: ("token_ids" if i == 0 else f"ids_{i + 1}") for i, x in enumerate(lookups) if x in found}
        others = [x for x in self.graph.inputs if x not in lookups]
        found |= {x: ("input" if len(others) == 1 else f"input_{i}") for i, x in enumerate(others)}
        outputs = list(dict.fromkeys(self.graph.outputs))
        return found | {x: ("output" if len(outputs) == 1 else f"output_{i}") for i, x in enumerate(outputs)}

    def _argument(self, call: KernelCall, arg: Arg) -> str:
        if isinstance(arg, Offset):
            return f"{self._argument(call, arg.name)} + {arg.index} * {arg.step}u"
        if arg is Special.TOKENS:
            return "n" if self.interface else "1u"
        if arg is Special.ROWS:
            return "rows"
        if arg is Special.NULL:
            return "NULL"
        if arg is Special.SCRATCH:
            return f"arena + {self.plan.offsets[self.program.scratch[call.node.outputs[0]]]}u"
        if isinstance(arg, str):
            return self.weights.expressions.get(arg) or self.variables[arg]
        assert isinstance(arg, int), arg
        return f"{arg}u" if arg >= 0 else str(arg)

    def _call(self, call: KernelCall) -> dict[str, Any]:
        out = call.node.outputs[0]
        tensor, place = self.graph.tensors[out], self.program.places[out]
        variable, ctype = self.variables[out], _CTYPES[tensor.dtype]
        shape = ", ".join("n" if i == tensor.token_axis else str(d) for i, d in enumerate(tensor.shape))
        scale = f", scale {tensor.quant.scale:.6g}, zero point {tensor.quant.zero_point}" if tensor.quant else ""
        declaration = ""
        if not call.symbol:
            declaration = f"{ctype} *const {variable} = {self.variables[call.node.inputs[0]]} + {call.args[1]};"
        elif place.buffer:
            offset = self.plan.offsets[place.buffer] + place.offset
            declaration = f"{ctype} *const {variable} = ({ctype} *)(void *)(arena + {offset}u);"
        arguments = ", ".join(self._argument(call, a) for a in call.args)
        return {
            "comment": comment_text(
                f"{shortened(call.node.name or call.node.op, 56, '...')}: {call.node.op} -> [{shape}] {ctype}{scale}"
            ),
            "declaration": declaration,
            "text": f"{call.symbol}({arguments});" if call.symbol else "",
            "trace": self._trace(call, tensor) if call.symbol else "",
        }

    def _trace(self, call: KernelCall, tensor: Tensor) -> str:
        """The call of the hook behind a kernel call: which tensor, where it lies, how much was stored."""
        number, part = self.numbers[tensor.name], call.part
        width = tensor.nbytes // tensor.size
        if part is None:
            fixed = tensor.token_axis is None
            size = (
                f"{tensor.nbytes}u"
                if fixed
                else f"(size_t)n * {tensor.nbytes // tensor.shape[tensor.token_axis or 0]}u"
            )
            return f"slm_trace({number}u, {self.variables[tensor.name]}, {size});"
        data = next(a for a in call.args if a == tensor.name or (isinstance(a, Offset) and a.name == tensor.name))
        sizes = (
            f"{part.width * width}u, {part.step * width}u, {part.index} * {part.offset * width}u, {part.full * width}u"
        )
        return f"slm_trace_part({number}u, {self._argument(call, data)}, {self._argument(call, part.rows)}, {sizes});"

    def _blocks(self) -> list[dict[str, Any]]:
        """Calls, and loops with theirs. Tensors that outlive a loop are declared ahead of it."""
        starts = {loop.first: loop for loop in self.program.loops}
        blocks: list[dict[str, Any]] = []
        step = 0
        while step < len(self.program.calls):
            loop = starts.get(step)
            end = step + 1 if loop is None else loop.last + 1
            inside = self.program.calls[step:end]
            calls = [self._call(call) for call in inside]
            before = []
            for call, made in zip(inside, calls, strict=True):
                if loop and call.node.outputs[0] not in loop.local and made["declaration"]:
                    before.append(made["declaration"])
                    made["declaration"] = ""
            blocks.append({"loop": self._loop(loop) if loop else None, "before": before, "calls": calls})
            step = end
        return blocks

    def _loop(self, loop: Loop) -> dict[str, str]:
        if loop.index == ROW:
            count = "n" if loop.rows is Special.TOKENS else f"{loop.rows}u"
            return {
                "comment": f"In tiles of at most {loop.size} rows:",
                "head": f"for (uint32_t row = 0u, rows; row < {count}; row += rows)",
                "first": f"rows = slm_tile_rows({count} - row, {loop.size}u);",
            }
        head = f"for (uint32_t group = 0u; group < {loop.size}u; group++)"
        return {"comment": f"One of {loop.size} groups of heads at a time:", "head": head, "first": ""}

    def _io(self, x: str, macro: str, doc: str) -> dict[str, Any]:
        tensor: Tensor = self.graph.tensors[x]
        shape = "[" + ", ".join("n" if i == tensor.token_axis else str(d) for i, d in enumerate(tensor.shape)) + "]"
        lookup = self.interface is not None and x in self.interface.lookups
        return {
            "variable": self.variables[x],
            "macro": macro,
            "size": tensor.size,
            "shape_text": shape,
            "lookup": lookup,
            "tokens": tensor.token_axis is not None,
            "ctype": _CTYPES[tensor.dtype],
            "limit": self._limit(x) if lookup else 0,
            "doc": f"{shape} {doc}",
        }

    def _limit(self, x: str) -> int:
        """Rows of the smallest table that ids of this input index."""
        return min(
            self.graph.consts[node.inputs[self._table(node.inputs, i)]].shape[0]
            for node in self.graph.nodes
            for i, name in enumerate(node.inputs)
            if node.op == "embedding" and name == x
        )

    def _table(self, inputs: tuple[str, ...], lookup: int) -> int:
        """Index of the table that belongs to an embedding's lookup: int constants follow the activations in order."""
        activations = [i for i, x in enumerate(inputs) if x not in self.graph.consts]
        return len(activations) + activations.index(lookup)

    def context(self) -> dict[str, Any]:
        inputs = [
            self._io(
                x,
                f"INPUT_{i}",
                "ids" if self.graph.tensors[x].dtype == "i32" else f"quantized with {self.name}_input_quant",
            )
            for i, x in enumerate(self.graph.inputs)
        ]
        outputs = [
            self._io(x, f"OUTPUT_{i}", f"quantized as {self.name}_output_quant says; may not lie in the arena")
            for i, x in enumerate(dict.fromkeys(self.graph.outputs))
        ]
        tokens = self.interface is not None
        parameters = [
            f"const {self.name}_model *model",
            *(f"const {io['ctype']} *{io['variable']}" for io in inputs),
            *(["uint32_t n"] if tokens else []),
            *(f"{io['ctype']} *{io['variable']}" for io in outputs),
        ]
        vocabulary = next((io["limit"] for io in inputs if io["lookup"]), 0)
        blocks = self._blocks()
        text = json.dumps(blocks)
        headers = sorted(
            {h for c in self.program.calls if c.symbol for h in runtime.headers_of(c.symbol)}
            | {"slm_blob.h"}
            | self._loop_headers()
            | ({"slm_tokenizer.h"} if self.texts.tokenizer is not None else set())
            | ({"slm_classify.h"} if self.classes else set())
        )
        last = self.graph.producers()[self.graph.outputs[0]]
        self.structure = self._structure(blocks, inputs)
        return {
            "name": self.name,
            "upper": self.name.upper(),
            "title": f"the model {self.name}",
            "arena_bytes": self.arena_bytes,
            "tokens": tokens,
            "fixed": self.fixed,
            "max_tokens": self.max_tokens,
            "vocabulary": vocabulary,
            "inputs": inputs,
            "outputs": outputs,
            "run_parameters": ", ".join(parameters),
            "run_arguments": ", ".join(re.split(r"[ *]", parameter)[-1] for parameter in parameters),
            "nodes": [{"name": c_string(node.name), "op": node.op} for node in self.graph.nodes],
            "weights": self.weights.groups,
            "weights_bytes": len(self.weights.data),
            "structure": struct.unpack("<4I", self.structure),
            "blocks": blocks,
            "calls": len(self.program.calls),
            "loops": len(self.program.loops),
            "uses_weights": "w->" in text,
            "uses_arena": "arena" in text,
            "headers": headers,
            "tokenizer": self.texts.tokenizer is not None,
            "classes": self.classes,
            "text": classifies_text(self.graph, self.texts),
            "line_bytes": LINE_BYTES,
            "probabilities": last.op == "softmax",
            "input_quants": sum(self.graph.tensors[x].quant is not None for x in self.graph.inputs),
            "text_offset": self.text_offset,
            "scores_offset": self.scores_offset,
            "classify_arguments": ", ".join(["model", "ids", *(io["variable"] for io in inputs[1:]), "n", "scores"]),
        }

    def _structure(self, blocks: list[dict[str, Any]], inputs: list[dict[str, Any]]) -> bytes:
        """Hash of what code and blob must agree on: calls, the layout of the weights, shapes, and what the nodes do.

        Shapes and attributes say what the layouts in params are, which kernels trust. A lut's function is in its table.
        """
        tensors = [self.graph.tensors[x] for x in self.numbers]
        facts = [
            [[g.name, g.offset, [[m.member, m.ctype, m.count] for m in g.members]] for g in self.weights.groups],
            [[b["loop"], b["before"], [[c["text"], c["declaration"]] for c in b["calls"]]] for b in blocks],
            [io["limit"] for io in inputs],
            [[t.shape, t.dtype, t.token_axis] for t in tensors],
            [[n.op, sorted((k, v) for k, v in n.attrs.items() if k != "function")] for n in self.graph.nodes],
            self.texts.tokenizer is not None,
            self.classes,
        ]
        text = json.dumps([blob.FORMAT, *facts], default=lambda array: hashlib.sha256(array.tobytes()).hexdigest())
        return hashlib.sha256(text.encode()).digest()[:16]


__all__ = ["LINE_BYTES", "Emitted", "Texts", "class_count", "classifies_text", "emit", "text_bytes", "write"]
