"""The padding mask of the ONNX graph is the token count of the integer graph: n replaces the mask."""

from __future__ import annotations

import numpy as np
import pytest

from slm2c import board, core, importer
from slm2c.compile import Options, compile_model
from slm2c.fixedpoint import dequantize
from slm2c.interpret import run_fused
from slm2c.passes import fuse
from slm2c.quantize import run_int
from slm2c.resources import data_dir

LENGTHS = (1, 2, 3, 7, 16, 31, 32)


@pytest.fixture(scope="module")
def homecmd() -> importer.Imported:
    return importer.load(data_dir("examples") / "homecmd")


def padded(imported: importer.Imported, ids: np.ndarray, filler: int) -> np.ndarray:
    """Logits of the graph as exported: 32 ids, those behind n masked out."""
    n, total = len(ids), 32
    feeds = {"input_ids": np.full((1, total), filler, np.int64), "attention_mask": np.zeros((1, total), np.int64)}
    feeds["input_ids"][0, :n], feeds["attention_mask"][0, :n] = ids, 1
    return core.run(imported.graph, feeds)[imported.graph.outputs[0]]


@pytest.mark.parametrize("n", LENGTHS)
def test_unpadded_float_run_equals_the_padded_one(homecmd: importer.Imported, n: int) -> None:
    """Whatever ids the padding holds, the fused graph on n tokens gives the same logits up to float32 rounding."""
    fused = fuse(homecmd.graph)
    assert fused.interface is not None and not fused.fixed_by
    ids = np.random.default_rng(n).integers(0, 8192, n)
    short = run_fused(fused.graph, {"input_ids": ids.astype(np.int32)})[fused.graph.outputs[0]]
    for filler in (0, 17):
        long = padded(homecmd, ids, filler)
        assert np.abs(short - long).max() <= 1e-4 * np.abs(long).max()


def test_unpadded_integer_run_agrees_with_the_padded_float_one(homecmd: importer.Imported) -> None:
    """On commands of all lengths the integer graph gives the class of the padded float graph, and scores within its
    noise.
    """
    compiled = compile_model(
        data_dir("examples") / "homecmd", board.load_board("generic-m7-512k-4m"), Options(method="minmax")
    )
    graph = compiled.quantized.graph
    quant = graph.tensors[graph.outputs[0]].quant
    assert quant is not None
    signal = noise = same = 0.0
    chosen = compiled.samples[::4]
    for sample in chosen:
        long = padded(homecmd, sample["input_ids"], 0).ravel()
        short = dequantize(run_int(graph, sample)[graph.outputs[0]], quant).ravel()
        signal, noise = signal + float(np.square(long).sum()), noise + float(np.square(short - long).sum())
        same += np.argmax(short) == np.argmax(long)
    assert {len(s["input_ids"]) for s in chosen} >= {5, 8, 12}
    assert same >= 0.99 * len(chosen)
    assert 10 * np.log10(signal / noise) > 30
