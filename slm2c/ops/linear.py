"""linear: y = x W^T + b, the fully connected layer, with an optional ReLU that the output's range performs.

float inputs: x [rows, K], weight [N, K], bias [N]; attrs: activation "" or "relu".
integer inputs: x int8, weight int8 per output channel in [-127, 127], bias int32 (the zero point of what the weights
multiply folded in), multiplier int32 [N], params, and optionally table int8 [256]: then the layer works on
table[x + 128], a lut (GELU) that has become part of it. Output int8 or int16.

The quantization is that of Jacob et al., arXiv 1712.05877, with per-channel weights (Krishnamoorthi, arXiv 1806.08342).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from slm2c import fixedpoint
from slm2c.ir import Array, Graph, Node, Quant, Shape, Tensor
from slm2c.ops.base import Arg, Case, KernelCall, OpDef, Special, fields, pack_fields, rows

PARAMS = ("shift", "zero_point", "minimum", "maximum")

TILE = 16
"""Tokens that the packed kernel expands at a time: its scratch memory, and how often it reads the weights. 32 tokens in
tiles of 8 / 16 / 32 read them 4 / 2 / 1 times and take, for 128 features, 1.2 / 0.5 / 0 % more instructions and
2.3 / 1.6 / 0 % more estimated cycles; for 512 features 0.3 / 0.1 / 0 % and 1.5 / 1.3 / 0 %.
"""


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    x, weight, _ = inputs
    assert x is not None and weight is not None and x.shape[1] == weight.shape[1], node.name
    return x.shape[0], weight.shape[0]


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, weight, bias = inputs
    assert x is not None and weight is not None and bias is not None
    y = x @ weight.T + bias
    return np.maximum(y, 0) if node.attrs["activation"] == "relu" else y


def quantize_weight(weight: Array, floor: Array) -> tuple[Array, Array]:
    """(int8 weight in [-127, 127], scale per row) of a float matrix [N, K]; no scale is below `floor` [N]."""
    scale = np.maximum(np.abs(weight).max(axis=1, initial=0.0).astype(np.float64) / 127, floor)
    return np.clip(np.rint(weight / scale[:, None]), -127, 127).astype(np.int8), scale


def scale_floor(bias: Array, x: Quant, out: Quant) -> Array:
    """The smallest weight scales that keep the bias within 2**29 accumulator steps and a step above 2**-24 of the
    output's.

    Rows of zeros, or of weights that are nothing beside their bias, would otherwise leave 32 bits.
    """
    return np.maximum(np.abs(bias.astype(np.float64)) / 2**29, out.scale * 2**-24) / x.scale


def least_scale(node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]) -> float:
    """The output scale at which the largest accumulator, shifted as the multipliers ask, still has 28 bits.

    A finer scale has no meaning: one step of the accumulator would be many steps of the output.
    """
    x, weight = tensors[node.inputs[0]], consts[node.inputs[1]]
    assert x.quant
    sums = np.abs(weight.astype(np.float64)).reshape(len(weight), -1).sum(axis=1).max(initial=0.0)
    return float(x.quant.scale * sums * 128 / 2**28)


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    x, out = tensors[node.inputs[0]], tensors[node.outputs[0]]
    assert x.quant and out.quant
    weight, scale = quantize_weight(consts[node.inputs[1]], scale_floor(consts[node.inputs[2]], x.quant, out.quant))
    bias = np.rint(consts[node.inputs[2]].astype(np.float64) / (x.quant.scale * scale))
    bias -= x.quant.zero_point * weight.astype(np.int64).sum(axis=1)
    mult, shift = fixedpoint.multiplier(x.quant.scale * scale / out.quant.scale)
    # The largest |accumulator| must survive the shift; a bias beyond that saturates the output in any case.
    room = (2**31 - 1 >> shift) - 128 * np.abs(weight.astype(np.int64)).sum(axis=1)
    assert (room > 0).all(), f"{node.name}: no room for the accumulator at shift {shift}"
    low, high = fixedpoint.INT_RANGE[out.dtype]
    relu = node.attrs["activation"] == "relu"
    params = {
        "shift": shift,
        "zero_point": out.quant.zero_point,
        "maximum": high,
        "minimum": max(low, out.quant.zero_point) if relu else low,
    }
    name = node.outputs[0]
    return {
        f"{name}.weight": weight,
        f"{name}.bias": np.clip(bias, -room, room).astype(np.int32),
        f"{name}.multiplier": mult,
        f"{name}.params": pack_fields(params, PARAMS),
    }, {"dtype": out.dtype}


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    x, weight, bias, mult, params, *table = inputs
    assert x is not None and weight is not None and bias is not None and mult is not None and params is not None
    p = fields(params, PARAMS)
    if table:
        assert table[0] is not None
        x = table[0][x.astype(np.int32) + 128]
    acc = fixedpoint.matmul(x, weight.T) + bias
    y = fixedpoint.requantize(acc, mult, p["shift"], p["zero_point"], str(node.attrs["dtype"]))
    return np.clip(y, p["minimum"], p["maximum"])


def _table(node: Node) -> Arg:
    return node.inputs[5] if len(node.inputs) > 5 else Special.NULL


def _lower(node: Node, graph: Graph) -> KernelCall:
    x, weight, bias, mult, params = node.inputs[:5]
    out, (out_features, in_features) = node.outputs[0], graph.tensors[weight].shape
    symbol = "slm_linear_s8" if graph.tensors[out].dtype == "i8" else "slm_linear_s8_s16"
    args = (Special.NULL, params, mult, x, _table(node), weight, bias, out, rows(graph.tensors[x]))
    step = int(node.attrs.get("step", out_features))
    return KernelCall(symbol, (*args, in_features, out_features, step), node)


def pack(weight: Array) -> Array:
    """int8 weights [N, K] as the words [pairs, K / 2] of slm_linear_packed_s8, rows filled up to a multiple of 8
    features.
    """
    pairs, features = -(-weight.shape[0] // 2), -(-weight.shape[1] // 8) * 8
    padded = np.zeros((2 * pairs, features), dtype=np.int32)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    lanes = (256 * padded[1::2] + padded[::2]).reshape(pairs, -1, 2, 2).transpose(0, 1, 3, 2) & 0xFFFF
    words: Array = lanes[..., 0] | lanes[..., 1] << 16
    return words.astype(np.uint32).reshape(pairs, -1)


def _channels(bias: Array, mult: Array, pieces: bool) -> Array:
    """[pairs, 4]: of each pair of channels l, h both multipliers, the bias of 256 * h + l (of h for the kernel of
    pieces), and that of l.
    """
    columns = np.zeros((2, 2 * -(-len(bias) // 2)), dtype=np.int64)
    columns[:, : len(bias)] = mult, bias
    (l_mult, h_mult), (l_bias, h_bias) = columns.reshape(2, -1, 2).transpose(0, 2, 1)
    both = h_bias if pieces else 256 * h_bias + l_bias
    return np.stack([l_mult, h_mult, both, l_bias], axis=1).astype(np.int32)


def _sums_fit(weight: Array, bias: Array, shift: int) -> bool:
    """Whether no sum of an odd channel, bias included and shifted, can reach 2**23: what slm_linear_packed_s8 needs."""
    largest = 128 * np.abs(weight.astype(np.int64)).sum(axis=1) + np.abs(bias.astype(np.int64))
    return bool((largest[1::2] << shift < 2**23).all())


def _lower_dsp(node: Node, graph: Graph) -> Sequence[KernelCall]:
    x, weight, bias, mult, params = node.inputs[:5]
    out, w, b = node.outputs[0], graph.consts[weight], graph.consts[bias]
    words = pack(w)
    tile = min(graph.tensors[x].shape[0], int(node.attrs.get("tile", TILE)))
    pieces = not _sums_fit(w, b, fields(graph.consts[params], PARAMS)["shift"])
    symbol = "slm_linear_pieces_s8" if pieces else "slm_linear_packed_s8"
    consts = {f"{out}.channels": _channels(b, graph.consts[mult], pieces), f"{out}.packed": words}
    suffix = "" if graph.tensors[out].dtype == "i8" else "_s16"
    args = (Special.SCRATCH, params, f"{out}.channels", x, _table(node), f"{out}.packed", out, rows(graph.tensors[x]))
    dims = (w.shape[1], w.shape[0], int(node.attrs.get("step", w.shape[0])), tile)
    scratch = 4 * words.shape[1] * tile
    return [KernelCall(symbol + suffix, (*args, *dims), node, consts, scratch, overwrites=(x,))]


def _error(node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Array | None]) -> Array:
    """Half an LSB for the output, half for the bias, and half an LSB of each weight times its activation."""
    x, weight, bias = inputs
    x_quant, out_quant = tensors[node.inputs[0]].quant, tensors[node.outputs[0]].quant
    assert x is not None and weight is not None and bias is not None and x_quant and out_quant
    _, scale = quantize_weight(weight, scale_floor(bias, x_quant, out_quant))
    return np.asarray(0.51 + (np.abs(x).sum(axis=1, keepdims=True) + x_quant.scale) * scale / 2 / out_quant.scale)


def _macs(node: Node, tensors: Mapping[str, Tensor]) -> int:
    return tensors[node.inputs[0]].shape[0] * tensors[node.inputs[1]].size


def _cases(rng: np.random.Generator) -> list[Case]:
    found = []
    for n, k, m, activation in [
        (1, 1, 1, ""),
        (3, 17, 5, "relu"),
        (17, 33, 3, ""),
        (4, 128, 16, ""),
        (33, 3, 17, "relu"),
        (9, 104, 6, ""),
        (2, 64, 2, ""),
        (5, 1100, 3, ""),
    ]:
        node = Node("linear", f"linear_{n}_{k}_{m}", ("x", "w", "b"), ("y",), {"activation": activation})
        weight = rng.choice([-1.0, 1.0], size=(m, k)) if k > 1000 else rng.normal(size=(m, k))
        consts = {"w": weight.astype(np.float32), "b": rng.normal(size=m).astype(np.float32)}
        tensors = {
            "x": Tensor("x", (n, k), "f32"),
            "w": Tensor("w", (m, k), "f32"),
            "b": Tensor("b", (m,), "f32"),
            "y": Tensor("y", (n, m), "f32"),
        }
        found.append(Case(node, tensors, consts, {"x": rng.normal(size=(n, k)).astype(np.float32)}))
    return found


OP = OpDef(
    name="linear",
    kernel="slm_linear",
    onnx=("Gemm", "MatMul", "Add", "Relu"),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    lower_dsp=_lower_dsp,
    cases=_cases,
    rowwise=lambda node, graph: True,
    outputs=("i8", "i16"),
    least_scale=least_scale,
    macs=_macs,
    error=_error,
)
