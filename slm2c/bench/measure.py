"""measure: what one model executes on one emulated board, in whole runs and in each kernel call."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slm2c import costs, cycles, elf, output, process, toolchain
from slm2c.bench.results import Element, Op, Total
from slm2c.board import Board
from slm2c.compile import Compiled, Options, compile_model
from slm2c.ir import Graph, Node, Tensor
from slm2c.ops import TABLE
from slm2c.resources import templates
from slm2c.toolchain import Firmware

SOFTMAX = re.compile(r"slm_attention_weigh")
"""Functions that turn scores into the weights of a softmax, by the start of their names."""


_HOOKS = ("bench_mark", "slm_trace", "slm_trace_part")
"""What the traced program executes beside the kernels."""


@dataclass(frozen=True)
class Model:
    """A compiled model and the folder with its C."""

    compiled: Compiled
    folder: Path

    @property
    def name(self) -> str:
        """The prefix of its C."""
        return self.compiled.name

    @property
    def graph(self) -> Graph:
        """The integer graph that the C computes."""
        return self.compiled.lowered.program.graph


def compile_into(folder: Path, source: Path, board: Board, options: Options) -> Model:
    """Compile the ONNX model `source` into a new folder. Raises CompileError."""
    compiled = compile_model(source, board, options)
    folder.mkdir(parents=True)
    output.write(folder, compiled)
    return Model(compiled, folder)


def runs(
    model: Model,
    board: Board,
    tokens: Sequence[int],
    work: Path,
    estimated: Mapping[int, int] | None = None,
    arena_limit: int | None = None,
) -> list[Total]:
    """Whole runs at each token count, to within a step of the counter; with `estimated` cycles by token count.

    Raises CompileError without cross compiler or QEMU.
    """
    firmware = _build(model, board, tokens, work / "runs.elf", ())
    own = [obj for source, obj in firmware.objects.items() if source.is_relative_to(model.folder)]
    code = elf.object_sizes(firmware.map, own).code
    lowered, cycles_at = model.compiled.lowered, estimated or {}
    plan, arena = lowered.plan, lowered.emitted.arena_bytes
    # What is beside the plan (ids and scores of a text) is in both.
    sizes = code, arena, plan.lower_bound_bytes + arena - plan.arena_bytes, arena_limit
    return [
        Total(board.name, model.name, n, count, cycles_at.get(n), *sizes, costs.weight_bytes(lowered.program, n))
        for n, count in _rows(firmware, board)
    ]


def calls(
    model: Model, board: Board, tokens: Sequence[int], work: Path
) -> tuple[list[Op], list[Element], dict[int, int]]:
    """Each kernel call at each token count, exactly; what elements cost; and the estimated cycles of all calls.

    Cycles only for a Cortex-M7, and where there is an llvm-mca. Raises CompileError without cross compiler or QEMU.
    """
    firmware = _build(model, board, tokens, work / "calls.elf", ("SLM_TRACE",))
    entry, mark = f"{model.name}_run", "bench_mark"
    order = _rows(firmware, board)
    parts = [part for part in cycles.executed(firmware.elf, board, (entry, mark)) if part.mark == mark]
    assert len(parts) == len(order), f"{len(parts)} calls, expected {len(order)}"
    instructions: Counter[tuple[int, int]] = Counter()
    estimated: Counter[tuple[int, int]] = Counter()
    softmax: Counter[int] = Counter()
    for call, part in zip(order, parts, strict=True):
        instructions[call] += part.instructions - sum(part.functions.get(hook, 0) for hook in _HOOKS)
        estimated[call] += part.cycles or 0
        softmax[call[0]] += sum(count for name, count in part.functions.items() if SOFTMAX.match(name))
    nodes = dict(enumerate(model.graph.nodes, len(model.graph.inputs)))
    ops = []
    for (n, number), count in instructions.items():
        node = nodes[number]
        shape = " -> ".join(_shape(model.graph.tensors[x]) for x in (node.inputs[0], node.outputs[0]))
        known = _title(node), node.name, shape, macs(model.graph, node, n), count, estimated[n, number] or None
        ops.append(Op(board.name, model.name, n, number, *known))
    total = {n: sum(value for (m, _), value in estimated.items() if m == n) for n in tokens}
    return ops, _elements(model.graph, ops, softmax), {n: value for n, value in total.items() if value}


def _elements(graph: Graph, ops: Sequence[Op], softmax: Mapping[int, int]) -> list[Element]:
    """Instructions of softmax and LayerNorm, and of how many elements; `softmax` counts those at each token count."""
    found = []
    for n in dict.fromkeys(op.tokens for op in ops):
        here = {op.number: op for op in ops if op.tokens == n}
        key = ops[0].board, ops[0].model, n
        nodes = [(here[i], node) for i, node in enumerate(graph.nodes, len(graph.inputs)) if i in here]
        if softmax.get(n):
            found.append(Element(*key, "softmax", sum(weights(graph, node, n) for _, node in nodes), softmax[n]))
        norms = [(op, _at(graph.tensors[node.outputs[0]], n).size) for op, node in nodes if node.op == "layernorm"]
        if norms:
            sizes, counts = sum(size for _, size in norms), sum(op.instructions for op, _ in norms)
            found.append(Element(*key, "LayerNorm", sizes, counts))
    return found


def weights(graph: Graph, node: Node, tokens: int) -> int:
    """How many weights an attention computes at a token count: for each head and query, one a visible key."""
    if node.op != "attention":
        return 0
    queries, keys = (_at(graph.tensors[x], tokens).shape[0] for x in node.inputs[:2])
    hidden = queries * (queries - 1) // 2 if node.attrs["causal"] else 0
    return int(node.attrs["heads"]) * (queries * keys - hidden)


def macs(graph: Graph, node: Node, tokens: int) -> int:
    """Multiply-accumulates of a node at a token count."""
    return TABLE[node.op].macs(
        node, {name: _at(graph.tensors[name], tokens) for name in (*node.inputs, *node.outputs) if name}
    )


def _at(tensor: Tensor, tokens: int) -> Tensor:
    shape = tuple(tokens if axis == tensor.token_axis else size for axis, size in enumerate(tensor.shape))
    return replace(tensor, shape=shape)


def _title(node: Node) -> str:
    """The operator, with the function that was fused to its input."""
    return f"{node.attrs['function']} + {node.op}" if node.op == "linear" and "function" in node.attrs else node.op


def _shape(tensor: Tensor) -> str:
    return " x ".join("n" if axis == tensor.token_axis else str(size) for axis, size in enumerate(tensor.shape))


def _build(model: Model, board: Board, tokens: Sequence[int], image: Path, defines: Sequence[str]) -> Firmware:
    """The program of templates/bench.c.j2 for `board`."""
    graph, name, folder = model.graph, model.name, model.folder
    assert model.compiled.fused.interface is not None, f"{name} does not read tokens"
    limit = min(graph.consts[x].shape[0] for n in graph.nodes if n.op == "embedding" for x in n.inputs if ".table" in x)
    outputs = [graph.tensors[x] for x in graph.outputs]
    program = image.with_suffix(".c")
    program.write_text(
        render(
            "bench.c.j2",
            name=name,
            upper=name.upper(),
            tokens=list(tokens),
            limit=limit,
            max_calls=8 * len(graph.nodes),
            inputs=[graph.tensors[x].size for x in graph.inputs],
            outputs=[(t.size, {"i8": "int8_t", "i16": "int16_t"}[t.dtype]) for t in outputs],
        ),
        encoding="utf-8",
    )
    sources = [folder / f"{name}.c", program, *sorted((folder / "slm").glob("*.c"))]
    includes, blob = [folder, folder / "slm"], folder / f"{name}_blob.bin"
    return toolchain.build_firmware(sources, board, image, includes=includes, defines=defines, blob=blob)


def render(template: str, **facts: object) -> str:
    """A program from templates/."""
    return templates().get_template(template).render(facts)


def _rows(firmware: Firmware, board: Board) -> list[tuple[int, int]]:
    """The pairs of numbers that the program prints."""
    result = toolchain.run_qemu(firmware.elf, board, timeout=600)
    if result.exit_code != 0:
        raise process.ToolError(f"the benchmark ended with code {result.exit_code}", [board.name], result.output)
    pairs = [[int(word) for word in line.split()] for line in result.output.splitlines()]
    return [(n, value) for n, value in pairs]
