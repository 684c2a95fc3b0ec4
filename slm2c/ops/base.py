"""What an operator is: a record of functions. Each file beside this one defines one as `OP`; `slm2c.ops.TABLE`
lists them.

Conventions for all operators:

* Activations are arrays of the tensor's static shape, except that the token axis has the actual count n. Most are
  two-dimensional, [rows, features], where rows are tokens or a fixed number.
* The float node's inputs are activations first, then constants (weights), as each operator's docstring lists them.
* `quantize` turns a float node into an integer node of the same name: same activations, integer constants, and integers
  that depend on the training (multipliers, zero points) in a constant of int32 called "<output>.params", whose fields
  the operator's PARAMS tuple names and a C struct of int32_t mirrors. Attrs of an integer node hold structure only.
* `eval_int` is the executable specification of the C kernel.
* `lower` chooses the kernel and gives its arguments in the order of the C prototype (CMSIS order: context, params,
  quantization, input, weights, bias, output; then the dimensions).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from slm2c.ir import Array, Graph, Node, Quant, Shape, Tensor


class Special(Enum):
    """Arguments of a kernel call that are neither a tensor nor a number."""

    TOKENS = "n"  # the actual token count, uint32_t
    SCRATCH = "scratch"  # void *: the call's scratch memory in the arena
    NULL = "NULL"  # an absent optional pointer
    ROWS = "rows"  # of the tile at hand, in a loop over tiles of rows, uint32_t


ROW, GROUP = "row", "group"
"""Variables in C of the two kinds of loop: over rows, and over groups of heads."""


@dataclass(frozen=True)
class Offset:
    """A tensor or constant in a loop: from `step` elements on for each unit of the loop's variable `index`."""

    name: str
    index: str
    step: int


Arg = str | int | Special | Offset
"""A tensor or constant by name, a number, a Special, or an Offset into a tensor or constant."""


@dataclass(frozen=True)
class Part:
    """What a call in a loop stores: `rows` rows of `width` elements, `step` elements apart in memory, of a tensor whose
    rows are `full` elements apart; they are the tensor's from element `index * offset` on.
    """

    rows: Arg
    width: int
    step: int
    index: str
    offset: int
    full: int


@dataclass(frozen=True)
class Target:
    """What a core offers to kernels. `dsp`: the DSP extension of Armv7E-M and Armv8-M, of which SMLAD matters most."""

    dsp: bool


