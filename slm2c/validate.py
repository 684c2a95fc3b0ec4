"""validate: the ladder. Every tensor that the C stores equals the integer reference, bit for bit, on each rung.

The C is built with a hook after every kernel call; what it stored is written to a file and compared with
`quantize.run_int` of the graph that the build left in reference/.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slm2c import fixedpoint, samples, toolchain
from slm2c.board import Board, emulated, load_board
from slm2c.calibrate import Sample
from slm2c.errors import CompileError, Problem
from slm2c.ir import Array, Graph
from slm2c.quantize import run_int

if TYPE_CHECKING:
    from slm2c.output import Output


@dataclass(frozen=True)
class Difference:
    """The first element that is not what the reference says."""

    sample: int
    tensor: str
    node: str
    op: str
    index: tuple[int, ...]
    expected: int
    got: int


@dataclass(frozen=True)
class Rung:
    """One rung: tensors compared over all samples, elements that differ, and where the first one is."""

    name: str
    samples: int
    tensors: int
    mismatches: int
    first: Difference | None


@dataclass(frozen=True)
class Ladder:
    """All rungs that were climbed, and why others were left out."""

    rungs: tuple[Rung, ...]
    skipped: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return all(rung.mismatches == 0 for rung in self.rungs)


def ladder(
    output: Output,
    on: Sequence[str],
    boards: Sequence[str],
    count: int,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Ladder:
    """Climb the rungs `on`, of host, sanitize and qemu, with `count` samples; qemu for each of `boards`.

    Without `on`: host, and qemu where its tools are. Without `boards`: the one that the build is for. Raises
    CompileError for want of a tool, for a board that no emulator has, or where the C refuses its blob.
    """
    skipped: dict[str, str] = {}
    targets = [_emulated(board) for board in ([load_board(name) for name in boards] or [output.board])]
    if not on:
        on = ("host", "qemu")
        try:
            for architecture in {board.architecture: None for board in targets}:
                toolchain.cross_cc(architecture), toolchain.qemu(architecture)
        except CompileError as error:
            on, skipped["qemu"] = ("host",), str(error)
    chosen, graph, rungs = choose_samples(output, count), output.graph, list[Rung]()
    for name in dict.fromkeys(on):
        for board in targets if name == "qemu" else [None]:
            progress(f"validate on {name if board is None else board.name}", 0, 1)
            with tempfile.TemporaryDirectory(prefix="slm2c-") as work:
                rungs.append(
                    host_rung(output.folder, output.name, graph, chosen, Path(work), sanitize=name == "sanitize")
                    if board is None
                    else qemu_rung(output.folder, output.name, graph, chosen, Path(work), board)
                )
    return Ladder(tuple(rungs), skipped)


def _emulated(board: Board) -> Board:
    found = emulated(board)
    if found is None:
        raise CompileError(
            Problem(board.name, "", "no emulator runs this board", "choose one that is emulated: slm2c boards")
        )
    return found


def choose_samples(output: Output, count: int) -> list[Sample]:
    """`count` samples: evenly from those that the build kept, the last two random ones of the least and the most
    tokens.
    """
    kept = output.samples[:: max(1, -(-len(output.samples) // max(1, count - 2)))][: max(0, count - 2)]
    return [*kept, *samples.synthetic(output.float_graph, output.interface, count - len(kept))]


def host_rung(
    folder: Path, name: str, graph: Graph, samples: Sequence[Sample], work: Path, *, sanitize: bool = False
) -> Rung:
    """Compare the C built for this machine, under ASan and UBSan if `sanitize`. Files go to `work`."""
    exe = toolchain.build_host(
        sources(folder, name),
        work / "validate",
        includes=[folder, folder / "slm"],
        sanitize=sanitize,
        defines=["SLM_TRACE", "SLM_BLOB_FILE"],
    )
    (work / "blob.bin").write_bytes((folder / f"{name}_blob.bin").read_bytes())

    def run() -> toolchain.RunResult:
        return toolchain.run_host(exe, cwd=work, timeout=600)

    return _compare("sanitize" if sanitize else "host", graph, samples, work, run)


def qemu_rung(
    folder: Path, name: str, graph: Graph, samples: Sequence[Sample], work: Path, board: Board, *, opt: str = "-O2"
) -> Rung:
    """Compare the C built for `board` and run in QEMU."""
    firmware = toolchain.build_firmware(
        sources(folder, name),
        board,
        work / "validate.elf",
        includes=[folder, folder / "slm"],
        defines=["SLM_TRACE"],
        blob=folder / f"{name}_blob.bin",
        opt=opt,
    )

    def run() -> toolchain.RunResult:
        return toolchain.run_qemu(firmware.elf, board, cwd=work, timeout=600)

    return _compare(f"qemu {board.name}", graph, samples, work, run)


def sources(folder: Path, name: str) -> list[Path]:
    """The C of a build with its validation program."""
    return [folder / f"{name}.c", folder / "test" / "validate.c", *sorted((folder / "slm").glob("*.c"))]


def _compare(
    rung: str, graph: Graph, samples: Sequence[Sample], work: Path, run: Callable[[], toolchain.RunResult]
) -> Rung:
    write_samples(work / "samples.bin", graph, samples)
    result = run()
    # 2: a status of init or run; 3: a file that the program cannot read or write.
    if fact := {2: "the C refuses to run", 3: "the validation program says"}.get(result.exit_code):
        raise CompileError(Problem(rung, "", f"{fact}: {result.output.strip()}", "build the folder again"))
    if result.exit_code != 0:
        raise toolchain.ToolError(f"the validation program ended with code {result.exit_code}", [rung], result.output)
    numbers = tensor_numbers(graph)
    traced = read_trace(work / "trace.bin")
    tensors = mismatches = 0
    first: Difference | None = None
    for i, sample in enumerate(samples):
        expected = run_int(graph, sample)
        stored = {
            numbers[number]: _whole(parts, expected[numbers[number]]) for number, parts in traced.get(i, {}).items()
        }
        assert stored, f"{rung}: nothing was stored for sample {i}"
        for node in graph.nodes:
            name = node.outputs[0]
            if name not in stored:
                continue
            tensors += 1
            want = expected[name]
            got = stored[name]
            wrong = np.flatnonzero(got != want.ravel())
            mismatches += len(wrong)
            if len(wrong) and first is None:
                at = tuple(int(x) for x in np.unravel_index(wrong[0], want.shape))
                first = Difference(i, name, node.name, node.op, at, int(want[at]), int(got[wrong[0]]))
        assert all(out in stored for out in graph.outputs), f"{rung}: an output was not stored"
    return Rung(rung, len(samples), tensors, mismatches, first)


def tensor_numbers(graph: Graph) -> Mapping[int, str]:
    """The numbers that the generated C gives to tensors."""
    return dict(enumerate([*graph.inputs, *(n.outputs[0] for n in graph.nodes)]))


def write_samples(path: Path, graph: Graph, samples: Sequence[Sample]) -> None:
    """samples.bin of templates/model/validate.c.j2."""
    parts = [struct.pack("<I", len(samples))]
    for sample in samples:
        tokens = [name for name in graph.inputs if graph.tensors[name].dtype == "i32"]
        if tokens:
            parts.append(struct.pack("<I", len(sample[tokens[0]])))
        parts += [quantize_input(graph, name, sample[name]).tobytes() for name in graph.inputs]
    path.write_bytes(b"".join(parts))


def quantize_input(graph: Graph, name: str, value: Array) -> Array:
    """An input as the C takes it: int32 ids, or integers by the input's scale."""
    tensor = graph.tensors[name]
    if tensor.quant is None:
        return value.astype("<i4")
    return fixedpoint.quantize(value, tensor.quant, tensor.dtype)


