"""Layouts: factor finds every loop nest, a broadcast reads what numpy reads, for every token count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm2c.ir import Array, Tensor
from slm2c.ops.layout import MAX_AXES, Extent, Layout, broadcast, factor


def offsets(layout: Layout, tokens: int) -> Array:
    """Where the elements lie for n = tokens, in the order of the walk: what slm_walk visits."""
    start, per_token, *rest = layout.table().tolist()
    found = np.array([start + per_token * tokens])
    for size, size_n, step, step_n in np.reshape(rest, (MAX_AXES, 4)):
        found = (found[:, None] + np.arange(size + size_n * tokens) * (step + step_n * tokens)).ravel()
    return found


def nest(offset: int, axes: list[tuple[int, int]]) -> Array:
    found = np.array([offset])
    for size, step in axes:
        found = (found[:, None] + np.arange(size) * step).ravel()
    return found


@given(st.integers(0, 99), st.lists(st.tuples(st.integers(1, 5), st.integers(-9, 9)), max_size=5))
def test_factor_finds_any_nest_in_no_more_axes(offset: int, axes: list[tuple[int, int]]) -> None:
    index = nest(offset, axes)
    found = factor(index)
    assert found is not None
    start, sizes, strides = found
    np.testing.assert_array_equal(nest(start, list(zip(sizes, strides, strict=True))), index)
    assert len(sizes) <= sum(size > 1 for size, _ in axes)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_factor_of_any_sequence_is_none_or_right(values: list[int]) -> None:
    found = factor(np.array(values))
    if found is not None:
        assert nest(found[0], list(zip(*found[1:], strict=True))).tolist() == values


@pytest.mark.parametrize("values", [[0, 1, 3], [0, 1, 2, 4, 5], [3, 1, 32, 0, 0, 7], [0, 1, 0, 1, 0]])
def test_factor_refuses_what_is_no_nest(values: list[int]) -> None:
    assert factor(np.array(values)) is None


def test_factor_splits_axes_of_a_reshaped_transpose() -> None:
    heads = np.arange(3 * 17 * 4).reshape(3, 17, 4).transpose(1, 0, 2).reshape(17, 12)
    assert factor(heads) == (0, (17, 3, 4), (4, 68, 1))


def test_merged_keeps_neighbours_that_are_no_progression() -> None:
    overlapping = Layout(((Extent(34), Extent(1)), (Extent(3), Extent(1))))
    assert overlapping.merged() == overlapping


@pytest.mark.parametrize("tokens", [1, 3, 17])
@pytest.mark.parametrize("to, to_axis, shape, axis", [
    ((17, 33), 0, (17, 33), 0), ((17, 33), 0, (33,), None), ((17, 33), 0, (17, 1), 0), ((17, 33), 0, (), None),
    ((3, 17, 5), 1, (3, 17, 5), 1), ((3, 17, 5), 1, (3, 1, 5), None), ((3, 17, 5), 1, (17, 5), 0),
    ((3, 17, 5), 1, (3, 17, 1), 1), ((2, 3, 17), 2, (3, 1), None), ((2, 3, 17), 2, (2, 1, 17), 2),
    ((17, 5), 0, (17, 5), None), ((3, 17, 5), 1, (3, 17, 5), None),
])  # fmt: skip
def test_broadcast_reads_what_numpy_reads(
    to: tuple[int, ...], to_axis: int, shape: tuple[int, ...], axis: int | None, tokens: int
) -> None:
    """A tensor as long as the token axis that has none itself is a constant: its first rows are read."""
    actual = [tokens if i == axis else d for i, d in enumerate(shape)]
    index = np.broadcast_to(np.arange(np.prod(actual, dtype=int)).reshape(actual), np.broadcast_shapes(actual, [
        tokens if i == to_axis and axis is not None else d for i, d in enumerate(to)]))  # fmt: skip
    expected = np.take(index, np.arange(tokens), axis=to_axis)
    got = offsets(broadcast(Tensor("y", shape, "f32", axis), Tensor("x", to, "f32", to_axis)), tokens)
    np.testing.assert_array_equal(got, expected.ravel())


def test_broadcast_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(AssertionError, match="does not broadcast"):
        broadcast(Tensor("y", (3, 4), "f32"), Tensor("x", (17, 33), "f32"))
    with pytest.raises(AssertionError, match="other tokens"):
        broadcast(Tensor("y", (17, 17), "f32", 1), Tensor("x", (17, 17), "f32", 0))