@dataclass(frozen=True)
class KernelCall:
    """One call of a C function. `consts` are further arrays for the blob (repacked weights), named by `args`.

    `scratch` counts bytes at the maximum token count. A call without a symbol, of (input, offset, output), says
    that the output lies in the input's memory, that many elements from its start: nothing is called. `overwrites` names
    inputs that the output may lie on as long as its rows are no longer than theirs. `part`: None if all is stored at
    once.
    """

    symbol: str
    args: tuple[Arg, ...]
    node: Node
    consts: Mapping[str, Array] = field(default_factory=dict)
    scratch: int = 0
    overwrites: tuple[str, ...] = ()
    part: Part | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Tensors and constants among the arguments, in order."""
        return tuple(a.name if isinstance(a, Offset) else a for a in self.args if isinstance(a, str | Offset))


@dataclass(frozen=True)
class Case:
    """A node with everything needed to try it: float inputs by name, constants, and how it may be quantized."""

    node: Node
    tensors: Mapping[str, Tensor]
    consts: Mapping[str, Array]
    feeds: Mapping[str, Array]


@dataclass(frozen=True)
class OpDef:
    """An operator's whole truth.

    onnx: the ONNX operators it comes from, for docs/OPERATORS.md
    infer: (node, input tensors) -> shape of the output at the maximum; used by verify and by the cases
    eval_float: (node, arrays in input order, None if absent) -> the output, float32
    quantize: (node, tensors with their Quant, float constants) -> (constant inputs by name in order, attrs);
        constants replace the float node's constant inputs
    eval_int: (integer node, arrays in input order) -> the output in the output tensor's integer type
    lower: (integer node, integer graph) -> the call, of a kernel for any core
    lower_dsp: the calls of kernels for cores with the DSP extension, of those that can compute the node
    inputs: element types accepted per activation input, the last one repeating
    outputs: element types that the output can have
    symmetric: activation inputs that must have zero point 0
    same_quant: the output has its input's type and Quant (data movement, maximum)
    fixed_quant: (node) -> the Quant that the output always has in the given type, e.g. softmax; None if calibrated
    least_scale: (float node, tensors, float constants) -> the smallest scale of the output whose accumulator fits
      32 bits
    inplace: activation inputs whose buffer the output may overwrite, element for element
    rowwise: (integer node, graph) -> whether row i of the output depends on row i of the activations alone, all of them
        [rows, features], so that the kernel can be called for a few rows at a time
    macs: (node, tensors) -> multiply-accumulates at the maximum token count
    error: (float node, tensors with their Quant, arrays in input order: dequantized activations and float constants) ->
        bound, for the output or for each of its elements, on how far eval_int may lie from eval_float of the same
        arrays, in LSB of the output; results beyond the output's range are compared after saturation
    """

    name: str
    kernel: str
    onnx: tuple[str, ...]
    infer: Callable[[Node, Sequence[Tensor | None]], Shape]
    eval_float: Callable[[Node, Sequence[Array | None]], Array]
    quantize: Callable[[Node, Mapping[str, Tensor], Mapping[str, Array]], tuple[dict[str, Array], dict[str, object]]]
    eval_int: Callable[[Node, Sequence[Array | None]], Array]
    lower: Callable[[Node, Graph], KernelCall]
    cases: Callable[[np.random.Generator], Sequence[Case]]
    inputs: tuple[tuple[str, ...], ...] = (("i8",),)
    outputs: tuple[str, ...] = ("i8",)
    symmetric: tuple[int, ...] = ()
    lower_dsp: Callable[[Node, Graph], Sequence[KernelCall]] = lambda *_: ()
    same_quant: bool = False
    fixed_quant: Callable[[Node, str], Quant] | None = None
    least_scale: Callable[[Node, Mapping[str, Tensor], Mapping[str, Array]], float] | None = None
    inplace: tuple[int, ...] = ()
    rowwise: Callable[[Node, Graph], bool] = lambda *_: False
    macs: Callable[[Node, Mapping[str, Tensor]], int] = lambda node, tensors: 0
    error: Callable[[Node, Mapping[str, Tensor], Sequence[Array | None]], Array | float] = lambda *_: 0.51


def fields(params: Array, names: Sequence[str]) -> dict[str, int]:
    """The named int32 fields of a params constant."""
    assert params.shape == (len(names),), f"params of {params.shape} for {names}"
    return {name: int(value) for name, value in zip(names, params, strict=True)}


def pack_fields(values: Mapping[str, int], names: Sequence[str]) -> Array:
    """The int32 array of a params constant, fields in order; AssertionError if one leaves 32 bits."""
    assert set(values) == set(names), f"{sorted(values)} are not {sorted(names)}"
    assert all(-(2**31) <= values[k] < 2**31 for k in names), f"a field leaves 32 bits: {dict(values)}"
    return np.array([values[k] for k in names], dtype=np.int32)


def rows(tensor: Tensor) -> Arg:
    """Number of rows of a [rows, features] tensor as a kernel argument: the token count, or a fixed number."""
    return Special.TOKENS if tensor.token_axis == 0 else tensor.shape[0]


def activations(node: Node, consts: Mapping[str, Array]) -> tuple[str, ...]:
    """The inputs of a node that are not constants, in order; absent ones stay ""."""
    return tuple(x for x in node.inputs if x not in consts)


def output_dtype(node: Node, tensors: Mapping[str, Tensor]) -> str:
    """Element type of the node's only output."""
    return tensors[node.outputs[0]].dtype
