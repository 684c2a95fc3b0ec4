"""Operators that only move elements: each becomes a `view`, whatever its name. Also shapes, ranges and constants."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from slm2c.ir import Array
from slm2c.onnx_ops.base import IR_TYPES, Call, Refused, Result, fits, onnx_op


@onnx_op("Identity", "Dropout", codes="keep")
def identity(call: Call) -> Result:
    """Dropout at inference, whatever training_mode says: some leave it set. Its mask is all true since opset 12."""
    x = call.input(0)
    if call.opset < 12:
        call.only_first_output()
    if call.has(2) and call.builder.value(call.inputs[2]) is not None and call.scalar(2, "training_mode"):
        call.warn("was exported in training mode and is left out", "export after model.eval()")
    return (x, call.expand(call.const(True), call.shape(x))) if any(call.used[1:]) else x


@onnx_op("Constant")
def constant(call: Call) -> Result:
    """One of six attributes holds the value."""
    for name, proto in call.attrs.items():
        match name:
            case "value":
                if not proto.HasField("t"):
                    raise Refused("attribute value is not a tensor")
                return call.const(call.tensor(proto.t))
            case "value_float":
                return call.const(call.attr_float(name), np.float32)
            case "value_floats":
                return call.const(call.attr_floats(name), np.float32)
            case "value_int":
                return call.const(call.attr_int(name), np.int64)
            case "value_ints":
                return call.const(call.attr_ints(name), np.int64)
    raise Refused(f"holds {', '.join(call.attrs) or 'no value'}: only dense numbers are supported")


@onnx_op("ConstantOfShape")
def constant_of_shape(call: Call) -> Result:
    """A tensor of one value, float zero by default."""
    shape = call.integers(0, "shape")
    proto = call.attrs.get("value")
    value = np.zeros(1, np.float32) if proto is None else call.tensor(proto.t)
    if value.size != 1:
        raise Refused(f"attribute value has {value.size} elements instead of one")
    return call.expand(call.const(value.reshape(())), shape)


@onnx_op("Shape")
def shape(call: Call) -> Result:
    """Opset 15 added start and end."""
    dims = call.shape(call.input(0))
    end = call.attr_int("end", len(dims)) if "end" in call.attrs else len(dims)
    return call.const(dims[slice(*slice(call.attr_int("start"), end).indices(len(dims))[:2])], np.int64)


@onnx_op("Size")
def size(call: Call) -> Result:
    """The number of elements."""
    return call.const(math.prod(call.shape(call.input(0))), np.int64)


@onnx_op("Range")
def range_(call: Call) -> Result:
    """start, limit, delta; of the type of start."""
    start, limit, delta = (call.array(i, what) for i, what in enumerate(("start", "limit", "delta")))
    for value in (start, limit, delta):
        if value.size != 1 or not np.isfinite(value).all():
            raise Refused("start, limit and delta must be finite numbers")
    if delta.item() == 0:
        raise Refused("delta is 0")
    count = max(0, math.ceil((limit.item() - start.item()) / delta.item()))
    fits((count,))
    return call.const((start.reshape(()) + np.arange(count) * delta.reshape(())).astype(start.dtype))


@onnx_op("Reshape", codes="keep")
def reshape(call: Call) -> Result:
    """0 copies a dimension (unless allowzero), -1 takes what is left. Before opset 5 the shape is an attribute."""
    x = call.input(0)
    old = call.shape(x)
    new = call.ints_or_input("shape", 1)
    if new is None:
        raise Refused("has no shape")
    if not call.attr_int("allowzero"):
        if any(d == 0 for d in new[len(old) :]):
            raise Refused(f"shape {new} copies a dimension that {list(old)} does not have")
        new = [old[i] if d == 0 else d for i, d in enumerate(new)]
    if new.count(-1) == 1:
        rest = math.prod(d for d in new if d != -1)
        new[new.index(-1)] = math.prod(old) // rest if rest > 0 else 0
    return call.reshape(x, new)


@onnx_op("Flatten", codes="keep")
def flatten(call: Call) -> Result:
    """To two axes, the second starting at `axis`."""
    x = call.input(0)
    dims = call.shape(x)
    axis = call.attr_int("axis", 1)
    axis = axis if axis == len(dims) else call.axis(axis, max(len(dims), 1))
    return call.reshape(x, (math.prod(dims[:axis]), math.prod(dims[axis:])))


@onnx_op("Squeeze", codes="keep")
def squeeze(call: Call) -> Result:
    """The axes given, else all of length one."""
    x = call.input(0)
    dims = call.shape(x)
    given = call.ints_or_input("axes", 1)
    axes = [i for i, d in enumerate(dims) if d == 1] if given is None else call.axes(given, len(dims))
    if any(dims[a] != 1 for a in axes):
        raise Refused(f"axes {list(axes)} of {list(dims)} are not all of length 1")
    return call.reshape(x, [d for i, d in enumerate(dims) if i not in axes])


@onnx_op("Unsqueeze", codes="keep")
def unsqueeze(call: Call) -> Result:
    """Axes count in the result."""
    x = call.input(0)
    given = call.ints_or_input("axes", 1)
    if given is None:
        raise Refused("has no axes")
    rank = len(call.shape(x)) + len(given)
    axes = call.axes(given, rank)
    rest = iter(call.shape(x))
    return call.reshape(x, [1 if i in axes else next(rest) for i in range(rank)])


@onnx_op("Transpose", codes="keep")
def transpose(call: Call) -> Result:
    """Reverses the axes unless told otherwise."""
    x = call.input(0)
    perm = call.attr_ints("perm")
    return call.transpose(x, range(len(call.shape(x)))[::-1] if perm is None else perm)


@onnx_op("Expand", codes="keep")
def expand(call: Call) -> Result:
    """Broadcasts in both directions: a 1 in the shape keeps the input's dimension."""
    x = call.input(0)
    want = call.integers(1, "shape")
    fits(want)
    try:
        return call.expand(x, np.broadcast_shapes(call.shape(x), tuple(want)))
    except ValueError:
        raise Refused(f"cannot expand {list(call.shape(x))} to {want}") from None


