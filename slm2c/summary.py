"""summary: a report as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from slm2c import memory
from slm2c.memory import Buffer, MemoryPlan, Placement
from slm2c.text import share, table, title

_LISTED = 10  # rows of a table that may be long
_Facts = Mapping[str, Any]


def summary(report: _Facts) -> str:
    """The bytes on the board, and where the ranges come from: what a build ends with."""
    used = [
        (r["name"], share(_used(r), r["bytes"]), f"{100 * _used(r) / r['bytes']:.1f} % of", r["bytes"])
        for r in report["board"]["regions"]
        if r["used"]
    ]
    parts = [
        f"{report['name']} for {report['board']['name']}",
        table(_bytes(report), "llr*"),
        table(used, "llrr"),
        calibration(report["calibration"]),
    ]
    if traded := _traded(report["schedule"]):
        parts.append(traded)
    if report["model"]["warnings"]:
        parts.append("\n".join(f"  warning: {warning}" for warning in report["model"]["warnings"]))
    return "\n\n".join(parts)


def _traded(chosen: _Facts) -> str:
    """What a smaller arena costs, where the fastest schedule was not taken."""
    fastest = chosen["fastest"]
    if chosen == {**fastest, "fastest": fastest}:
        return ""
    more = 100 * (chosen["instructions"] / fastest["instructions"] - 1)
    return (
        f"  traded for the arena: {_tiles(chosen)}, {chosen['arena_bytes']:,} bytes, instead of {_tiles(fastest)}, "
        f"{fastest['arena_bytes']:,} bytes;\n  about {more:.1f} % more instructions and "
        f"{chosen['weight_bytes_read']:,} instead of {fastest['weight_bytes_read']:,} bytes of weights read "
        "in a full-length run"
    )


def _tiles(way: _Facts) -> str:
    groups = f" and {way['groups_of_heads']} groups of heads" if way["groups_of_heads"] > 1 else ""
    return f"tiles of {way['rows_of_a_tile']} rows{groups}"


def _used(region: _Facts) -> int:
    return sum(region["used"].values())


def _bytes(report: _Facts) -> list[Sequence[object]]:
    """Rows of memory, purpose, bytes, remark."""
    flash, sram, measured = report["flash"], report["sram"], report["measured"]
    if "reason" in measured:
        code = stack = f"not measured: {measured['reason']}"
    else:
        code = f"linked by {measured['compiler'].split(' ')[0]}, without C library"
        endless = measured["stack_unbounded"]
        stack = f"no bound: {endless[0]}" if endless else "at worst, without interrupts"
    rows: list[Sequence[object]] = [
        ("flash", "blob", flash["blob_bytes"], ", ".join(f"{k} {v:,}" for k, v in flash["sections"].items())),
        ("", "code", _known(flash["code_bytes"]), code),
        ("SRAM", "arena", sram["arena_bytes"], gap(report)),
        ("", "stack", _known(sram["stack_bytes"]), stack),
    ]
    if sram["caller_bytes"]:
        rows.append(("", "caller", sram["caller_bytes"], "inputs and outputs"))
    return rows


def gap(report: _Facts) -> str:
    """How far the arena is from the least that there is."""
    sram = report["sram"]
    bound = sram["arena_lower_bound_bytes"]
    if sram["arena_bytes"] == bound:
        return "equal to its lower bound"
    return f"lower bound {bound:,}" + (", yet no smaller one exists" if report["memory"]["optimal"] else "")


def _known(count: int | None) -> object:
    return "?" if count is None else count


def calibration(facts: _Facts) -> str:
    """Where the ranges come from, and what that means for accuracy."""
    if facts["source"] is None and facts["method"] == "file":
        return (
            "  ranges are those that the file states; where it states none, random inputs set them.\n"
            "  Accuracy was not measured; give real inputs with --calib FILE."
        )
    if facts["source"] is None:
        return (
            f"  not calibrated: without data, {facts['samples']} random inputs set the ranges ({facts['method']}).\n"
            "  Accuracy was not measured and may be poor; give real inputs with --calib FILE."
        )
    scores = ", ".join(f"{name} {db:.1f} dB" for name, db in facts["output_sqnr_db"].items())
    return f"  calibrated on {facts['samples']} samples of {facts['source']}: {facts['method']} (outputs: {scores})"


def render(report: _Facts) -> str:
    """All of the report that a terminal holds; report.json has the rest."""
    parts = [
        summary(report),
        title("model"),
        _model(report["model"]),
        title("schedule"),
        _schedule(report["schedule"], report["model"]["max_tokens"]),
        title("weights and work"),
        _layers(report["layers"], report["flash"]["blob_bytes"]),
        title("tensors with the most noise"),
        _tensors(report["tensors"]),
        title("arena"),
        _arena(report["memory"]),
    ]
    if path := report["measured"].get("stack_path"):
        parts += [title("deepest stack"), table([(row["function"], row["bytes"]) for row in path], "lr")]
    return "\n\n".join(parts)


def _model(model: _Facts) -> str:
    tokens = model["max_tokens"]
    macs = f"{model['macs']:,}" + (f" at {tokens} tokens, {model['macs'] // tokens:,} a token" if tokens else "")
    rows: list[Sequence[object]] = [("parameters", f"{model['parameters']:,}"), ("MACs", macs)]
    ports = [("input", model["inputs"]), ("output", model["outputs"])]
    rows += [(kind, f"{p['name']}: {p['dtype']} {p['shape']}") for kind, found in ports for p in found]
    rows += [("warning", warning) for warning in model["warnings"]]
    return table(rows, "l*")


def _schedule(chosen: _Facts, tokens: int | None) -> str:
    """How the calls run, and what that is expected to take."""
    length = f"at {tokens} tokens" if tokens else "a run"
    groups = chosen["groups_of_heads"]
    rows: list[Sequence[object]] = [
        ("loops", f"{chosen['loops']}, in tiles of at most {chosen['rows_of_a_tile']} rows"),
        ("attention", "all heads at once" if groups == 1 else f"heads in {groups} groups, one after the other"),
        ("instructions", f"about {chosen['instructions']:,} {length}, by the table of slm2c/costs.py"),
        ("weights read", f"{chosen['weight_bytes_read']:,} bytes {length}: once for each tile"),
    ]
    return table(rows, "l*")


def _layers(layers: Sequence[_Facts], blob: int) -> str:
    """Sums by operator, then the largest nodes."""
    count, weights, macs = Counter[str](), Counter[str](), Counter[str]()
    for layer in layers:
        count[layer["op"]] += 1
        weights[layer["op"]] += layer["weight_bytes"]
        macs[layer["op"]] += layer["macs"]
    sums = [(f"{n} {op}", weights[op], _percent(weights[op], blob), macs[op]) for op, n in count.items()]
    largest = sorted((x for x in layers if x["weight_bytes"]), key=lambda x: -x["weight_bytes"])
    nodes = [(x["node"], x["weight_bytes"], _percent(x["weight_bytes"], blob), x["macs"]) for x in largest]
    sums.sort(key=lambda row: -row[1])
    header = ("bytes", "of blob", "MACs")
    return "\n\n".join(
        [
            table(sums, "*rrr", ("operator", *header)),
            table(nodes[:_LISTED], "*rrr", ("node", *header)) + _more(len(nodes)),
        ]
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def _tensors(tensors: Sequence[_Facts]) -> str:
    noisiest = sorted(tensors, key=lambda t: t["sqnr_db"])[:_LISTED]
    rows = [
        (
            t["tensor"],
            t["node"],
            t["dtype"],
            t["method"],
            f"{t['low']:.3g}",
            f"{t['high']:.3g}",
            f"{t['sqnr_db']:.1f}",
            t["reason"],
        )
        for t in noisiest
    ]
    header = ("tensor", "node", "type", "range by", "low", "high", "SQNR dB", "why")
    wide = sum(t["dtype"] == "i16" for t in tensors)
    counted = f"  {len(tensors)} tensors: {len(tensors) - wide} int8, {wide} int16"
    return f"{table(rows, 'l*llrrrl', header)}{_more(len(tensors))}\n{counted}"


def _arena(facts: _Facts) -> str:
    placements = tuple(
        Placement(Buffer(f"{p['tensor']} {p['node']}", p["bytes"], p["first"], p["last"]), p["offset"])
        for p in facts["placements"]
    )
    peak = memory.lower_bound([p.buffer for p in placements])
    plan = MemoryPlan(placements, facts["arena_bytes"], peak, facts["optimal"], facts["search_steps"])
    return "\n".join(f"  {line}".rstrip() for line in memory.render(plan).splitlines())


def _more(count: int) -> str:
    return f"\n  ... and {count - _LISTED} more, see --json" if count > _LISTED else ""
