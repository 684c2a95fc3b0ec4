"""Samples: calibration and validation inputs, from arrays or from text, as the fused graph takes them.

A sample of a token model holds its ids with their actual count n; the padding and the mask of an array are what says
how many that are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from slm2c import serialize
from slm2c.calibrate import Sample
from slm2c.errors import CompileError, Problem
from slm2c.fixedpoint import dequantize
from slm2c.folders import replaced
from slm2c.ir import Array, Graph, Quant, Shape
from slm2c.passes import Interface
from slm2c.tokenizer import Tokenizer


def from_texts(texts: Sequence[str], tokenizer: Tokenizer, interface: Interface) -> list[Sample]:
    """One sample a sentence; further lookups (token types) are zeros."""
    samples: list[Sample] = []
    for text in texts:
        ids = np.array(tokenizer.encode(text, interface.max_tokens), dtype=np.int32)
        samples.append({name: ids if i == 0 else np.zeros_like(ids) for i, name in enumerate(interface.lookups)})
    return samples


def read_arrays(path: Path, graph: Graph, interface: Interface | None) -> list[Sample]:
    """Samples of an .npz whose keys are ONNX input names, or in/<name>; the first axis counts samples.

    Raises CompileError naming the inputs that are missing, or whose shape or numbers the model does not take.
    """
    try:
        found = serialize.read_arrays(path)
    except (OSError, ValueError) as error:
        remedy = "write it with numpy.savez: an array for each input, the first axis samples"
        raise CompileError(Problem(str(path), "", f"is not an .npz file of arrays: {error}", remedy)) from error
    arrays = {key.removeprefix("in/"): value for key, value in found.items() if not key.startswith("out/")}
    return from_arrays(arrays, graph, interface, str(path))


def write_arrays(path: Path, found: Sequence[Mapping[str, Array]]) -> dict[str, Shape]:
    """Write outputs, one mapping a sample, to an .npz of out/<name>; the first axis counts samples and replaces a
    batch of 1.

    Returns the shapes by name. Raises CompileError if the file cannot be written; a file that is there stays whole.
    """
    join = {name: np.concatenate if value.shape[:1] == (1,) else np.stack for name, value in found[0].items()}
    arrays = {name: np.asarray(join[name]([sample[name] for sample in found])) for name in found[0]}
    with replaced(path) as part, part.open("wb") as file:
        np.savez(file, **{f"out/{name}": value for name, value in arrays.items()})  # type: ignore[arg-type]
    return {name: value.shape for name, value in arrays.items()}


def from_arrays(arrays: Mapping[str, Array], graph: Graph, interface: Interface | None, source: str) -> list[Sample]:
    """As `read_arrays`, for arrays in memory."""
    wanted = {name: graph.tensors[name].shape for name in graph.inputs}
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise CompileError(
            Problem(
                source,
                "",
                f"has no array for the inputs {', '.join(missing)}",
                f"it holds {', '.join(sorted(arrays)) or 'nothing'}; keys are input names",
            )
        )
    first = arrays[graph.inputs[0]]
    count = len(first) if first.ndim else 0
    if count == 0:
        raise CompileError(Problem(source, "", "holds no samples", "the first axis counts them"))
    if interface is not None:  # all token inputs may be as short as the first, unless the model needs its full length
        ids, length = interface.lookups[0], interface.max_tokens
        if graph.tensors[ids].token_axis is not None:
            length = min(max(1, arrays[ids].size // count), length)
        wanted |= {name: (length,) for name in (*interface.lookups, *interface.masks) if name in arrays}
    faults = {name: _fault(arrays[name], (count, *shape)) for name, shape in wanted.items()}
    if any(faults.values()):
        raise CompileError(Problem(source, "", f"input {name} {fault}") for name, fault in faults.items() if fault)
    samples: list[Sample] = []
    for i in range(count):
        n = token_count(arrays, interface, i, source)
        samples.append(
            {
                name: _ids(arrays[name][i].ravel()[:n], vocabulary(graph, name), f"{source}: sample {i} of {name}")
                if interface and name in interface.lookups
                else real(arrays[name][i].reshape(wanted[name]), graph.tensors[name].quant)
                for name in graph.inputs
            }
        )
    return samples


def _fault(array: Array, shape: Shape) -> str:
    """What is wrong with an array of samples of an input, or ""; axes of size 1 may be more or fewer."""
    if array.dtype.kind not in "biuf":
        return f"is of type {array.dtype}, expected numbers"
    if array.shape[:1] != shape[:1] or array.size != int(np.prod(shape)):
        return f"has shape {list(array.shape)}, expected {list(shape)}"
    if not np.isfinite(array).all():
        return "holds NaN or infinity"
    return "holds numbers beyond float32" if (np.abs(array) > np.finfo(np.float32).max).any() else ""


def _ids(values: Array, vocabulary: int, where: str) -> Array:
    wrong = values[(values != np.floor(values)) | (values < 0) | (values >= vocabulary)]
    if wrong.size:
        fact = f"holds {wrong[0]}; ids are whole numbers below {vocabulary}, the rows of the embedding"
        raise CompileError(Problem(where, "", fact, "use the tokenizer that the model was trained with"))
    return values.astype(np.int32)


def real(value: Array, quant: Quant | None) -> Array:
    """A float input; 8-bit integers for one that is quantized in the file are taken as such."""
    if quant is None or value.dtype not in (np.int8, np.uint8):
        return value.astype(np.float32)
    return dequantize(value.astype(np.int64) - (128 if value.dtype == np.uint8 else 0), quant)


def token_count(arrays: Mapping[str, Array], interface: Interface | None, sample: int, source: str) -> int:
    """How many real tokens a padded sample has, by its mask or its padding id."""
    if interface is None:
        return 0
    ids = arrays[interface.lookups[0]][sample].ravel()
    real = np.ones(len(ids), dtype=bool)
    for mask in interface.masks:
        if mask in arrays:
            real &= arrays[mask][sample].ravel() != 0
    if interface.pad_id is not None and not any(mask in arrays for mask in interface.masks):
        real &= ids != interface.pad_id
    n = int(real.sum())
    if n == 0 or not real[:n].all():
        raise CompileError(
            Problem(
                source,
                "",
                f"sample {sample}: its real tokens are not the first ones",
                "pad on the right, with at least one token",
            )
        )
    return n


def synthetic(graph: Graph, interface: Interface | None, count: int, seed: int = 0) -> list[Sample]:
    """Random inputs of all lengths, the shortest and the longest first: for validation, or for want of better."""
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    for i in range(count):
        n = (
            0
            if interface is None
            else (1, interface.max_tokens)[i]
            if i < 2
            else int(rng.integers(1, interface.max_tokens + 1))
        )
        sample: dict[str, Array] = {}
        for name in graph.inputs:
            tensor = graph.tensors[name]
            if interface is not None and name in interface.lookups:
                n = tensor.shape[0] if tensor.token_axis is None else n
                sample[name] = rng.integers(0, vocabulary(graph, name), n).astype(np.int32)
            else:
                sample[name] = rng.normal(size=tensor.shape).astype(np.float32)
        samples.append(sample)
    return samples


def vocabulary(graph: Graph, name: str) -> int:
    """Rows of the smallest embedding table that an id input indexes, in a float graph."""
    return min(
        graph.tensors[node.inputs[i + 1]].shape[0]
        for node in graph.nodes
        if node.op == "embedding"
        for i in range(0, 2 * node.attrs["lookups"], 2)
        if node.inputs[i] == name
    )