@onnx_op("Tile", codes="keep")
def tile(call: Call) -> Result:
    """Repeats along every axis."""
    x = call.input(0)
    repeats = call.integers(1, "repeats")
    if len(repeats) != len(call.shape(x)) or any(r < 0 for r in repeats):
        raise Refused(f"repeats {repeats} do not suit shape {list(call.shape(x))}")
    fits([r * d for r, d in zip(repeats, call.shape(x), strict=True)])
    return call.view(x, np.tile(call.positions(x), repeats))


@onnx_op("Concat", codes="keep")
def concat(call: Call) -> Result:
    """Along one axis."""
    call.input(0)
    return call.concat([x for x in call.inputs if x], call.attr_int("axis"))


@onnx_op("Split", codes="keep")
def split(call: Call) -> Result:
    """Sizes as attribute (before 13), input (13), or a number of parts, the last of which may be smaller (18)."""
    x = call.input(0)
    axis = call.axis(call.attr_int("axis"), len(call.shape(x)))
    length, parts = call.shape(x)[axis], len(call.used)
    sizes: list[int] | None = None
    if call.has(1) and call.builder.value(call.inputs[1]) is None:
        # Sizes computed at run time, outputs of fixed shape: the shapes tell.
        stated = [d[axis] if d is not None and len(d) > axis else "" for d in call.declared]
        sizes = [size for size in stated if isinstance(size, int)]
    if not sizes:
        sizes = call.ints_or_input("split", 1)
    if sizes is None:
        if "num_outputs" not in call.attrs and length % parts:
            raise Refused(f"axis of {length} does not split into {parts} equal parts")
        chunk = -(-length // parts)
        sizes = [max(0, min(chunk, length - i * chunk)) for i in range(parts)]
    if sum(sizes) != length or len(sizes) != parts or min(sizes, default=0) < 0:
        raise Refused(f"sizes {sizes} do not split an axis of {length} into {parts}")
    at = [0, *itertools.accumulate(sizes)]
    positions = np.moveaxis(call.positions(x), axis, 0)
    return [call.view(x, np.moveaxis(positions[a:b], 0, axis)) for a, b in itertools.pairwise(at)]


@onnx_op("Slice", codes="keep")
def slice_(call: Call) -> Result:
    """Attributes before opset 10, constant inputs since. numpy's slices clamp like ONNX's, negative steps included."""
    x = call.input(0)
    rank = len(call.shape(x))
    starts, ends = call.ints_or_input("starts", 1), call.ints_or_input("ends", 2)
    if starts is None or ends is None or len(starts) != len(ends):
        raise Refused("starts and ends do not match")
    given = call.ints_or_input("axes", 3)
    axes = [call.axis(a, rank) for a in (range(len(starts)) if given is None else given)]
    steps = (call.integers(4, "steps") if call.has(4) else None) or [1] * len(starts)
    if not len(axes) == len(set(axes)) == len(steps) == len(starts) or 0 in steps:
        raise Refused(f"starts {starts}, axes {axes} and steps {steps} do not match")
    window = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        length = call.shape(x)[axis]
        # An end before the first element, which numpy would count from the back again.
        before_first = step < 0 and end + length < 0
        window[axis] = slice(
            start if start + length >= 0 else 0 if step > 0 else -length - 1, None if before_first else end, step
        )
    return call.view(x, call.positions(x)[tuple(window)])


def _in_range(call: Call, indices: Array, length: int, what: str = "index") -> Array:
    """Constant indices counted from the front."""
    if indices.dtype.kind not in "iu":
        raise Refused("indices must be integers")
    if indices.size and not (-length <= indices.min() and indices.max() < length):
        raise Refused(f"{what} {indices.min()}..{indices.max()} is out of range for a length of {length}")
    return np.where(indices < 0, indices + length, indices)


@onnx_op("Gather", codes="keep")
def gather(call: Call) -> Result:
    """With constant indices a view, else the operator `gather`: an embedding."""
    data, indices = call.input(0), call.input(1)
    axis = call.axis(call.attr_int("axis"), len(call.shape(data)))
    value = call.builder.value(indices)
    if value is None:
        if call.dtype(indices) not in ("i32", "i64"):
            raise Refused(f"indices are {call.dtype(indices)} instead of integers")
        return call.gather(data, indices, axis)
    shape = call.shape(data)
    fits((*shape[:axis], *value.shape, *shape[axis + 1 :]))
    return call.view(data, np.take(call.positions(data), _in_range(call, value, shape[axis]), axis=axis))


@onnx_op("GatherElements", codes="keep")
def gather_elements(call: Call) -> Result:
    """Constant indices make a view; run-time indices into a constant vector are a Gather."""
    data = call.input(0)
    shape = call.shape(data)
    axis = call.axis(call.attr_int("axis"), len(shape))
    value = call.builder.value
    if value(call.input(1)) is None and value(data) is not None and math.prod(shape) == shape[axis]:
        return call.core("gather", [call.reshape(data, (shape[axis],)), call.input(1)], {"axis": 0})
    indices = _in_range(call, call.array(1, "indices"), shape[axis])
    inside = all(n <= d or i == axis for i, (n, d) in enumerate(zip(indices.shape, shape, strict=False)))
    if indices.ndim != len(shape) or not inside:
        raise Refused(f"indices of shape {list(indices.shape)} do not suit data of shape {list(shape)}")
    window = tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(indices.shape))
    return call.view(data, np.take_along_axis(call.positions(data)[window], indices, axis=axis))


