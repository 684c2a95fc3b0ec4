"""render: results as docs/PERFORMANCE.md, from templates/bench.md.j2, and the pictures beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from slm2c.bench.measure import render
from slm2c.bench.plot import COLOURS, Series, chart
from slm2c.bench.results import Op, Peer, Results, Total
from slm2c.bench.suite import BOARDS, DEPTHS, EXAMPLE, LINEARS, LONG, MAIN, TRACED
from slm2c.board import load_board

PICTURES = {"tokens": "tokens.svg", "rate": "tokens-rate.svg", "layers": "layers.svg"}

_Costly = TypeVar("_Costly", Op, Peer)


def document(results: Results) -> str:
    """The text of docs/PERFORMANCE.md."""
    boards = [board for board in BOARDS if any(op.board == board for op in results.ops)]
    return render(
        "bench.md.j2",
        tools=results.tools,
        example=EXAMPLE,
        depth=DEPTHS[-1],
        core=_core(MAIN),
        pictures=PICTURES,
        version=results.peers[0].version if results.peers else "",
        runs=_runs(results),
        elements=_elements(results),
        peers=_peers(results),
        parts=_parts(results.peers),
        depths=_depths(results),
        long=_long(results),
        linears=_calls([op for op in results.ops if op.model == LINEARS]),
        calls={
            _core(board): _calls([op for op in results.ops if (op.board, op.model) == (board, EXAMPLE.model)])
            for board in boards
        },
    )


def summary(results: Results) -> str:
    """What `make bench` prints at its end: a line a model and board."""
    runs: dict[tuple[str, str, int | None], list[Total]] = {}
    for t in results.totals:
        if t.model != EXAMPLE.model or t.tokens in TRACED:
            runs.setdefault((t.model, t.board, t.arena_limit), []).append(t)
    lines = [
        f"{model} on {_core(board)}{'' if limit is None else f' in {limit:,} bytes'}: "
        + ", ".join(f"{_millions(t.instructions)} (n = {t.tokens})" for t in found)
        + f" million instructions; code {found[0].code:,}, arena {found[0].arena:,}, bound {found[0].lower_bound:,}"
        for (model, board, limit), found in runs.items()
    ]
    ratios = ", ".join(f"{ratio:.2f} (n = {n})" for n, ratio in peer_ratios(results).items())
    return "\n".join([*lines, *([f"CMSIS-NN needs {ratios} times as many"] if ratios else [])])


def pictures(results: Results) -> dict[str, str]:
    """The SVG files beside the document, by name."""
    runs = [(board, _of(results, board, EXAMPLE.model)) for board in BOARDS]
    marks = dict(zip(BOARDS, ("dot", "ring", "cross"), strict=True))
    ours = [
        Series(
            _core(board),
            # The cores lie on one line: the other ones only mark it here and there.
            [(t.tokens, t.instructions / 1e6) for t in found if board == MAIN or t.tokens == 1 or t.tokens % 4 == 0],
            colour,
            line=board == MAIN,
            mark=marks[board],
        )
        for (board, found), colour in zip(runs, COLOURS, strict=False)
    ]
    peer = [(n, count / 1e6) for n, count in peer_sums(results).items()]
    ratios = [f"× {ratio:.2f}" if n % 8 == 0 else "" for n, ratio in peer_ratios(results).items()]
    theirs = [Series("CMSIS-NN, layers only", peer, COLOURS[3], dashed=True, labels=ratios)] if peer else []
    each = [replace(s, points=[(n, 1e3 * y / n) for n, y in s.points], labels=()) for s in (*theirs, *ours)]
    depth = {config.name: config.layers for config in DEPTHS}
    grown = [
        Series(
            f"{n} tokens",
            [(depth[t.model], t.instructions / 1e6) for t in results.totals if t.model in depth and t.tokens == n],
            colour,
        )
        for n, colour in zip(DEPTHS[0].tokens[::-1], COLOURS, strict=False)
    ]
    name, millions = EXAMPLE.model, "million instructions"
    found = {
        PICTURES["tokens"]: (f"Instructions of a run of {name}", "tokens", millions, [*theirs, *ours]),
        PICTURES["rate"]: (
            f"A token of {name}, by how many there are",
            "tokens",
            "thousand instructions a token",
            each,
        ),
        PICTURES["layers"]: (f"Instructions of a run by depth, on {_core(MAIN)}", "encoder layers", millions, grown),
    }
    return {file: chart(*facts) for file, facts in found.items() if all(s.points for s in facts[3])}


def peer_sums(results: Results) -> dict[int, int]:
    """Instructions of all layers with the peer, by token count."""
    counts = dict.fromkeys((p.tokens for p in results.peers), 0)
    for p in results.peers:
        counts[p.tokens] += p.calls * p.instructions
    return counts


def peer_ratios(results: Results) -> dict[int, float]:
    """The peer's layers to our whole run, by token count."""
    ours = {t.tokens: t.instructions for t in _of(results, MAIN, EXAMPLE.model)}
    return {n: count / ours[n] for n, count in peer_sums(results).items() if n in ours}


def _runs(results: Results) -> str:
    rows = []
    for board in BOARDS:
        found = {t.tokens: t for t in _of(results, board, EXAMPLE.model)}
        traced = [found[n] for n in TRACED if n in found]
        if traced:
            sizes = (f"{x:,}" for x in (traced[0].code, traced[0].arena, traced[0].lower_bound))
            rows.append([_core(board), *(_millions(t.instructions) for t in traced), *sizes])
        if any(t.cycles_estimated for t in traced):
            name = f"{_core(board)}, million cycles, estimated"
            rows.append([name, *(_millions(t.cycles_estimated or 0) for t in traced), "", "", ""])
        if board == MAIN and any(t.weights_read for t in traced):
            rows.append(["weights read from flash, bytes", *(f"{t.weights_read or 0:,}" for t in traced), "", "", ""])
    return _table(["", *_counts(TRACED), "code, bytes", "arena, bytes", "lower bound"], rows)


