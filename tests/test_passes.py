"""The rewrites: each form that exporters write becomes the one operator, and what is not that form stays."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from slm2c import core, interpret
from slm2c.core import Builder
from slm2c.errors import CompileError
from slm2c.ir import Array, Graph
from slm2c.ops.lut import describe
from slm2c.passes import fuse
from slm2c.passes.attention import fuse_attention
from slm2c.passes.layernorm import fuse_layernorm
from slm2c.passes.normalize import normalize
from slm2c.passes.tokens import find_interface
from slm2c.passes.unary import fuse_unary

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def random(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def same(before: Graph, after: Graph, feeds: dict[str, Array], tolerance: float = 2e-5) -> None:
    """Both graphs compute the same outputs."""
    a, b = core.run(before, feeds), interpret.run(after, feeds)
    for x, y in zip(before.outputs, after.outputs, strict=True):
        assert np.abs(a[x] - b[y]).max() <= tolerance * max(1.0, float(np.abs(a[x]).max()))


# --- normalizations -------------------------------------------------------------------------------------------------


def _centre(b: Builder, x: str) -> str:
    return b.op("sub", [x, b.op("reduce_mean", [x], {"axes": (2,), "keepdims": True})])


def _deviation(b: Builder, square: str) -> str:
    variance = b.op("reduce_mean", [square], {"axes": (2,), "keepdims": True})
    return b.op("sqrt", [b.op("add", [variance, b.const(scalar(1e-5))])])


def torch_form(b: Builder, x: str, gamma: str, beta: str) -> str:
    d = _centre(b, x)
    y = b.op("div", [d, _deviation(b, b.op("pow", [d, b.const(scalar(2))]))])
    return b.op("add", [b.op("mul", [y, gamma]), beta])


def product_form(b: Builder, x: str, gamma: str, beta: str) -> str:
    d = _centre(b, x)
    y = b.op("mul", [b.op("reciprocal", [_deviation(b, b.op("mul", [d, d]))]), d])
    return b.op("add", [beta, b.op("mul", [gamma, y])])


def tensorflow_form(b: Builder, x: str, gamma: str, beta: str) -> str:
    mean = b.op("reduce_mean", [x], {"axes": (2,), "keepdims": True})
    d = b.op("sub", [x, mean])
    scale = b.op("mul", [b.op("reciprocal", [_deviation(b, b.op("mul", [d, d]))]), gamma])
    return b.op("add", [b.op("mul", [x, scale]), b.op("sub", [beta, b.op("mul", [mean, scale])])])


@pytest.mark.parametrize("form", [torch_form, product_form, tensorflow_form])
def test_layernorm_is_recognised_in_every_form(form: Callable[[Builder, str, str, str], str]) -> None:
    b = Builder()
    x = b.input("x", (1, 5, 17), "f32")
    gamma, beta = b.const(random(17)), b.const(random(17))
    graph = b.graph("ln", [b.op("tanh", [form(b, x, gamma, beta)])])
    fused = normalize(fuse_layernorm(normalize(graph)))
    assert [op for op in ops(fused) if op != "view"] == ["layernorm", "tanh"]
    (node,) = [n for n in fused.nodes if n.op == "layernorm"]
    assert node.attrs["epsilon"] == pytest.approx(1e-5)
    assert fused.consts[node.inputs[1]] == pytest.approx(b.consts[gamma], rel=1e-4)
    for size in (1e-3, 1.0, 100.0):
        same(graph, fused, {"x": random(1, 5, 17) * np.float32(size)}, 1e-4)


def test_rmsnorm_is_not_layernorm() -> None:
    b = Builder()
    x = b.input("x", (1, 5, 17), "f32")
    y = b.op("mul", [b.op("div", [x, _deviation(b, b.op("pow", [x, b.const(scalar(2))]))]), b.const(random(17))])
    graph = b.graph("rms", [y])
    fused = normalize(fuse_layernorm(normalize(graph)))
    assert [op for op in ops(fused) if op != "view"] == ["rmsnorm"]
    same(graph, fused, {"x": random(1, 5, 17)})


def test_what_only_resembles_a_layernorm_stays() -> None:
    """The mean absolute deviation instead of the standard deviation."""
    b = Builder()
    x = b.input("x", (1, 5, 17), "f32")
    d = _centre(b, x)
    graph = b.graph("no", [b.op("div", [d, _deviation(b, b.op("abs", [d]))])])
    fused = normalize(fuse_layernorm(normalize(graph)))
    assert "layernorm" not in ops(fused)
    same(graph, fused, {"x": random(1, 5, 17)})


# --- functions of one variable --------------------------------------------------------------------------------------


def gelu_erf(b: Builder, x: str) -> str:
    e = b.op("erf", [b.op("div", [x, b.const(scalar(math.sqrt(2)))])])
    return b.op("mul", [b.op("mul", [x, b.op("add", [e, b.const(scalar(1))])]), b.const(scalar(0.5))])


def gelu_tanh(b: Builder, x: str) -> str:
    cube = b.op("mul", [b.op("pow", [x, b.const(scalar(3))]), b.const(scalar(0.044715))])
    inner = b.op("mul", [b.op("add", [x, cube]), b.const(scalar(math.sqrt(2 / math.pi)))])
    half = b.op("mul", [b.const(scalar(0.5)), x])
    return b.op("mul", [half, b.op("add", [b.const(scalar(1)), b.op("tanh", [inner])])])


def silu(b: Builder, x: str) -> str:
    return b.op("mul", [b.op("sigmoid", [x]), x])


@pytest.mark.parametrize(("form", "name"), [(gelu_erf, "gelu"), (gelu_tanh, "gelu_tanh"), (silu, "silu")])
def test_activations_become_one_table(form: Callable[[Builder, str], str], name: str) -> None:
    b = Builder()
    x = b.input("x", (3, 17), "f32")
    graph = b.graph("f", [form(b, x)])
    fused = fuse_unary(normalize(graph))
    assert ops(fused) == ["lut"]
    assert describe(fused.nodes[0].attrs["fn"]) == name
    same(graph, fused, {"x": random(3, 17) * 3})


def test_two_variables_are_no_table() -> None:
    b = Builder()
    x, y = b.input("x", (3, 17), "f32"), b.input("y", (3, 17), "f32")
    graph = b.graph("f", [b.op("mul", [b.op("sigmoid", [x]), y])])
    fused = fuse_unary(normalize(graph))
    assert ops(fused) == ["lut", "mul"]
    same(graph, fused, {"x": random(3, 17), "y": random(3, 17)})


# --- attention ------------------------------------------------------------------------------------------------------

N, H, D = 6, 3, 5


def _projections(b: Builder) -> tuple[str, str, str, str]:
    """Ids, and q, k, v [1, N, H * D] of their embeddings."""
    ids = b.input("ids", (1, N), "i64")
    x = b.op("gather", [b.const(random(11, 8)), ids], {"axis": 0})
    q, k, v = (b.op("add", [b.op("matmul", [x, b.const(random(8, H * D))]), b.const(random(H * D))]) for _ in range(3))
    return ids, q, k, v


def _heads(b: Builder, x: str) -> str:
    return b.view(x, b.positions(x).reshape(N, H, D).transpose(1, 0, 2)[None])


def _merge(b: Builder, x: str) -> str:
    return b.view(x, np.swapaxes(b.positions(x), 1, 2).reshape(1, N, H * D))


def _padding(b: Builder, mask: str) -> str:
    """0 for real keys, -3.4e38 for padding, [1, 1, 1, N]."""
    real = b.op("cast", [b.reshape(mask, (1, 1, 1, N))], {"to": "f32"})
    return b.op("mul", [b.op("sub", [b.const(scalar(1)), real]), b.const(scalar(-3.4e38))])


def usual(b: Builder, q: str, k: str, v: str, mask: str) -> str:
    scores = b.op("matmul", [_heads(b, q), b.view(_heads(b, k), np.swapaxes(b.positions(_heads(b, k)), 2, 3))])
    scores = b.op("add", [b.op("div", [scores, b.const(scalar(math.sqrt(D)))]), _padding(b, mask)])
    return _merge(b, b.op("matmul", [b.op("softmax", [scores], {"axis": 3}), _heads(b, v)]))


def scaled_operands(b: Builder, q: str, k: str, v: str, mask: str) -> str:
    root = b.const(scalar(D**-0.25))
    q, k = b.op("mul", [_heads(b, q), root]), b.op("mul", [_heads(b, k), root])
    scores = b.op("matmul", [q, b.view(k, np.swapaxes(b.positions(k), 2, 3))])
    real = b.op("cast", [b.reshape(mask, (1, 1, 1, N))], {"to": "bool"})
    p = b.op("softmax", [b.op("where", [real, scores, b.const(scalar(-np.inf))])], {"axis": 3})
    p = b.op("where", [b.op("isnan", [p]), b.const(scalar(0)), p])
    return _merge(b, b.op("matmul", [p, _heads(b, v)]))


def transposed(b: Builder, q: str, k: str, v: str, mask: str) -> str:
    """K Q^T and V^T P^T, as einsum writes them."""
    qt = b.view(_heads(b, q), np.swapaxes(b.positions(_heads(b, q)), 2, 3))
    scores = b.op("mul", [b.op("matmul", [_heads(b, k), qt]), b.const(scalar(1 / math.sqrt(D)))])
    scores = b.op("add", [b.view(scores, np.swapaxes(b.positions(scores), 2, 3)), _padding(b, mask)])
    p = b.op("softmax", [scores], {"axis": 3})
    pt = b.view(p, np.swapaxes(b.positions(p), 2, 3))
    vt = b.view(_heads(b, v), np.swapaxes(b.positions(_heads(b, v)), 2, 3))
    context = b.op("matmul", [vt, pt])
    return _merge(b, b.view(context, np.swapaxes(b.positions(context), 2, 3)))


def _graph(form: Callable[[Builder, str, str, str, str], str]) -> Graph:
    b = Builder()
    _, q, k, v = _projections(b)
    mask = b.input("mask", (1, N), "i64")
    return b.graph("attention", [b.op("matmul", [form(b, q, k, v, mask), b.const(random(H * D, 4))])])


@pytest.mark.parametrize("form", [usual, scaled_operands, transposed])
@pytest.mark.parametrize("n", [1, 3, N])
def test_attention_is_recognised_in_every_form_and_n_replaces_the_mask(form: Callable[..., str], n: int) -> None:
    graph = _graph(form)
    fused = fuse(graph)
    assert ops(fused.graph) == ["embedding", "linear", "linear", "linear", "attention", "linear"]
    (node,) = [n for n in fused.graph.nodes if n.op == "attention"]
    assert (node.attrs["heads"], node.attrs["causal"]) == (H, False)
    assert node.attrs["scale"] == pytest.approx(1 / math.sqrt(D))
    assert fused.interface is not None and fused.interface.masks == ("mask",) and not fused.fixed_by
    ids = RNG.integers(0, 11, N)
    feeds = {"ids": ids[None], "mask": (np.arange(N) < n)[None].astype(np.int64)}
    long = core.run(graph, feeds)[graph.outputs[0]][0, :n]
    short = interpret.run_fused(fused.graph, {"ids": ids[:n].astype(np.int32)})[fused.graph.outputs[0]]
    assert np.abs(long - short).max() <= 1e-4 * np.abs(long).max()


def test_one_projection_split_into_interleaved_heads() -> None:
    """[N, H, (q, k, v), D]: the rows of the weight are put in order."""
    b = Builder()
    ids = b.input("ids", (1, N), "i64")
    x = b.op("gather", [b.const(random(11, 8)), ids], {"axis": 0})
    qkv = b.op("add", [b.op("matmul", [x, b.const(random(8, 3 * H * D))]), b.const(random(3 * H * D))])
    parts = b.positions(qkv).reshape(N, H, 3, D)
    q, k, v = (b.view(qkv, np.swapaxes(parts[:, :, i], 0, 1)[None]) for i in range(3))
    p = b.op("softmax", [b.op("matmul", [q, b.view(k, np.swapaxes(b.positions(k), 2, 3))])], {"axis": 3})
    graph = b.graph("interleaved", [_merge(b, b.op("matmul", [p, v]))])
    fused = fuse(graph)
    assert ops(fused.graph) == ["embedding", "linear", "linear", "linear", "attention"]
    ids_value = RNG.integers(0, 11, N)
    long = core.run(graph, {"ids": ids_value[None]})[graph.outputs[0]][0]
    short = interpret.run_fused(fused.graph, {"ids": ids_value.astype(np.int32)})[fused.graph.outputs[0]]
    assert np.abs(long - short).max() <= 1e-4 * np.abs(long).max()


def _masked(allowed: Array) -> Graph:
    """Attention under a constant mask [N, N]."""
    b = Builder()
    _, q, k, v = _projections(b)
    kt = b.view(_heads(b, k), np.swapaxes(b.positions(_heads(b, k)), 2, 3))
    scores = b.op(
        "add", [b.op("matmul", [_heads(b, q), kt]), b.const(np.where(allowed, 0, -np.inf).astype(np.float32))]
    )
    return b.graph("masked", [_merge(b, b.op("matmul", [b.op("softmax", [scores], {"axis": 3}), _heads(b, v)]))])


def test_a_causal_mask_is_an_attribute() -> None:
    graph = normalize(_masked(np.tril(np.ones((N, N), bool))))
    fused = fuse_attention(graph, find_interface(graph))
    (node,) = [n for n in fused.nodes if n.op == "attention"]
    assert node.attrs["causal"]
    same(graph, fused, {"ids": RNG.integers(0, 11, (1, N))})


def test_a_mask_of_another_form_is_not_taken_for_padding() -> None:
    """A window of three tokens: the scores keep their own operators and the graph its meaning."""
    near = np.abs(np.arange(N)[:, None] - np.arange(N)[None]) <= 1
    graph = normalize(_masked(near))
    fused = fuse_attention(graph, find_interface(graph))
    assert "attention" not in ops(fused) and "softmax" in ops(fused)
    same(graph, fused, {"ids": RNG.integers(0, 11, (1, N))})


# --- masks on rows --------------------------------------------------------------------------------------------------


def test_a_masked_mean_is_a_mean_over_n() -> None:
    b = Builder()
    ids, mask = b.input("ids", (1, N), "i64"), b.input("mask", (1, N), "i64")
    x = b.op("gather", [b.const(random(11, 8)), ids], {"axis": 0})
    real = b.op("cast", [b.reshape(mask, (1, N, 1))], {"to": "f32"})
    total = b.op("reduce_sum", [b.op("mul", [x, real])], {"axes": (1,), "keepdims": False})
    count = b.op("max", [b.op("reduce_sum", [real], {"axes": (1,), "keepdims": False}), b.const(scalar(1e-9))])
    graph = b.graph("mean", [b.op("div", [total, count])])
    fused = fuse(graph)
    assert ops(fused.graph) == ["embedding", "reduce"]
    assert fused.graph.nodes[1].attrs["kind"] == "mean"
    value = RNG.integers(0, 11, N)
    for n in (1, 4, N):
        feeds = {"ids": value[None], "mask": (np.arange(N) < n)[None].astype(np.int64)}
        long = core.run(graph, feeds)[graph.outputs[0]]
        short = interpret.run_fused(fused.graph, {"ids": value[:n].astype(np.int32)})[fused.graph.outputs[0]]
        assert np.abs(long - short).max() < 1e-5


def test_a_mask_that_is_not_understood_is_an_error() -> None:
    """Rows weighted by their distance to the end: no count of tokens says that."""
    b = Builder()
    ids, mask = b.input("ids", (1, N), "i64"), b.input("mask", (1, N), "i64")
    x = b.op("gather", [b.const(random(11, 8)), ids], {"axis": 0})
    weight = b.op(
        "cast",
        [b.reshape(b.op("cumsum", [mask], {"axis": 1, "exclusive": False, "reverse": True}), (1, N, 1))],
        {"to": "f32"},
    )
    with pytest.raises(CompileError, match=r"mask|cumsum"):
        fuse(b.graph("weighted", [b.op("mul", [x, weight])]))


def test_constant_positions_by_cumsum() -> None:
    """RoBERTa counts positions from the mask; on real tokens they are 1, 2, 3, ..."""
    b = Builder()
    ids, mask = b.input("ids", (1, N), "i64"), b.input("mask", (1, N), "i64")
    x = b.op("gather", [b.const(random(11, 8)), ids], {"axis": 0})
    count = b.op("mul", [b.op("cumsum", [mask], {"axis": 1, "exclusive": False, "reverse": False}), mask])
    positions = b.op("gather", [b.const(random(N + 2, 8)), b.op("add", [count, b.const(np.array(1))])], {"axis": 0})
    graph = b.graph("positions", [b.op("matmul", [b.op("add", [x, positions]), b.const(random(8, 3))])])
    fused = fuse(graph)
    assert ops(fused.graph) == ["embedding", "linear"]
    assert fused.graph.nodes[0].attrs == {"lookups": 1, "positions": True}
    value = RNG.integers(0, 11, N)
    for n in (1, 4, N):
        feeds = {"ids": value[None], "mask": (np.arange(N) < n)[None].astype(np.int64)}
        long = core.run(graph, feeds)[graph.outputs[0]][0, :n]
        short = interpret.run_fused(fused.graph, {"ids": value[:n].astype(np.int32)})[fused.graph.outputs[0]]
        assert np.abs(long - short).max() < 1e-4


@pytest.mark.parametrize("others", [(1,), (2, 6), (1, 4)])
def test_integers_that_are_no_second_sequence_of_ids_are_refused(others: tuple[int, ...]) -> None:
    b = Builder()
    ids, category = b.input("ids", (1, 6), "i64"), b.input("category", others, "i64")
    pooled = []
    for x, axes in ((ids, (1,)), (category, tuple(range(1, len(others))))):
        row = b.op("gather", [b.const(random(9, 8)), x], {"axis": 0})
        pooled.append(b.op("reduce_mean", [row], {"axes": axes, "keepdims": False}) if axes else row)
    with pytest.raises(CompileError, match=r"'category': integers of shape .* as ids is"):
        fuse(b.graph("g", [b.op("matmul", [b.op("add", pooled), b.const(random(8, 3))])]))


def test_a_batch_of_ids_is_refused() -> None:
    b = Builder()
    ids = b.input("ids", (2, 6), "i64")
    with pytest.raises(CompileError, match=r"'ids': integers of shape \[2, 6\]"):
        fuse(b.graph("g", [b.op("gather", [b.const(random(9, 8)), ids], {"axis": 0})]))


def test_a_single_id_goes_with_numbers() -> None:
    b = Builder()
    category, x = b.input("category", (1,), "i64"), b.input("x", (1, 8), "f32")
    fused = fuse(b.graph("g", [b.op("add", [b.op("gather", [b.const(random(9, 8)), category], {"axis": 0}), x])]))
    assert fused.fixed_by == ""
    assert all(tensor.token_axis is None for tensor in fused.graph.tensors.values())


def ids_model(select: Callable[[Builder, str], str]) -> Graph:
    """The mean embedding of those of 8 ids, of 50, where select() is 1: a "padding mask" made from the ids."""
    b = Builder()
    ids = b.input("ids", (1, 8), "i64")
    x = b.op("gather", [b.const(random(50, 4)), ids], {"axis": 0})
    real = b.reshape(b.op("cast", [select(b, ids)], {"to": "f32"}), (1, 8, 1))
    total = b.op("reduce_sum", [b.op("mul", [x, real])], {"axes": (1,), "keepdims": False})
    return b.graph("g", [b.op("div", [total, b.op("reduce_sum", [real], {"axes": (1,), "keepdims": False})])])


def integer(value: int) -> Array:
    return np.array(value, np.int64)


def is_not(b: Builder, ids: str, value: int) -> str:
    return b.op("not", [b.op("equal", [ids, b.const(integer(value))])])


def test_a_mask_made_from_the_padding_id_is_the_token_count() -> None:
    fused = fuse(ids_model(lambda b, ids: is_not(b, ids, 3)))
    assert fused.interface is not None
    assert fused.interface.pad_id == 3
    assert ops(fused.graph) == ["embedding", "reduce"]


@pytest.mark.parametrize(
    "select",
    [
        lambda b, ids: b.op("and", [is_not(b, ids, 0), is_not(b, ids, 30)]),
        lambda b, ids: b.op("greater", [ids, b.const(integer(7))]),
        lambda b, ids: b.op("less", [ids, b.const(integer(40))]),
    ],
    ids=["two ids", "greater", "less"],
)
def test_a_mask_that_depends_on_which_ids_are_there_is_refused(select: Callable[[Builder, str], str]) -> None:
    with pytest.raises(CompileError, match="in a way that the token count does not express"):
        fuse(ids_model(select))


def test_a_row_that_depends_on_which_ids_are_there_is_no_position() -> None:
    b = Builder()
    ids = b.input("ids", (1, 8), "i64")
    kinds = b.op("cast", [b.op("greater", [ids, b.const(integer(30))])], {"to": "i64"})
    rows = [b.op("gather", [b.const(random(n, 4)), x], {"axis": 0}) for n, x in ((50, ids), (2, kinds))]
    with pytest.raises(CompileError, match="computes with integers at run time"):
        fuse(b.graph("g", [b.op("add", rows)]))


def test_an_output_that_turns_out_constant_is_refused() -> None:
    b = Builder()
    ids = b.input("ids", (1, 8), "i64")
    with pytest.raises(CompileError, match="does not depend on any input"):
        fuse(b.graph("g", [b.op("gather", [b.const(random(1, 4)), ids], {"axis": 0})]))


def test_a_mean_that_takes_the_padding_in_is_refused() -> None:
    """Attention is masked and the mean is not: what it gives depends on the padding, which n tokens do not have."""
    b = Builder()
    _, q, k, v = _projections(b)
    mask = b.input("mask", (1, N), "i64")
    pooled = b.op("reduce_mean", [usual(b, q, k, v, mask)], {"axes": (1,), "keepdims": False}, name="pool")
    with pytest.raises(CompileError, match=r"pool.*takes the padding in"):
        fuse(b.graph("padded", [b.op("matmul", [pooled, b.const(random(H * D, 4))])]))


# --- long means -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keepdims", [True, False])
def test_a_mean_of_more_than_the_kernel_adds_up_goes_over_one_axis_after_the_other(keepdims: bool) -> None:
    b = Builder()
    x = b.input("x", (1, 2, 300, 250), "f32")
    graph = b.graph("mean", [b.op("reduce_mean", [x], {"axes": (2, -1), "keepdims": keepdims})])
    fused = fuse(graph)
    steps = [n.attrs["axes"] for n in fused.graph.nodes if n.op == "reduce"]
    assert len(steps) == 2 and all(len(axes) == 1 for axes in steps)
    feeds = {"x": random(1, 2, 300, 250)}
    expected = core.run(graph, feeds)[graph.outputs[0]]
    found = interpret.run_fused(fused.graph, feeds)[fused.graph.outputs[0]]
    assert np.abs(found.reshape(expected.shape) - expected).max() < 1e-5


def test_a_maximum_may_be_of_any_size_and_a_mean_over_one_axis_may_not() -> None:
    b = Builder()
    x = b.input("x", (2, 70_000), "f32")
    assert (
        ops(fuse(b.graph("most", [b.op("reduce_max", [x], {"axes": (1,), "keepdims": False})])).graph)[-1] == "reduce"
    )
    b = Builder()
    x = b.input("x", (2, 70_000), "f32")
    with pytest.raises(CompileError, match="a mean of 70,000 elements; 65,535 at most"):
        fuse(b.graph("mean", [b.op("reduce_mean", [x], {"axes": (1,), "keepdims": False})]))
