"""embedding: rows of tables, looked up by token ids and added up, and with them the row of the position.

float inputs: ids int32 [n] and table [V, C], for each lookup; last, if positions, rows [N, C]: row i goes to token i.
attrs: lookups, from 1 to MAX_LOOKUPS; positions.
integer inputs: the ids, tables int8 (one scale each, zero point 0), rows int8 if positions, params. Output int8 or
int16.

    output[i] = saturate(sum weight_k * table_k[ids_k[i]] + rows_weight * rows[i] + offset >> shift)

The weights are the scales in units of the output's scale / 2**shift, at most 15 bits each. Whoever calls the kernel has
checked that 0 <= id < V.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from slm2c import fixedpoint
from slm2c.ir import Array, Graph, Node, Quant, Shape, Tensor
from slm2c.ops.base import Case, KernelCall, OpDef, Special, fields, pack_fields
from slm2c.ops.base import rows as row_count

MAX_LOOKUPS = 3

WEIGHTS = ("weight_0", "weight_1", "weight_2", "rows_weight")
PARAMS = (*WEIGHTS, "offset", "shift")


def _tables(node: Node) -> tuple[str, ...]:
    """Names of the constants of a float node: the tables, then the rows if there are any."""
    lookups = int(node.attrs["lookups"])
    return (*node.inputs[1 : 2 * lookups : 2], *node.inputs[2 * lookups :])


def _infer(node: Node, inputs: Sequence[Tensor | None]) -> Shape:
    lookups, ids, table = int(node.attrs["lookups"]), inputs[0], inputs[1]
    assert 1 <= lookups <= MAX_LOOKUPS and len(inputs) == 2 * lookups + bool(node.attrs["positions"]), node.name
    assert ids is not None and table is not None and len(ids.shape) == 1, node.name
    if node.attrs["positions"]:
        assert inputs[-1] is not None and inputs[-1].shape == (ids.shape[0], table.shape[1]), node.name
    return ids.shape[0], table.shape[1]


def _eval_float(node: Node, inputs: Sequence[Array | None]) -> Array:
    arrays = [x for x in inputs if x is not None]
    pairs = zip(arrays[0::2], arrays[1::2], strict=False)
    total = np.sum([table[ids] for ids, table in pairs], axis=0)
    if node.attrs["positions"]:
        total = total + arrays[-1][: len(arrays[0])]
    return np.asarray(total, dtype=np.float32)


def _scale(table: Array, out: Quant) -> float:
    """The scale of a table: its largest value is 127; a table of zeros is left at the output's."""
    return float(np.abs(table).max(initial=0.0)) / 127 or out.scale


def _weights(scales: Sequence[float], out: Quant) -> tuple[list[int], int]:
    """(weights, shift) for the tables' scales: as fine as 15 bits each and 32 for their sum allow."""
    for shift in range(24, -1, -1):
        weights = [round(scale / out.scale * 2**shift) for scale in scales]
        if max(weights) < 2**15 and 128 * sum(weights) + (abs(out.zero_point) + 1 << shift) < 2**31:
            return weights, shift
    return [min(round(scale / out.scale), 2**15 - 1) for scale in scales], 0  # one step of a table saturates the output


def _quantize(
    node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, object]]:
    out = tensors[node.outputs[0]]
    assert out.quant
    values = [consts[name] for name in _tables(node)]
    scales = [_scale(value, out.quant) for value in values]
    weights, shift = _weights(scales, out.quant)
    lookups = int(node.attrs["lookups"])
    of_tables = weights[:lookups] + [0] * (MAX_LOOKUPS - lookups)
    of_rows = weights[lookups:] or [0]
    offset = (out.quant.zero_point << shift) + (1 << shift >> 1)
    params = {**dict(zip(WEIGHTS, of_tables + of_rows, strict=True)), "offset": offset, "shift": shift}
    names = [f"{out.name}.table_{i}" for i in range(lookups)] + [f"{out.name}.rows"] * len(weights[lookups:])
    quantized = [fixedpoint.quantize(v, Quant(s), "i8") for v, s in zip(values, scales, strict=True)]
    found = dict(zip(names, quantized, strict=True))
    return {**found, f"{out.name}.params": pack_fields(params, PARAMS)}, {**node.attrs, "dtype": out.dtype}


