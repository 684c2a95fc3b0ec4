"""Runs kernels apart from any model: cases of `slm2c.ops` as integer nodes, in numpy and in C.

A `Variant` is a case with a choice of element types, quantized; a `Trial` is one run of it, at some token count and on
some integers. `run_c` runs the trials of many variants in one program: tests/c/kernels.c.j2 has a function for each
variant, and the buffers of all trials pass through files.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import jinja2
import numpy as np

from slm2c import fixedpoint
from slm2c.ir import DTYPES, Array, Graph, Node, Quant, Tensor, const_tensor
from slm2c.ops.base import Case, KernelCall, OpDef, Special, activations
from slm2c.resources import data_dir

FILLER = 0xA5
"""What memory holds before a kernel writes it."""


@dataclass(frozen=True)
class Variant:
    """A quantized case. `graph` holds the integer node alone; `reference` is the float node with float `consts`."""

    op: OpDef
    title: str
    reference: Node
    consts: Mapping[str, Array]
    node: Node
    graph: Graph
    feeds: Mapping[str, Array]
    call: KernelCall

    @property
    def output(self) -> Tensor:
        return self.graph.tensors[self.node.outputs[0]]


@dataclass(frozen=True)
class Trial:
    """A run of a variant on `n` tokens; `inputs` by tensor name."""

    variant: Variant
    title: str
    n: int
    inputs: Mapping[str, Array]

    @cached_property
    def expected(self) -> Array:
        """What the executable specification gives."""
        values = {**self.variant.graph.consts, **self.inputs}
        return self.variant.op.eval_int(self.variant.node, [values[x] if x else None for x in self.variant.node.inputs])

    def reference(self) -> tuple[Array, Array | float]:
        """(the float result for the dequantized inputs, in units of the output; the bound that the operator states)."""
        v = self.variant
        tensors = v.graph.tensors
        values = {**v.consts, **{x: _dequantize(a, tensors[x]) for x, a in self.inputs.items()}}
        arrays = [values[x] if x else None for x in v.reference.inputs]
        quant = v.output.quant
        assert quant
        real = v.op.eval_float(v.reference, arrays).astype(np.float64) / quant.scale + quant.zero_point
        return real, v.op.error(v.reference, {**_shapes(v.consts), **tensors}, arrays)


def _shapes(consts: Mapping[str, Array]) -> dict[str, Tensor]:
    return {name: const_tensor(name, value) for name, value in consts.items()}


def _dequantize(values: Array, tensor: Tensor) -> Array:
    return values if tensor.quant is None else fixedpoint.dequantize(values, tensor.quant)


def variants(op: OpDef, case: Case, stretch: Callable[[], float] = lambda: 1.0) -> Iterator[Variant]:
    """The case in every choice of element types and of kernels that the operator has, scales as calibrated times
    `stretch()`.
    """
    names = [x for x in activations(case.node, case.consts) if x]
    slots = [i for i, x in enumerate(case.node.inputs) if x in names]
    kinds = [
        op.inputs[min(slot, len(op.inputs) - 1)] if case.tensors[x].dtype == "f32" else (case.tensors[x].dtype,)
        for slot, x in zip(slots, names, strict=True)
    ]
    for dtypes in itertools.product(*kinds):
        for output in dtypes[:1] if op.same_quant else op.outputs:
            variant = _variant(op, case, dict(zip(names, dtypes, strict=True)), output, stretch)
            yield variant
            for call in op.lower_dsp(variant.node, variant.graph):
                yield replace(variant, title=f"{variant.title} by {call.symbol}", call=call)


def _variant(op: OpDef, case: Case, dtypes: Mapping[str, str], output: str, stretch: Callable[[], float]) -> Variant:
    node, out = case.node, case.node.outputs[0]
    symmetric = {node.inputs[i] for i in op.symmetric if i < len(node.inputs)}
    tensors = {
        x: replace(case.tensors[x], dtype=dtype, quant=_calibrate(case.feeds[x], dtype, x in symmetric, stretch()))
        for x, dtype in dtypes.items()
    }
    quantized = {x: _quantize(case.feeds[x], tensors[x]) for x in dtypes}
    values = {**case.consts, **{x: _dequantize(quantized[x], tensors[x]) for x in dtypes}}
    real = op.eval_float(node, [values[x] if x else None for x in node.inputs])
    if op.same_quant:
        quant = tensors[node.inputs[0]].quant
    elif op.fixed_quant is not None:
        quant = op.fixed_quant(node, output)
    else:
        quant = _calibrate(real, output, False, stretch())
    tensors[out] = replace(case.tensors[out], dtype=output, quant=quant)
    assert op.infer(node, [case.tensors[x] if x else None for x in node.inputs]) == tensors[out].shape, node.name
    consts, attrs = op.quantize(node, {**case.tensors, **tensors}, case.consts)
    integer = Node(op.name, node.name, (*activations(node, case.consts), *consts), node.outputs, attrs)
    graph = Graph("case", tuple(dtypes), (out,), (integer,), {**tensors, **_shapes(consts)}, consts)
    title = f"{node.name} {','.join(dtypes.values())}->{output}"
    return Variant(op, title, node, case.consts, integer, graph, quantized, op.lower(integer, graph))


def _calibrate(values: Array, dtype: str, symmetric: bool, stretch: float) -> Quant | None:
    """The Quant that covers `values`, symmetric for int16, its scale times `stretch`."""
    if dtype == "i32":
        return None
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if symmetric or dtype == "i16":
        return Quant(max(-low, high, 1e-6) / (127 if dtype == "i8" else 32767) * stretch)
    scale = max(high - low, 1e-6) / 255
    return Quant(scale * stretch, round(-128 - low / scale))


def _quantize(values: Array, tensor: Tensor) -> Array:
    return values if tensor.quant is None else fixedpoint.quantize(values, tensor.quant, tensor.dtype)


def trials(variant: Variant, rng: np.random.Generator) -> Iterator[Trial]:
    """The calibrated feeds, extreme and random integers, each at the maximum token count and at a smaller one."""
    tensors = [variant.graph.tensors[x] for x in variant.graph.inputs]
    longest = max((t.shape[t.token_axis] for t in tensors if t.token_axis is not None), default=1)
    for n in sorted({longest, longest // 2 + 1 if longest > 2 else 1}):
        for title, make in _FILLS.items():
            inputs = {}
            for t in tensors:
                feed = variant.feeds[t.name]
                value = feed if t.quant is None else make(feed, t, rng)
                if t.token_axis is not None:
                    value = np.ascontiguousarray(np.take(value, range(n), axis=t.token_axis))
                inputs[t.name] = value
            yield Trial(variant, f"{title}, n={n}", n, inputs)


def _limits(t: Tensor) -> tuple[int, int]:
    return fixedpoint.INT_RANGE[t.dtype]


_FILLS: Mapping[str, Callable[[Array, Tensor, np.random.Generator], Array]] = {
    "calibrated": lambda feed, t, rng: feed,
    "lowest": lambda feed, t, rng: np.full_like(feed, _limits(t)[0]),
    "highest": lambda feed, t, rng: np.full_like(feed, _limits(t)[1]),
    "extremes": lambda feed, t, rng: rng.choice(_limits(t), feed.shape).astype(feed.dtype),
    "nearly constant": lambda feed, t, rng: (rng.random(feed.shape) < 0.2).astype(feed.dtype) + feed.dtype.type(3),
    "random": lambda feed, t, rng: rng.integers(*_limits(t), feed.shape, dtype=feed.dtype, endpoint=True),
}


def sources(op: OpDef) -> list[Path]:
    """The C files of an operator's kernels."""
    found = sorted(data_dir("runtime_c").glob(f"{op.kernel}*.c"))
    assert found, f"{op.name}: no runtime_c/{op.kernel}*.c"
    return found


