"""An ONNX file becomes a graph of core operators: bind the shapes, translate node by node, collect what cannot be done.

The file is read by `slm2c.onnx_file`, its inputs are bound by `slm2c.onnx_binding`, its nodes translated by
`slm2c.onnx_graph` with the functions of `slm2c.onnx_ops`. Every problem of a model is found in one run: a node that is
not understood stays in the graph under its ONNX name, and import goes on behind it as far as shapes are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from slm2c.errors import CompileError, Problem
from slm2c.ir import Graph, Shape
from slm2c.onnx_binding import bind_inputs
from slm2c.onnx_file import locate, read_model, type_name
from slm2c.onnx_graph import Scope, Translator, op_name
from slm2c.onnx_ops.base import IR_TYPES, Code, Refused
from slm2c.onnx_weights import inspect_weights


@dataclass(frozen=True)
class Port:
    """A graph input or output as the file has it: name, ONNX element type (lower case), bound shape.

    `code` is set where the file has integers for what the graph computes as real numbers.
    """

    name: str
    dtype: str
    shape: Shape
    code: Code | None = None


@dataclass(frozen=True)
class Imported:
    """What `load` found. `inputs` and `outputs` stand in the order of the graph's; inputs keep their names there.

    `problems` is empty if and only if the graph consists of core operators alone. `warnings` do not stand in the way.
    `ops` counts the file's operators ("com.microsoft:Gelu" for other domains than ONNX's), `parameters` the elements of
    the constants that the outputs depend on, `hints` the tensors with a quantization that the file states.
    """

    graph: Graph
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    ops: Mapping[str, int]
    parameters: int
    opset: int
    producer: str
    hints: int


def require_supported(imported: Imported) -> Imported:
    """`imported` if everything was understood, else CompileError with all problems."""
    if imported.problems:
        raise CompileError(imported.problems)
    return imported


def load(path: str | Path, shapes: Mapping[str, Shape] | None = None, *, name: str | None = None) -> Imported:
    """Import an .onnx file, or a folder with one.

    `shapes` binds inputs with symbolic dims: {"input_ids": (1, 32)}; an open first axis alone becomes 1 by itself.
    `name` is the graph's, by default the file's stem or the folder's name.

    Raises CompileError where there is no graph to speak of: an unreadable or damaged file, unbound or contradictory
    shapes, a graph with cycles or without outputs. Operators that are not supported are reported in `problems` instead.
    """
    imported = _load(path, shapes or {}, name)
    if imported.problems and shapes and (longest := _longest(path, shapes)):
        length = _length(shapes)
        input_name = next(x for x, shape in shapes.items() if length in shape)
        option = ",".join(map(str, _shortened(shapes, longest)[input_name]))
        reason = f"is bound to {length}, the model takes {longest} at most (at {length}, {imported.problems[0]})"
        problem = Problem(input_name, "", reason, f"bind --shape {input_name}={option}, or less")
        return replace(imported, problems=(problem,))
    return imported


def _length(shapes: Mapping[str, Shape]) -> int:
    """The size that counts tokens, where one does: the largest."""
    return max(size for shape in shapes.values() for size in shape)


def _shortened(shapes: Mapping[str, Shape], length: int) -> dict[str, Shape]:
    return {x: tuple(length if d == _length(shapes) else d for d in shape) for x, shape in shapes.items()}


def _longest(path: str | Path, shapes: Mapping[str, Shape]) -> int:
    """The largest length, shorter than that of `shapes`, at which nothing is wrong: a table of positions ends there. 0
    if the length is not to blame.
    """

    def works(length: int) -> bool:
        try:
            return not _load(path, _shortened(shapes, length), None).problems
        except CompileError:
            return False

    low, high = 2, _length(shapes)
    if high <= low or not works(low):
        return 0
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if works(middle) else (low, middle)
    return low


def _load(path: str | Path, shapes: Mapping[str, Shape], name: str | None) -> Imported:
    file = locate(path)
    model = read_model(file)
    graph = model.graph
    if not graph.output:
        raise CompileError(Problem(str(file), "", "the graph has no outputs", "export the model again"))
    if graph.sparse_initializer:
        raise CompileError(
            Problem(
                graph.sparse_initializer[0].values.name,
                "",
                "sparse initializers are unsupported",
                "export the weights as dense tensors",
            )
        )
    constants = {tensor.name for tensor in graph.initializer}
    bound = bind_inputs([value for value in graph.input if value.name not in constants], shapes)
    state = Translator(model, file.parent)
    scope = Scope({}, {o.domain: o.version for o in model.opset_import}, {}, {}, 0)
    for input_name, (shape, elem_type) in bound.items():
        scope.names[input_name] = state.input(graph, input_name, shape, IR_TYPES[elem_type])
    try:
        state.graph(graph, scope)
    except Refused as refusal:
        raise CompileError(Problem(str(file), "", refusal.reason, refusal.remedy)) from refusal
    outputs = [scope.names[value.name] for value in graph.output]
    for declared, value in zip(graph.output, outputs, strict=True):
        state.check_type(declared, value)
    built = state.builder.graph(name or _name_of(path), [value.name for value in outputs])
    faults, doubts = inspect_weights(built, {value.name: label for label, value in scope.names.items()})
    return Imported(
        graph=built,
        problems=(*state.problems_of(built), *faults),
        warnings=(*state.warnings, *doubts),
        inputs=tuple(Port(n, type_name(t), s, scope.names[n].code) for n, (s, t) in bound.items()),
        outputs=tuple(
            Port(
                declared.name,
                type_name(declared.type.tensor_type.elem_type),
                built.tensors[value.name].shape,
                value.code,
            )
            for declared, value in zip(graph.output, outputs, strict=True)
        ),
        ops=MappingProxyType(dict(sorted(Counter(op_name(node) for node in graph.node).items()))),
        parameters=state.parameters,
        opset=scope.opset(""),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        hints=sum(tensor.quant is not None for tensor in built.tensors.values()),
    )


def _name_of(path: str | Path) -> str:
    """The file's stem, or the name of the folder."""
    path = Path(path)
    return path.resolve().name if path.is_dir() else path.stem