def _eval_int(node: Node, inputs: Sequence[Array | None]) -> Array:
    lookups = int(node.attrs["lookups"])
    arrays = [x for x in inputs if x is not None]
    ids, tables, params = arrays[:lookups], arrays[lookups : 2 * lookups], arrays[-1]
    p = fields(params, PARAMS)
    total = np.sum([p[WEIGHTS[k]] * tables[k][ids[k]].astype(np.int64) for k in range(lookups)], axis=0) + p["offset"]
    if node.attrs["positions"]:
        total = total + p["rows_weight"] * arrays[-2][: len(ids[0])].astype(np.int64)
    return fixedpoint.saturate(total >> p["shift"], str(node.attrs["dtype"]))


def _lower(node: Node, graph: Graph) -> KernelCall:
    lookups = int(node.attrs["lookups"])
    ids, tables = node.inputs[:lookups], node.inputs[lookups : 2 * lookups]
    params, out = node.inputs[-1], node.outputs[0]
    pairs = [name for pair in zip(ids, tables, strict=True) for name in pair]
    rows = node.inputs[-2] if node.attrs["positions"] else Special.NULL
    symbol = f"slm_embedding{lookups if lookups > 1 else ''}_{'s8' if graph.tensors[out].dtype == 'i8' else 's16'}"
    args = (params, *pairs, rows, out, row_count(graph.tensors[ids[0]]), graph.tensors[out].shape[1])
    return KernelCall(symbol, args, node)


def _error(node: Node, tensors: Mapping[str, Tensor], inputs: Sequence[Array | None]) -> float:
    """Rounding of the output, of the tables and of the weights."""
    out = tensors[node.outputs[0]].quant
    assert out
    arrays = [x for x in inputs if x is not None]
    lookups = int(node.attrs["lookups"])
    scales = [_scale(table, out) for table in (*arrays[1 : 2 * lookups : 2], *arrays[2 * lookups :])]
    _, shift = _weights(scales, out)
    return 0.51 + sum(scales) / out.scale / 2 + len(scales) * 127 / 2 ** (shift + 1)


def _cases(rng: np.random.Generator) -> list[Case]:
    found = []
    for n, sizes, columns, positions in [
        (1, (1,), 1, False),
        (3, (17,), 5, True),
        (17, (33, 2), 3, True),
        (33, (17, 2, 3), 17, False),
        (16, (500,), 128, True),
    ]:
        name = f"embedding_{n}_{'_'.join(map(str, sizes))}_{columns}"
        inputs = [x for k in range(len(sizes)) for x in (f"ids_{k}", f"table_{k}")] + ["rows"] * positions
        node = Node("embedding", name, tuple(inputs), ("y",), {"lookups": len(sizes), "positions": positions})
        consts = {f"table_{k}": rng.normal(size=(v, columns)).astype(np.float32) for k, v in enumerate(sizes)}
        if positions:
            consts["rows"] = (0.1 * rng.normal(size=(n, columns))).astype(np.float32)
        feeds = {f"ids_{k}": rng.integers(0, v, n, dtype=np.int32) for k, v in enumerate(sizes)}
        tensors = {x: Tensor(x, (n,), "i32", 0) for x in feeds} | {"y": Tensor("y", (n, columns), "f32", 0)}
        tensors |= {x: Tensor(x, value.shape, "f32") for x, value in consts.items()}
        found.append(Case(node, tensors, consts, feeds))
    return found


OP = OpDef(
    name="embedding",
    kernel="slm_embedding",
    onnx=("Gather", "Add", "EmbedLayerNormalization"),
    infer=_infer,
    eval_float=_eval_float,
    quantize=_quantize,
    eval_int=_eval_int,
    lower=_lower,
    cases=_cases,
    inputs=(("i32",),),
    outputs=("i8", "i16"),
    error=_error,
)
