"""The nodes of an ONNX graph, function or branch, translated one by one into a graph of core operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto

from slm2c.core import Builder, known
from slm2c.errors import CompileError, Problem
from slm2c.ir import Array, Graph, Node, Shape, Tensor
from slm2c.onnx_binding import contradicts, declared_shape
from slm2c.onnx_file import tensor_values, type_name
from slm2c.onnx_ops import TRANSLATIONS
from slm2c.onnx_ops.base import IR_TYPES, Budget, Call, Refused, Translation, Value
from slm2c.onnx_ops.quantized import as_integers, coded_input, hint
from slm2c.onnx_ops.unsupported import explain

MAX_NODES = 100_000
"""Nodes that one import translates, functions expanded: far beyond any model, and a stop to functions that multiply."""

MAX_DEPTH = 32
"""Depth of functions within functions and branches within branches."""

_ABSENT = Value("")


def domain_of(name: str) -> str:
    """A domain by its one name: ONNX's own is also called ai.onnx."""
    return "" if name == "ai.onnx" else name


def op_name(node: NodeProto) -> str:
    """The operator as messages and raw nodes name it: com.microsoft:Gelu, or Gelu for ONNX's own."""
    domain = domain_of(node.domain)
    return f"{domain}:{node.op_type}" if domain else node.op_type


def _label(node: NodeProto) -> str:
    return node.name or next((out for out in node.output if out), "")


@dataclass(frozen=True)
class Scope:
    """What a graph, branch or function body sees: values by name, what the file declares about them, opsets by domain,
    attributes of the function called.
    """

    names: dict[str, Value]
    opsets: Mapping[str, int]
    declared: dict[str, onnx.ValueInfoProto]
    attrs: Mapping[str, AttributeProto]
    depth: int

    def opset(self, domain: str) -> int:
        """Version of a domain; ONNX's own goes by two names."""
        return self.opsets.get(domain, self.opsets.get("ai.onnx", 0) if domain == "" else 0)


def _captured(graph: GraphProto) -> set[str]:
    """Names that a branch reads from the scopes around it."""
    own = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    own.update(out for node in graph.node for out in node.output)
    read = {name for node in graph.node for name in _reads(node)} | {value.name for value in graph.output}
    return read - own


def _reads(node: NodeProto) -> list[str]:
    names = [name for name in node.input if name]
    for attr in node.attribute:
        for branch in [attr.g] if attr.type == AttributeProto.GRAPH else attr.graphs:
            names += sorted(_captured(branch))
    return names


def _live(nodes: Sequence[NodeProto], wanted: Iterable[str], given: Iterable[str]) -> list[NodeProto]:
    """The nodes that `wanted` depends on, each behind those it reads.

    Raises CompileError for a value that is written twice, never, or by way of itself.
    """
    given = set(given)
    writer: dict[str, int] = {}
    problems: list[Problem] = []
    for i, node in enumerate(nodes):
        for out in filter(None, node.output):
            if out in writer or out in given:
                problems.append(
                    Problem(
                        _label(node),
                        node.op_type,
                        f"writes '{out}', which is already defined",
                        "export the model again",
                    )
                )
            writer[out] = i
    order: list[NodeProto] = []
    state = [0] * len(nodes)  # 0 untouched, 1 on the stack, 2 done
    stack: list[tuple[int, list[str]]] = [(-1, list(wanted)[::-1])]
    while stack:
        index, todo = stack[-1]
        if not todo:
            stack.pop()
            if index >= 0:
                state[index] = 2
                order.append(nodes[index])
            continue
        name = todo.pop()
        below = writer.get(name)
        if below is None:
            if name not in given:
                reader = nodes[index] if index >= 0 else None
                problems.append(
                    Problem(
                        _label(reader) if reader else name,
                        reader.op_type if reader else "",
                        f"reads '{name}', which nothing defines" if reader else "is an output that nothing defines",
                        "export the model again",
                    )
                )
                given.add(name)
        elif state[below] == 1:
            problems.append(
                Problem(
                    _label(nodes[below]),
                    nodes[below].op_type,
                    "depends on its own output: the graph has a cycle",
                    "export it without loops",
                )
            )
            raise CompileError(problems)
        elif state[below] == 0:
            state[below] = 1
            stack.append((below, _reads(nodes[below])[::-1]))
    if problems:
        raise CompileError(problems)
    return order


