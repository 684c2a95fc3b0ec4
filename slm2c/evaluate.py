"""evaluate: the generated C on this machine, on text and on arrays, and against the float graph that it was made from.

What runs is <name>_cli, from host/main.c of the output folder; it reads the blob from its file, as the firmware would.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from slm2c import __version__, process, report, report_html, samples, seal, toolchain, validate
from slm2c.calibrate import Sample
from slm2c.compile import Progress
from slm2c.emit import class_count
from slm2c.errors import CompileError, Problem
from slm2c.fixedpoint import dequantize
from slm2c.folders import scratch
from slm2c.interpret import run_fused
from slm2c.ir import DTYPES, Array
from slm2c.output import Output
from slm2c.tokenizer import read_tokenizer

_TIMEOUT = 600.0  # seconds for one call of the program
_CHUNK = 64  # texts in one call, so that there is progress to show


@dataclass(frozen=True)
class Answer:
    """What the C says to a text: class, its label or else number, softmax probability 0..1, token ids."""

    index: int
    label: str
    score: float
    ids: tuple[int, ...]

    @property
    def n(self) -> int:
        """How many tokens the text has, special tokens included."""
        return len(self.ids)


@dataclass(frozen=True)
class Disagreement:
    """A text to which the C and the float model give different classes; `expected` is the data's label."""

    text: str
    expected: str
    float_label: str
    float_score: float
    c_label: str
    c_score: float


@dataclass(frozen=True)
class Evaluation:
    """Shares, 0..1, of n texts: answered right by the C, by the float model, and with the same class by both.

    `worst` holds every disagreement, those first of which the float model is surest.
    """

    n: int
    accuracy_c: float
    accuracy_float: float
    agreement: float
    worst: tuple[Disagreement, ...]


def run_text(output: Output, texts: Sequence[str]) -> list[Answer]:
    """The C's answer to each text.

    Raises CompileError if the model does not take text and give scores of classes, for texts that it cannot answer, and
    without a C compiler.
    """
    _require_classifier(output)
    return _ask(output, host_program(output), texts)


def run_arrays(output: Output, given: Sequence[Sample]) -> list[dict[str, Array]]:
    """The C's outputs for each sample, as real numbers, by their names and in their shapes in the ONNX file.

    Rows of tokens that a sample does not have are 0. Raises CompileError without a C compiler, or where the C refuses a
    sample.
    """
    exe, graph = host_program(output), output.graph
    with scratch() as work:
        files = Path(work, "samples.bin"), Path(work, "outputs.bin")
        validate.write_samples(files[0], graph, given)
        _run(output, exe, ["-r", *map(str, files)])
        data = files[1].read_bytes()
    found, at = [], 0
    for sample in given:
        values: dict[str, Array] = {}
        for name in dict.fromkeys(graph.outputs):
            tensor = graph.tensors[name]
            assert tensor.quant is not None
            actual = list(tensor.shape)
            if tensor.token_axis is not None:
                assert output.interface is not None
                actual[tensor.token_axis] = len(sample[output.interface.lookups[0]])
            dtype = np.dtype(DTYPES[tensor.dtype]).newbyteorder("<")
            raw = np.frombuffer(data, dtype, int(np.prod(actual)), at)
            at += raw.nbytes
            values[name] = np.zeros(tensor.shape, np.float32)
            values[name][tuple(map(slice, actual))] = dequantize(raw.reshape(actual), tensor.quant)
        shapes = zip(output.outputs.items(), graph.outputs, strict=True)
        found.append({port: values[name].reshape(shape) for (port, shape), name in shapes})
    assert at == len(data), f"{len(data) - at} bytes more than expected from {exe.name}"
    return found


def evaluate(
    output: Output, texts: Sequence[str], labels: Sequence[str], progress: Progress = lambda *_: None
) -> Evaluation:
    """The C on this machine against the float graph on labelled texts, of which there must be some.

    Raises CompileError as `run_text` does, and for labels that the model does not have. AssertionError if the tokenizer
    in C and that in Python disagree.
    """
    assert len(texts) == len(labels) > 0, f"{len(texts)} texts, {len(labels)} labels"
    names = _require_classifier(output)
    unknown = sorted(set(labels) - set(names))
    if unknown:
        reason = f"the model has no label {', '.join(map(repr, unknown))}"
        raise CompileError(Problem("", "", reason, f"its labels are {', '.join(map(repr, names))}"))
    exe = host_program(output)
    assert output.tokenizer is not None and output.interface is not None
    encoded = samples.from_texts(texts, read_tokenizer(output.tokenizer), output.interface)
    answers: list[Answer] = []
    scores: list[Array] = []
    for start in range(0, len(texts), _CHUNK):
        progress("evaluate", start, len(texts))
        answers += _ask(output, exe, texts[start : start + _CHUNK])
        scores += [_float_scores(output, sample) for sample in encoded[start : start + _CHUNK]]
    progress("evaluate", len(texts), len(texts))
    worst, right = [], []
    for text, label, sample, answer, row in zip(texts, labels, encoded, answers, scores, strict=True):
        ids = tuple(sample[output.interface.lookups[0]].tolist())
        assert answer.ids == ids, f"{text!r} has ids {answer.ids} in C, {ids} in Python"
        index = int(np.argmax(row))
        right.append((names[answer.index] == label, names[index] == label))
        if answer.index != index:
            float_score = float(row[index])
            worst.append(Disagreement(text, label, names[index], float_score, names[answer.index], answer.score))
    worst.sort(key=lambda d: -d.float_score)
    accuracy_c, accuracy_float = np.mean(right, axis=0).tolist()
    return Evaluation(len(texts), accuracy_c, accuracy_float, 1 - len(worst) / len(texts), tuple(worst))


