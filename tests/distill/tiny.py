"""A random teacher and a few sentences, so small that training takes seconds."""

import csv
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from slm2c.distill.vocabulary import SPECIAL, _bert

THINGS = ("lamp", "heater", "radio", "fan", "oven", "blind", "door", "alarm")
PHRASES = {
    "on": ("turn on the {}", "please switch the {} on", "start the {} now"),
    "off": ("turn off the {}", "switch off that {}", "stop the {} please"),
    "ask": ("is the {} running", "what does the {} do", "how is the {} today"),
}
WORDS = sorted({*THINGS, *(w for phrases in PHRASES.values() for p in phrases for w in p.split() if w != "{}")})
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = [*SPECIAL, *LETTERS, *(f"##{c}" for c in LETTERS), *WORDS, "##s", "##ing", "light", "kitchen"]


def rows() -> list[tuple[str, str]]:
    return [(phrase.format(x), label) for label, phrases in PHRASES.items() for phrase in phrases for x in THINGS]


def write_csv(path: Path, found: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *found])
    return path


def write_data(folder: Path) -> tuple[Path, Path]:
    """(train.csv, valid.csv)"""
    found = rows()
    random.Random(0).shuffle(found)
    return write_csv(folder / "train.csv", found[:54]), write_csv(folder / "valid.csv", found[54:])


def write_teacher(folder: Path, labels: tuple[str, ...] = (), seed: int = 3) -> Path:
    """A folder as transformers writes it; with labels, a classifier."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
    config = BertConfig(vocab_size=len(PIECES), max_position_embeddings=24, **sizes)
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: i for i, name in enumerate(labels)}
    model = BertForSequenceClassification(config) if labels else BertModel(config)
    model.save_pretrained(folder)
    return write_tokenizer(folder)


def write_tokenizer(folder: Path, more: Sequence[str] = ()) -> Path:
    """BERT's, of the teacher's pieces and more; returns the folder."""
    _bert([*PIECES, *more], None, None, 100).save(str(folder / "tokenizer.json"))
    return folder


RECIPE = """
[student]
layers = 2
hidden = 16
heads = 2
ffn = 32
vocabulary = 200
tokens = 12
[teacher]
epochs = 8
batch = 8
rate = 3e-3
[data]
augment = 1
augmented = 60
steps = 1
[training]
batch = 8
threads = 1
average = 0.9
[warm_up]
epochs = 1
rate = [0.0, 5e-3]
attention = 0.5
[distil]
epochs = 4
rate = [5e-3, 1e-3]
attention = [0.5, 0.0]
[fine_tune]
epochs = 2
rate = [1e-3, 1e-4]
[finish]
epochs = 1
rate = 1e-4
"""
