"""bench: what the kernels cost, measured: `python -m slm2c.bench`, or `make bench`.

Builds the example student, runs it in QEMU on each board at several token counts, counts instructions of the whole run
and of each kernel call, and writes docs/performance.json and docs/PERFORMANCE.md. Under `-icount shift=0` the counts
are the same on every machine; runs are repeated because the counter has steps of 40 instructions.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jinja2

from slm2c import cycles, elf, output, toolchain
from slm2c.board import Board, load_board
from slm2c.compile import Options, compile_model
from slm2c.ir import Graph, Tensor
from slm2c.ops import TABLE
from slm2c.output import Output
from slm2c.resources import data_dir
from slm2c.toolchain import Firmware

BOARDS = ("mps2-an500", "mps2-an386", "mps2-an505")
TOKENS = (1, 8, 9, 16, 32)
REPEATS = 10


Call = tuple[int, int]
"""Token count, and the number that the C gives to what a kernel call stores; 0 for the whole run."""


@dataclass(frozen=True)
class Total:
    """A whole run, from token ids to scores; `code` in bytes, without C library and start-up."""

    board: str
    model: str
    tokens: int
    instructions: int
    cycles_estimated: int | None
    code: int
    arena: int


@dataclass(frozen=True)
class Op:
    """One kernel call of a run; `shape` of its first input and its output, n for the token count."""

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


def macs(graph: Graph, tokens: int) -> dict[int, int]:
    """Multiply-accumulates of each call at a token count, by the number that the C gives to its output."""
    tensors = {name: _at(tensor, tokens) for name, tensor in graph.tensors.items()}
    first = len(graph.inputs)
    return {first + i: TABLE[node.op].macs(node, tensors) for i, node in enumerate(graph.nodes)}


def _at(tensor: Tensor, tokens: int) -> Tensor:
    if tensor.token_axis is None:
        return tensor
    shape = tuple(tokens if i == tensor.token_axis else d for i, d in enumerate(tensor.shape))
    return replace(tensor, shape=shape)


def measure(built: Output, board: Board, tokens: Sequence[int], work: Path) -> tuple[list[Total], list[Op]]:
    """Instructions of the model in `built` on an emulated `board`: of whole runs, and of each kernel call.

    Cycles too where llvm-mca has a model of the core. Raises CompileError without cross compiler or QEMU.
    """
    whole = _build(built, board, tokens, REPEATS, work / f"{board.name}.elf", ())
    traced = _build(built, board, tokens, REPEATS, work / f"{board.name}-calls.elf", ("SLM_TRACE",))
    runs, calls = _run(whole, board), _run(traced, board)
    estimated = _cycles(built, board, sorted(calls), work)
    own = [obj for source, obj in whole.objects.items() if source.is_relative_to(built.folder)]
    code, arena = elf.object_sizes(whole.map, own).code, _arena(built)
    totals = [Total(board.name, built.name, n, runs[n, 0], estimated.get((n, 0)), code, arena) for n in tokens]
    nodes = dict(enumerate(built.graph.nodes, len(built.graph.inputs)))
    counted = {n: macs(built.graph, n) for n in tokens}
    ops = []
    for (n, number), instructions in sorted(calls.items()):
        node = nodes[number]
        shape = " -> ".join(_shape(built.graph.tensors[x]) for x in (node.inputs[0], node.outputs[0]))
        cycles_estimated = estimated.get((n, number))
        known = node.op, node.name, shape, counted[n][number], instructions, cycles_estimated
        ops.append(Op(board.name, built.name, n, number, *known))
    return totals, ops


def _cycles(built: Output, board: Board, calls: Sequence[Call], work: Path) -> dict[Call, int]:
    """Estimated cycles of each kernel call, and of whole runs under the number 0; nothing where there is no model."""
    if board.cpu != "cortex-m7" or cycles.llvm_mca() is None:
        return {}
    tokens = sorted({n for n, _ in calls})
    firmware = _build(built, board, tokens, 1, work / f"{board.name}-once.elf", ("SLM_TRACE",))
    entry = f"{built.name}_run"
    parts = cycles.estimate(firmware.elf, board, (entry, "slm_trace"))
    stored = [part.cycles for mark, part in parts if mark != entry]
    assert len(stored) == len(calls), f"{len(stored)} calls, expected {len(calls)}"
    found = dict(zip(calls, stored, strict=True))
    return found | {(n, 0): sum(value for (m, _), value in found.items() if m == n) for n in tokens}


def _shape(tensor: Tensor) -> str:
    return " x ".join("n" if axis == tensor.token_axis else str(size) for axis, size in enumerate(tensor.shape))


def _build(
    built: Output, board: Board, tokens: Sequence[int], repeats: int, elf_path: Path, defines: Sequence[str]
) -> Firmware:
    graph = built.graph
    assert built.interface is not None, f"{built.name} does not read tokens"
    limit = min(graph.consts[x].shape[0] for n in graph.nodes if n.op == "embedding" for x in n.inputs if ".table" in x)
    outputs = [graph.tensors[x] for x in graph.outputs]
    facts = {
        "name": built.name,
        "upper": built.name.upper(),
        "tokens": tokens,
        "repeats": repeats,
        "limit": limit,
        "tensors": len(graph.inputs) + len(graph.nodes),
        "inputs": [graph.tensors[x].size for x in graph.inputs],
        "outputs": [(t.size, {"i8": "int8_t", "i16": "int16_t"}[t.dtype]) for t in outputs],
    }
    jinja = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = jinja.from_string((data_dir("templates") / "bench.c.j2").read_text(encoding="utf-8"))
    program = elf_path.with_suffix(".c")
    program.write_text(template.render(facts), encoding="utf-8")
    sources = [built.folder / f"{built.name}.c", program, *sorted((built.folder / "slm").glob("*.c"))]
    includes, blob = [built.folder, built.folder / "slm"], built.folder / f"{built.name}_blob.bin"
    return toolchain.build_firmware(sources, board, elf_path, includes=includes, defines=defines, blob=blob)


def _run(firmware: Firmware, board: Board) -> dict[Call, int]:
    """(token count, tensor number) -> instructions of one run; the number is 0 for the whole run."""
    result = toolchain.run_qemu(firmware.elf, board, timeout=600)
    if result.exit_code != 0:
        raise toolchain.ToolError(f"the benchmark ended with code {result.exit_code}", [board.name], result.output)
    rows = [[int(word) for word in line.split()] for line in result.output.splitlines()]
    return {(n, number): round(instructions / REPEATS) for n, number, instructions in rows}


def _arena(built: Output) -> int:
    header = (built.folder / f"{built.name}.h").read_text(encoding="utf-8")
    found = re.search(rf"#define {built.name.upper()}_ARENA_SIZE\s+\(?(\d+)", header)
    assert found, "no arena size in the header"
    return int(found[1])


def render(totals: Sequence[Total], ops: Sequence[Op]) -> str:
    """docs/PERFORMANCE.md."""
    boards = list(dict.fromkeys(t.board for t in totals))
    tokens = list(dict.fromkeys(t.tokens for t in totals))
    rows = {(t.board, t.tokens): t for t in totals}
    first = totals[0]
    lines = [
        "# Performance",
        "",
        "Written by `make bench`; the same figures are in `performance.json`. Instructions are counted in QEMU",
        "(`-icount shift=0`) and are the same on every machine. Cycles are estimated with llvm-mca's model of the",
        "Cortex-M7, without caches, wait states and mispredicted branches.",
        "",
        f"## {first.model}: million instructions of a run, from token ids to scores",
        "",
        "| board | " + " | ".join(f"n = {n}" for n in tokens) + " | code, bytes | arena, bytes |",
        "|---|" + "---:|" * (len(tokens) + 2),
    ]
    for board in boards:
        values = " | ".join(f"{rows[board, n].instructions / 1e6:.3f}" for n in tokens)
        lines.append(f"| {board} | {values} | {rows[board, tokens[0]].code:,} | {rows[board, tokens[0]].arena:,} |")
    for board in boards:
        if rows[board, tokens[0]].cycles_estimated is not None:
            values = " | ".join(f"{(rows[board, n].cycles_estimated or 0) / 1e6:.3f}" for n in tokens)
            lines.append(f"| {board}, million cycles, estimated | {values} | | |")
    for board in boards:
        lines += ["", f"## {board}: instructions by operator and output", ""]
        lines += [
            "| operator | input -> output | calls | "
            + " | ".join(f"n = {n}" for n in tokens)
            + " | MAC per instruction | MAC per cycle |"
        ]
        lines += ["|---|---|---:|" + "---:|" * len(tokens) + "---|---|"]
        groups: dict[tuple[str, str], list[Op]] = {}
        for op in ops:
            if op.board == board:
                groups.setdefault((op.op, op.shape), []).append(op)
        for (name, shape), members in groups.items():
            by = [[op for op in members if op.tokens == n] for n in tokens]
            counts = " | ".join(f"{sum(op.instructions for op in row):,}" for row in by)
            ratio = slow = ""
            if members[0].macs:
                ratio = " / ".join(f"{sum(o.macs for o in row) / sum(o.instructions for o in row):.2f}" for row in by)
                if members[0].cycles_estimated:
                    slow = " / ".join(
                        f"{sum(o.macs for o in r) / sum(o.cycles_estimated or 0 for o in r):.2f}" for r in by
                    )
            lines.append(f"| {name} | {shape} | {len(by[0])} | {counts} | {ratio} | {slow} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the documents."""
    parser = argparse.ArgumentParser(prog="python -m slm2c.bench", description=__doc__)
    parser.add_argument(
        "--build", type=Path, help="the output folder of `slm2c build` to measure; else homecmd is built"
    )
    parser.add_argument("--out", type=Path, default=Path("docs"), help="where performance.json and PERFORMANCE.md go")
    args = parser.parse_args()
    boards = [load_board(name) for name in BOARDS]
    with tempfile.TemporaryDirectory(prefix="slm2c-") as temporary:
        work = Path(temporary)
        folder = args.build
        if folder is None:
            folder = work / "build"
            folder.mkdir()
            output.write(folder, compile_model(data_dir("examples") / "homecmd", boards[0], Options()))
        built = output.read(folder)
        totals: list[Total] = []
        ops: list[Op] = []
        for board in boards:
            found = measure(built, board, TOKENS, work)
            totals += found[0]
            ops += found[1]
    args.out.mkdir(exist_ok=True)
    facts = {"totals": [asdict(x) for x in totals], "ops": [asdict(x) for x in ops]}
    (args.out / "performance.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (args.out / "PERFORMANCE.md").write_text(render(totals, ops), encoding="utf-8")
    for total in totals:
        print(f"{total.board} n={total.tokens}: {total.instructions / 1e6:.3f} million instructions")


if __name__ == "__main__":
    main()
