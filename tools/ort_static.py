"""onnxruntime's static per-channel INT8 of the same student, beside ours: agreement with float and accuracy.

    python tools/ort_static.py examples/homecmd ../shared/hwu64/val.csv

The peer is `onnxruntime.quantization.quantize_static` (QDQ, per-channel INT8 weights, INT8 activations, min-max) on
the calibration data of the folder: once on the model as exported, once with its -3.4e38 mask edited to -16 by hand.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from slm2c.sentences import read_labelled
from slm2c.tokenizer import read_tokenizer

MASK_BY_HAND = -16.0


class Reader(CalibrationDataReader):
    """The calibration arrays of an exported folder, a sample at a time."""

    def __init__(self, arrays: dict[str, np.ndarray], names: list[str]) -> None:
        self.rows: Iterator[dict[str, np.ndarray]] = iter(
            [{k: arrays[k][i].reshape(1, -1) for k in names} for i in range(len(arrays[names[0]]))]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next sample, None at the end."""
        return next(self.rows, None)


def edit_mask(model: onnx.ModelProto) -> None:
    """Set every constant below -1e30 to MASK_BY_HAND."""
    tensors = list(model.graph.initializer) + [a.t for n in model.graph.node for a in n.attribute if a.name == "value"]
    for tensor in tensors:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.size and value.min() < -1e30:
            tensor.CopyFrom(numpy_helper.from_array(np.maximum(value, np.float32(MASK_BY_HAND)), tensor.name))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    rows = read_labelled(args.data)
    by_id = json.loads((args.folder / "config.json").read_text(encoding="utf-8"))["id2label"]
    names = [by_id[str(i)] for i in range(len(by_id))]
    expected = np.array([names.index(row.label) for row in rows])
    tokenizer = read_tokenizer(args.folder / "tokenizer.json")
    feeds = []
    for row in rows:
        ids = tokenizer.encode(row.text, 32)
        mask = (np.arange(32) < len(ids)).astype(np.int64)
        feeds.append(
            {"input_ids": np.pad(ids, (0, 32 - len(ids)))[None].astype(np.int64), "attention_mask": mask[None]}
        )

    def answers(path: Path) -> np.ndarray:
        session = ort.InferenceSession(path)
        return np.array([np.argmax(session.run(None, feed)[0]) for feed in feeds])

    real = answers(args.folder / "model.onnx")
    print(f"{'float, onnxruntime':44} accuracy {np.mean(real == expected):7.2%}")
    arrays = dict(np.load(args.folder / "calib.npz"))
    with tempfile.TemporaryDirectory() as work:
        for title, by_hand in (
            ("static per-channel QDQ, as exported", False),
            ("static per-channel QDQ, mask -16 by hand", True),
        ):
            model = onnx.load(args.folder / "model.onnx")
            if by_hand:
                edit_mask(model)
            source, target = Path(work) / "source.onnx", Path(work) / "static.onnx"
            onnx.save(model, source)
            quantize_static(
                source,
                target,
                Reader(arrays, [i.name for i in model.graph.input]),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QInt8,
            )
            got = answers(target)
            print(
                f"{title:44} accuracy {np.mean(got == expected):7.2%}  agreement with float {np.mean(got == real):7.2%}"
            )


if __name__ == "__main__":
    main()
