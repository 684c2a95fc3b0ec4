"""What a benchmark found, and its form in docs/performance.json: one object a line, so that a diff can be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from slm2c.errors import CompileError, Problem


@dataclass(frozen=True)
class Total:
    """A whole run, from token ids to scores. All sizes in bytes.

    cycles_estimated: None where there is no estimate
    code: without C library and start-up
    arena, lower_bound: memory of a run, and what its schedule needs at least
    arena_limit: what the arena was held to; None for as large as is fastest
    weights_read: bytes of the blob read in a run, as slm2c/costs.py counts them
    """

    board: str
    model: str
    tokens: int
    instructions: int
    cycles_estimated: int | None
    code: int
    arena: int
    lower_bound: int
    arena_limit: int | None = None
    weights_read: int | None = None


@dataclass(frozen=True)
class Op:
    """One kernel call of a run. `number` is what the C gives to the tensor that it stores, `node` the ONNX node's name;
    `shape` of its first input and its output, n for the token count.
    """

    board: str
    model: str
    tokens: int
    number: int
    op: str
    node: str
    shape: str
    macs: int
    instructions: int
    cycles_estimated: int | None


@dataclass(frozen=True)
class Element:
    """What a run spends on one purpose, `what`, for how many elements."""

    board: str
    model: str
    tokens: int
    what: str
    elements: int
    instructions: int


@dataclass(frozen=True)
class Peer:
    """One part of the encoder layers with another library: its `function` that takes the fewest instructions.

    `instructions` and `macs` are of one call; `calls` says how often the layers need it.
    """

    peer: str
    version: str
    board: str
    model: str
    tokens: int
    part: str
    function: str
    calls: int
    macs: int
    instructions: int


@dataclass(frozen=True)
class Skipped:
    """A model that could not be measured, and why."""

    model: str
    arena_limit: int | None
    reason: str


@dataclass(frozen=True)
class Results:
    """Everything that was found. `tools`: the versions it depends on, None where a tool was missing."""

    tools: Mapping[str, str | None]
    totals: tuple[Total, ...]
    ops: tuple[Op, ...] = ()
    elements: tuple[Element, ...] = ()
    peers: tuple[Peer, ...] = ()
    skipped: tuple[Skipped, ...] = ()


_LISTS = {"totals": Total, "ops": Op, "elements": Element, "peers": Peer, "skipped": Skipped}


def to_json(results: Results) -> str:
    """The text of performance.json."""
    parts = [f'"tools": {json.dumps(dict(results.tools))}']
    for name in _LISTS:
        lines = ",\n".join(json.dumps(asdict(item)) for item in getattr(results, name))
        parts.append(f'"{name}": [\n{lines}\n]' if lines else f'"{name}": []')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def from_json(text: str) -> Results:
    """The results in a text that `to_json` made; ValueError, KeyError or TypeError if it is another."""
    facts: Mapping[str, Any] = json.loads(text)
    lists = {name: tuple(kind(**_checked(kind, item)) for item in facts[name]) for name, kind in _LISTS.items()}
    if not isinstance(facts["tools"], dict):
        raise ValueError("tools is no table")
    return Results(facts["tools"], **lists)


def _checked(kind: type[Any], item: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of an object, each of the type that its class says."""
    types = get_type_hints(kind)
    for name, value in item.items():
        if not isinstance(value, types[name]):
            raise ValueError(f"{name} is {value!r}")
    return item


def read(path: Path) -> Results:
    """The results in a file. Raises CompileError if there are none."""
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        fact = f"does not hold the results of a benchmark: {error}"
        raise CompileError(Problem(str(path), "", fact, "write it anew with `make bench`")) from error


assert {f.name for f in fields(Results)} == {"tools", *_LISTS}
