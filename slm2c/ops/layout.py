"""Where elements lie: loop nests with one strided side, whose sizes and steps may depend on the token count n.

Kernels that broadcast, move or reduce walk two tensors in the row-major order of one shape. The first is dense in that
order; the other is described by a `Layout`, which lies in the blob as the struct slm_layout of runtime_c/slm_layout.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slm2c.ir import Array, Shape, Tensor

MAX_AXES = 6


@dataclass(frozen=True)
class Extent:
    """A number of elements: fixed + per_token * n."""

    fixed: int
    per_token: int = 0

    def __mul__(self, other: Extent) -> Extent:
        assert not (self.per_token and other.per_token), "two token axes in one tensor"
        return Extent(self.fixed * other.fixed, self.fixed * other.per_token + self.per_token * other.fixed)


ZERO, ONE, TOKENS = Extent(0), Extent(1), Extent(0, 1)


@dataclass(frozen=True)
class Layout:
    """Element (i0, i1, ...) lies at start + sum(i_k * step_k); `axes` holds (size, step), outermost first."""

    axes: tuple[tuple[Extent, Extent], ...]
    start: Extent = ZERO

    def merged(self) -> Layout:
        """The same walk in as few axes as possible: an axis of one element goes, neighbours in one progression join."""
        axes: list[tuple[Extent, Extent]] = []
        for size, step in self.axes:
            if size == ONE:
                continue
            if axes and axes[-1][1] == step * size:
                size = axes.pop()[0] * size
            axes.append((size, step))
        return Layout(tuple(axes), self.start)

    def table(self, *, runs: bool = True) -> Array:
        """The int32 fields of struct slm_layout, with runs of one element if not `runs`.

        Raises AssertionError where a walk needs more than MAX_AXES axes.
        """
        axes = self.merged().axes
        if not (runs and axes):
            axes = (*axes, (ONE, ZERO))
        assert len(axes) <= MAX_AXES, f"{len(axes)} axes: insert a view before"
        flat = [self.start.fixed, self.start.per_token]
        for size, step in ((ONE, ZERO),) * (MAX_AXES - len(axes)) + axes:
            flat += [size.fixed, size.per_token, step.fixed, step.per_token]
        return np.array(flat, dtype=np.int32)


def sizes(tensor: Tensor) -> list[Extent]:
    """Run-time length of each axis."""
    return [TOKENS if i == tensor.token_axis else Extent(d) for i, d in enumerate(tensor.shape)]


def steps(lengths: Sequence[Extent]) -> list[Extent]:
    """Distance between neighbours along each axis of a dense tensor with these lengths."""
    found = [ONE]
    for length in reversed(lengths[1:]):
        found.insert(0, found[0] * length)
    return found[: len(lengths)]


def broadcast(tensor: Tensor, to: Tensor, *, inner: int = 0) -> Layout:
    """How `tensor` is read, as numpy broadcasts it, for each element of the dense tensor `to`.

    With `inner`, where the blocks of its last `inner` axes start for each such block of `to`; those axes may differ.
    A constant keeps its full length along the token axis of `to`; its first n rows are read.
    """
    missing, outer = len(to.shape) - len(tensor.shape), len(to.shape) - inner
    lengths = sizes(tensor)
    own = [ZERO] * missing + [ZERO if x == ONE else s for x, s in zip(lengths, steps(lengths), strict=True)]
    for i, length in enumerate(((1,) * missing + tensor.shape)[:outer]):
        assert length in (1, to.shape[i]), f"{tensor.name} {tensor.shape} does not broadcast to {to.shape}"
    axis = None if tensor.token_axis is None else tensor.token_axis + missing
    assert axis is None or axis >= outer or axis == to.token_axis, f"{tensor.name}: other tokens than {to.name}"
    return Layout(tuple(zip(sizes(to), own, strict=True))[:outer])


def factor(index: Array) -> tuple[int, Shape, Shape] | None:
    """(offset, sizes, strides) with index.ravel()[i0, i1, ...] = offset + sum(i_k * stride_k), or None.

    The sizes need not be those of `index.shape`: they are the fewest that describe the flat sequence. Complete: if any
    loop nest yields the sequence, one is found, since a run ends exactly where the innermost axis of the nest does.
    """
    rest = np.asarray(index, dtype=np.int64).ravel()
    assert rest.size > 0, "an index map has elements"
    offset, found = int(rest[0]), []
    while rest.size > 1:
        step = rest[1] - rest[0]
        breaks = np.flatnonzero(np.diff(rest) != step)
        run = int(breaks[0]) + 1 if breaks.size else rest.size
        if rest.size % run:
            return None
        blocks = rest.reshape(-1, run)
        if (np.diff(blocks, axis=1) != step).any():
            return None
        found.append((run, int(step)))
        rest = blocks[:, 0]
    found.reverse()
    return offset, tuple(size for size, _ in found), tuple(step for _, step in found)
