"""Views: what lowering chooses, that it reads the right elements for every token count, and what has no meaning."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm2c.ir import Array, Graph, Node, Quant, Shape, Tensor
from slm2c.ops import view
from slm2c.ops.base import KernelCall, Special
from slm2c.ops.layout import MAX_AXES

QUANT = Quant(0.5, 3)


def positions(*shape: int) -> Array:
    return np.arange(math.prod(shape)).reshape(shape)


def lower(
    index: Array, shape: Shape, axis: int | None, token_axis: int | None, dtype: str = "i8", ends: bool = False
) -> tuple[KernelCall, Node]:
    """The call for a view of x [shape]; `ends`: x and y are the graph's input and output."""
    tensors = {
        "x": Tensor("x", shape, dtype, axis, QUANT),
        "y": Tensor("y", index.shape, dtype, token_axis, QUANT),
    }
    consts, attrs = view.OP.quantize(Node("view", "v", ("x",), ("y",), {"index": index, "fill": 0.0}), tensors, {})
    node = Node("view", "v", ("x", *consts), ("y",), attrs)
    graph = Graph("g", ("x",) if ends else (), ("y",) if ends else (), (node,), tensors, consts)
    return view.OP.lower(node, graph), node


def read(call: KernelCall, x: Array, count: int, tokens: int) -> Array:
    """What the call copies, by the meaning of its arguments in slm_view.h."""
    x = x.ravel()
    if not call.symbol:
        start = call.args[1]
        assert isinstance(start, int)
        return x[start : start + count]
    table = call.consts[str(call.args[1])]
    if call.symbol.startswith("slm_gather"):
        rows, step, _ = (tokens if a is Special.TOKENS else a for a in call.args[4:])
        assert isinstance(rows, int) and isinstance(step, int)
        return np.array([-1 if c < 0 else x[r * step + c] for r in range(rows) for c in table])
    start, per_token, *rest = table.tolist()
    at = np.array([start + per_token * tokens])
    for size, size_n, step, step_n in np.reshape(rest, (MAX_AXES, 4)):
        at = (at[:, None] + np.arange(size + size_n * tokens) * (step + step_n * tokens)).ravel()
    return x[at]


@st.composite
def moves(draw: st.DrawFn) -> tuple[Shape, int, Array, int]:
    """(shape, token axis, index, token axis of the output) of views that treat all rows alike."""
    shape = [draw(st.integers(1, 4)) for _ in range(draw(st.integers(1, 3)))]
    axis = draw(st.integers(0, len(shape)))
    shape.insert(axis, 5)
    index, at = positions(*shape), axis
    for _ in range(draw(st.integers(1, 4))):
        order = draw(st.permutations(range(index.ndim)))
        index, at = index.transpose(order), order.index(at)
        i = draw(st.integers(0, index.ndim - 1))
        if i + 1 < index.ndim and at not in (i, i + 1):
            index = index.reshape(*index.shape[:i], -1, *index.shape[i + 2 :])
            at -= at > i
    for i in range(index.ndim):  # at the end: a merged axis with gaps is no loop nest any more
        if i != at:
            step = draw(st.sampled_from([1, 1, -1]))
            index = np.take(index, np.arange(index.shape[i])[::step], axis=i)
    return tuple(shape), axis, index, at


@given(moves(), st.integers(1, 5))
def test_every_chain_of_moves_reads_the_right_elements(move: tuple[Shape, int, Array, int], tokens: int) -> None:
    shape, axis, index, token_axis = move
    call, node = lower(index, shape, axis, token_axis)
    x = positions(*(tokens if i == axis else d for i, d in enumerate(shape)))
    expected = view.OP.eval_int(node, [x])
    assert expected.shape == tuple(tokens if i == token_axis else d for i, d in enumerate(index.shape))
    full = positions(*shape)  # the same rows of the full tensor, by their values
    rows = np.take(full, np.arange(tokens), axis=axis).ravel()
    np.testing.assert_array_equal(rows[expected], np.take(index, np.arange(tokens), axis=token_axis))
    assert call.symbol in ("", "slm_copy_s8")
    np.testing.assert_array_equal(read(call, x, expected.size, tokens), expected.ravel())


@pytest.mark.parametrize("index, shape, axis, token_axis, dtype, symbol", [
    (positions(1, 17, 3, 4), (17, 12), 0, 1, "i8", ""),  # reshape
    (positions(1, 12), (17, 12), 0, None, "i8", ""),  # first row
    (positions(96)[32:64], (96,), None, None, "i8", ""),
    (positions(96)[40:64], (96,), None, None, "i16", ""),
    (positions(96)[40:64], (96,), None, None, "i8", "slm_copy_s8"),  # 40 bytes: not aligned
    (positions(3, 17, 4)[1], (3, 17, 4), 1, 0, "i8", "slm_copy_s8"),  # starts at 4 * n
    (positions(3, 17, 4)[0], (3, 17, 4), 1, 0, "i8", ""),
    (np.arange(3)[None, :] + np.arange(34)[:, None], (36,), None, None, "i8", "slm_copy_s8"),  # overlapping windows
    (positions(33, 17).T, (33, 17), None, None, "i16", "slm_copy_s16"),
    (positions(9)[[3, 1, 8, 0]], (9,), None, None, "i8", "slm_gather_s8"),
    (positions(40000)[[39999, 3, 17]], (40000,), None, None, "i16", "slm_gather_large_s16"),
    (np.pad(positions(17, 3), ((0, 0), (1, 2)), constant_values=-1), (17, 3), 0, 0, "i8", "slm_gather_s8"),
])  # fmt: skip
def test_lowering_takes_the_cheapest(
    index: Array, shape: Shape, axis: int | None, token_axis: int | None, dtype: str, symbol: str
) -> None:
    call, node = lower(index, shape, axis, token_axis, dtype)
    assert call.symbol == symbol
    for tokens in (1, 3, 17) if axis is not None else (1,):
        x = positions(*(tokens if i == axis else d for i, d in enumerate(shape)))
        fill = [np.array([-1])] if (index < 0).any() else []
        expected = view.OP.eval_int(node, [x, *fill]).ravel()
        np.testing.assert_array_equal(read(call, x, expected.size, tokens), expected)


def test_the_callers_buffers_are_never_aliased() -> None:
    assert lower(positions(1, 17, 3, 4), (17, 12), 0, 1, ends=True)[0].symbol == "slm_copy_s8"


@pytest.mark.parametrize("index, shape, token_axis, message", [
    (positions(17, 3)[::-1], (17, 3), 0, "moves rows"),
    (positions(17, 3)[[16]], (17, 3), None, "only the first row"),
    (np.where(positions(17, 1) % 2, positions(17, 3)[:, ::-1], positions(17, 3)), (17, 3), 0, "alike"),
])  # fmt: skip
def test_views_without_a_meaning_for_other_token_counts_are_refused(
    index: Array, shape: Shape, token_axis: int | None, message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        lower(index, shape, 0, token_axis)
