"""integer: a student's accuracy in the compiler's integers, by the reference that the C is bit for bit equal to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slm2c import importer, samples
from slm2c.calibrate import Sample, observe
from slm2c.compile import JUDGED, Progress, choose_method
from slm2c.distill.data import Sentences
from slm2c.interpret import run_fused
from slm2c.passes import Fused, fuse
from slm2c.quantize import Quantized, run_int
from slm2c.tokenizer import read_tokenizer


@dataclass(frozen=True)
class Compiled:
    """What the compiler makes of an exported folder up to the integers, which no board changes."""

    fused: Fused
    samples: Sequence[Sample]
    method: str
    quantized: Quantized


@dataclass(frozen=True)
class Judged:
    """Shares of sentences, 0 to 1: right in integers, right in float, the same label from both."""

    accuracy_integer: float
    accuracy_float: float
    agreement: float


def compile_folder(folder: Path, progress: Progress) -> Compiled:
    """Import, fuse, calibrate and quantize as `slm2c build` does. Raises CompileError as it does."""
    fused = fuse(importer.require_supported(importer.load(folder)).graph)
    chosen = samples.read_arrays(folder / "calib.npz", fused.graph, fused.interface)
    observed = observe(fused.graph, chosen, lambda done, total: progress("calibrate", done, total))
    judged = chosen[:: max(1, len(chosen) // JUDGED)]
    floats = [run_fused(fused.graph, sample) for sample in judged]
    method, _, quantized = choose_method(fused, observed, judged, floats, "auto", (), progress)
    return Compiled(fused, chosen, method, quantized)


def judge(compiled: Compiled, tokenizer: Path, valid: Sentences, progress: Progress) -> Judged:
    """Run the integer graph and the float one on each sentence."""
    interface = compiled.fused.interface
    assert interface is not None, "a student takes token ids"
    float_graph, graph = compiled.fused.graph, compiled.quantized.graph
    right = []
    for i, sample in enumerate(samples.from_texts(valid.texts, read_tokenizer(tokenizer), interface)):
        progress("integer accuracy", i, len(valid))
        a = int(np.argmax(run_int(graph, sample)[graph.outputs[0]]))
        b = int(np.argmax(run_fused(float_graph, sample)[float_graph.outputs[0]]))
        right.append((a == valid.labels[i], b == valid.labels[i], a == b))
    return Judged(*np.mean(right, axis=0).tolist())
