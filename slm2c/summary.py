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


def cost(facts: _Facts) -> str:
    """Instructions and time of runs, by length."""
    rows = []
    for row in facts["lengths"]:
        counted, time = row["measured_instructions"], row["microseconds"]
        rows.append(
            (
                length(row),
                row["instructions"] if counted is None else counted,
                "expected" if counted is None else "counted in QEMU",
                "" if time is None else f"at least {milliseconds(time)} at {facts['clock_hz'] / 1e6:g} MHz, estimated",
            )
        )
    return table(rows, "lrll", ("", "instructions", "", ""))


def length(row: _Facts) -> str:
    """What a row of `cost.lengths` is about, as "9 tokens, the median"."""
    return (
        f"{row['tokens']} token{'s' if row['tokens'] > 1 else ''}, the {row['what']}" if row["tokens"] else row["what"]
    )


def milliseconds(microseconds: int) -> str:
    """With three digits, as 0.95 ms, 30.5 ms, 1,234 ms."""
    value = microseconds / 1000
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} ms"


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
        endless = unbounded(measured)
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


def unbounded(measured: _Facts) -> list[str]:
    """Why the stack has no bound; empty where it has one, or was not measured."""
    return list(dict.fromkeys(reason for stack in measured.get("stacks", ()) for reason in stack["unbounded"]))


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


def accuracy(report: _Facts) -> str:
    """How often the C answers right, as `slm2c eval` measured it; else what a build can tell: how often it answers what
    the floats answer.
    """
    facts, found = report["calibration"], report["evaluation"]
    if found is not None:
        return (
            f"  right on {found['accuracy_c']:.2%} of {found['n']:,} texts of {found['source']}, the float model on "
            f"{found['accuracy_float']:.2%};\n  the same class from both for {found['agreement']:.2%}"
        )
    if facts["agreeing"] is None:
        return "  agreement with the float model: not measured; `slm2c eval` measures it on labelled text"
    return (
        f"  the class of the float model in {facts['agreeing']} of {facts['judged']} calibration samples; `slm2c eval` "
        "measures\n  accuracy on text that the calibration has not seen"
    )


def render(report: _Facts) -> str:
    """All of the report that a terminal holds; report.json has the rest."""
    parts = [
        summary(report),
        cost(report["cost"]),
        title("model"),
        _model(report["model"]),
        title("schedule"),
        _schedule(report["schedule"], report["model"]["max_tokens"]),
        title("weights and work"),
        _layers(report["layers"], report["flash"]["blob_bytes"]),
        title("cost of each node"),
        _nodes(report["layers"], report["cost"]),
        title("accuracy, and the tensors with the most noise"),
        accuracy(report),
        _tensors(report["tensors"]),
        title("arena"),
        _arena(report["memory"]),
    ]
    parts += [title("memory"), _regions(report)]
    if stacks := report["measured"].get("stacks"):
        parts += [title("stack, by entry point and deepest call path"), _stacks(stacks, report["measured"]["emulated"])]
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


def _regions(report: _Facts) -> str:
    """What lies in each memory of the board."""
    rows: list[Sequence[object]] = []
    for region in report["board"]["regions"]:
        parts = sorted(region["used"].items(), key=lambda item: -item[1])
        for i, (what, size) in enumerate([*parts, ("free", region["bytes"] - _used(region))] if parts else ()):
            rows.append((region["name"] if i == 0 else "", what, size))
    source = "as linked" if "reason" not in report["measured"] else "expected; without code, which was not linked"
    files = [(row["file"], row["bytes"]) for row in report["measured"].get("code", ())]
    found = f"{table(rows, 'llr')}\n  ({source})"
    return f"{found}\n\n{table(files[:_LISTED], 'lr', ('code of', 'bytes'))}{_more(len(files))}" if files else found


def _stacks(stacks: Sequence[_Facts], emulated: _Facts) -> str:
    """Each entry point's bound, the high-water mark beside it, and where the bound comes from."""
    rows: list[Sequence[object]] = []
    for stack in stacks:
        bound = "no bound" if stack["bytes"] is None else stack["bytes"]
        rows.append((stack["entry"], bound, stack["measured_bytes"]))
        rows += [(f"  {row['function']}", row["bytes"], None) for row in stack["path"]]
        rows += [(f"  {reason}", None, None) for reason in stack["unbounded"]]
    where = f"measured on {emulated['board']}" if "board" in emulated else f"not measured: {emulated['reason']}"
    return f"{table(rows, '*rr', ('', 'bound', 'measured'))}\n  ({where}; without interrupts)"


def _nodes(layers: Sequence[_Facts], cost: _Facts) -> str:
    """Expected instructions of each node, at each length, the most expensive first."""
    lengths = [f"at {row['tokens']}" if row["tokens"] else "a run" for row in cost["lengths"]]
    called = [(i, x) for i, x in enumerate(layers) if x["kernel"]]
    dear = sorted(called, key=lambda item: -item[1]["instructions"][-1])
    rows = [(i, x["node"], x["op"], *x["instructions"]) for i, x in dear]
    header = ("call", "node", "operator", *lengths)
    sums = ("", "all", "", *(sum(x["instructions"][i] for x in layers) for i in range(len(lengths))))
    return table([*rows[:_LISTED], sums], f"r*l{'r' * len(lengths)}", header) + _more(len(rows))


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