def keep(output: Output, source: str, found: Evaluation) -> None:
    """Put the figures into the folder's report. Raises CompileError if it has none, or cannot be written."""
    figures = {"source": source, **asdict(found)}
    del figures["worst"]
    facts = seal.signed(report.read(output.folder) | {"evaluation": figures})
    report.write(output.folder, facts)
    report_html.write(output.folder, facts)


def _require_classifier(output: Output) -> tuple[str, ...]:
    """The names of the classes of a model that takes text."""
    classes = class_count(output.graph)
    if output.tokenizer is None or output.interface is None or not classes:
        missing = "tokenizer" if classes else "single output with scores of classes"
        remedy = "build it with --tokenizer tokenizer.json" if classes else "run it on arrays"
        raise CompileError(Problem(output.name, "", f"does not answer text: it has no {missing}", remedy))
    return output.labels or tuple(map(str, range(classes)))


def _float_scores(output: Output, sample: Sample) -> Array:
    """Probabilities [classes] that the float graph gives."""
    graph, name = output.float_graph, output.float_graph.outputs[0]
    row = run_fused(graph, sample)[name].ravel().astype(np.float64)
    if graph.producers()[name].op == "softmax":
        return row
    row = np.exp(row - row.max())
    return np.asarray(row / row.sum())


def host_program(output: Output) -> Path:
    """<name>_cli for this machine, in build/ of the output folder: a file for each content of the sources and compiler.

    Raises CompileError without a compiler or if the folder cannot be read or written.
    """
    folder, name = output.folder, output.name
    sources = [folder / "host" / "main.c", folder / f"{name}.c", *sorted((folder / "slm").glob("*.c"))]
    key = hashlib.sha256(repr((__version__, toolchain.host_cc())).encode())
    try:
        with seal.blaming(folder, output.files):
            for path in (*sources, folder / f"{name}.h", *sorted((folder / "slm").glob("*.h"))):
                key.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
            exe = folder / "build" / f"{name}_cli-{key.hexdigest()[:16]}"
            if not exe.is_file():
                exe.parent.mkdir(exist_ok=True)
                with tempfile.TemporaryDirectory(dir=exe.parent) as work:
                    built = toolchain.build_host(sources, Path(work, "cli"), includes=[folder, folder / "slm"])
                    os.replace(built, exe)
    except OSError as error:
        reason = f"cannot be built: {error.strerror or error}"
        remedy = "make the folder writable, or build to another"
        raise CompileError(Problem(str(error.filename or folder), "", reason, remedy)) from error
    return exe


def _ask(output: Output, exe: Path, texts: Sequence[str]) -> list[Answer]:
    if any("\0" in text for text in texts):
        raise CompileError(Problem("", "", "a text holds a zero byte, which ends strings in C", "remove it"))
    stdin = b"".join(text.encode("utf-8", "surrogatepass") + b"\0" for text in texts)
    lines = _run(output, exe, ["-i", "-0"], stdin).split("\0")
    assert lines.pop() == "" and len(lines) == len(texts), f"{len(lines)} answers to {len(texts)} texts"
    failed = [(text, line) for text, line in zip(texts, lines, strict=True) if "\t" not in line]
    if failed:
        raise CompileError(Problem(text[:40], "", line.removeprefix("error: ")) for text, line in failed)
    return [_answer(line) for line in lines]


def _answer(line: str) -> Answer:
    """The fields of host/main.c's line; only the label can hold tabs."""
    label, score, _, index, ids = line.rsplit("\t", 4)
    return Answer(int(index), label, float(score), tuple(map(int, ids.split(" "))))


def _run(output: Output, exe: Path, args: Sequence[str], stdin: bytes = b"") -> str:
    blob = output.folder / f"{output.name}_blob.bin"
    result = toolchain.run_host(exe, ["-b", str(blob), *args], stdin=stdin, timeout=_TIMEOUT)
    if result.exit_code == 2:
        raise CompileError(Problem(str(output.folder), "", result.output.strip(), "build it again"))
    if result.exit_code not in (0, 1):
        raise process.ToolError(f"{exe.name} ended with code {result.exit_code}", [str(exe), *args], result.output)
    return result.output
