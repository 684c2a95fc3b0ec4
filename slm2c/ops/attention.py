"""attention: softmax(scale * Q K^T + bias) V for each head (Vaswani et al., arXiv 1706.03762), one row of it at a time.

float inputs: q [rows, heads * d], k [keys, kv_heads * d], v [keys, kv_heads * dv], bias [heads or 1, N, M], a constant,
or ""; attrs: heads, kv_heads (a divisor of heads: head h reads head h * kv_heads // heads of k and v), scale, causal.
Query i is token keys - rows + i if causal, else token i; a causal one sees the keys up to itself. The token is the row
of the bias.
integer inputs: q int8 with zero point 0, k int8, v int8, bias int16 or "", params. Output int8.

For each head and query, all arithmetic exact:

    s_j   = scale(q . k_j, multiplier) + bias_j              in 1/256 of a factor of 2
    e_j   = 32767 * 2**(-(max s - s_j) / 256), rounded: by a table of 256 entries and a shift
    E     = sum e_j; while E >= 2**23, all e_j are halved, rounding down
    acc_d = sum e_j * (v_jd - zero_point(v))                 |acc| <= 255 * E < 2**31
    output_d = saturate(scale(acc_d << z, inverse, offset) >> 8), with inverse = scale(v) / scale(output) / E

Unnormalized weights of 15 bits cost no more than 8-bit probabilities and stay exact however many keys there are. The
zero point of k shifts all s_j alike and vanishes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from slm2c import core, fixedpoint
from slm2c.ir import Array, Graph, Node, Shape, Tensor
from slm2c.ops.base import Case, KernelCall, OpDef, Special, fields, pack_fields, rows

PARAMS = ("multiplier", "shift", "v_zero_point", "scale", "scale_shift", "offset")

STEPS = 256
"""Steps of s for a factor of 2."""

PER_NAT = STEPS / math.log(2)

EXP2 = np.rint(32767 * 2.0 ** (-np.arange(STEPS) / STEPS)).astype(np.int64)
"""The weights that lie within a factor of 2 of the largest one."""

MAX_SUM = 2**23

CACHE = 2048
"""SLM_ATTENTION_CACHE: words for expanded keys and values of a head; what does not fit is expanded more often."""


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    q, k, v, bias = inputs
    assert q is not None and k is not None and v is not None
    heads, kv_heads = int(node.attrs["heads"]), int(node.attrs["kv_heads"])
    assert heads % kv_heads == 0 and q.shape[1] % heads == 0 and v.shape[1] % kv_heads == 0, node.name
    assert k.shape == (v.shape[0], q.shape[1] // heads * kv_heads), f"{node.name}: {q.shape}, {k.shape}, {v.shape}"
    assert not node.attrs["causal"] or k.shape[0] >= q.shape[0], f"{node.name}: more queries than keys"
    assert bias is None or (bias.shape[0] in (1, heads) and bias.shape[2] >= k.shape[0]), f"{node.name}: {bias}"
    return q.shape[0], heads * (v.shape[1] // kv_heads)


def _split(x: Array, heads: int) -> Array:
    """[heads, tokens, size] of [tokens, heads * size]."""
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def _per_head(node: Node, inputs: Sequence[Array | None]) -> tuple[Array, Array, Array]:
    """q, k and v [heads, tokens, size], k and v repeated for the heads that share them."""
    q, k, v = inputs[:3]
    assert q is not None and k is not None and v is not None
    heads, kv_heads = int(node.attrs["heads"]), int(node.attrs["kv_heads"])
    k, v = (np.repeat(_split(x, kv_heads), heads // kv_heads, axis=0) for x in (k, v))
    return _split(q, heads), k, v


def _positions(node: Node, queries: int, keys: int) -> Array:
    return np.arange(queries) + (keys - queries if node.attrs["causal"] else 0)


def _visible(node: Node, queries: int, keys: int) -> Array:
    """[queries, keys]: which keys a query sees."""
    if not node.attrs["causal"]:
        return np.ones((queries, keys), dtype=bool)
    return np.arange(keys) <= _positions(node, queries, keys)[:, None]


def _scores(node: Node, q: Array, k: Array, bias: Array | None) -> Array:
    """The real-valued scores, -inf where a query does not see a key."""
    scores = np.float32(node.attrs["scale"]) * (q @ k.transpose(0, 2, 1))
    if bias is not None:
        scores = scores + bias[:, _positions(node, q.shape[1], k.shape[1]), : k.shape[1]]
    return np.where(_visible(node, q.shape[1], k.shape[1]), scores, -np.inf)


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    q, k, v = _per_head(node, inputs)
    out = core.softmax(_scores(node, q, k, inputs[3]), -1) @ v
    return np.asarray(out.transpose(1, 0, 2).reshape(q.shape[1], -1), dtype=np.float32)


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    q, k, v = (tensors[x] for x in node.inputs[:3])
    out = tensors[node.outputs[0]]
    assert q.quant and k.quant and v.quant and out.quant and q.quant.zero_point == 0, f"{node.name}: q is symmetric"
    size = q.shape[1] // int(node.attrs["heads"])
    # Limits that only a degenerate calibration reaches; beyond them the softmax is a maximum, the output saturates.
    ratio = min(float(node.attrs["scale"]) * q.quant.scale * k.quant.scale * PER_NAT, 2**14 / size)
    fraction, exponent = math.frexp(min(v.quant.scale / out.quant.scale, 4095.0))
    multiplier, shift = fixedpoint.multiplier(ratio)
    params = {
        "multiplier": int(multiplier),
        "shift": shift,
        "v_zero_point": v.quant.zero_point,
        "scale": min(round(math.ldexp(fraction, 31)), 2**31 - 1),
        "scale_shift": min(44 - exponent, 63),
        "offset": (out.quant.zero_point << 8) + 128,
    }
    found = {f"{out.name}.params": pack_fields(params, PARAMS)}
    if node.inputs[3]:
        bias = np.rint(consts[node.inputs[3]].astype(np.float64) * PER_NAT)
        found = {f"{out.name}.bias": np.clip(bias, -32768, 32767).astype(np.int16), **found}
    return found, {name: node.attrs[name] for name in ("heads", "kv_heads", "causal")}


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    bias, params = inputs[3:]
    assert params is not None
    p = fields(params, PARAMS)
    q, k, v = _per_head(node, inputs)
    queries, keys = q.shape[1], k.shape[1]
    acc = fixedpoint.matmul(q, k.transpose(0, 2, 1)) << p["shift"]
    assert np.abs(acc).max() < 2**31, "a score leaves 32 bits"
    s = acc * p["multiplier"] + 2**31 >> 32
    if bias is not None:
        s = s + bias[:, _positions(node, queries, keys), :keys]
    e = _weights(s, _visible(node, queries, keys))
    total = e.sum(axis=2, keepdims=True)
    acc = fixedpoint.matmul(e, v) - p["v_zero_point"] * total
    assert np.abs(acc).max() < 2**31, "a weighted sum leaves 32 bits"
    zeros = fixedpoint.leading_zeros(total, 32)
    inverse = fixedpoint.reciprocal(total << zeros).astype(np.int64) * p["scale"] >> p["scale_shift"]
    y = ((acc << zeros - 9) * inverse + 2**31 >> 32) + p["offset"] >> 8
    return fixedpoint.saturate(y.transpose(1, 0, 2).reshape(queries, -1), "i8")


def _weights(s: Array, visible: Array) -> Array:
    """The e [heads, queries, keys], with a sum below MAX_SUM in each row; 0 where not visible."""
    t = np.where(visible, s, np.iinfo(np.int64).min).max(axis=2, keepdims=True) - s
    halvings = np.clip(t // STEPS, 0, 16)
    e = np.where(visible, EXP2[t % STEPS] + (1 << halvings >> 1) >> halvings, 0)
    total = e.sum(axis=2, keepdims=True)
    while (total >= MAX_SUM).any():
        e = np.where(total >= MAX_SUM, e >> 1, e)
        total = e.sum(axis=2, keepdims=True)
    return e


def _lower(node: Node, graph: Graph) -> KernelCall:
    q, k, v, bias, params = node.inputs
    heads, kv_heads = int(node.attrs["heads"]), int(node.attrs["kv_heads"])
    size, v_size = graph.tensors[q].shape[1] // heads, graph.tensors[v].shape[1] // kv_heads
    keys = graph.tensors[k]
    steps = (node.attrs.get("step", heads * size), node.attrs.get("step", heads * v_size))
    dims = (rows(graph.tensors[q]), rows(keys), heads, kv_heads, size, v_size, *steps, int(node.attrs["causal"]))
    out, scratch = node.outputs[0], 4 * keys.shape[0]
    if not bias:
        args = (Special.SCRATCH, params, q, k, v, out, *dims)
        return KernelCall("slm_attention_s8", args, node, scratch=scratch)
    bias_heads, bias_rows, bias_columns = graph.tensors[bias].shape
    step = bias_rows * bias_columns if bias_heads > 1 else 0
    with_bias = (Special.SCRATCH, params, q, k, v, bias, out, *dims, step, bias_columns)
    return KernelCall("slm_attention_bias_s8", with_bias, node, scratch=scratch)


def _lower_dsp(node: Node, graph: Graph) -> Sequence[KernelCall]:
    _, k, v, bias, _ = node.inputs
    call = _lower(node, graph)
    heads, kv_heads = int(node.attrs["heads"]), int(node.attrs["kv_heads"])
    size, v_size = graph.tensors[node.inputs[0]].shape[1] // heads, graph.tensors[v].shape[1] // kv_heads
    if size % 4 or v_size % 4:
        return ()
    args = call.args if bias else (*call.args[:5], Special.NULL, *call.args[5:], 0, 0)
    return [
        KernelCall("slm_attention_dsp_s8", args, node, scratch=dsp_scratch(graph.tensors[k].shape[0], size, v_size))
    ]


def dsp_scratch(keys: int, size: int, v_size: int) -> int:
    """Bytes that slm_attention_dsp_s8 needs for up to so many keys: queries, scores of 4 queries, keys and values."""
    columns, pairs = -(-keys // 4) * 4, -(-keys // 2)
    cache = max(min(columns * size // 2 + pairs * v_size, CACHE), 2 * size, 4 * pairs)
    return 4 * (2 * size + 4 * columns + cache)


def _macs(node: Node, tensors: Mapping[str, Tensor]) -> int:
    q, _, v = (tensors[x] for x in node.inputs[:3])
    return v.shape[0] * (q.size + q.shape[0] * v.shape[1] * int(node.attrs["heads"]) // int(node.attrs["kv_heads"]))


def _error(node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Array | None]) -> Array:
    """Rounding of the output; of s and of the table, by up to 0.3 % of a weight; of weights, by half of 1 in 32767.

    They act on the distance of v from its weighted mean.
    """
    out = tensors[node.outputs[0]]
    assert out.quant
    q, k, v = _per_head(node, inputs)
    scores = _scores(node, q, k, inputs[3]).astype(np.float64)
    p = core.softmax(scores, -1)
    mean = p @ v
    e = p / p.max(axis=2, keepdims=True)
    total = e.sum(axis=2, keepdims=True)
    halvings = np.ceil(np.maximum(np.log2(total * 32768 / MAX_SUM), 0))
    absolute = (0.52 + np.where(halvings > 0, 2**halvings, 0)) / 32767
    error = (e * (np.exp(1.01 / PER_NAT) - 1) + np.where(p > 0, absolute, 0)) / total
    distance = np.abs(v[:, None, :, :] - mean[:, :, None, :])
    bound = np.einsum("hij,hijd->hid", error, distance).transpose(1, 0, 2).reshape(q.shape[1], -1)
    return np.asarray(0.51 + bound / out.quant.scale)


def _cases(rng: np.random.Generator) -> list[Case]:
    found = []
    for n, keys, heads, kv_heads, size, v_size, spread, bias_heads, causal in [
        (1, 1, 1, 1, 1, 1, 1.0, 0, False),
        (3, 3, 1, 1, 17, 5, 1.0, 0, False),
        (17, 17, 3, 3, 3, 3, 3.0, 3, False),
        (33, 33, 4, 2, 8, 8, 2.0, 1, True),
        (16, 16, 4, 4, 32, 32, 1.0, 0, False),
        (3, 17, 2, 1, 9, 7, 1.0, 2, True),
        (5, 2, 2, 2, 3, 3, 1.0, 0, False),
        (1, 1000, 1, 1, 2, 3, 0.01, 0, False),
    ]:
        name = f"attention_{n}_{keys}_{heads}x{size}" + ("_causal" if causal else "") + ("_bias" if bias_heads else "")
        attrs = {"heads": heads, "kv_heads": kv_heads, "scale": size**-0.5, "causal": causal}
        shapes = {"q": (n, heads * size), "k": (keys, kv_heads * size), "v": (keys, kv_heads * v_size)}
        node = Node("attention", name, ("q", "k", "v", "bias" if bias_heads else ""), ("y",), attrs)
        feeds = {x: (rng.normal(size=shape) * spread).astype(np.float32) for x, shape in shapes.items()}
        consts = {"bias": rng.normal(size=(bias_heads, keys, keys)).astype(np.float32)} if bias_heads else {}
        tensors = {x: Tensor(x, shape, "f32", 0 if n == keys else None) for x, shape in shapes.items()}
        tensors["y"] = Tensor("y", (n, heads * v_size), "f32", 0 if n == keys else None)
        tensors |= {x: Tensor(x, value.shape, "f32") for x, value in consts.items()}
        found.append(Case(node, tensors, consts, feeds))
    return found


OP = OpDef(
    name="attention",
    kernel="slm_attention",
    onnx=("MatMul", "Softmax", "Attention", "MultiHeadAttention"),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    lower_dsp=_lower_dsp,
    cases=_cases,
    symmetric=(0,),
    inplace=(0,),
    macs=_macs,
    error=_error,
)
