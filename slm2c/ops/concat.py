"""concat: two to four tensors one behind the other along an axis that does not count tokens.

float inputs: x0, x1, ... in any mix of activations and constants; attrs: axis. A constant that is longer than the
activations along the token axis is read for their tokens.
integer inputs: the activations, int8 or int16 each, then the constants in the output's type and Quant, then params;
attrs: axis, order (the place among the inputs of each part), dtype. Output int8 or int16.

    output = saturate(((x - zero_point(x)) * multiplier + 2**(31 - shift) >> 32 - shift) + zero_point)

for each part with its own multiplier; equal scales give the same integers back. Error: 0.5 LSB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from slm2c import fixedpoint
from slm2c.ir import Array, Graph, Node, Shape, Tensor
from slm2c.ops.base import Case, KernelCall, OpDef, Special, activations, fields, pack_fields
from slm2c.ops.layout import ONE, sizes

MAX_PARTS = 4
PARAMS = ("zero_point", "outer_fixed", "outer_per_token")
PART = ("multiplier", "shift", "zero_point", "wide", "copy", "length_fixed", "length_per_token")
"""Follows MAX_PARTS times in the struct."""


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    shapes = [t.shape for t in inputs if t is not None]
    axis = node.attrs["axis"] % len(shapes[0])
    assert all(s[:axis] + s[axis + 1 :] == shapes[0][:axis] + shapes[0][axis + 1 :] for s in shapes), node.name
    return (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])


def _join(parts: Sequence[Array], axis: int) -> Array:
    """The concatenation, constants cut to the tokens of the activations."""
    axis %= parts[0].ndim
    cut = tuple(slice(None) if i == axis else slice(min(p.shape[i] for p in parts)) for i in range(parts[0].ndim))
    return np.concatenate([p[cut] for p in parts], axis=axis)


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    return _join([x for x in inputs if x is not None], node.attrs["axis"])


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    out = tensors[node.outputs[0]]
    assert out.quant and 2 <= len(node.inputs) <= MAX_PARTS, f"{node.name}: {len(node.inputs)} inputs; nest it"
    axis = node.attrs["axis"] % len(out.shape)
    assert axis != out.token_axis, f"{node.name}: joins tokens"
    moving = activations(node, consts)
    found: dict[str, Array] = {}
    order: list[int] = []
    parts = []
    for i, name in enumerate(node.inputs):
        if name in consts:
            order.append(len(moving) + len(found))
            found[f"{out.name}.part{i}"] = fixedpoint.quantize(consts[name], out.quant, out.dtype)
            part = Tensor(name, tensors[name].shape, out.dtype, out.token_axis, out.quant)
            before = part.shape[: out.token_axis or 0]
            assert math.prod(before) == 1, f"{node.name}: the constant {name} has axes before its tokens"
        else:
            order.append(moving.index(name))
            part = tensors[name]
        parts.append(_part(part, out, axis))
    outer = math.prod(sizes(out)[:axis], start=ONE)
    head = {"zero_point": out.quant.zero_point, "outer_fixed": outer.fixed, "outer_per_token": outer.per_token}
    unused = [np.zeros(len(PART), dtype=np.int32)] * (MAX_PARTS - len(parts))
    found[f"{out.name}.params"] = np.concatenate([pack_fields(head, PARAMS), *parts, *unused])
    return found, {"axis": axis, "order": tuple(order), "dtype": out.dtype}


def _part(x: Tensor, out: Tensor, axis: int) -> Array:
    """The fields of one part."""
    assert x.quant and out.quant and x.token_axis == out.token_axis, f"{x.name}: other tokens than {out.name}"
    mult, shift = fixedpoint.multiplier(x.quant.scale / out.quant.scale)
    length = math.prod(sizes(x)[axis:], start=ONE)
    values = {
        "multiplier": int(mult),
        "shift": shift,
        "zero_point": x.quant.zero_point,
        "wide": int(x.dtype == "i16"),
        "copy": int((x.quant, x.dtype) == (out.quant, out.dtype)),
        "length_fixed": length.fixed,
        "length_per_token": length.per_token,
    }
    return pack_fields(values, PART)


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    *found, params = (x for x in inputs if x is not None)
    zero_point = fields(params[: len(PARAMS)], PARAMS)["zero_point"]
    parts = []
    for i, place in enumerate(node.attrs["order"]):
        p = fields(params[len(PARAMS) + i * len(PART) :][: len(PART)], PART)
        centred = found[place].astype(np.int64) - p["zero_point"]
        parts.append(fixedpoint.rescale(centred, p["multiplier"], p["shift"], zero_point, str(node.attrs["dtype"])))
    return _join(parts, node.attrs["axis"])


def _lower(node: Node, graph: Graph) -> KernelCall:
    *names, params = node.inputs
    out = graph.tensors[node.outputs[0]]
    suffix = {"i8": "s8", "i16": "s16"}[out.dtype]
    symbol = f"slm_concat{len(node.attrs['order'])}_{suffix}"
    tokens = 1 if out.token_axis is None else Special.TOKENS
    return KernelCall(symbol, (params, *(names[i] for i in node.attrs["order"]), out.name, tokens), node)


def _cases(rng: np.random.Generator) -> list[Case]:
    options: list[tuple[int, tuple[Shape, ...], int | None, str]] = [
        (0, ((1, 1), (1, 1)), None, ""),
        (0, ((1, 33), (17, 33)), None, "0"),
        (1, ((17, 3), (17, 33)), 0, ""),
        (-1, ((17, 3), (17, 1), (17, 5)), 0, "1"),
        (0, ((1, 17, 3), (3, 17, 3)), 1, "0"),
        (1, ((2, 3, 5), (2, 1, 5), (2, 4, 5), (2, 1, 5)), None, "02"),
        (0, ((33,), (3,)), None, ""),
    ]
    found = []
    for axis, shapes, token_axis, constant in options:
        name = f"concat_{'_'.join('x'.join(map(str, s)) for s in shapes)}" + ("_constant" if constant else "")
        node = Node("concat", name, tuple(f"x{i}" for i in range(len(shapes))), ("y",), {"axis": axis})
        values = {f"x{i}": (rng.normal(size=s) * (i + 1)).astype(np.float32) for i, s in enumerate(shapes)}
        consts = {f"x{i}": values.pop(f"x{i}") for i in map(int, constant)}
        tensors = {
            f"x{i}": Tensor(f"x{i}", s, "f32", None if f"x{i}" in consts else token_axis) for i, s in enumerate(shapes)
        }
        tensors["y"] = Tensor("y", _infer(node, [tensors[x] for x in node.inputs]), "f32", token_axis)
        found.append(Case(node, tensors, consts, values))
    return found


OP = OpDef(
    name="concat",
    kernel="slm_concat",
    onnx=("Concat",),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    cases=_cases,
    inputs=(("i8", "i16"),),
    outputs=("i8", "i16"),
)
