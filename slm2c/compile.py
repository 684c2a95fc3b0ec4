"""compile: the pipeline, from an ONNX file to a folder of C, as one flat function.

    load -> fuse -> observe -> quantize -> schedule -> plan -> emit

`build` runs it and writes the folder; the folder appears whole or not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slm2c import budget, importer, misfit, samples
from slm2c.board import Board
from slm2c.calibrate import METHODS, Observed, Sample, observe
from slm2c.emit import Texts, class_count
from slm2c.errors import CompileError, Problem
from slm2c.identifiers import is_identifier
from slm2c.interpret import run_fused
from slm2c.ir import Array
from slm2c.lower import Lowered, lower, sketch, target_of
from slm2c.ops import TABLE
from slm2c.passes import Fused, fuse
from slm2c.quantize import FILE, Quantized, agreeing, output_sqnr, quantize
from slm2c.sentences import read_texts
from slm2c.tokenizer import Tokenizer, read_tokenizer

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and how much there is."""

_PADDING = ("[PAD]", "<pad>", "[pad]")
"""What tokenizers call the padding: only its id may decide what a graph masks, as no text has it."""

JUDGED = 48
"""Samples, at most about so many, on which the calibration methods are compared."""
_SYNTHETIC = 32  # random samples where the user gives none


@dataclass(frozen=True)
class Options:
    """What the user can choose. `calibration` is an .npz, or with a tokenizer a text or CSV file. `arena`: bytes that
    the arena may have; tiles are then as large as it allows. Without it they have 16 rows, or fewer if the board has no
    room.
    """

    name: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    tokenizer: Path | None = None
    labels: Path | None = None
    calibration: Path | None = None
    method: str = "auto"
    arena: int | None = None


@dataclass(frozen=True)
class Compiled:
    """Everything that the stages made, for the report and for whoever wants to look.

    `calibration` is None if random samples had to do; `methods` holds the SQNR in dB of the outputs by each method
    tried, over `judged` of the samples. To `agreeing` of these the integer graph gives the class that the float graph
    gives; None for a model without classes, or random samples.
    """

    name: str
    board: Board
    imported: importer.Imported
    fused: Fused
    samples: tuple[Sample, ...]
    calibration: Path | None
    method: str
    methods: Mapping[str, float]
    judged: int
    agreeing: int | None
    quantized: Quantized
    lowered: Lowered
    tokenizer: Path | None
    labels: tuple[str, ...] | None


