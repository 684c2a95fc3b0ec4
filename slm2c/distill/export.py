"""export: the student as a folder like those of `optimum-cli export onnx`, which `slm2c build` takes as it is."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from slm2c.bench.plot import COLOURS, HEIGHT, WIDTH, Series, chart
from slm2c.distill.data import Sentences
from slm2c.distill.recipe import Recipe, to_toml
from slm2c.distill.student import Student
from slm2c.folders import RECIPE

OPSET = 17
CALIBRATION = 256
"""Sentences at most in calib.npz."""


def write_model(
    student: Student, pieces: Tokenizer, calibration: Mapping[str, NDArray[np.int64]], folder: Path
) -> None:
    """model.onnx, config.json, tokenizer.json and calib.npz: what a build reads. Raises OSError."""
    config = student.bert.config
    tokens = config.max_position_embeddings
    ids = torch.zeros(1, tokens, dtype=torch.long)
    ids[0, 0], ids[0, 1] = (pieces.token_to_id(x) for x in ("[CLS]", "[SEP]"))
    mask = torch.zeros_like(ids)
    mask[0, :2] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own tracing
        model = io.BytesIO()  # the exporter's own files turn a full disk into a RuntimeError
        torch.onnx.export(
            student.eval(),
            (ids, mask),
            model,
            opset_version=OPSET,
            dynamo=False,  # needs nothing beyond PyTorch
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
        )
    (folder / "model.onnx").write_bytes(model.getvalue())
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(folder)
    pieces.enable_truncation(tokens)
    (folder / "tokenizer.json").write_text(pieces.to_str(pretty=True), encoding="utf-8")
    np.savez_compressed(folder / "calib.npz", **calibration)  # type: ignore[arg-type]


def calibration(
    sentences: Sentences, ids: Sequence[Sequence[int]], tokens: int, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Up to CALIBRATION labelled sentences, as many of each label as there is room: input_ids, attention_mask
    [n, tokens], and labels [n].
    """
    rng = np.random.default_rng(seed)
    labels = np.array(sentences.labels)
    turns = np.empty(len(labels), np.int64)  # a sentence's place among those of its label
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        turns[mine] = rng.permutation(len(mine))
    chosen = np.sort(np.lexsort((labels, turns))[:CALIBRATION])
    found = np.zeros((2, len(chosen), tokens), np.int64)
    for row, i in enumerate(chosen):
        found[0, row, : len(ids[i])], found[1, row, : len(ids[i])] = ids[i], 1
    return {"input_ids": found[0], "attention_mask": found[1], "labels": labels[chosen]}


def write_records(
    recipe: Recipe, metrics: Mapping[str, Any], history: Sequence[Mapping[str, Any]], folder: Path
) -> None:
    """student.toml, metrics.json, log.jsonl and, of what was trained, curves.svg."""
    (folder / RECIPE).write_text(to_toml(recipe), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    (folder / "log.jsonl").write_text("".join(json.dumps(x) + "\n" for x in history), encoding="utf-8")
    if any("step" in record for record in history):
        (folder / "curves.svg").write_text(curves(history, metrics["teacher"]["accuracy"]), encoding="utf-8")


def curves(history: Sequence[Mapping[str, Any]], teacher: float) -> str:
    """Accuracy on the validation sentences and the terms of the loss, over the steps, as one SVG; not of the finish."""
    history = [record for record in history if not record.get("finish")]
    ends = [record for record in history if "epoch_ends" in record]
    judged = [(r["steps"], 100 * r["valid_accuracy"]) for r in ends]
    # The last step's of a compression: what comes before its first epoch has the number -1.
    first = max((i for i, end in enumerate(ends) if end["epoch_ends"] < 0), default=0)
    kept = max(range(first, len(ends)), key=lambda i: (ends[i]["valid_accuracy"], -ends[i]["valid_loss"]))
    last, best = judged[-1][0], judged[kept]
    teachers = [(0, 100 * teacher), (last, 100 * teacher)]
    accuracy = chart(
        "Validation accuracy",
        "steps",
        "% right",
        [
            Series("student", judged, COLOURS[0]),
            Series(f"at best, {best[1]:.1f} %", [best], COLOURS[0], line=False, mark="ring"),
            Series(f"teacher, {100 * teacher:.1f} %", teachers, COLOURS[1], dashed=True, mark=""),
        ],
        from_zero=False,
    )
    series = []
    for colour, name in zip(COLOURS, ("hard", "soft", "hidden", "attention"), strict=True):
        points = [(r["step"], r[name]) for r in history if name in r]
        if points:
            series.append(Series(name, points, colour, mark=""))
    losses = chart("Terms of the loss, without their weights", "steps", "loss", series)
    parts = (svg.replace("<svg ", f'<svg y="{HEIGHT * i}" ', 1) for i, svg in enumerate((accuracy, losses)))
    size = f'viewBox="0 0 {WIDTH} {2 * HEIGHT}" width="{WIDTH}" height="{2 * HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{"".join(parts)}</svg>\n'
