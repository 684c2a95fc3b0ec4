"""Graphs in files: JSON for the structure, one .npz for all arrays. The reference that a build leaves for
`validate`.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from slm2c.ir import Array, Graph, Node, Quant, Tensor, verify


def save_graph(graph: Graph, path: Path) -> None:
    """Write `path`.json and `path`.npz."""
    arrays: dict[str, Array] = {}
    structure = {
        "name": graph.name,
        "inputs": graph.inputs,
        "outputs": graph.outputs,
        "nodes": [
            {
                "op": n.op,
                "name": n.name,
                "inputs": n.inputs,
                "outputs": n.outputs,
                "attrs": {k: _encode(v, arrays) for k, v in n.attrs.items()},
            }
            for n in graph.nodes
        ],
        "tensors": [asdict(t) for t in graph.tensors.values()],
        "consts": {name: _encode(value, arrays) for name, value in graph.consts.items()},
    }
    path.with_suffix(".json").write_text(json.dumps(structure), encoding="utf-8")
    np.savez(path.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]


def load_graph(path: Path) -> Graph:
    """Read what `save_graph` wrote. Raises OSError or ValueError for files that it did not."""
    structure = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    arrays = read_arrays(path.with_suffix(".npz"))
    nodes = tuple(
        Node(
            n["op"],
            n["name"],
            tuple(n["inputs"]),
            tuple(n["outputs"]),
            {k: _decode(v, arrays) for k, v in n["attrs"].items()},
        )
        for n in structure["nodes"]
    )
    consts = {name: _decode(value, arrays) for name, value in structure["consts"].items()}
    tensors = {
        t["name"]: Tensor(
            t["name"], tuple(t["shape"]), t["dtype"], t["token_axis"], Quant(**t["quant"]) if t["quant"] else None
        )
        for t in structure["tensors"]
    }
    return verify(
        Graph(structure["name"], tuple(structure["inputs"]), tuple(structure["outputs"]), nodes, tensors, consts)
    )


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by key. Raises OSError if it cannot be read, ValueError if it is damaged or none."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path.name} is no archive of arrays, or cut short")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {key: np.asarray(arrays[key]) for key in arrays.files}
        # RuntimeError: encrypted, or compressed in a way that zipfile does not know.
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(f"{path.name} is damaged: {error}") from error


def _encode(value: object, arrays: dict[str, Array]) -> object:
    """`value` in JSON; arrays and tuples, which JSON does not know, as objects with one key."""
    if isinstance(value, np.ndarray):
        key = f"a{len(arrays)}"
        arrays[key] = value
        return {"array": key}
    if isinstance(value, tuple | list):
        return {"tuple": [_encode(v, arrays) for v in value]}
    assert value is None or isinstance(value, str | bool | int | float), f"no JSON form for {type(value)}"
    return value


def _decode(value: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(value, dict):
        return arrays[value["array"]] if "array" in value else tuple(_decode(v, arrays) for v in value["tuple"])
    return value