@dataclass(frozen=True)
class _Function:
    """A C function that makes a variant's call on its `buffers`. `alias`: the input that the output lies on."""

    variant: Variant
    alias: str | None

    @property
    def buffers(self) -> list[str]:
        names = [str(a) for a in self.variant.call.args if isinstance(a, str) and a != self.alias_target]
        return list(dict.fromkeys([*names, "scratch"]))

    @property
    def alias_target(self) -> str | None:
        return self.variant.output.name if self.alias else None

    @property
    def arguments(self) -> list[str]:
        return [self._argument(a) for a in self.variant.call.args]

    @property
    def result(self) -> str:
        return self._argument(self.variant.output.name)

    def _argument(self, arg: str | int | Special) -> str:
        if isinstance(arg, str):
            return f"b{self.buffers.index(self.alias if arg == self.alias_target and self.alias else arg)}"
        if arg is Special.SCRATCH:
            return f"b{self.buffers.index('scratch')}"
        return {Special.TOKENS: "n", Special.NULL: "NULL"}[arg] if isinstance(arg, Special) else f"{arg}"


def write_program(folder: Path, batch: Sequence[Trial]) -> list[tuple[str, Trial]]:
    """Write kernels.c and in.bin for `batch` to `folder`; the title and trial behind each result of out.bin, in order.

    Where an operator may work in place, each trial is run once more for every input that the output may lie on.
    """
    functions: dict[tuple[str, str | None], _Function] = {}
    data, order = bytearray(), []
    for trial in batch:
        v = trial.variant
        for alias in (None, *_aliases(v)):
            function = functions.setdefault((v.title, alias), _Function(v, alias))
            number = list(functions).index((v.title, alias))
            data += struct.pack("<III", number, trial.n, len(function.buffers))
            for name in function.buffers:
                content = _content(trial, name)
                data += struct.pack("<I", len(content)) + content
            order.append((f"{v.title}, {trial.title}{f', on {alias}' if alias else ''}", trial))
    headers = sorted({f"{v.variant.op.kernel}.h" for v in functions.values()})
    template = Path(__file__).parent / "c" / "kernels.c.j2"
    jinja = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = jinja.from_string(template.read_text()).render(headers=headers, functions=list(functions.values()))
    (folder / "kernels.c").write_text(text)
    (folder / "in.bin").write_bytes(bytes(data))
    return order