@dataclass(frozen=True)
class StoredPart:
    """What a kernel call stored: `data` holds rows of `width` bytes, which are the tensor's from byte `offset` on,
    `full` bytes apart.
    """

    width: int
    offset: int
    full: int
    data: bytes


def read_trace(path: Path) -> dict[int, dict[int, list[StoredPart]]]:
    """trace.bin: what was stored, by sample and tensor number, in order."""
    found: dict[int, dict[int, list[StoredPart]]] = {}
    for sample, number, part in _records(path.read_bytes()):
        found.setdefault(sample, {}).setdefault(number, []).append(part)
    return found


def _records(data: bytes) -> Iterator[tuple[int, int, StoredPart]]:
    at = 0
    while at < len(data):
        sample, number, rows, width, offset, full = struct.unpack_from("<6I", data, at)
        at += 24
        assert at + rows * width <= len(data), "trace.bin is cut short"
        yield sample, number, StoredPart(width, offset, full, data[at : at + rows * width])
        at += rows * width


def _whole(parts: Sequence[StoredPart], like: Array) -> Array:
    """The elements of a tensor, of the type and size of `like`, put together; each byte was stored once."""
    found = np.zeros(like.nbytes, dtype=np.uint8)
    seen = np.zeros(like.nbytes, dtype=np.int64)
    for part in parts:
        rows = np.frombuffer(part.data, dtype=np.uint8).reshape(-1, part.width)
        at = part.offset + part.full * np.arange(len(rows))[:, None] + np.arange(part.width)
        found[at] = rows
        seen[at] += 1
    assert (seen == 1).all(), f"{int((seen != 1).sum())} of {like.nbytes} bytes were not stored once"
    return found.view(like.dtype.newbyteorder("<"))