def _tuples(call: Call, indices: Array, shape: Sequence[int]) -> tuple[Array, ...]:
    """The last axis of constant `indices` as one index array per leading axis of `shape`."""
    if not 1 <= (indices.shape[-1] if indices.ndim else 0) <= len(shape):
        raise Refused(f"indices of shape {list(indices.shape)} do not suit data of shape {list(shape)}")
    return tuple(_in_range(call, indices[..., i], shape[i]) for i in range(indices.shape[-1]))


@onnx_op("GatherND", codes="keep")
def gather_nd(call: Call) -> Result:
    """Constant indices make a view; run-time indices of one component are a Gather on the first axis."""
    data, indices = call.input(0), call.input(1)
    shape, batch = call.shape(data), call.attr_int("batch_dims")
    value = call.builder.value(indices)
    if value is None and batch == 0 and call.shape(indices)[-1:] == (1,):
        return call.gather(data, call.reshape(indices, call.shape(indices)[:-1]), 0)
    value = call.array(1, "indices")
    if not 0 <= batch < min(value.ndim, len(shape)) or value.shape[:batch] != shape[:batch]:
        raise Refused(f"batch_dims {batch} does not suit shapes {list(shape)} and {list(value.shape)}")
    lead = math.prod(shape[:batch])
    positions = call.positions(data).reshape(lead, *shape[batch:])
    picks = value.reshape(lead, *value.shape[batch:])
    rows = [positions[i][_tuples(call, picks[i], shape[batch:])] for i in range(lead)]
    tail = (*value.shape[batch:-1], *shape[batch + value.shape[-1] :])
    return call.view(data, np.array(rows, dtype=np.int64).reshape(*shape[:batch], *tail))


