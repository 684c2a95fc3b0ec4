"""finish: the fused core graph in terms of the operators that have kernels (`slm2c.ops.TABLE`).

Constants that follow a linear layer, an embedding or a normalization are folded into it, a residual sum into the
normalization that alone reads it, a ReLU into the operator before it. What no kernel can do is reported all at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from slm2c.errors import CompileError, Problem
from slm2c.ir import Array, Graph, Node, Shape
from slm2c.ops import TABLE
from slm2c.ops.concat import MAX_PARTS
from slm2c.ops.embedding import MAX_LOOKUPS
from slm2c.ops.layernorm import MAX_COLUMNS
from slm2c.ops.reduce import MAX_TERMS, summed
from slm2c.passes.edit import Edit


def finish(graph: Graph) -> Graph:
    """`graph` with table operators only. Raises CompileError that lists every node for which there is none."""
    for step in (fold_linear, fold_embedding, fold_layernorm, convert, fold_relu):
        graph = step(graph)
    problems = [_unsupported(graph, node) for node in graph.nodes if node.op not in TABLE]
    problems += [
        Problem(
            node.name,
            node.op,
            f"normalizes {graph.tensors[node.inputs[0]].shape[1]} features",
            f"{MAX_COLUMNS} at most",
        )
        for node in graph.nodes
        if node.op == "layernorm" and graph.tensors[node.inputs[0]].shape[1] > MAX_COLUMNS
    ]
    problems += [
        Problem(
            node.name,
            node.op,
            f"a {node.attrs['kind']} of {terms:,} elements; {MAX_TERMS:,} at most add up in 32 bits",
            "pool before it, or make the input smaller",
        )
        for node in graph.nodes
        if node.op == "reduce" and (terms := summed(node, graph.tensors[node.inputs[0]].shape)) > MAX_TERMS
    ]
    if problems:
        raise CompileError(problems)
    return graph


def _only_reader(graph: Graph, consumers: Mapping[str, list[Node]], name: str) -> Node | None:
    found = consumers.get(name, [])
    return found[0] if len(found) == 1 and name not in graph.outputs and found[0].inputs.count(name) == 1 else None


def _per_column(value: Array, features: int) -> Array | None:
    """A constant operand as one number per column, None if it differs from row to row."""
    if value.size == 1:
        return np.full(features, value.ravel()[0], dtype=np.float32)
    return value.ravel() if value.shape[-1] == features and value.size == features else None


def fold_linear(graph: Graph) -> Graph:
    """Matmul with a constant, then sums and products with constants per column, become one `linear`; likewise
    conv2d.
    """
    edit, consumers = Edit(graph), graph.consumers()
    for node in graph.nodes:
        if node.op == "matmul" and node.inputs[1] in graph.consts and graph.consts[node.inputs[1]].ndim == 2:
            op, attrs, weight = "linear", {"activation": ""}, graph.consts[node.inputs[1]].T.astype(np.float64)
            bias = np.zeros(len(weight))
        elif node.op == "conv2d":
            op, attrs, weight = "conv2d", dict(node.attrs), graph.consts[node.inputs[1]].astype(np.float64)
            bias = graph.consts[node.inputs[2]].astype(np.float64)
        else:
            continue
        end = node
        while (reader := _only_reader(graph, consumers, end.outputs[0])) is not None:
            constant = graph.consts.get(reader.inputs[1]) if len(reader.inputs) == 2 else None
            column = None if constant is None else _per_column(constant, len(weight))
            if column is None or graph.tensors[reader.outputs[0]].shape != graph.tensors[end.outputs[0]].shape:
                break
            if reader.op == "add":
                bias = bias + column
            elif reader.op == "mul":
                weight, bias = weight * column.reshape((-1,) + (1,) * (weight.ndim - 1)), bias * column
            else:
                break
            end = reader
        names = [edit.const(np.ascontiguousarray(v, dtype=np.float32)) for v in (weight, bias)]
        out = edit.add(op, [node.inputs[0], *names], attrs, graph.tensors[node.outputs[0]].shape, node.name)
        edit.replace(end.outputs[0], out)
    return edit.apply()


def fold_embedding(graph: Graph) -> Graph:
    """Rows of constant tables, their sums with each other and with constant rows, become one `embedding`."""
    edit, consumers = Edit(graph), graph.consumers()
    parts: dict[str, tuple[list[tuple[str, Array]], Array | None]] = {}  # tensor -> (lookups, rows)
    for node in graph.nodes:
        out = node.outputs[0]
        if (
            node.op == "gather"
            and node.inputs[0] in graph.consts
            and graph.tensors[node.inputs[0]].dtype == "f32"
            and len(graph.tensors[node.inputs[1]].shape) == 1
        ):
            parts[out] = [(node.inputs[1], graph.consts[node.inputs[0]])], None
        elif node.op in ("add", "mul") and node.inputs[0] in parts and _only_reader(graph, consumers, node.inputs[0]):
            lookups, rows = parts[node.inputs[0]]
            shape = graph.tensors[out].shape
            if node.inputs[1] in graph.consts:
                value = graph.consts[node.inputs[1]]
                if node.op == "add":
                    rows = np.broadcast_to(value if rows is None else rows + value, shape)
                elif (column := _per_column(value, shape[1])) is not None:
                    lookups, rows = [(i, t * column) for i, t in lookups], None if rows is None else rows * column
                else:
                    continue
                parts[out] = lookups, rows
            elif node.op == "add" and node.inputs[1] in parts and _only_reader(graph, consumers, node.inputs[1]):
                more, more_rows = parts[node.inputs[1]]
                if len(lookups) + len(more) > MAX_LOOKUPS:
                    continue
                both = [r for r in (rows, more_rows) if r is not None]
                parts[out] = lookups + more, sum(both[1:], start=both[0]) if both else None
    for out, (lookups, rows) in parts.items():
        reader = _only_reader(graph, consumers, out)
        if reader is not None and reader.outputs[0] in parts:
            continue
        order = sorted(lookups, key=lambda pair: -len(pair[1]))
        inputs = [x for index, table in order for x in (index, edit.const(table.astype(np.float32)))]
        if rows is not None:
            inputs.append(edit.const(np.ascontiguousarray(rows, dtype=np.float32)))
        edit.replace(
            out,
            edit.add(
                "embedding",
                inputs,
                {"lookups": len(order), "positions": rows is not None},
                graph.tensors[out].shape,
                graph.producers()[out].name,
            ),
        )
    return edit.apply()


def fold_layernorm(graph: Graph) -> Graph:
    """Layernorm and rmsnorm with the constants that scale and shift them, and with the residual sum that they alone
    read.
    """
    edit, consumers, producers = Edit(graph), graph.consumers(), graph.producers()
    for node in graph.nodes:
        if node.op not in ("layernorm", "rmsnorm"):
            continue
        features = graph.tensors[node.inputs[0]].shape[-1]
        given = [graph.consts[x].astype(np.float64) if x else None for x in node.inputs[1:]]
        gamma = given[0] if given and given[0] is not None else np.ones(features)
        beta = given[1] if len(given) > 1 and given[1] is not None else np.zeros(features)
        end = node
        while (reader := _only_reader(graph, consumers, end.outputs[0])) is not None and reader.op in ("add", "mul"):
            constant = graph.consts.get(reader.inputs[1])
            column = None if constant is None else _per_column(constant, features)
            if column is None:
                break
            gamma, beta = (gamma, beta + column) if reader.op == "add" else (gamma * column, beta * column)
            end = reader
        x, residual = node.inputs[0], ""
        made = producers.get(x)
        if (
            made is not None
            and made.op == "add"
            and made.inputs[1] not in graph.consts
            and _only_reader(graph, consumers, x)
            and all(graph.tensors[i].shape == graph.tensors[x].shape for i in made.inputs)
        ):
            x, residual = made.inputs
        names = [edit.const(np.ascontiguousarray(v, dtype=np.float32)) for v in (gamma, beta)]
        edit.replace(
            end.outputs[0],
            edit.add(
                "layernorm",
                [x, residual, *names],
                {"epsilon": float(node.attrs["epsilon"]), "centre": node.op == "layernorm"},
                graph.tensors[node.outputs[0]].shape,
                node.name,
            ),
        )
    return edit.apply()


def fold_relu(graph: Graph) -> Graph:
    """A ReLU becomes part of the operator before it, where that has the attribute, else a table."""
    edit, consumers, producers = Edit(graph), graph.consumers(), graph.producers()
    for node in graph.nodes:
        if node.op != "relu":
            continue
        made, shape = producers.get(node.inputs[0]), graph.tensors[node.outputs[0]].shape
        if made is not None and made.attrs.get("activation") == "" and _only_reader(graph, consumers, node.inputs[0]):
            new = edit.add(made.op, made.inputs, {**made.attrs, "activation": "relu"}, shape, made.name)
        else:
            new = edit.add("lut", node.inputs, {"fn": ("relu", ("x",))}, shape, node.name)
        edit.replace(node.outputs[0], new)
    return edit.apply()


def convert(graph: Graph) -> Graph:
    """The remaining core operators, one for one."""
    edit = Edit(graph)
    for node in graph.nodes:
        if node.op in _CONVERT:
            edit.replace(node.outputs[0], _CONVERT[node.op](graph, edit, node))
    return edit.apply()


def _operands(edit: Edit, inputs: Sequence[str], shape: Shape, name: str) -> tuple[str, str, bool]:
    """(x, y, swapped) of two operands: x is computed and has the result's shape, by a view if neither operand has
    it.
    """
    run_time = [x not in edit.consts for x in inputs]
    whole = [r and edit.tensors[x].shape == shape for r, x in zip(run_time, inputs, strict=True)]
    first = whole.index(True) if any(whole) else run_time.index(True)
    x, y = inputs[first], inputs[1 - first]
    if not whole[first]:
        positions = np.arange(edit.tensors[x].size).reshape(edit.tensors[x].shape)
        index = np.ascontiguousarray(np.broadcast_to(positions, shape))
        x = edit.add("view", [x], {"index": index, "fill": 0.0}, shape, name)
    return x, y, first == 1


def _sum(graph: Graph, edit: Edit, node: Node) -> str:
    shape = graph.tensors[node.outputs[0]].shape
    weights = [1.0, -1.0 if node.op == "sub" else 1.0]
    x, y, swapped = _operands(edit, node.inputs, shape, node.name)
    alpha, beta = weights[::-1] if swapped else weights
    return edit.add("add", [x, y], {"activation": "", "alpha": alpha, "beta": beta}, shape, node.name)


def _product(graph: Graph, edit: Edit, node: Node) -> str:
    shape = graph.tensors[node.outputs[0]].shape
    constant = graph.consts.get(node.inputs[1])
    if constant is not None and constant.size == 1 and graph.tensors[node.inputs[0]].shape == shape:
        return edit.add("lut", [node.inputs[0]], {"fn": ("mul", ("x",), float(constant.ravel()[0]))}, shape, node.name)
    x, y, _ = _operands(edit, node.inputs, shape, node.name)
    return edit.add("mul", [x, y], {}, shape, node.name)


def _quotient(graph: Graph, edit: Edit, node: Node) -> str:
    """X / y as x times a table of reciprocals."""
    x, y = node.inputs
    shape = graph.tensors[node.outputs[0]].shape
    reciprocal = edit.add("lut", [y], {"fn": ("reciprocal", ("x",))}, graph.tensors[y].shape, node.name)
    first, second, _ = _operands(edit, [x, reciprocal], shape, node.name)
    return edit.add("mul", [first, second], {}, shape, node.name)


def _concat(graph: Graph, edit: Edit, node: Node) -> str:
    """A concat of as many parts as its kernel takes; more are joined in steps."""
    parts, axis = list(node.inputs), node.attrs["axis"]
    while True:
        joined = parts[:MAX_PARTS]
        lengths = sum(edit.tensors[x].shape[axis] for x in joined)
        shape = edit.tensors[parts[0]].shape
        out = edit.add("concat", joined, {"axis": axis}, (*shape[:axis], lengths, *shape[axis + 1 :]), node.name)
        parts = [out, *parts[MAX_PARTS:]]
        if len(parts) == 1:
            return out


def _reduction(graph: Graph, edit: Edit, node: Node) -> str:
    """A reduction; a mean or sum of more elements than its kernel takes goes over one axis after the other."""
    (x,), kind, keepdims = node.inputs, node.op.removeprefix("reduce_"), bool(node.attrs["keepdims"])
    shape, axes = graph.tensors[x].shape, tuple(sorted(a % len(graph.tensors[x].shape) for a in node.attrs["axes"]))
    steps = [axes]
    if kind in ("mean", "sum") and math.prod(shape[a] for a in axes) > MAX_TERMS:
        steps = [(axis,) for axis in reversed(axes)]  # from the back, so that those to come keep their numbers
    for step in steps:
        shape = tuple(1 if i in step else d for i, d in enumerate(shape) if i not in step or keepdims)
        x = edit.add("reduce", [x], {"kind": kind, "axes": step, "keepdims": keepdims}, shape, node.name)
    return x


def _softmax(graph: Graph, edit: Edit, node: Node) -> str:
    return edit.add("softmax", node.inputs, {}, graph.tensors[node.outputs[0]].shape, node.name)


_CONVERT: Mapping[str, Callable[[Graph, Edit, Node], str]] = {
    "add": _sum,
    "sub": _sum,
    "mul": _product,
    "concat": _concat,
    "div": _quotient,
    "softmax": _softmax,
    "reduce_sum": _reduction,
    "reduce_mean": _reduction,
    "reduce_max": _reduction,
    "reduce_min": _reduction,
}


def _unsupported(graph: Graph, node: Node) -> Problem:
    tensors = [graph.tensors[x] for x in (*node.inputs, *node.outputs) if x]
    integers = any(t.dtype != "f32" for t in tensors)
    shapes = ", ".join(str(list(graph.tensors[x].shape)) for x in node.inputs if x)
    reason = "computes with integers at run time" if integers else "no kernel for this operator at run time"
    return Problem(
        node.name,
        node.op,
        f"{reason}, on tensors of {shapes}",
        "export the model without it, or compute it outside the model",
    )
