"""view: any movement of elements that is known in advance: reshape, transpose, slice, expand, split, pad.

float inputs: x; attrs: index, an int64 array of the output's shape with the flat position in x of each element (at the
maximum token count), -1 for the constant attr fill. A view of x whose token axis stands behind others can only be
evaluated for fewer tokens if it has the integer node's attrs, too.
integer inputs: x int8 or int16, and where something is filled params, the one int32 that fill becomes; attrs: index,
source (x's shape), source_axis and token_axis (the token axes of x and the output). The output has x's type and Quant.

With a token axis, the output has it too or reads the first row only, and each of its rows reads that row of x or the
first. Lowering takes the cheapest that does it:

* nothing: `KernelCall("", (x, offset, output), ...)` says that the output lies in x's buffer, offset elements from its
  start, a multiple of ALIAS bytes. Never for an input or output of the graph: those buffers are the caller's.
* slm_copy_*: a loop nest of at most layout.MAX_AXES axes;
* slm_gather_*: a table of positions in the blob.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slm2c import core, fixedpoint
from slm2c.ir import DTYPES, Array, Graph, Node, Shape, Tensor
from slm2c.ops.base import Case, KernelCall, OpDef, Special
from slm2c.ops.layout import MAX_AXES, ONE, TOKENS, ZERO, Extent, Layout, factor

ALIAS = 16
"""Bytes to which buffers are aligned: SLM_ALIGNMENT."""


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    return tuple(node.attrs["index"].shape)


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    x = inputs[0]
    assert x is not None
    index = _at_tokens(node, x.shape) if "source_axis" in node.attrs else _within(node.attrs["index"], x.size)
    return core.view(x, index, node.attrs["fill"])


def _within(index: Array, size: int) -> Array:
    """`index` without the rows, along whichever axis, that have no position in a source of `size` elements.

    That is the view for fewer tokens if these are the outermost axis of the source.
    """
    outside = index >= size
    if not outside.any():
        return index
    inside = (index >= 0) & ~outside
    others = [tuple(j for j in range(index.ndim) if j != i) for i in range(index.ndim)]
    found = index[np.ix_(*(inside.any(axis=axes) | ~outside.any(axis=axes) for axes in others))]
    assert (found < size).all(), "the tokens of a view's source are not its outermost axis"
    return found


def _at_tokens(node: Node, shape: Shape) -> Array:
    """The index map for a source of the actual `shape`."""
    index, source, axis = (node.attrs[k] for k in ("index", "source", "source_axis"))
    if axis is None or shape == source:
        return index
    if node.attrs["token_axis"] is not None:
        index = np.take(index, np.arange(shape[axis]), axis=node.attrs["token_axis"])
    outer, row, inner = _coordinates(index, source, axis)
    return np.where(index < 0, -1, (outer * shape[axis] + row) * math.prod(shape[axis + 1 :]) + inner)


def _coordinates(index: Array, shape: Shape, axis: int) -> tuple[Array, Array, Array]:
    """Flat positions in `shape` as (position before `axis`, along it, behind it)."""
    row, inner = np.divmod(index, math.prod(shape[axis + 1 :]))
    outer, row = np.divmod(row, shape[axis])
    return outer, row, inner


def _attrs(index: Array, x: Tensor, out: Tensor) -> dict[str, object]:
    return {"index": index, "source": x.shape, "source_axis": x.token_axis, "token_axis": out.token_axis}


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    x, out = tensors[node.inputs[0]], tensors[node.outputs[0]]
    assert out.quant and out.quant == x.quant and out.dtype == x.dtype, f"{node.name}: a view changes no values"
    found = {}
    if (node.attrs["index"] < 0).any():
        fill = fixedpoint.quantize(np.array([node.attrs["fill"]]), out.quant, out.dtype)
        found[f"{out.name}.params"] = fill.astype(np.int32)
    return found, _attrs(node.attrs["index"], x, out)


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, fill = inputs[0], inputs[1] if len(inputs) > 1 else None
    assert x is not None
    return core.view(x, _at_tokens(node, x.shape), 0 if fill is None else int(fill[0]))


@dataclass(frozen=True)
class _Rows:
    """What a view does in one row of tokens; a tensor without tokens is one row.

    position: [before, behind] the output's token axis: 4 * features * (blocks of rows of x before it) + position in the
        row, one number from which `_split` takes both apart again for steps of either sign. -1 is the fill.
    features: elements of a row of x behind its token axis
    count: rows of the output
    step: from the row of x that one row of the output reads to that of the next
    """

    position: Array
    features: int
    count: Extent
    step: Extent


def _rows(index: Array, x: Tensor, out: Tensor) -> _Rows:
    """The view as a rule for each row; AssertionError if it moves rows: that has no meaning for another token count."""
    shape, axis = (x.shape, x.token_axis) if x.token_axis is not None else ((1, x.size), 0)
    features = math.prod(shape[axis + 1 :])
    filled = index < 0
    outer, row, inner = _coordinates(index, shape, axis)
    position = np.where(filled, -1, outer * 4 * features + inner)
    if out.token_axis is None:
        assert (filled | (row == 0)).all(), f"{out.name}: only the first row of {x.name} is there for every n"
        return _Rows(position.reshape(1, -1), features, ONE, ZERO)
    assert x.token_axis is not None, f"{out.name}: tokens from {x.name}, which has none"
    by_row = (-1, out.shape[out.token_axis], math.prod(out.shape[out.token_axis + 1 :]))
    position, row, filled = (v.reshape(by_row) for v in (position, row, filled))
    first = bool((filled | (row == 0)).all())
    assert first or (filled | (row == np.arange(by_row[1])[:, None])).all(), f"{out.name}: moves rows of {x.name}"
    assert (position == position[:, :1]).all(), f"{out.name}: does not treat all rows of {x.name} alike"
    return _Rows(position[:, 0], features, TOKENS, ZERO if first and by_row[1] > 1 else Extent(features))


def _nest(rows: _Rows) -> Layout | None:
    """The view as a loop nest, or None if there is none of at most MAX_AXES axes."""
    before, behind = factor(rows.position[:, 0]), factor(rows.position[0])
    if before is None or behind is None or (rows.position < 0).any():
        return None
    if (rows.position != rows.position[:, :1] + rows.position[0] - rows.position[0, 0]).any():
        return None
    outside, inside = (
        tuple((Extent(size), _split(step, rows.features)) for size, step in zip(sizes, steps, strict=True))
        for _, sizes, steps in (before, behind)
    )
    layout = Layout((*outside, (rows.count, rows.step), *inside), _split(behind[0], rows.features)).merged()
    return layout if len(layout.axes) <= MAX_AXES else None


def _split(step: int, features: int) -> Extent:
    """The run-time distance of a step of _Rows.position: whole blocks of n rows, and elements of a row."""
    blocks, rest = divmod(step + 2 * features, 4 * features)
    return Extent(rest - 2 * features, blocks * features)


def _lower(node: Node, graph: Graph) -> KernelCall:
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    suffix = {"i8": "s8", "i16": "s16"}[x.dtype]
    rows = _rows(node.attrs["index"], x, out)
    tokens = Special.TOKENS if out.token_axis is not None else 1
    layout = _nest(rows)
    if layout is not None:
        offset, width = layout.start.fixed, np.dtype(DTYPES[x.dtype]).itemsize
        dense = not layout.start.per_token and [step for _, step in layout.axes] in ([], [ONE])
        if dense and offset * width % ALIAS == 0 and x.name not in graph.inputs and out.name not in graph.outputs:
            return KernelCall("", (x.name, offset, out.name), node)
        table = f"{out.name}.layout"
        return KernelCall(f"slm_copy_{suffix}", (x.name, table, out.name, tokens), node, {table: layout.table()})
    assert len(rows.position) == 1 and rows.position.max() < rows.features, f"{out.name}: axes before the tokens"
    large = rows.position.max() > 32767
    symbol = f"slm_gather_large_{suffix}" if large else f"slm_gather_{suffix}"
    fill = node.inputs[1] if len(node.inputs) > 1 else Special.NULL
    table = f"{out.name}.index"
    args = (x.name, table, fill, out.name, tokens, rows.step.fixed, rows.position.size)
    return KernelCall(symbol, args, node, {table: rows.position[0].astype(np.int32 if large else np.int16)})


def _cases(rng: np.random.Generator) -> list[Case]:
    def positions(*shape: int) -> Array:
        return np.arange(math.prod(shape)).reshape(shape)

    def padded(index: Array, *pads: tuple[int, int]) -> Array:
        return np.pad(index, pads, constant_values=-1)

    options: list[tuple[str, Shape, int | None, Array, int | None]] = [
        ("one", (1, 1), 0, positions(1, 1).T, 1),
        ("reshape", (17, 12), 0, positions(1, 17, 3, 4), 1),
        ("first_row", (17, 32), 0, positions(1, 32), None),
        ("transpose", (33, 17), 0, positions(33, 17).T, 1),
        ("heads", (17, 12), 0, positions(17, 3, 4).transpose(1, 0, 2), 1),
        ("unheads", (3, 17, 4), 1, positions(3, 17, 4).transpose(1, 0, 2).reshape(17, 12), 0),
        ("head_transpose", (17, 12), 0, positions(17, 3, 4).transpose(1, 2, 0), 2),
        ("slice", (17, 33), 0, positions(17, 33)[:, 5:22], 0),
        ("slice_head", (3, 17, 5), 1, positions(3, 17, 5)[1, :, 1:4], 0),
        ("reverse", (3, 17, 5), 1, positions(3, 17, 5)[::-1, :, ::-2], 1),
        ("expand", (17, 1), 0, np.repeat(positions(17, 1), 33, axis=1), 0),
        ("repeat_first", (17, 3), 0, np.repeat(positions(1, 3), 17, axis=0), 0),
        ("split", (96,), None, positions(96)[32:64], None),
        ("split_odd", (33,), None, positions(33)[3:20], None),
        ("windows", (36,), None, np.arange(3)[None, :] + np.arange(34)[:, None], None),
        ("gather", (17, 33), 0, positions(17, 33)[:, [3, 1, 32, 0, 0, 7]], 0),
        ("pad", (17, 3), 0, padded(positions(17, 3), (0, 0), (1, 2)), 0),
        ("pad_image", (3, 5, 3), None, padded(positions(3, 5, 3), (1, 1), (2, 0), (0, 0)), None),
        ("patches", (6, 6, 3), None, positions(2, 3, 2, 3, 3).transpose(0, 2, 1, 3, 4).reshape(4, 27), None),
        ("six_axes", (2, 3, 2, 3, 2, 3), None, positions(2, 3, 2, 3, 2, 3).transpose(5, 3, 1, 4, 2, 0), None),
        ("gather_large", (40000,), None, positions(40000)[[39999, 3, 17, 33000]], None),
    ]
    found = []
    for name, shape, axis, index, token_axis in options:
        x, y = Tensor("x", shape, "f32", axis), Tensor("y", index.shape, "f32", token_axis)
        # The passes leave these attrs out; then a float view can be evaluated for fewer tokens only as documented.
        attrs = _attrs(index, x, y) if axis == 1 or name == "repeat_first" else {"index": index}
        node = Node("view", f"view_{name}", ("x",), ("y",), {**attrs, "fill": 0.25 if name == "pad" else 0.0})
        found.append(Case(node, {"x": x, "y": y}, {}, {"x": rng.normal(size=shape).astype(np.float32)}))
    return found


OP = OpDef(
    name="view",
    kernel="slm_view",
    onnx=(
        "Reshape",
        "Transpose",
        "Slice",
        "Expand",
        "Split",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Gather",
        "Pad",
        "Tile",
    ),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    cases=_cases,
    inputs=(("i8", "i16"),),
    outputs=("i8", "i16"),
    same_quant=True,
)
