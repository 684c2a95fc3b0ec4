"""The output folder: what a build leaves, and how the other commands read it again.

<name>.h <name>.c     the model           <name>_blob.bin   weights, tokenizer, labels
slm/                  the runtime         reference/        float and integer graph, samples: for validate and eval
test/ host/           programs            slm2c.json        what this folder is; report.* what it costs
firmware/             a program that boots (firmware.py)
zephyr/ library.json  the folder as a module of Zephyr, as a library of PlatformIO
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slm2c import __version__, emit, seal, validate
from slm2c.board import Board, board_from_table
from slm2c.calibrate import Sample
from slm2c.compile import Compiled
from slm2c.errors import CompileError, Problem
from slm2c.folders import BUILT
from slm2c.identifiers import is_identifier
from slm2c.ir import DTYPES, Graph, Shape
from slm2c.passes import Interface
from slm2c.quantize import run_int
from slm2c.serialize import load_graph, read_arrays, save_graph

REFERENCE = "reference"
"""Of an output folder: what Python reads."""

_KEPT_SAMPLES = 64
_CHECK_SAMPLES = 8  # for `make check` in the folder, which needs no Python


@dataclass(frozen=True)
class Output:
    """An output folder, read again. `files`: their digests when they were built, by path; `outputs`: names and shapes
    in the ONNX file of the graphs' outputs, in their order.
    """

    folder: Path
    files: Mapping[str, str]
    name: str
    board: Board
    interface: Interface | None
    float_graph: Graph
    graph: Graph
    outputs: Mapping[str, Shape]
    samples: tuple[Sample, ...]
    tokenizer: Path | None
    labels: tuple[str, ...] | None


def write(folder: Path, compiled: Compiled) -> None:
    """Fill a new folder with everything but firmware/, slm2c.json and the report."""
    emit.write(folder, compiled.name, compiled.lowered.emitted)
    reference = folder / REFERENCE
    reference.mkdir()
    save_graph(compiled.fused.graph, reference / "float")
    save_graph(compiled.lowered.program.graph, reference / "integer")
    _save_samples(compiled.samples[:_KEPT_SAMPLES], reference / "samples.npz")
    validate.write_samples(folder / "test" / "samples.bin", compiled.quantized.graph, compiled.samples[:_CHECK_SAMPLES])
    _write_outputs(folder / "test" / "outputs.bin", compiled.quantized.graph, compiled.samples[:_CHECK_SAMPLES])
    if compiled.tokenizer is not None:
        shutil.copyfile(compiled.tokenizer, reference / "tokenizer.json")


def finish(folder: Path, compiled: Compiled) -> None:
    """Say in slm2c.json what the folder holds, when everything but the report is there."""
    facts = {
        "slm2c": __version__,
        "name": compiled.name,
        "board": asdict(compiled.board),
        "labels": compiled.labels,
        "outputs": {port.name: port.shape for port in compiled.imported.outputs},
        "interface": None if compiled.fused.interface is None else asdict(compiled.fused.interface),
        "files": seal.digests(folder),
    }
    (folder / BUILT).write_text(json.dumps(seal.signed(facts), indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> Output:
    """Read an output folder. Raises CompileError if it is none, or of another version, or if slm2c.json or the
    reference is not as it was written.
    """
    facts = seal.read(folder, BUILT)
    try:
        files, interface = facts["files"], facts["interface"]
        reference = folder / REFERENCE
        if damaged := seal.changes(folder, {name: files[name] for name in files if name.startswith(f"{REFERENCE}/")}):
            raise CompileError(damaged)
        tokenizer = f"{REFERENCE}/tokenizer.json"
        return Output(
            folder,
            files,
            _checked_name(facts["name"]),
            board_from_table(facts["board"], str(folder / BUILT)),
            None
            if interface is None
            else Interface(
                tuple(interface["lookups"]), tuple(interface["masks"]), interface["pad_id"], interface["max_tokens"]
            ),
            load_graph(reference / "float"),
            load_graph(reference / "integer"),
            {name: tuple(shape) for name, shape in facts["outputs"].items()},
            _load_samples(reference / "samples.npz"),
            folder / tokenizer if tokenizer in files else None,
            None if facts["labels"] is None else tuple(facts["labels"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:  # written by somebody else, checksums and all
        fact = f"is not what `slm2c build` writes: {error}"
        raise CompileError(Problem(str(folder), "", fact, "build it again")) from error


def _write_outputs(path: Path, graph: Graph, samples: Sequence[Sample]) -> None:
    """What templates/model/main.c.j2 has to write for these samples: each output of each, little-endian."""
    with path.open("wb") as file:
        for values in (run_int(graph, sample) for sample in samples):
            for name in dict.fromkeys(graph.outputs):
                dtype = np.dtype(DTYPES[graph.tensors[name].dtype]).newbyteorder("<")
                file.write(values[name].astype(dtype).tobytes())


def _checked_name(name: object) -> str:
    """A model's name as a build gives it: part of file names, so not to be taken from anywhere else."""
    if not isinstance(name, str) or not is_identifier(name):
        raise ValueError(f"{name!r} is no name of a model")
    return name


def _save_samples(samples: Sequence[Sample], path: Path) -> None:
    np.savez(path, **{f"{i}/{name}": value for i, sample in enumerate(samples) for name, value in sample.items()})  # type: ignore[arg-type]


def _load_samples(path: Path) -> tuple[Sample, ...]:
    found: dict[int, dict[str, Any]] = {}
    for key, value in read_arrays(path).items():
        number, name = key.split("/", 1)
        found.setdefault(int(number), {})[name] = value
    return tuple(found[i] for i in sorted(found))
