"""validate: the ladder. Every tensor that the C stores equals the integer reference, bit for bit, on each rung.

The C is built with a hook after every kernel call; what it stored is written to a file and compared with
`quantize.run_int` of the graph that the build left in reference/.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slm2c import fixedpoint, process, renode, samples, seal, toolchain
from slm2c.board import Board, emulated, load_board
from slm2c.board_tools import blaming
from slm2c.calibrate import Sample
from slm2c.errors import CompileError, Problem
from slm2c.folders import MORE_ROOM, replace_folder, room_in
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
    """One rung: tensors compared over all samples, elements that differ, and where the first one is; if there is one,
    the folder that keeps image, trace and log.
    """

    name: str
    samples: int
    tensors: int
    mismatches: int
    first: Difference | None
    kept: str | None = None


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
    """Climb the rungs `on`, of host, sanitize, qemu and renode, with `count` samples; qemu and renode for each of
    `boards`.

    Without `on`: host, and qemu where its tools are and have the board. renode, which has run none of our platforms
    yet, is to be asked for. Without `boards`: the one that the build is for. Raises CompileError for want of a tool,
    for a board that an emulator asked for does not have, or where the C refuses its blob.
    """
    skipped: dict[str, str] = {}
    names = dict.fromkeys(on or ("host", "qemu"))
    targets = [load_board(name) for name in dict.fromkeys(boards)] or [output.board]
    if boards and not {"qemu", "renode"} & set(names):
        raise CompileError(
            Problem("--board", "", f"says nothing to {', '.join(names)}", "add --on qemu, or leave it out")
        )
    common = (output.folder, output.name, output.graph, choose_samples(output, count))
    rungs: list[Rung] = []
    for name in names:
        try:
            climbs = _climbs(name, common, targets)
        except CompileError as error:
            if on:
                raise
            skipped[name] = str(error)
            continue
        for what, climb in climbs:
            progress(f"validate on {what}", 0, 1)
            rungs.append(_in_folder(output, climb))
    return Ladder(tuple(rungs), skipped)


def _climbs(
    name: str, common: tuple[Path, str, Graph, Sequence[Sample]], boards: Sequence[Board]
) -> list[tuple[str, Callable[[Path], Rung]]]:
    """What rung `name` is to do in a folder of its own, for each board if it emulates them. Raises CompileError if it
    cannot, for want of a tool.
    """
    if name in ("host", "sanitize"):
        return [(name, partial(host_rung, *common, sanitize=name == "sanitize"))]
    if name == "qemu":
        boards = [_emulated(board) for board in boards]
        for board in boards:
            toolchain.cross_cc(board.architecture)
            toolchain.qemu(board.architecture)
        return [(board.name, partial(qemu_rung, *common, board=board)) for board in boards]
    tool = renode.find()
    for board in boards:
        renode.require_modelled(board, tool.version)
        toolchain.cross_cc(board.architecture)
    return [(f"{board.name} in Renode", partial(renode_rung, *common, board=board, tool=tool)) for board in boards]


def _emulated(board: Board) -> Board:
    found = emulated(board)
    if found is None:
        raise CompileError(
            Problem(board.name, "", "no emulator runs this board", "choose one that is emulated: slm2c boards")
        )
    return found


def _in_folder(output: Output, climb: Callable[[Path], Rung]) -> Rung:
    """A rung in a temporary folder, which stays if something differs, or if an error names it."""
    work = Path(tempfile.mkdtemp(prefix="slm2c-"))
    keep = False
    try:
        with room_in(tempfile.gettempdir(), MORE_ROOM), seal.blaming(output.folder, output.files):
            rung = climb(work)
        keep = rung.mismatches > 0
        return replace(rung, kept=str(work)) if keep else rung
    except (CompileError, process.ToolError) as error:
        keep = str(work) in str(error)
        raise
    finally:
        if not keep:
            shutil.rmtree(work)


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

    def run() -> process.RunResult:
        return toolchain.run_host(exe, cwd=work, timeout=600)

    return _compare("sanitize" if sanitize else "host", graph, samples, work, run)


def qemu_rung(
    folder: Path, name: str, graph: Graph, samples: Sequence[Sample], work: Path, board: Board, *, opt: str = "-O2"
) -> Rung:
    """Compare the C built for `board` and run in QEMU."""
    with blaming(board):
        firmware = toolchain.build_firmware(
            sources(folder, name),
            board,
            work / "validate.elf",
            includes=[folder, folder / "slm"],
            defines=["SLM_TRACE"],
            blob=folder / f"{name}_blob.bin",
            opt=opt,
        )

        def run() -> process.RunResult:
            return toolchain.run_qemu(firmware.elf, board, cwd=work, timeout=600)

        return _compare(f"qemu {board.name}", graph, samples, work, run)


def renode_rung(
    folder: Path, name: str, graph: Graph, samples: Sequence[Sample], work: Path, board: Board, tool: renode.Renode
) -> Rung:
    """Compare the C built for `board` and run in Renode."""

    def run() -> process.RunResult:
        write_renode(folder, name, graph, samples, work, board, tool.version)
        return renode.run(work, tool)

    with blaming(board):
        return _compare(f"renode {tool.release} {board.name}", graph, samples, work, run)


def write_renode(
    folder: Path,
    name: str,
    graph: Graph,
    samples: Sequence[Sample],
    work: Path,
    board: Board,
    version: renode.Version | None,
) -> None:
    """Put what Renode runs into `work`: see `renode.write`."""
    write_samples(work / "samples.bin", graph, samples)
    includes, blob = [folder, folder / "slm"], folder / f"{name}_blob.bin"
    renode.write(work, name, sources(folder, name), includes, blob, work / "samples.bin", board, version)


def renode_folder(output: Output, out: Path, board: Board | None, count: int) -> dict[str, str]:
    """Write what the rung renode runs with `count` samples into the new folder `out`, for `board` or the one that the
    build is for, and for the Renode that is installed, or any; returns board and files.

    Raises CompileError for want of a compiler, if the image does not fit, or if Renode does not model the core.
    """
    board = board or output.board
    try:
        version = renode.find().version
    except CompileError:
        version = None

    def fill(folder: Path) -> None:
        with seal.blaming(output.folder, output.files):
            write_renode(
                output.folder, output.name, output.graph, choose_samples(output, count), folder, board, version
            )
        shutil.rmtree(folder / f"{renode.IMAGE}.build")

    replace_folder(out, fill, mark=renode.SCRIPT)
    files = {"image": renode.IMAGE, "platform": renode.PLATFORM, "script": renode.SCRIPT}
    return {"output": str(out), "board": board.name, **files}


def sources(folder: Path, name: str) -> list[Path]:
    """The C of a build with its validation program."""
    return [folder / f"{name}.c", folder / "test" / "validate.c", *sorted((folder / "slm").glob("*.c"))]


def _compare(
    rung: str, graph: Graph, samples: Sequence[Sample], work: Path, run: Callable[[], process.RunResult]
) -> Rung:
    write_samples(work / "samples.bin", graph, samples)
    log = work / "run.log"
    try:
        result = run()
    except process.ToolError as error:
        log.write_text(error.output, encoding="utf-8")
        raise process.ToolError(f"{error.fact}; what it left is in {work}", error.command, error.output) from None
    log.write_text(result.output, encoding="utf-8")
    # 2: a status of init or run; 3: a file that the program cannot read or write.
    if fact := {2: "the C refuses to run", 3: "the validation program says"}.get(result.exit_code):
        raise CompileError(Problem(rung, "", f"{fact}: {result.output.strip()}", "build the folder again"))
    if result.exit_code != 0:
        fact = f"the validation program ended with code {result.exit_code}; what it left is in {work}"
        raise process.ToolError(fact, [rung], result.output)
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