class Translator:
    """The graph under construction and what was found on the way."""

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        self.builder = Builder()
        self.budget = Budget()
        self.folder = folder
        self.ir_version = model.ir_version
        self.functions = {(domain_of(f.domain), f.name, f.overload): f for f in model.functions}
        self.found: dict[str, Problem] = {}  # first output of a raw node -> why it is raw
        self.general: list[Problem] = []
        self.warnings: list[Problem] = []
        self.unknown: set[str] = set()  # values whose type could not be inferred
        self.raw_values: set[str] = set()  # what nodes that were not understood write
        self.parameters = 0
        self.translated = 0

    def problems_of(self, graph: Graph) -> list[Problem]:
        """What concerns the file as a whole and the nodes that are left in `graph`."""
        first = [node.outputs[0] for node in graph.nodes]
        return [*self.general, *(self.found[out] for out in first if out in self.found)]

    def tensor(self, proto: TensorProto, label: str = "") -> Array:
        """Values of a tensor in the file; NaN is reported, under the name `label` where the tensor has none."""
        values = tensor_values(proto, self.folder)
        self.budget.take(values.size)
        if values.dtype.kind == "f" and (count := int(np.isnan(values).sum())):
            self.general.append(
                Problem(
                    proto.name or label,
                    "",
                    f"holds {count:,} NaN among {values.size:,} values",
                    "training has failed or the file is damaged",
                )
            )
        if values.dtype.kind == "f" or (values.dtype.kind in "iu" and values.dtype.itemsize != 8):
            self.parameters += values.size
        return values

    def attribute_tensor(self, proto: TensorProto, node: NodeProto) -> Array:
        """The same for a tensor inside of a node, whose fault is the node's."""
        try:
            return self.tensor(proto, _label(node))
        except CompileError as error:
            raise Refused(error.problems[0].reason, error.problems[0].remedy) from error

    def graph(self, graph: GraphProto, scope: Scope) -> None:
        """Translate what the graph's outputs depend on, into `scope`."""
        names = Counter(tensor.name for tensor in graph.initializer)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise CompileError(Problem(twice[0], "", "is the name of two initializers", "export the model again"))
        defined = {*scope.names, *names}
        nodes = _live(graph.node, [value.name for value in graph.output], defined)
        read = {name for node in nodes for name in _reads(node)} | {value.name for value in graph.output}
        for tensor in graph.initializer:
            if tensor.name in read:
                scope.names[tensor.name] = Value(self.builder.const(self.tensor(tensor)))
        scope.declared.update((value.name, value) for value in [*graph.value_info, *graph.output])
        self.nodes(nodes, read, scope)
        for values, found in ((graph.output, self.general), (graph.value_info, self.warnings)):
            found += [problem for value in values if (problem := self.contradiction(value, scope))]

    def contradiction(self, declared: onnx.ValueInfoProto, scope: Scope) -> Problem | None:
        """What to say of a value whose declared shape cannot be the computed one.

        Within a graph that is only a doubt: tools leave stale shapes behind.
        """
        found, dims = scope.names.get(declared.name, _ABSENT).name, declared_shape(declared)
        if not found or found in self.raw_values or not contradicts(dims, self.builder.shape(found)):
            return None
        return Problem(
            declared.name,
            "",
            f"declared as {list(dims or ())}, but computed as {list(self.builder.shape(found))}",
            "export the model again, or run onnx.shape_inference on it to see where they part",
        )

    def check_type(self, declared: onnx.ValueInfoProto, value: Value) -> None:
        """Report an output whose declared element type is another than the computed one, or cannot be computed."""
        stated = declared.type.tensor_type.elem_type
        if value.code is not None and value.code.dynamic:
            self.general.append(
                Problem(
                    declared.name,
                    "",
                    "output holds integers whose scale is computed at run time",
                    "let the model end in floats",
                )
            )
            return
        found = self.builder.tensors[value.name].dtype if value.code is None else value.code.dtype
        if stated and value.name not in self.raw_values and IR_TYPES.get(stated) != found:
            self.general.append(
                Problem(
                    declared.name,
                    "",
                    f"declared as {type_name(stated)}, but computed as {found}",
                    "export the model again",
                )
            )

    def input(self, graph: GraphProto, name: str, shape: Shape, dtype: str) -> Value:
        """Declare a graph input; one that is only ever dequantized takes the real values."""
        constants = {t.name: t for t in graph.initializer if t.name}
        code = coded_input(
            graph, name, dtype, lambda n: tensor_values(constants[n], self.folder) if n in constants else None
        )
        if code is None:
            return Value(self.builder.input(name, shape, dtype))
        self.builder.input(name, shape, "f32")
        self.builder.tensors[name] = replace(self.builder.tensors[name], quant=hint(code))
        return Value(name, code)

    def nodes(self, nodes: Sequence[NodeProto], read: set[str], scope: Scope) -> None:
        """Translate `nodes`, which are in order; `read` are the names that anything needs."""
        for node in nodes:
            self.translated += 1
            if self.translated > MAX_NODES:
                raise CompileError(Problem("", "", f"more than {MAX_NODES:,} nodes", "use a smaller model"))
            values = [scope.names[name] if name else _ABSENT for name in node.input]
            try:
                results = self.node(node, values, read, scope)
                for i, out in enumerate(node.output):
                    if out in read and (i >= len(results) or not results[i].name):
                        raise Refused(f"output {i} is unsupported", "export the model without it")
            except Refused as refusal:
                results = self.raw(node, values, scope)
                self.found[results[0].name] = Problem(
                    _label(node),
                    op_name(node),
                    refusal.reason,
                    refusal.remedy or "change how this node is exported",
                )
            scope.names.update((name, value) for name, value in zip(node.output, results, strict=False) if name)

    def node(self, node: NodeProto, values: list[Value], read: set[str], scope: Scope) -> list[Value]:
        """The outputs of one node; Refused if it cannot be translated."""
        attrs = {a.name: a for a in self.attributes(node, scope)}
        domain = domain_of(node.domain)
        function = self.functions.get((domain, node.op_type, node.overload))
        if function is not None:
            return self.function(function, values, attrs, scope)
        if (domain, node.op_type) == ("", "If"):
            return self.branch(values, attrs, scope)
        translation = TRANSLATIONS.get((domain, node.op_type))
        if translation is None:
            raise Refused(*explain(domain, node.op_type))
        if any(value.name in self.unknown for value in values):
            return self.raw(node, values, scope)
        self.check(node, attrs, scope)
        call = Call(
            builder=self.builder,
            domain=domain,
            op_type=node.op_type,
            name=_label(node),
            inputs=tuple(v.name for v in values),
            codes=tuple(v.code for v in values),
            attrs=attrs,
            opset=scope.opset(domain),
            outputs=tuple(node.output),
            declared=tuple(
                declared_shape(scope.declared[out]) if out in scope.declared else None for out in node.output
            ),
            used=tuple(out in read for out in node.output),
            tensor=lambda proto: self.attribute_tensor(proto, node),
            budget=self.budget,
            warn=lambda reason, remedy: self.warnings.append(Problem(_label(node), op_name(node), reason, remedy)),
        )
        return self.translate(translation, call)

    def translate(self, translation: Translation, call: Call) -> list[Value]:
        """Call `translation` with the codes of its inputs treated as it wants them."""
        codes = {code for code in call.codes if code is not None}
        kept = None
        if codes and translation.codes == "keep" and len(codes) == 1 and call.codes[0] is not None:
            plain = [x for x, code in zip(call.inputs, call.codes, strict=True) if x and code is None]
            kept = call.codes[0] if all(call.dtype(x) in ("i64", "i32", "bool") for x in plain) else None
        if codes and kept is None and translation.codes != "own":
            call.inputs = tuple(
                x if code is None else as_integers(call, x, code)
                for x, code in zip(call.inputs, call.codes, strict=True)
            )
        results = translation.function(call)
        results = [results] if isinstance(results, (str, Value)) else results
        return [value if isinstance(value, Value) else Value(value, kept) for value in results]

    def attributes(self, node: NodeProto, scope: Scope) -> list[AttributeProto]:
        """The node's attributes; those that refer to an attribute of the function around it with that one's value."""
        found = []
        for attr in node.attribute:
            if not attr.ref_attr_name:
                found.append(attr)
            elif attr.ref_attr_name in scope.attrs:
                actual = AttributeProto()
                actual.CopyFrom(scope.attrs[attr.ref_attr_name])
                actual.name = attr.name
                found.append(actual)
        return found

    def check(self, node: NodeProto, attrs: Mapping[str, AttributeProto], scope: Scope) -> None:
        """Refuse what ONNX's own definition of the operator rules out: missing inputs, attributes of a wrong type."""
        domain = domain_of(node.domain)
        if not onnx.defs.has(node.op_type, scope.opset(domain), domain):
            return  # an operator newer than the opset, or not of ONNX; onnxruntime takes them, too
        resolved = NodeProto()
        resolved.CopyFrom(node)
        del resolved.attribute[:]
        resolved.attribute.extend(attrs.values())
        context = onnx.checker.C.CheckerContext()
        context.ir_version = self.ir_version
        context.opset_imports = {domain: scope.opset(domain)}
        try:
            onnx.checker.check_node(resolved, context)
        except onnx.checker.ValidationError as error:
            raise Refused(str(error).split("\n")[0], "the file is not valid ONNX: export it again") from error

    def function(
        self, function: FunctionProto, values: list[Value], attrs: Mapping[str, AttributeProto], scope: Scope
    ) -> list[Value]:
        """The body of a model-local function in place of its call."""
        if scope.depth >= MAX_DEPTH:
            raise Refused(f"functions are nested deeper than {MAX_DEPTH}", "export the model without local functions")
        if len(values) > len(function.input):
            raise Refused(f"function {function.name} has {len(function.input)} inputs, not {len(values)}")
        given = [*values, *[_ABSENT] * (len(function.input) - len(values))]
        inner = Scope(
            dict(zip(function.input, given, strict=True)),
            {o.domain: o.version for o in function.opset_import},
            {},
            {**{a.name: a for a in function.attribute_proto}, **attrs},
            scope.depth + 1,
        )
        nodes = _live(function.node, function.output, inner.names)
        self.nodes(nodes, {name for node in nodes for name in _reads(node)} | set(function.output), inner)
        return [inner.names[name] for name in function.output]

    def branch(self, values: list[Value], attrs: Mapping[str, AttributeProto], scope: Scope) -> list[Value]:
        """The branch of an If whose condition is constant."""
        condition = self.builder.value(values[0].name) if values else None
        if condition is None or condition.size != 1:
            raise Refused("the condition is computed at run time", "export the model without control flow")
        chosen = attrs.get("then_branch" if condition.item() else "else_branch")
        if chosen is None or chosen.type != AttributeProto.GRAPH or scope.depth >= MAX_DEPTH:
            raise Refused("has no such branch, or is nested too deeply", "export the model without control flow")
        inner = replace(scope, names=dict(scope.names), declared={}, depth=scope.depth + 1)
        self.graph(chosen.g, inner)
        return [inner.names[value.name] for value in chosen.g.output]

    def raw(self, node: NodeProto, values: Sequence[Value], scope: Scope) -> list[Value]:
        """The node as it is, its outputs of the types that the file declares; without, they stand as unknown scalars.

        onnx's own inference is no help here: on damaged nodes it crashes, hangs or takes all memory.
        """
        results: list[Value] = []
        for out in node.output:
            declared = scope.declared.get(out)
            dims = None if declared is None else declared_shape(declared)
            dtype = None if declared is None else IR_TYPES.get(declared.type.tensor_type.elem_type)
            shape = tuple(d for d in dims or () if isinstance(d, int))
            fresh = self.builder.fresh()
            self.builder.tensors[fresh] = Tensor(fresh, shape, dtype or "f32")
            self.raw_values.add(fresh)
            if dims is None or dtype is None or len(shape) < len(dims):
                self.unknown.add(fresh)
            results.append(Value(fresh))
        op = op_name(node)
        self.builder.nodes.append(
            Node(
                f"ai.onnx:{op}" if known(op) else op,
                _label(node),
                tuple(v.name for v in values),
                tuple(v.name for v in results),
            )
        )
        return results
