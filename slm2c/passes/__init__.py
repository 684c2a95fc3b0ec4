"""Named rewrites, Graph -> Graph, from ONNX's operators to those that have kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from slm2c.errors import CompileError, Problem
from slm2c.ir import Graph, Shape, Tensor, prune, verify
from slm2c.passes.attention import fuse_attention
from slm2c.passes.axes import mark_tokens
from slm2c.passes.finish import finish
from slm2c.passes.layernorm import fuse_layernorm
from slm2c.passes.normalize import is_identity, normalize
from slm2c.passes.rows import take_rows_early
from slm2c.passes.tokens import Interface, cone, drop_token_masks, find_interface, fold_positions
from slm2c.passes.unary import fuse_unary
from slm2c.passes.windows import channels_last


@dataclass(frozen=True)
class Fused:
    """The float graph of table operators, and how it relates to the ONNX file.

    interface: the token inputs, None for a model of float inputs
    output_shapes: the shape of each output in the ONNX graph; the fused graph's tensors hold the same elements
    fixed_by: "" if the token count is an argument, else the node that needs the full length
    """

    graph: Graph
    interface: Interface | None
    output_shapes: tuple[Shape, ...]
    fixed_by: str


def fuse(graph: Graph) -> Fused:
    """Run all passes on a core graph. Raises CompileError naming every node that no kernel can compute."""
    shapes = tuple(graph.tensors[x].shape for x in graph.outputs)
    _refuse_trivial(graph)
    graph = normalize(channels_last(normalize(graph)))
    interface = find_interface(graph)
    if interface is not None:
        graph = normalize(fold_positions(graph, interface))
    graph = normalize(fuse_layernorm(graph))
    pooled = 0
    if interface is not None:
        old = {node.outputs[0] for node in graph.nodes}
        graph = drop_token_masks(graph, interface)
        pooled = sum(node.op.startswith("reduce_") and node.outputs[0] not in old for node in graph.nodes)
        graph = normalize(graph)
    graph = normalize(fuse_attention(graph, interface))
    graph = normalize(fuse_unary(graph))
    if interface is not None:
        refuse_masks(graph, interface)
    graph = finish(graph)
    _refuse_trivial(graph)
    graph = take_rows_early(drop_output_views(graph))
    graph = drop_unused_inputs(graph)
    _refuse_integers(graph, interface)
    fixed_by = ""
    if interface is not None:
        graph = drop_masks(graph, interface)
        graph, fixed_by = mark_tokens(graph, interface.max_tokens)
        refuse_padded_sums(graph, interface, pooled)
        if fixed_by and (interface.masks or interface.pad_id is not None):
            raise CompileError(
                Problem(
                    fixed_by,
                    "",
                    "mixes tokens so that the model needs its full length, yet it has a padding mask",
                    "export the model without a mask, or without this operator",
                )
            )
    return Fused(verify(graph), interface, shapes, fixed_by)


def _refuse_trivial(graph: Graph) -> None:
    problems = [
        Problem(name, "", "this output does not depend on any input", "remove it from the model")
        for name in graph.outputs
        if name in graph.consts
    ]
    problems += [
        Problem(name, "", "this output is an input: there is nothing to compute", "remove it from the model")
        for name in graph.outputs
        if name in graph.inputs
    ]
    if problems:
        raise CompileError(problems)


def _refuse_integers(graph: Graph, interface: Interface | None) -> None:
    known = (*interface.lookups, *interface.masks) if interface is not None else ()
    left = [x for x in graph.inputs if graph.tensors[x].dtype in ("i32", "i64") and x not in known]
    if left:
        raise CompileError(
            Problem(
                name,
                "",
                f"integers of shape {list(graph.tensors[name].shape)} are not one sequence of token ids"
                + (f", as {interface.lookups[0]} is" if interface is not None else ""),
                "export the model with a batch of 1, or look up other ids outside the model",
            )
            for name in left
        )


def drop_output_views(graph: Graph) -> Graph:
    """Outputs as the kernels leave them: a view that only reshapes is taken off."""
    producers = graph.producers()
    outputs = []
    for name in graph.outputs:
        node = producers[name]
        while (
            node.op == "view"
            and is_identity(node.attrs["index"])
            and node.inputs[0] in producers
            and graph.tensors[node.inputs[0]].size == node.attrs["index"].size
        ):
            name = node.inputs[0]
            node = producers[name]
        outputs.append(name)
    return prune(replace(graph, outputs=tuple(outputs)))


def drop_unused_inputs(graph: Graph) -> Graph:
    """Without inputs that nothing reads: what they were for has become constant."""
    read = {x for node in graph.nodes for x in node.inputs}
    return replace(
        graph,
        inputs=tuple(x for x in graph.inputs if x in read),
        tensors={k: v for k, v in graph.tensors.items() if k not in graph.inputs or k in read},
    )


def refuse_padded_sums(graph: Graph, interface: Interface, pooled: int) -> None:
    """CompileError if a model with a padding mask sums over all rows, padding included: n rows give another result.

    `pooled` counts the sums over tokens that were found to take the real ones only.
    """
    over = [
        node
        for node in graph.nodes
        if node.op == "reduce" and graph.tensors[node.inputs[0]].token_axis in {a % 8 for a in node.attrs["axes"]}
    ]
    if (interface.masks or interface.pad_id is not None) and len(over) > pooled:
        fact = "takes the padding in, though the model has a padding mask: how far a text is padded would count"
        raise CompileError(Problem(n.name, n.op, fact, "apply the mask before it, as in a masked mean") for n in over)


def refuse_masks(graph: Graph, interface: Interface) -> None:
    """CompileError if a mask still takes part: it says more than how many tokens there are."""
    inside = cone(graph, (*interface.lookups, *interface.masks))
    lookups = {x for node in graph.nodes if node.op == "gather" for x in node.inputs[1:2]}
    left = [
        node
        for node in graph.nodes
        if node.outputs[0] not in inside and any(x in inside and x not in lookups for x in node.inputs)
    ]
    if left:
        raise CompileError(
            Problem(
                n.name,
                n.op,
                "depends on the padding mask or the ids in a way that the token count does not express",
                "export the model with a plain padding mask",
            )
            for n in left
        )


def drop_masks(graph: Graph, interface: Interface) -> Graph:
    """Without the mask inputs, which n replaced, and with int32 ids."""
    keep = tuple(x for x in graph.inputs if x not in interface.masks)
    tensors = {k: v for k, v in graph.tensors.items() if k not in interface.masks}
    for name in interface.lookups:
        if name in tensors:
            tensors[name] = Tensor(name, (interface.max_tokens,), "i32")
    return _flat_ids(replace(graph, inputs=keep, tensors=tensors), interface)


def _flat_ids(graph: Graph, interface: Interface) -> Graph:
    """Lookups read the flat id inputs directly, not a reshaped or converted view of them."""
    producers = graph.producers()
    nodes = []
    for node in graph.nodes:
        if node.op == "embedding":
            inputs = list(node.inputs)
            for i in range(0, 2 * node.attrs["lookups"], 2):
                while inputs[i] in producers:
                    maker = producers[inputs[i]]
                    assert maker.op in ("view", "cast"), maker
                    inputs[i] = maker.inputs[0]
                assert inputs[i] in interface.lookups
            node = replace(node, inputs=tuple(inputs))
        nodes.append(node)
    return prune(replace(graph, nodes=tuple(nodes)))


__all__ = ["Fused", "Interface", "fuse"]
