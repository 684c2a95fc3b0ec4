"""calibrate: run the float graph on samples and judge the range that each tensor needs.

Three methods, all on the values that were seen: the extremes (min-max), a percentile that drops outliers, and the
clipping that has the least mean square error after quantization (Banner et al., arXiv 1810.05723, by search instead
of a model).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slm2c import interpret
from slm2c.ir import Array, Graph, Tensor

METHODS = ("minmax", "percentile", "mse")
Sample = Mapping[str, Array]
"""Inputs of one run by name; a token axis has the sample's own length."""

_KEPT = 1 << 17  # values kept per tensor: enough for a 99.99th percentile, small enough for many tensors
_PERCENTILE = 99.99


@dataclass(frozen=True)
class Observed:
    """What a tensor was seen to hold.

    low, high: the extremes over everything
    values: an evenly thinned selection
    row_rms: the root mean square, over all samples, of its faintest row along the last axis
    """

    low: float
    high: float
    values: Array
    row_rms: float


def observe(
    graph: Graph, samples: Sequence[Sample], progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Observed]:
    """Float statistics of every computed tensor and float input over all samples.

    Raises AssertionError if a value is not finite: the importer refuses weights that are not.
    """
    names = [x for x in graph.inputs if graph.tensors[x].dtype == "f32"] + [n.outputs[0] for n in graph.nodes]
    low, high = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    kept: dict[str, list[Array]] = {name: [] for name in names}
    powers: dict[str, Array] = {
        name: np.zeros((2, _row_count(graph.tensors[name]))) for name in names
    }  # sum, count by row
    for done, sample in enumerate(samples):
        progress(done, len(samples))
        values = interpret.run_fused(graph, sample)
        for name in names:
            flat = values[name].ravel()
            low[name], high[name] = min(low[name], float(flat.min())), max(high[name], float(flat.max()))
            step = max(1, flat.size * len(samples) // _KEPT)
            kept[name].append(flat[done % step :: step].astype(np.float32))
            power = np.square(np.atleast_1d(values[name]).astype(np.float64)).mean(axis=-1).ravel()
            powers[name][:, : power.size] += power, np.ones_like(power)
    progress(len(samples), len(samples))
    for name in names:
        assert np.isfinite(low[name]) and np.isfinite(high[name]), f"{name} is not finite on the calibration data"
    return {
        name: Observed(
            low[name],
            high[name],
            np.concatenate(kept[name]),
            float(np.sqrt((powers[name][0] / np.maximum(powers[name][1], 1)).min())),
        )
        for name in names
    }


def _row_count(tensor: Tensor) -> int:
    return tensor.size // max(1, tensor.shape[-1]) if tensor.shape else 1


def choose_range(seen: Observed, method: str, symmetric: bool) -> tuple[float, float]:
    """(low, high) with low <= 0 <= high by one of METHODS for an 8-bit tensor."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if method == "percentile" and seen.values.size:
        cut_low, cut_high = np.percentile(seen.values, [100 - _PERCENTILE, _PERCENTILE])
        low, high = max(low, min(float(cut_low), 0.0)), min(high, max(float(cut_high), 0.0))
    if method == "mse" and seen.values.size:
        low, high = _least_error(seen.values, low, high, symmetric)
    if symmetric:
        high = max(-low, high)
        low = -high
    return low, high


def _least_error(values: Array, low: float, high: float, symmetric: bool) -> tuple[float, float]:
    """The share of the range, the same on both sides, with the least mean square error in 8 bits."""
    values = values[:: max(1, values.size // 16384)].astype(np.float64)
    best, best_error = (low, high), np.inf
    for share in np.linspace(1.0, 0.3, 29):
        a, b = (low * share, high * share) if not symmetric else (-max(-low, high) * share, max(-low, high) * share)
        step = (b - a) / 255
        if step <= 0:
            break
        grid = np.clip(np.rint((values - a) / step), 0, 255) * step + a
        error = float(np.square(grid - values).mean())
        if error < best_error:
            best, best_error = (a, b), error
    return best