def _aliases(v: Variant) -> list[str]:
    """Inputs of the output's size and type in which the operator may work."""
    found = [v.reference.inputs[i] for i in v.op.inplace if i < len(v.reference.inputs)]
    tensors = v.graph.tensors
    return [
        x
        for x in found
        if x in v.graph.inputs and (tensors[x].shape, tensors[x].dtype) == (v.output.shape, v.output.dtype)
    ]


def _content(trial: Trial, name: str) -> bytes:
    v = trial.variant
    if name == "scratch":
        return bytes([FILLER]) * v.call.scratch
    if name == v.output.name:
        return bytes([FILLER]) * trial.expected.nbytes
    return {**v.graph.consts, **v.call.consts, **trial.inputs}[name].tobytes()


def read_results(folder: Path, order: Sequence[tuple[str, Trial]]) -> Iterator[tuple[str, Array, Array]]:
    """(title, expected, result of the C) of each run."""
    data, at = (folder / "out.bin").read_bytes(), 0
    for title, trial in order:
        expected = trial.expected
        assert expected.dtype == DTYPES[trial.variant.output.dtype], f"{title}: eval_int gives {expected.dtype}"
        result = np.frombuffer(data, expected.dtype, expected.size, at).reshape(expected.shape)
        at += expected.nbytes
        yield title, expected, result
    assert at == len(data), f"{len(data) - at} bytes more than expected in out.bin"
