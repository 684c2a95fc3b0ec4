"""The shapes of a model's inputs: as declared in the file, as bound by the user, and what is still missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import TensorProto, ValueInfoProto

from slm2c.errors import CompileError, Problem
from slm2c.ir import Shape
from slm2c.onnx_file import MAX_ELEMENTS, type_name
from slm2c.onnx_ops.base import IR_TYPES, Dim


@dataclass(frozen=True)
class Declared:
    """A graph input as the file declares it; `dims` is None where the file does not even give a rank."""

    name: str
    elem_type: int
    dims: tuple[Dim, ...] | None


def declared_shape(value: ValueInfoProto) -> tuple[Dim, ...] | None:
    """The dims that the file declares for a tensor; None without any."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param for d in tensor.shape.dim)


def contradicts(dims: tuple[Dim, ...] | None, shape: Shape) -> bool:
    """Whether `shape` cannot be what is declared. Axes of length one are forgiven: exporters confuse [] and [1]."""
    if dims is None:
        return False
    if len(dims) == len(shape):
        return any(isinstance(d, int) and d != n for d, n in zip(dims, shape, strict=True))
    return all(isinstance(d, int) for d in dims) and [d for d in dims if d != 1] != [n for n in shape if n != 1]


def _declare(value: ValueInfoProto) -> Declared | Problem:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        what = (kind or "value without type").removesuffix("_type")
        return Problem(value.name, "", f"input is a {what}, not a tensor", "export the model with tensor inputs only")
    elem_type = value.type.tensor_type.elem_type
    if elem_type not in IR_TYPES:
        remedy = "tokenize outside of the model" if elem_type == TensorProto.STRING else "cast it inside of the model"
        return Problem(value.name, "", f"input has element type {type_name(elem_type)}, which is unsupported", remedy)
    return Declared(value.name, elem_type, declared_shape(value))


def _option(name: str, dims: Sequence[Dim] | None) -> str:
    """The option that would bind an input, with an example for each open dim."""
    return f"--shape {name}=" + ",".join(
        str(d) if isinstance(d, int) else "1" if i == 0 else "32" for i, d in enumerate(dims or ("", ""))
    )


def _merge(declared: Declared, given: Shape, symbols: dict[str, int]) -> Problem | None:
    """Check `given` against the declaration and learn the symbols from it."""
    if len(given) > 32 or any(d < 0 or d > MAX_ELEMENTS for d in given):
        return Problem(declared.name, "", f"{list(given)} is no usable shape")
    if declared.dims is None:
        return None
    text = list(declared.dims)
    if len(declared.dims) != len(given):
        return Problem(
            declared.name,
            "",
            f"bound to {list(given)}, but the file declares rank {len(text)}: {text}",
            _option(declared.name, declared.dims),
        )
    for dim, length in zip(declared.dims, given, strict=True):
        if isinstance(dim, int) and dim != length:
            return Problem(
                declared.name,
                "",
                f"bound to {list(given)}, but the file declares {text}",
                _option(declared.name, declared.dims),
            )
        if isinstance(dim, str) and dim and symbols.setdefault(dim, length) != length:
            return Problem(
                declared.name,
                "",
                f"'{dim}' is bound to {symbols[dim]} and to {length}",
                "bind every input that has it to the same length",
            )
    return None


def _close(declared: Declared, symbols: Mapping[str, int]) -> tuple[Dim, ...] | None:
    """The dims with known symbols replaced; an open batch axis that is the only open one becomes 1."""
    if declared.dims is None:
        return None
    dims = tuple(symbols.get(d, d) if isinstance(d, str) else d for d in declared.dims)
    if len(dims) > 1 and isinstance(dims[0], str) and all(isinstance(d, int) for d in dims[1:]):
        return (1, *dims[1:])
    return dims


def bind_inputs(inputs: Sequence[ValueInfoProto], shapes: Mapping[str, Shape]) -> dict[str, tuple[Shape, int]]:
    """Input name -> static shape and ONNX element type.

    `shapes` binds symbolic dims by input; what it says of a named symbol holds for every input. Raises CompileError
    with all that is unknown, contradicted, still open (with the option that would bind it), empty or of an unsupported
    type.
    """
    problems: list[Problem] = []
    known: dict[str, Declared] = {}
    for value in inputs:
        declared = _declare(value)
        if isinstance(declared, Problem):
            problems.append(declared)
        elif declared.name in known:
            problems.append(Problem(declared.name, "", "is declared as input twice", "export the model again"))
        else:
            known[declared.name] = declared
    names = [value.name for value in inputs]
    problems += [
        Problem(name, "", "is no input of the model", f"its inputs are {', '.join(names) or 'none'}")
        for name in shapes
        if name not in names
    ]
    symbols: dict[str, int] = {}
    for name, given in shapes.items():
        if name in known and (problem := _merge(known[name], tuple(given), symbols)):
            problems.append(problem)
    bound: dict[str, tuple[Shape, int]] = {}
    for name, declared in known.items():
        dims = tuple(shapes[name]) if name in shapes else _close(declared, symbols)
        if dims is None:
            problems.append(Problem(name, "", "input has no declared shape", f"give it with {_option(name, None)}"))
            continue
        open_dims = [f"axis {i}" + (f" ('{d}')" if d else "") for i, d in enumerate(dims) if isinstance(d, str)]
        if open_dims:
            reason = f"input has symbolic {', '.join(open_dims)} in {list(declared.dims or ())}"
            problems.append(Problem(name, "", reason, f"bind it with {_option(name, dims)}"))
        elif 0 in dims:
            problems.append(
                Problem(
                    name,
                    "",
                    f"input of shape {list(dims)} has no elements",
                    "export the model with at least one element in each axis",
                )
            )
        else:
            shape = tuple(d for d in dims if isinstance(d, int))
            total = 1
            for d in shape:
                total *= d
            if total > MAX_ELEMENTS or len(shape) > 32:
                problems.append(
                    Problem(
                        name,
                        "",
                        f"input of shape {list(shape)} has {total:,} elements; the limit is {MAX_ELEMENTS:,}",
                        "bind smaller shapes",
                    )
                )
            bound[name] = (shape, declared.elem_type)
    if problems:
        raise CompileError(problems)
    return bound