def _elements(results: Results) -> str:
    found = {(e.what, e.board, e.tokens): f"{e.instructions / e.elements:.1f}" for e in results.elements}
    rows = [
        [what, _core(board), *(found.get((what, board, n), "") for n in TRACED)]
        for what, board in dict.fromkeys((what, board) for what, board, _ in found)
    ]
    return _table(["", "core", *_counts(TRACED)], rows, left=2)


def _peers(results: Results) -> str:
    sums, ratios = peer_sums(results), peer_ratios(results)
    ours = {t.tokens: t.instructions for t in _of(results, MAIN, EXAMPLE.model)}
    rows = [
        ["CMSIS-NN, million instructions", *(_millions(count) for count in sums.values())],
        [f"`{EXAMPLE.model}_run`, million instructions", *(_millions(ours[n]) for n in ratios)],
        ["times as many with CMSIS-NN", *(f"**{ratio:.2f}**" for ratio in ratios.values())],
    ]
    return _table(["", *_counts(sums)], rows if sums else [])


def _parts(peers: Sequence[Peer]) -> str:
    rows = []
    for part in dict.fromkeys(p.part for p in peers):
        found = [p for p in peers if p.part == part]
        functions = ", ".join(f"`{name}`" for name in dict.fromkeys(p.function for p in found))
        rates = _rates(found, lambda p: p.instructions)
        rows.append([part, functions, str(found[0].calls), *(f"{p.instructions:,}" for p in found), rates])
    counts = _counts(dict.fromkeys(p.tokens for p in peers))
    return _table(["part", "function", "calls", *counts, "MAC per instruction"], rows, left=2)


def _depths(results: Results) -> str:
    rows = []
    for config in DEPTHS:
        found = _of(results, MAIN, config.name)
        if found:
            sizes = f"{found[0].code:,}", f"{found[0].arena:,}"
            rows.append([str(config.layers), *(_millions(t.instructions) for t in found), *sizes])
    return _table(["layers", *_counts(DEPTHS[0].tokens), "code, bytes", "arena, bytes"], rows)


def _long(results: Results) -> str:
    free = {(t.model, t.tokens): t.instructions for t in results.totals if t.arena_limit is None}
    sizes = {c.name: f"{c.layers} layers of {c.hidden}, {c.heads} heads, FFN {c.ffn}" for c in LONG}
    rows = []
    for t in (t for t in results.totals if t.model in sizes):
        least = free.get((t.model, t.tokens))
        price = f"{100 * (t.instructions / least - 1):+.1f} %" if least and t.arena_limit is not None else ""
        memory = _bytes(t.arena_limit), _bytes(t.arena), _bytes(t.lower_bound), _bytes(t.weights_read)
        rows.append([sizes[t.model], str(t.tokens), *memory, _millions(t.instructions), price])
    for s in results.skipped:
        rows.append([f"{s.model}: {s.reason.splitlines()[0]}", "", _bytes(s.arena_limit), "", "", "", "", ""])
    memory = "limit", "arena", "lower bound", "weights read"
    return _table(["student", "tokens", *memory, "million instructions", "price"], rows)


def _calls(ops: Sequence[Op]) -> str:
    timed = any(op.cycles_estimated for op in ops)
    rows = []
    for name, shape in dict.fromkeys((op.op, op.shape) for op in ops):
        found = [op for op in ops if (op.op, op.shape) == (name, shape)]
        calls = str(sum(op.tokens == found[0].tokens for op in found))
        sums = (sum(op.instructions for op in found if op.tokens == n) for n in TRACED)
        rates = [_rates(found, lambda op: op.instructions), _rates(found, lambda op: op.cycles_estimated or 0)]
        rows.append([name, shape, calls, *(f"{x:,}" for x in sums), *rates[: 1 + timed]])
    rates = ["MAC per instruction", "MAC per cycle"]
    return _table(["operator", "input -> output", "calls", *_counts(TRACED), *rates[: 1 + timed]], rows, left=2)


def _counts(tokens: Iterable[int]) -> list[str]:
    return [f"n = {n}" for n in tokens]


def _bytes(size: int | None) -> str:
    return "" if size is None else f"{size:,}"


def _rates(members: Sequence[_Costly], cost: Callable[[_Costly], int]) -> str:
    """Multiply-accumulates for each unit of cost, by token count."""
    counts = sorted({m.tokens for m in members})
    sums = [
        (sum(m.macs for m in members if m.tokens == n), sum(cost(m) for m in members if m.tokens == n)) for n in counts
    ]
    return " / ".join(f"{macs / spent:.2f}" for macs, spent in sums if spent) if any(macs for macs, _ in sums) else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Markdown, the first columns aligned to the left; "" without rows."""
    rule = "|" + "---|" * left + "---:|" * (len(head) - left)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]) if rows else ""


def _of(results: Results, board: str, model: str) -> list[Total]:
    return [t for t in results.totals if t.board == board and t.model == model]


def _core(board: str) -> str:
    return load_board(board).cpu.replace("cortex-m", "Cortex-M")


def _millions(count: int) -> str:
    return f"{count / 1e6:.3f}"