def _scatter(call: Call, data: str, updates: str, where: Array) -> str:
    """`data` with the elements at flat positions `where` taken from `updates`: a view of both, one behind the other."""
    if call.attr_str("reduction", "none") != "none":
        raise Refused(f"reduction {call.attr_str('reduction')} is unsupported")
    if where.size != math.prod(call.shape(updates)):
        raise Refused(f"updates of shape {list(call.shape(updates))} do not suit the indices")
    index = call.positions(data).copy()
    index.ravel()[where.ravel()] = index.size + np.arange(where.size)
    flat = [call.reshape(x, (math.prod(call.shape(x)),)) for x in (data, updates)]
    return call.view(call.concat(flat, 0), index)


@onnx_op("ScatterND")
def scatter_nd(call: Call) -> Result:
    """Constant indices only."""
    data = call.input(0)
    picks = _tuples(call, call.array(1, "indices"), call.shape(data))
    return _scatter(call, data, call.input(2), call.positions(data)[picks])


@onnx_op("ScatterElements", "Scatter")
def scatter_elements(call: Call) -> Result:
    """Constant indices only."""
    data = call.input(0)
    shape = call.shape(data)
    axis = call.axis(call.attr_int("axis"), len(shape))
    indices = _in_range(call, call.array(1, "indices"), shape[axis])
    if indices.ndim != len(shape) or any(n > d for n, d in zip(indices.shape, shape, strict=True)):
        raise Refused(f"indices of shape {list(indices.shape)} do not suit data of shape {list(shape)}")
    window = tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(indices.shape))
    return _scatter(call, data, call.input(2), np.take_along_axis(call.positions(data)[window], indices, axis=axis))


@onnx_op("Pad", codes="keep")
def pad(call: Call) -> Result:
    """Every mode is a view; negative pads crop. Attributes before opset 11."""
    x = call.input(0)
    shape = call.shape(x)
    rank = len(shape)
    pads = call.ints_or_input("pads", 1)
    given = call.integers(3, "axes") if call.has(3) else list(range(rank))
    if pads is None or len(pads) != 2 * len(given):
        raise Refused(f"pads {pads} do not suit {len(given)} axes")
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(given):
        before[call.axis(axis, rank)], after[call.axis(axis, rank)] = pads[i], pads[i + len(given)]
    mode = call.attr_str("mode", "constant")
    fill = call.scalar(2, "constant_value") if call.has(2) else call.attr_float("value")
    fits([max(b, 0) + d + max(a, 0) for b, d, a in zip(before, shape, after, strict=True)])
    crop = tuple(slice(max(-b, 0), max(d - max(-a, 0), 0)) for b, d, a in zip(before, shape, after, strict=True))
    positions = call.positions(x)[crop]
    widths = [(max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True)]
    if mode == "constant":
        return call.view(x, np.pad(positions, widths, constant_values=-1), fill)
    if mode not in ("edge", "reflect", "wrap") or 0 in positions.shape:
        raise Refused(f"mode {mode} of shape {list(positions.shape)}")
    return call.view(x, np.pad(positions, widths, mode=mode))  # type: ignore[call-overload]