def compile_model(model: Path, board: Board, options: Options, progress: Progress = lambda *_: None) -> Compiled:
    """Run all stages. Raises CompileError for anything about the inputs that prevents a build."""
    files = model_files(model, options)
    name = _model_name(model, options.name)
    progress("import", 0, 1)
    imported = importer.load(model, options.shapes or None)
    importer.require_supported(imported)
    progress("fuse", 0, 1)
    fused = fuse(imported.graph)
    tokenizer = None if files.tokenizer is None else _tokenizer(files.tokenizer, fused)
    labels = None if files.labels is None else read_labels(files.labels, fused)
    texts = Texts(None if tokenizer is None else tokenizer.to_bytes(), labels)
    if budget.is_hopeless(board, fused):
        progress("plan", 0, 1)
        room = budget.arena_room(board, fused.graph, texts)
        misfit.require(board, fused, sketch(fused, texts, name, target_of(board), room), name)
    chosen = _calibration(files.calibration, fused, tokenizer)
    observed = observe(fused.graph, chosen, lambda done, total: progress("calibrate", done, total))
    fixed = {
        name
        for name, port in zip(
            (*fused.graph.inputs, *fused.graph.outputs), (*_ports(imported, fused), *imported.outputs), strict=True
        )
        if port is not None and port.code is not None
    }
    judged = chosen[:: max(1, len(chosen) // JUDGED)]
    floats = [run_fused(fused.graph, sample) for sample in judged]
    method, scores, quantized = choose_method(fused, observed, judged, floats, options.method, fixed, progress)
    classifies = files.calibration is not None and class_count(quantized.graph)
    same = agreeing(fused.graph, quantized.graph, judged, floats) if classifies else None
    progress("emit", 0, 1)
    room = budget.arena_room(board, quantized.graph, texts)
    limit = room if options.arena is None else min(room, options.arena)
    wide = options.arena is not None
    lowered = lower(quantized.graph, fused, texts, name, target_of(board), limit, wide=wide)
    misfit.require(board, fused, lowered, name)
    if options.arena is not None and lowered.chosen.arena_bytes > options.arena:
        least = lowered.chosen.arena_bytes
        fact = f"the smallest arena of any schedule takes {least:,} bytes, {options.arena:,} are asked"
        shorter = ", or for fewer tokens" if fused.interface else ""
        raise CompileError(Problem("--arena", "", fact, f"ask for at least {least}{shorter}"))
    return Compiled(
        name,
        board,
        imported,
        fused,
        tuple(chosen),
        files.calibration,
        method,
        scores,
        len(judged),
        same,
        quantized,
        lowered,
        files.tokenizer,
        labels,
    )


def _ports(imported: importer.Imported, fused: Fused) -> list[importer.Port | None]:
    """The file's description of each input of the fused graph."""
    ports = {port.name: port for port in imported.inputs}
    return [ports.get(name) for name in fused.graph.inputs]


def choose_method(
    fused: Fused,
    observed: Mapping[str, Observed],
    judged: Sequence[Sample],
    floats: Sequence[Mapping[str, Array]],
    given: str,
    fixed: Collection[str],
    progress: Progress,
) -> tuple[str, dict[str, float], Quantized]:
    """(method, SQNR in dB of each tried, integer graph): by the given method, or for "auto" by the one that comes
    closest to the float outputs.

    A file that states ranges was quantized, perhaps trained, to clip at them: they are part of what it computes,
    and taken.
    """
    stated = any(fused.graph.tensors[node.outputs[0]].quant for node in fused.graph.nodes)
    candidates: Sequence[str] = (given,) if given != "auto" else METHODS
    if stated and given == "auto":
        candidates = (FILE,)
    found: dict[str, Quantized] = {}
    scores: dict[str, float] = {}
    for i, candidate in enumerate(candidates):
        progress("quantize", i, len(candidates))
        found[candidate] = quantize(fused.graph, observed, candidate, fixed)
        scores[candidate] = output_sqnr(fused.graph, found[candidate].graph, judged, floats)
    best = max(candidates, key=lambda c: scores[c])
    return best, scores, found[best]


@dataclass(frozen=True)
class Files:
    """What stands beside a model; None where there is nothing."""

    tokenizer: Path | None
    labels: Path | None
    calibration: Path | None


def model_files(model: Path, options: Options) -> Files:
    """The files beside the model: options first, then what an exported folder holds."""
    folder = model if model.is_dir() else None

    def beside(given: Path | None, *names: str) -> Path | None:
        if given is not None or folder is None:
            return given
        return next((folder / n for n in names if (folder / n).is_file()), None)

    return Files(
        beside(options.tokenizer, "tokenizer.json"),
        beside(options.labels, "labels.json", "config.json"),
        beside(options.calibration, "calib.npz", "calib.csv", "calib.txt"),
    )


def _model_name(model: Path, given: str | None) -> str:
    """The C prefix: what the user gives, else the file's or folder's name in lower case letters, digits and _."""
    if given is not None:
        if not is_identifier(given):
            raise CompileError(
                Problem(
                    given,
                    "",
                    "is not usable as a C prefix",
                    "use lower case letters, digits and _, starting with a letter: --name my_model",
                )
            )
        return given
    stem = model.resolve().name if model.is_dir() else model.stem
    if stem == "model":
        stem = model.resolve().parent.name
    name = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")[:40]
    return name if is_identifier(name) else f"model_{name}".rstrip("_")


def _tokenizer(path: Path, fused: Fused) -> Tokenizer:
    """The tokenizer of a model. Raises CompileError unless the model takes all that it can give."""
    tokenizer = read_tokenizer(path)
    if fused.interface is None:
        raise CompileError(Problem(str(path), "", "is for text, and the model takes no token ids", "leave it out"))
    if fused.fixed_by:
        fact = f"texts have any length, and '{fused.fixed_by}' needs {fused.interface.max_tokens} tokens"
        raise CompileError(Problem(str(path), "", fact, "leave it out, or export the model without that operator"))
    tokenizer.encode("", fused.interface.max_tokens)
    rows = samples.vocabulary(fused.graph, fused.interface.lookups[0])
    if tokenizer.largest_id >= rows:
        fact = f"has ids up to {tokenizer.largest_id}, the model's embedding {rows} rows"
        raise CompileError(Problem(str(path), "", fact, "give the tokenizer that the model was trained with"))
    padding = [piece for piece, number in tokenizer.vocab.items() if number == fused.interface.pad_id]
    if padding and padding[0] not in _PADDING:
        fact = f"gives id {fused.interface.pad_id} to '{padding[0]}', which the graph compares its ids with"
        remedy = "give the tokenizer that the model was trained with, or export the model with a padding mask"
        raise CompileError(Problem(str(path), "", fact, remedy))
    return tokenizer


def read_labels(path: Path, fused: Fused) -> tuple[str, ...] | None:
    """Class names from a JSON list, {"0": name}, or a config.json with id2label; None for a config without.

    Raises CompileError if they are not names, or not as many as the model has classes.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        remedy = 'write a list ["first", "second"], or take the config.json of the export'
        raise CompileError(Problem(str(path), "", f"is not a JSON file: {error}", remedy)) from error
    if isinstance(content, dict) and path.name == "config.json":
        content = content.get("id2label")
        if content is None:
            return None
    if isinstance(content, dict):
        try:
            content = [content[str(i)] for i in range(len(content))]
        except KeyError as error:
            raise CompileError(
                Problem(str(path), "", f"has no label for class {error}", 'number them "0", "1", ...')
            ) from error
    if not isinstance(content, list) or not all(isinstance(x, str) and _fits_c_string(x) for x in content):
        raise CompileError(Problem(str(path), "", "does not hold label names", 'write a list ["first", "second"]'))
    outputs = fused.graph.outputs
    classes = fused.graph.tensors[outputs[0]].shape[-1]
    if len(outputs) == 1 and classes != len(content):
        raise CompileError(Problem(str(path), "", f"holds {len(content)} labels, the model has {classes} classes"))
    return tuple(content)


def _fits_c_string(text: str) -> bool:
    """Whether UTF-8 that ends with a zero byte can hold `text`: JSON knows zero bytes and halves of surrogate pairs."""
    return "\0" not in text and text.encode("utf-8", "ignore").decode() == text


def _calibration(path: Path | None, fused: Fused, tokenizer: Tokenizer | None) -> list[Sample]:
    if path is None:
        return samples.synthetic(fused.graph, fused.interface, _SYNTHETIC)
    if path.suffix.lower() == ".npz":
        return samples.read_arrays(path, fused.graph, fused.interface)
    if tokenizer is None or fused.interface is None:
        raise CompileError(
            Problem(
                str(path),
                "",
                "holds text, and there is no tokenizer to read it with",
                "give --tokenizer tokenizer.json, or an .npz file with the inputs as arrays",
            )
        )
    return samples.from_texts(read_texts(path), tokenizer, fused.interface)


def macs(compiled: Compiled) -> int:
    """Multiply-accumulates of a run at the maximum token count."""
    graph = compiled.fused.graph
    return sum(TABLE[node.op].macs(node, graph.tensors) for node in graph.nodes)
