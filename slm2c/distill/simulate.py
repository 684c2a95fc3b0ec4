"""simulate: the compiler's integers as a differentiable function of a student's weights.

The fused graph is run in PyTorch; each tensor is rounded and cut to the type, scale and zero point that the compiler
chose for it, weights as `ops.linear` and `ops.embedding` round them, at the scales that they have at the time. What a
kernel does between two roundings is computed in floating point: NUMERICS.md bounds the difference, mostly by half an
LSB. Gradients pass roundings as if they were not there, and stop where a value was cut (Bengio et al., arXiv
1308.3432; Jacob et al., arXiv 1712.05877).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from slm2c.fixedpoint import INT_RANGE
from slm2c.ir import Graph, Node, Quant
from slm2c.ir import Tensor as Described
from slm2c.ops.linear import scale_floor

Value = Callable[[], Tensor]
"""A constant of the graph as it is now."""

_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "mul": torch.mul,
    "add": torch.add,
    "div": torch.div,
    "erf": torch.erf,
    "tanh": torch.tanh,
}


class _Rounded(torch.autograd.Function):
    """scale * round(x / scale), cut to [low, high]; the gradient is 1 inside and 0 outside."""

    @staticmethod
    def forward(context: Any, x: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
        context.save_for_backward((x >= low * scale) & (x <= high * scale))
        return torch.minimum(torch.maximum(torch.round(x / scale), low), high) * scale

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (inside,) = context.saved_tensors
        return gradients[0] * inside, None, None, None


def rounded(x: Tensor, scale: Tensor | float, low: float, high: float) -> Tensor:
    """`x` on the grid of `scale`, from low * scale to high * scale, ties to even; straight-through gradient."""
    return _Rounded.apply(x, *(torch.as_tensor(v, dtype=x.dtype) for v in (scale, low, high)))


def activation(x: Tensor, quant: Quant, dtype: str) -> Tensor:
    """What is left of `x` in a tensor of this type: what `dequantize(quantize(x))` of fixedpoint gives."""
    low, high = INT_RANGE[dtype]
    return rounded(x, quant.scale, low - quant.zero_point, high - quant.zero_point)


def weight(w: Tensor, bias: Tensor, x: Quant, out: Quant) -> tuple[Tensor, Tensor]:
    """A linear layer's weight [N, K] and bias [N] as `ops.linear` rounds them."""
    floor = torch.from_numpy(scale_floor(bias.detach().numpy(), x, out))
    scale = torch.maximum(w.detach().abs().amax(1).double() / 127, floor)
    limit = 2.0**31
    step = x.scale * scale
    # In double precision, as the compiler does it: in single, a few weights would fall to the other side.
    found = rounded(w.double(), scale[:, None], -127, 127), rounded(bias.double(), step, -limit, limit)
    return found[0].to(w.dtype), found[1].to(w.dtype)


class Simulation:
    """The integer graph `integer` of the fused `graph`, as a function of the parameters of `model`.

    Constants that hold a parameter's values follow it; others stay as they are (`frozen` counts them).
    """

    def __init__(self, graph: Graph, integer: Graph, model: nn.Module) -> None:
        self._graph, self._tensors = graph, integer.tensors
        self._consts, self.frozen = _constants(graph, model)

    def __call__(self, ids: Tensor) -> Tensor:
        """The logits [batch, classes] for ids [batch, tokens], all tokens real."""
        return self.values(ids)[self._graph.outputs[0]].flatten(1)

    def values(self, ids: Tensor) -> dict[str, Tensor]:
        """Every tensor by name, with the batch as its first axis."""
        graph = self._graph
        values: dict[str, Tensor] = {graph.inputs[0]: ids}
        for node in graph.nodes:
            name = node.outputs[0]
            found = self._node(node, values)
            described = self._tensors[name]
            assert described.quant is not None
            values[name] = activation(found, described.quant, described.dtype)
        return values

    def _node(self, node: Node, values: Mapping[str, Tensor]) -> Tensor:
        x = values[node.inputs[0]]
        match node.op:
            case "embedding":
                return self._embedding(node, x)
            case "linear":
                w, bias = (self._consts[name]() for name in node.inputs[1:3])
                w, bias = weight(w, bias, self._quant(node.inputs[0]), self._quant(node.outputs[0]))
                return functional.linear(x, w, bias)
            case "layernorm":
                gamma, beta = (self._consts[name]() for name in node.inputs[2:4])
                total = x + values[node.inputs[1]] if node.inputs[1] else x
                return functional.layer_norm(total, total.shape[-1:], gamma, beta, node.attrs["epsilon"])
            case "attention":
                return _attention(node, *(values[name] for name in node.inputs[:3]))
            case "lut":
                return _expression(node.attrs["fn"], x)
            case "view":
                index = torch.from_numpy(np.ascontiguousarray(node.attrs["index"]))
                return x.flatten(1)[:, index.flatten()].reshape(len(x), *index.shape)
        raise AssertionError(f"{node.name}: no student has a {node.op}")

    def _embedding(self, node: Node, ids: Tensor) -> Tensor:
        table, *rows = (self._consts[name]() for name in node.inputs[1:])
        total = functional.embedding(ids, _table(table))  # whose gradient, unlike an index's, is summed in one order
        return total + _table(rows[0])[: ids.shape[1]] if rows else total

    def _quant(self, name: str) -> Quant:
        described: Described = self._tensors[name]
        assert described.quant is not None
        return described.quant


def _table(table: Tensor) -> Tensor:
    """An embedding table as `ops.embedding` rounds it."""
    return rounded(table.double(), table.detach().abs().max().double() / 127, -128, 127).to(table.dtype)


def _attention(node: Node, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    heads = node.attrs["heads"]
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    found = functional.softmax(node.attrs["scale"] * (q @ k.transpose(2, 3)), -1) @ v
    return found.transpose(1, 2).flatten(2)


def _expression(fn: Any, x: Tensor) -> Any:
    """A lut's function; see ops.lut."""
    if not isinstance(fn, tuple):
        return fn
    name, *operands = fn
    return x if name == "x" else _FUNCTIONS[name](*(_expression(part, x) for part in operands))


def _constants(graph: Graph, model: nn.Module) -> tuple[dict[str, Value], int]:
    """Each constant as a function of the parameters, and how many there are that no parameter accounts for.

    Parameters are known by their values: what the importer and the passes did to names and layouts does not matter.
    """
    named = dict(model.named_parameters())
    candidates = [value for p in named.values() for value in (partial(_itself, p), partial(_transposed, p))]
    positions = [p for name, p in named.items() if "position_embeddings" in name]
    types = [p for name, p in named.items() if "token_type_embeddings" in name]
    candidates += [partial(_with_type, p, t) for p, t in zip(positions, types, strict=False)]
    found: dict[str, Value] = {}
    frozen = 0
    for name, value in graph.consts.items():
        fixed = torch.from_numpy(np.array(value))
        alike = [make for make in candidates if torch.equal(make(), fixed)]
        # Where several have the same values, one of them would have to stand for all: none does.
        found[name] = alike[0] if len(alike) == 1 else partial(_itself, fixed)
        frozen += len(alike) != 1
    return found, frozen


def _itself(p: Tensor) -> Tensor:
    return p


def _transposed(p: Tensor) -> Tensor:
    return p.T if p.ndim == 2 else p.new_zeros(0)


def _with_type(positions: Tensor, types: Tensor) -> Tensor:
    """Rows of positions, with the one type of token that there is."""
    return positions + types[0]
