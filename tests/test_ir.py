"""The IR's rules: what verify refuses, what prune drops, what toposort orders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from slm2c.ir import Graph, Node, Tensor, prune, toposort, verify


def tensor(name: str, dtype: str = "f32") -> Tensor:
    return Tensor(name, (3,), dtype)


def graph() -> Graph:
    nodes = (
        Node("add", "a", ("x", "c"), ("y",)),
        Node("neg", "b", ("y",), ("z",)),
        Node("neg", "dead", ("x",), ("w",)),
    )
    tensors = {name: tensor(name) for name in ("x", "c", "y", "z", "w", "unused")}
    consts = {"c": np.ones(3, np.float32), "unused": np.ones(3, np.float32)}
    return Graph("g", ("x",), ("z",), nodes, tensors, consts)


def test_a_sound_graph_passes() -> None:
    sound = graph()
    assert verify(sound) is sound


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": graph().nodes[1:]}, "before it is written"),
        ({"nodes": (*graph().nodes, graph().nodes[0])}, "second time"),
        ({"outputs": ("nothing",)}, "never written"),
        ({"consts": {**graph().consts, "x": np.ones(3, np.float32)}}, "also a constant"),
        ({"consts": {**graph().consts, "c": np.ones(4, np.float32)}}, "is not"),
        ({"consts": {**graph().consts, "c": np.ones(3, np.float64)}}, "is not"),
        ({"tensors": {**graph().tensors, "y": tensor("other")}}, "filed under"),
        ({"tensors": {**graph().tensors, "y": replace(tensor("y"), token_axis=1)}}, "no axis 1"),
        ({"tensors": {**graph().tensors, "y": replace(tensor("y"), dtype="f8")}}, "unknown type"),
    ],
)
def test_verify_names_what_is_wrong(change: dict[str, object], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        verify(replace(graph(), **change))  # type: ignore[arg-type]


def test_prune_keeps_what_outputs_need_and_all_inputs() -> None:
    pruned = prune(graph())
    assert [n.name for n in pruned.nodes] == ["a", "b"]
    assert set(pruned.tensors) == {"x", "c", "y", "z"} and set(pruned.consts) == {"c"}


def test_toposort_is_stable_and_finds_cycles() -> None:
    nodes = graph().nodes
    assert toposort(nodes) == nodes
    assert toposort(nodes[::-1]) == (nodes[2], nodes[0], nodes[1])
    with pytest.raises(AssertionError, match="cycle"):
        toposort([Node("neg", "a", ("y",), ("x",)), Node("neg", "b", ("x",), ("y",))])


def test_attrs_cannot_be_changed() -> None:
    node = Node("op", "n", (), ("y",), {"axis": 1})
    with pytest.raises(TypeError):
        node.attrs["axis"] = 2  # type: ignore[index]
