"""report_html: report.json as report.html, a page with pictures that needs nothing but itself.

The template holds words and form; here is what it draws. Names come from a file that others wrote: the template
escapes all of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from slm2c import summary
from slm2c.errors import printable
from slm2c.folders import replaced
from slm2c.resources import templates

FILE = "report.html"

_COLOURS = 5  # of operators: those that take the most; the others share one
_LISTED = 10  # rows of a table before the fold

_Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """A piece of a bar; `colour` is a class of the style sheet."""

    name: str
    size: int
    colour: str


@dataclass(frozen=True)
class Bar:
    """`parts` of `whole`, in the same unit; the rest is free."""

    name: str
    parts: Sequence[Part]
    whole: int

    @property
    def used(self) -> int:
        """What the parts add up to."""
        return sum(part.size for part in self.parts)


def write(folder: Path, report: _Facts) -> None:
    """Write report.html, or replace it."""
    with replaced(folder / FILE) as part:
        part.write_text(render(report), encoding="utf-8", newline="\n")


def render(report: _Facts) -> str:
    """The page for the content of a report.json; the same content gives the same text."""
    jinja = templates(autoescape=True, finalize=_plain)
    jinja.filters |= {"name": _name, "ms": summary.milliseconds, "run": summary.length}
    layers: list[_Facts] = [{**layer, "longest": layer["instructions"][-1]} for layer in report["layers"]]
    colours = _colours(layers)
    noisy = sorted(report["tensors"], key=lambda t: t["sqnr_db"])
    names = _layers_of([layer["node"] for layer in layers])
    memory = report["memory"]
    placements = sorted(memory["placements"], key=lambda p: (p["first"], p["offset"], p["tensor"]))
    facts = {
        "r": report,
        "layers": layers,
        "endless": summary.unbounded(report["measured"]),
        "linked": "reason" not in report["measured"],
        "regions": [_region(region, report, colours) for region in report["board"]["regions"] if region["used"]],
        "gap": summary.gap(report),
        "calibration": " ".join(summary.calibration(report["calibration"]).split()),
        "accuracy": " ".join(summary.accuracy(report).replace("`", "").split()),
        "placements": placements,
        "live": [p for p in placements if p["bytes"] and p["first"] <= memory["peak"]["call"] <= p["last"]],
        "steps": len(layers),
        "starts": [i for i in range(1, len(names)) if names[i] != names[i - 1]],
        "operators": [Part(op, 0, colour) for op, colour in _legend(layers, colours)],
        "runs": _runs(report["cost"]["lengths"]),
        "costs": [(title, _groups(layers, key, colours)) for title, key in _COSTS.items()],
        "noisy": [noisy[:_LISTED], noisy[_LISTED:]],
        "loudest": max([1.0, *(t["sqnr_db"] for t in noisy)]),
    }
    return jinja.get_template("report.html.j2").render(facts)


_COSTS = {"Instructions, expected": "longest", "Multiply-accumulates": "macs", "Weights, bytes": "weight_bytes"}


def _plain(value: Any) -> Any:
    """What a template prints: integers with separators, text without control characters."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(value) if type(value) is str else value  # not of Markup, which is done


def _name(path: str) -> Markup:
    """A node's name, which may be broken after a slash."""
    return Markup("/<wbr>").join(escape(printable(part)) for part in path.split("/"))


def _colours(layers: Sequence[_Facts]) -> dict[str, str]:
    """A colour for each operator."""
    work = Counter[str]()
    for layer in layers:
        work[layer["op"]] += layer["weight_bytes"] + layer["longest"]
    return {op: f"c{min(i, _COLOURS)}" for i, (op, _) in enumerate(work.most_common())}


def _legend(layers: Sequence[_Facts], colours: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """(name, colour) of what bars of operators show."""
    kinds = {layer["op"] for layer in layers if layer["weight_bytes"] or layer["longest"]}
    shown = [(op, colour) for op, colour in colours.items() if op in kinds]
    return dict.fromkeys((op if colour != f"c{_COLOURS}" else "other operators", colour) for op, colour in shown)


def _parts(layers: Iterable[_Facts], key: str, colours: Mapping[str, str]) -> list[Part]:
    """Sums by operator, in the order of colours."""
    sums = Counter[str]()
    for layer in layers:
        name = layer["op"] if colours[layer["op"]] != f"c{_COLOURS}" else "other operators"
        sums[name] += layer[key]
    order = [*colours, "other operators"]
    return [Part(op, sums[op], colours.get(op, f"c{_COLOURS}")) for op in order if sums[op]]


def _region(region: _Facts, report: _Facts, colours: Mapping[str, str]) -> Bar:
    """What lies in a memory; the blob by what is in it."""
    parts: list[Part] = []
    for what, size in region["used"].items():
        if what != "blob":
            parts.append(Part(what, size, what.replace(",", " ").split()[0]))
            continue
        weights = _parts(report["layers"], "weight_bytes", colours)
        texts = [Part(name, count, name) for name, count in report["flash"]["sections"].items() if name != "weights"]
        rest = size - sum(part.size for part in weights + texts)
        parts += [Part(f"weights: {p.name}", p.size, p.colour) for p in weights]
        parts += [Part("header and scales", rest, "rest"), *texts]
    return Bar(region["name"], parts, region["bytes"])


def _runs(lengths: Sequence[_Facts]) -> list[Bar]:
    """A bar of instructions for each length, counted where they were; the longest run sets the scale."""
    counts = [row["measured_instructions"] or row["instructions"] for row in lengths]
    parts = [[Part("instructions", count, "c0")] for count in counts]
    return [Bar(summary.length(row), part, max([1, *counts])) for row, part in zip(lengths, parts, strict=True)]


def _layers_of(nodes: Sequence[str]) -> list[str]:
    """The layer of the network that each node belongs to, as exporters name it: up to the first folder with a number,
    else its folder. A folder with most of the nodes is no layer; where nothing else is left, each node is.
    """
    paths = [node.split(";")[0].split("/") for node in nodes]  # TensorFlow Lite joins names of what it fused
    crowd = Counter("/".join(path[:i]) for path in paths for i in range(1, len(path)))
    found = []
    for path in paths:
        folders = ["/".join(path[:i]) for i in range(1, len(path))]
        asked = [folder for folder in folders if re.search(r"\d$", folder)] + folders[-1:]
        layers = [folder for folder in asked if folder and 2 * crowd[folder] <= len(nodes)]
        found.append(layers[0] if layers else "/".join(path))
    return found


def _groups(layers: Sequence[_Facts], key: str, colours: Mapping[str, str]) -> list[Bar]:
    """A bar for each layer of the network, in the order in which they first run; the longest sets the scale."""
    found: dict[str, list[_Facts]] = {}
    for name, layer in zip(_layers_of([layer["node"] for layer in layers]), layers, strict=True):
        found.setdefault(name, []).append(layer)
    parts = {name: _parts(group, key, colours) for name, group in found.items()}
    longest = max((sum(part.size for part in group) for group in parts.values()), default=0)
    return [Bar(name, group, longest) for name, group in parts.items() if group]
