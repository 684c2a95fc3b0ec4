"""Attention in every packaging, taken apart into one form: matmul, scale, mask, softmax, matmul.

Operands are [batch, head, token, d]. Masks are added as 0 and -inf (or the file's own large negative value). A row that
is masked throughout gives zeros, as ONNX defines.
"""

from __future__ import annotations

import math

import numpy as np

from slm2c.onnx_ops.base import Call, Refused, Result, onnx_op
from slm2c.onnx_ops.matrix import scaled
from slm2c.onnx_ops.quantized import real_value

_MS = "com.microsoft"


def split_heads(call: Call, x: str, heads: int) -> str:
    """[batch, token, heads * d] as [batch, heads, token, d]."""
    shape = call.shape(call.real(x))
    if len(shape) != 3 or heads < 1 or shape[2] % heads:
        raise Refused(f"{heads} heads do not suit shape {list(shape)}")
    return call.transpose(call.reshape(x, (*shape[:2], heads, shape[2] // heads)), (0, 2, 1, 3))


def merge_heads(call: Call, x: str) -> str:
    """The reverse of `split_heads`."""
    batch, heads, tokens, d = call.shape(x)
    return call.reshape(call.transpose(x, (0, 2, 1, 3)), (batch, tokens, heads * d))


def _repeat_heads(call: Call, x: str, heads: int) -> str:
    """Each key or value head for its group of query heads: grouped-query attention, arXiv 2305.13245."""
    shape = call.shape(x)
    if shape[1] == heads:
        return x
    if heads % shape[1]:
        raise Refused(f"{heads} query heads do not share {shape[1]} key heads evenly")
    return call.view(x, np.repeat(call.positions(x), heads // shape[1], axis=1))


def allowed(call: Call, mask: str) -> str:
    """A boolean mask (true: attend) as 0 and -inf; a float mask as it is."""
    if call.dtype(mask) != "bool":
        return call.real(mask)
    return call.op("where", mask, call.const(0, np.float32), call.const(-np.inf, np.float32))


def window(call: Call, rows: int, columns: int, offset: int, left: int = -1, right: int = -1) -> str:
    """[rows, columns] of 0 and -inf: row i, at position i + offset, sees `left` columns before and `right` behind."""
    ahead = np.arange(columns) - (np.arange(rows)[:, None] + offset)
    seen = ((ahead <= right) | (right < 0)) & ((-ahead <= left) | (left < 0))
    return call.const(np.where(seen, np.float32(0), np.float32(-np.inf)))


def attend(
    call: Call, q: str, k: str, v: str, masks: list[str], scale: float, softcap: float = 0.0
) -> tuple[str, list[str]]:
    """The result of softmax(scale q k' + masks) v; also the scores raw, capped, masked and as probabilities."""
    if not len(call.shape(q)) == len(call.shape(k)) == len(call.shape(v)) == 4:
        raise Refused(f"shapes {call.shape(q)}, {call.shape(k)} and {call.shape(v)} are not [batch, head, token, d]")
    heads = call.shape(q)[1]
    k, v = _repeat_heads(call, k, heads), _repeat_heads(call, v, heads)
    scores = [scaled(call, call.matmul(q, call.transpose(k, (0, 1, 3, 2))), scale)]
    capped = scores[0]
    if softcap > 0:
        capped = scaled(call, call.op("tanh", scaled(call, capped, 1 / softcap)), softcap)
    scores.append(capped)
    for mask in masks:
        capped = call.op("add", capped, mask)
        if call.shape(capped) != call.shape(scores[0]):
            raise Refused(f"a mask of shape {list(call.shape(mask))} on scores of {list(call.shape(scores[0]))}")
    p = call.softmax(capped, -1)
    if any(_may_hide_a_row(call, mask) for mask in masks):
        p = call.op("where", call.op("isnan", p), call.const(0, np.float32), p)
    return call.matmul(p, v), [*scores, capped, p]


def _may_hide_a_row(call: Call, mask: str) -> bool:
    value = call.builder.value(mask)
    return value is None or bool(np.isneginf(value).all(axis=-1).any())


@onnx_op("Attention")
def attention(call: Call) -> Result:
    """Opset 23 to 25: three-dimensional operands carry their heads in the last axis, four-dimensional ones apart."""
    q, k, v = (call.real(call.input(i)) for i in range(3))
    flat = len(call.shape(q)) == 3
    if flat:
        q_heads, kv_heads = call.attr_int("q_num_heads"), call.attr_int("kv_num_heads")
        q, k, v = split_heads(call, q, q_heads), split_heads(call, k, kv_heads), split_heads(call, v, kv_heads)
    past = 0
    if call.has(4) and call.has(5):
        past = call.shape(call.inputs[4])[2] if len(call.shape(call.inputs[4])) == 4 else 0
        k, v = call.concat([call.inputs[4], k], 2), call.concat([call.inputs[5], v], 2)
    if any(len(call.shape(x)) != 4 for x in (q, k, v)):
        raise Refused(f"shapes {list(call.shape(q))} and {list(call.shape(k))} are not [batch, head, token, d]")
    rows, columns = call.shape(q)[2], call.shape(k)[2]
    masks = []
    if call.has(3):
        mask = allowed(call, call.inputs[3])
        short = columns - call.shape(mask)[-1] if call.shape(mask) else 0
        if short > 0 and call.shape(mask)[-1] > 1:
            widths = [(0, 0)] * (len(call.shape(mask)) - 1) + [(0, short)]
            mask = call.view(mask, np.pad(call.positions(mask), widths, constant_values=-1), -math.inf)
        masks.append(mask)
    if call.has(6):
        masks += _valid_keys(call, rows, columns)
    elif call.attr_int("is_causal"):
        masks.append(window(call, rows, columns, past, right=0))
    left, right = call.attr_int("left_window_size", -1), call.attr_int("right_window_size", -1)
    if left >= 0 or right >= 0:
        if call.has(6):
            raise Refused("a window together with nonpad_kv_seqlen is unsupported")
        masks.append(window(call, rows, columns, past, left, right))
    scale = call.attr_float("scale") if "scale" in call.attrs else 1 / math.sqrt(call.shape(q)[3])
    y, scores = attend(call, q, k, v, masks, scale, call.attr_float("softcap"))
    mode = call.attr_int("qk_matmul_output_mode")
    if not 0 <= mode < 4:
        raise Refused(f"qk_matmul_output_mode {mode} is unknown")
    return merge_heads(call, y) if flat else y, k, v, scores[mode]


def _valid_keys(call: Call, rows: int, columns: int) -> list[str]:
    """nonpad_kv_seqlen: how many keys count, per batch; with is_causal the last of them belongs to the last row."""
    lengths = call.cast(call.inputs[6], "i64")
    batch = call.shape(lengths)
    if len(batch) != 1:
        raise Refused(f"nonpad_kv_seqlen has shape {list(batch)}")
    lengths = call.reshape(lengths, (batch[0], 1, 1, 1))
    column = call.const(np.arange(columns))
    masks = [allowed(call, call.op("less", column, lengths))]
    if call.attr_int("is_causal"):
        ahead = call.const(np.arange(columns) - np.arange(rows)[:, None] + rows)
        masks.append(allowed(call, call.op("less_equal", ahead, lengths)))
    return masks


# ---- rotary position embedding ----


def rotate(call: Call, x: str, cos: str, sin: str, positions: str, interleaved: bool, width: int) -> str:
    """RoPE (arXiv 2104.09864) of [batch, head, token, d]: x C + swap(x) S.

    cos and sin are [position, width / 2] where `positions` [batch, token] are given, else [batch, token, width / 2].
    C holds each cosine at both elements of its pair and 1 behind `width`; S the sine with its sign, and 0.
    """
    batch, _, tokens, d = call.shape(x)
    width = width or d
    half = width // 2
    if width > d or width % 2 or call.shape(cos) != call.shape(sin) or call.shape(cos)[-1:] != (half,):
        raise Refused(f"caches of shape {list(call.shape(cos))} do not rotate {width} of {d} elements")
    pair = np.repeat(np.arange(half), 2) if interleaved else np.tile(np.arange(half), 2)
    first = np.arange(width) % 2 == 0 if interleaved else np.arange(width) < half
    partner = np.arange(width) + np.where(first, 1, -1) * (1 if interleaved else half)
    tables = []
    for cache, fill in ((cos, 1.0), (sin, 0.0)):
        index = np.full((*call.shape(cache)[:-1], d), -1)
        index[..., :width] = call.positions(cache)[..., pair]
        tables.append(call.view(call.real(cache), index, fill))
    signs = np.ones(d, np.float32)
    signs[:width][first] = -1
    tables[1] = call.op("mul", tables[1], call.const(signs))
    if positions:
        if len(call.shape(cos)) != 2:
            raise Refused(f"caches of shape {list(call.shape(cos))} with position ids")
        tables = [_rows(call, table, positions) for table in tables]
    for i, table in enumerate(tables):
        if call.shape(table) not in ((batch, tokens, d), (1, tokens, d)):
            raise Refused(f"caches give {list(call.shape(table))} for {batch} x {tokens} tokens")
        tables[i] = call.reshape(table, (call.shape(table)[0], 1, tokens, d))
    swap = np.arange(d)
    swap[:width] = partner
    swapped = call.view(x, call.positions(x)[..., swap])
    return call.op("add", call.op("mul", x, tables[0]), call.op("mul", swapped, tables[1]))


def _rows(call: Call, table: str, positions: str) -> str:
    """Rows of a table at constant or computed positions."""
    value = call.builder.value(positions)
    if value is None:
        return call.gather(table, positions, 0)
    if value.dtype.kind not in "iu" or not ((value >= 0) & (value < call.shape(table)[0])).all():
        raise Refused(f"position ids exceed the caches' {call.shape(table)[0]} rows")
    return call.view(table, call.positions(table)[value])


@onnx_op("RotaryEmbedding")
@onnx_op("RotaryEmbedding", domain=_MS)
def rotary_embedding(call: Call) -> Result:
    """That of onnxruntime has the position ids second, that of ONNX (opset 23) last and optional."""
    x = call.real(call.input(0))
    cos_at, sin_at, at = (1, 2, 3) if call.domain == "" else (2, 3, 1)
    cos, sin = call.real(call.input(cos_at)), call.real(call.input(sin_at))
    width, interleaved = call.attr_int("rotary_embedding_dim"), bool(call.attr_int("interleaved"))
    heads = call.attr_int("num_heads")
    flat = len(call.shape(x)) == 3
    if flat and not heads and call.domain == _MS:
        heads = call.shape(x)[2] // (width or 2 * call.shape(cos)[-1])
    y = split_heads(call, x, heads) if flat else x
    if len(call.shape(y)) != 4 or call.attr_int("is_packed_batching") or call.attr_float("scale", 1.0) != 1.0:
        raise Refused(f"shape {list(call.shape(x))}, packed batches or a scale are unsupported")
    positions = call.inputs[at] if call.has(at) else ""
    batch, _, tokens, _ = call.shape(y)
    if positions and call.shape(positions) == (1,) and (batch, tokens) != (1, 1):  # the first token's position
        positions = call.op("add", call.cast(positions, "i64"), call.const(np.arange(tokens)))
        positions = call.expand(call.reshape(positions, (1, tokens)), (batch, tokens))
    elif positions:
        positions = call.reshape(positions, (batch, tokens))
    y = rotate(call, y, cos, sin, positions, interleaved, width)
    return merge_heads(call, y) if flat else y


# ---- onnxruntime's fused attention ----


def padding_masks(call: Call, mask: str, rows: int, columns: int, batch: int) -> list[str]:
    """The forms of mask_index and key_padding_mask as addends: 0, or mask_filter_value where a key is padding.

    [batch, keys] or [batch, rows, keys] of 0 and 1, [batch, 1, max, max], or [batch] numbers of keys ([2 batch]: then
    their starts).
    """
    shape = call.shape(mask)
    hidden = call.const(call.attr_float("mask_filter_value", -10000.0), np.float32)
    zero = call.const(0, np.float32)
    if shape in ((batch,), (2 * batch,)) and shape != (columns,):
        column = call.cast(call.const(np.arange(columns)), call.dtype(mask))
        each = np.arange(batch).reshape(batch, 1, 1, 1)
        parts = [call.view(mask, each + i * batch) for i in range(shape[0] // batch)]
        masks = [call.op("where", call.op("less", column, parts[0]), zero, hidden)]
        if len(parts) > 1:
            masks.append(call.op("where", call.op("greater_equal", column, parts[1]), zero, hidden))
        return masks
    if shape == (batch, columns):
        mask = call.reshape(mask, (batch, 1, 1, columns))
    elif shape == (batch, rows, columns):
        mask = call.reshape(mask, (batch, 1, rows, columns))
    elif len(shape) == 4 and shape[:2] == (batch, 1) and shape[2] >= columns and shape[3] >= columns:
        mask = call.view(mask, call.positions(mask)[:, :, columns - rows : columns, :columns])
    else:
        raise Refused(f"a mask of shape {list(shape)} is unsupported", "use one of 0 and 1 per key")
    return [call.op("where", call.op("greater", call.cast(mask, "f32"), zero), zero, hidden)]


def _fused(call: Call, operands: list[str], mask: str, bias: str) -> str:
    """[batch, token, heads * d] of attention over q, k and v of [batch, head, token, d], in onnxruntime's way."""
    q, k, v = operands
    if len(call.shape(q)) != 4 or len(call.shape(k)) != 4:
        raise Refused(f"shapes {list(call.shape(q))} and {list(call.shape(k))} are not [batch, head, token, d]")
    batch, _, rows, d = call.shape(q)
    columns = call.shape(k)[2]
    masks = padding_masks(call, mask, rows, columns, batch) if mask else []
    if call.attr_int("unidirectional"):
        masks.append(window(call, rows, columns, columns - rows, right=0))
    if bias:
        masks.append(call.real(bias))
    scale = call.attr_float("scale") or 1 / math.sqrt(d)
    return merge_heads(call, attend(call, q, k, v, masks, scale)[0])


def _project(call: Call, x: str, w: str, bias: str) -> str:
    """Self-attention with one weight matrix for q, k and v side by side."""
    heads, sizes = call.attr_int("num_heads"), call.attr_ints("qkv_hidden_sizes")
    shape, width = call.shape(call.real(x)), call.shape(call.real(w))
    if len(shape) != 3 or len(width) != 2 or call.attr_int("do_rotary"):
        raise Refused(f"input of shape {list(shape)} or do_rotary is unsupported")
    sizes = sizes or [width[1] // 3] * 3
    if len(sizes) != 3 or sum(sizes) != width[1] or min(sizes) < 1:
        raise Refused(f"weights of shape {list(width)} do not hold q, k and v of {sizes}")
    parts, start = [], 0
    for size in sizes:
        part = call.matmul(x, call.view(w, call.positions(w)[:, start : start + size]))
        if bias:
            part = call.op("add", part, call.view(bias, call.positions(bias).reshape(-1)[start : start + size]))
        parts.append(split_heads(call, part, heads))
        start += size
    mask = call.inputs[3] if call.op_type == "Attention" and call.has(3) else ""
    if call.op_type == "QAttention":
        mask = call.inputs[5] if call.has(5) else ""
    extra = call.inputs[5] if call.op_type == "Attention" and call.has(5) else ""
    return _fused(call, parts, mask, extra)


@onnx_op("Attention", domain=_MS)
def microsoft_attention(call: Call) -> Result:
    """input, weights, bias, mask_index, past, attention_bias."""
    if call.has(4):
        raise Refused("a past state is unsupported", "export the model without a KV cache")
    return _project(call, call.input(0), call.input(1), call.inputs[2] if call.has(2) else "")


@onnx_op("QAttention", domain=_MS, codes="own")
def quantized_attention(call: Call) -> Result:
    """input, weights, bias, both scales, mask_index, both zero points, past; the result is float."""
    if call.has(8):
        raise Refused("a past state is unsupported", "export the model without a KV cache")
    return _project(call, real_value(call, 0, 3, 6), real_value(call, 1, 4, 7, axis=1), call.input(2))


@onnx_op("MultiHeadAttention", domain=_MS)
def multi_head_attention(call: Call) -> Result:
    """query, key, value, bias, key_padding_mask, attention_bias, past_key, past_value; q, k and v may come packed."""
    heads = call.attr_int("num_heads")
    if call.has(6) or call.has(7):
        raise Refused("a past state is unsupported", "export the model without a KV cache")
    q = call.real(call.input(0))
    if len(call.shape(q)) == 5:  # [batch, token, head, 3, d]
        parts = [call.view(q, call.positions(q)[:, :, :, i].transpose(0, 2, 1, 3)) for i in range(3)]
        if call.shape(q)[3] != 3 or call.has(3):
            raise Refused(f"packed operands of shape {list(call.shape(q))} or a bias on them are unsupported")
    else:
        parts = [q, *_keys_and_values(call)]
        if call.has(3):
            parts = _biased(call, parts, call.inputs[3])
        parts = [x if len(call.shape(x)) == 4 else split_heads(call, x, heads) for x in parts]
    mask, bias = (call.inputs[i] if call.has(i) else "" for i in (4, 5))
    return _fused(call, parts, mask, bias)


def _keys_and_values(call: Call) -> list[str]:
    k = call.real(call.input(1))
    if len(call.shape(k)) == 5:  # [batch, token, head, 2, d]
        if call.shape(k)[3] != 2:
            raise Refused(f"packed keys and values of shape {list(call.shape(k))}")
        return [call.view(k, call.positions(k)[:, :, :, i].transpose(0, 2, 1, 3)) for i in range(2)]
    return [k, call.real(call.input(2))]


def _biased(call: Call, parts: list[str], bias: str) -> list[str]:
    sizes = [call.shape(x)[2] for x in parts]
    if any(len(call.shape(x)) != 3 for x in parts) or call.shape(bias) != (sum(sizes),):
        raise Refused(f"a bias of shape {list(call.shape(bias))} does not suit the operands")
    biased, start = [], 0
    for part, size in zip(parts, sizes, strict=True):
        biased.append(call.op("add", part, call.view(bias, np.arange(start, start + size))))
        start += size
    return biased