@onnx_op("DepthToSpace", "SpaceToDepth", codes="keep")
def depth_space(call: Call) -> Result:
    """[batch, C, H, W] with blocks moved between C and H, W."""
    x = call.input(0)
    block = call.attr_int("blocksize")
    if len(call.shape(x)) != 4 or block < 1:
        raise Refused(f"blocksize {block} on shape {list(call.shape(x))}")
    n, c, h, w = call.shape(x)
    if call.op_type == "SpaceToDepth":
        if h % block or w % block:
            raise Refused(f"blocksize {block} does not divide {h}x{w}")
        order = (0, 3, 5, 1, 2, 4) if call.attr_str("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
        index = call.positions(x).reshape(n, c, h // block, block, w // block, block).transpose(order)
        return call.view(x, index.reshape(n, c * block**2, h // block, w // block))
    if c % block**2:
        raise Refused(f"blocksize {block} does not suit {c} channels")
    if call.attr_str("mode", "DCR") == "DCR":
        index = call.positions(x).reshape(n, block, block, c // block**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        index = call.positions(x).reshape(n, c // block**2, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
    return call.view(x, index.reshape(n, c // block**2, h * block, w * block))


@onnx_op("Trilu")
def trilu(call: Call) -> Result:
    """Upper or lower triangle of the last two axes, zero elsewhere."""
    x = call.input(0)
    if len(call.shape(x)) < 2:
        raise Refused("needs at least two axes")
    k = int(np.clip(call.scalar(1, "k") if call.has(1) else 0, -(1 << 31), 1 << 31))
    rows, columns = np.indices(call.shape(x)[-2:], sparse=True)
    keep = columns - rows >= k if call.attr_int("upper", 1) else columns - rows <= k
    return call.view(x, np.where(keep, call.positions(x), -1))


@onnx_op("CenterCropPad")
def center_crop_pad(call: Call) -> Result:
    """To a constant shape around the centre; an odd difference goes to the end."""
    x, want = call.input(0), call.integers(1, "shape")
    rank = len(call.shape(x))
    axes = [call.axis(a, rank) for a in call.attr_ints("axes") or range(rank)]
    if len(axes) != len(want) or min(want, default=1) < 0:
        raise Refused(f"shape {want} does not suit axes {axes}")
    sizes = dict(zip(axes, want, strict=True))
    fits([sizes.get(i, d) for i, d in enumerate(call.shape(x))])
    index = call.positions(x)
    for axis, size in sizes.items():
        more = size - index.shape[axis]
        if more >= 0:
            widths = [(more // 2, more - more // 2) if i == axis else (0, 0) for i in range(rank)]
            index = np.pad(index, widths, constant_values=-1)
        else:
            index = index.take(np.arange(-more // 2, -more // 2 + size), axis=axis)
    return call.view(x, index)


@onnx_op("NonZero")
def non_zero(call: Call) -> Result:
    """Of a constant alone: otherwise its result has no fixed shape."""
    value = call.array(0, "the operand")
    return call.const(np.stack(np.nonzero(value)) if value.ndim else np.zeros((0, int(value != 0)), np.int64))


@onnx_op("Compress")
def compress(call: Call) -> Result:
    """With a constant condition a view."""
    x = call.input(0)
    condition = call.array(1, "the condition")
    axis = call.axis(call.attr_int("axis"), len(call.shape(x))) if "axis" in call.attrs else None
    length = math.prod(call.shape(x)) if axis is None else call.shape(x)[axis]
    if condition.dtype != np.bool_ or condition.ndim != 1 or condition.size > length:
        raise Refused(f"a condition of shape {list(condition.shape)} does not suit {list(call.shape(x))}")
    return call.view(x, np.compress(condition, call.positions(x), axis=axis))


@onnx_op("EyeLike")
def eye_like(call: Call) -> Result:
    """Ones on a diagonal of a matrix of the input's shape."""
    x = call.input(0)
    if len(call.shape(x)) != 2:
        raise Refused("needs a matrix")
    dtype = IR_TYPES.get(call.attr_int("dtype"), call.dtype(x))
    offset = int(np.clip(call.attr_int("k"), -(1 << 31), 1 << 31))
    rows, columns = call.shape(x)
    return call.cast(call.const(np.eye(rows, columns, offset, np.int64)), dtype)


@onnx_op("OneHot")
def one_hot(call: Call) -> Result:
    """The depth must be constant; indices may be computed: they are compared with 0..depth-1."""
    indices, values = call.input(0), call.input(2)
    depth = int(call.scalar(1, "depth"))
    rank = len(call.shape(indices)) + 1
    axis = call.axis(call.attr_int("axis", -1), rank)
    if depth < 1 or call.shape(values) != (2,):
        raise Refused(f"depth {depth} with values of shape {list(call.shape(values))}")
    fits((*call.shape(indices), depth))
    at = call.reshape(indices, np.insert(call.shape(indices), axis, 1).tolist())
    slots = np.arange(depth).reshape([depth if i == axis else 1 for i in range(rank)])
    wrapped = call.op(
        "where", call.op("less", at, call.scalar_like(at, 0)), call.op("add", at, call.scalar_like(at, depth)), at
    )
    off, on = (call.view(values, np.array(i)) for i in (0, 1))
    return call.op("where", call.op("equal", wrapped, call.cast(call.const(slots), call.dtype(at))), on, off)


@onnx_op("ReverseSequence")
def reverse_sequence(call: Call) -> Result:
    """Constant lengths only."""
    x = call.input(0)
    rank = len(call.shape(x))
    batch, time = call.axis(call.attr_int("batch_axis", 1), rank), call.axis(call.attr_int("time_axis"), rank)
    lengths = call.integers(1, "sequence_lens")
    if batch == time or len(lengths) != call.shape(x)[batch] or not all(0 <= n <= call.shape(x)[time] for n in lengths):
        raise Refused(f"sequence_lens {lengths} do not suit shape {list(call.shape(x))}")
    index = np.moveaxis(call.positions(x), (batch, time), (0, 1)).copy()
    for row, n in zip(index, lengths, strict=True):
        row[:n] = row[:n][::-1].copy()
    return call.view(x, np.moveaxis(index, (0, 1), (batch, time)))
