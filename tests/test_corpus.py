"""Every model of the corpus ends as its manifest entry says; see tools/corpus.py for the ladder that each one
climbs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import corpus  # noqa: E402

MODELS = ROOT.parent / "shared" / "models"
ENTRIES = json.loads((MODELS / "manifest.json").read_text())["models"] if (MODELS / "manifest.json").is_file() else []
GAPS = {
    "onnx2c_local_ops_test_gather_basic": "gather",
    "onnx2c_local_ops_test_gather_scalar_axis1": "gather",
    "onnx2c_old_onnx_backend_12_test_pow_types_int": "integer",
}
"""Single-operator files that the manifest expects to work and that do not: what their error says instead.

They index run-time data by run-time integers, or compute in integers, which no encoder does.
"""

LEAST_SQNR_DB = 15.0
"""Of the integer outputs against onnxruntime's. A wrong layout, mask or scale gives less than 3 dB; the rounding of
random weights, whose outputs nearly cancel, gives 18 dB in the worst of these models and 30 dB or more in trained
ones."""


@pytest.mark.skipif(not ENTRIES, reason="no ../shared/models beside the project")
@pytest.mark.parametrize("entry", ENTRIES, ids=[e["id"] for e in ENTRIES])
def test_outcome(entry: dict[str, object]) -> None:
    row = corpus.check(entry, MODELS)
    if row.id in GAPS:
        assert row.actual == "error" and GAPS[row.id] in row.message, row
        return
    assert row.ok, row
    if row.actual == "supported" and entry["expected"]["outcome"] == "supported" and row.sqnr_db is not None:  # type: ignore[index]
        assert row.sqnr_db > LEAST_SQNR_DB, row
