"""teacher: a Hugging Face encoder with a classifier on it: loaded, fine-tuned if it does not know the labels, asked."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from slm2c.distill.files import first_line, save_tensors
from slm2c.errors import CompileError, Problem

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # teachers are folders; nothing is to be fetched
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

_HEAD = "slm2c_head.pt"
"""Beside a fine-tuned encoder: the layer that makes logits of its mean."""


@dataclass(frozen=True)
class Answer:
    """logits [batch, classes]; of each layer, the embeddings first: hidden [batch, tokens, features], and attention
    [batch, heads, tokens, tokens] from the second on. Both are empty unless asked for.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...] = ()
    attention: tuple[Tensor, ...] = ()


class Classifier(nn.Module):
    """An encoder, the mean of its last layer over the tokens, and a linear layer, as sentence encoders are read
    (Reimers and Gurevych, arXiv 1908.10084).
    """

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(encoder.config.hidden_size, classes)

    def forward(self, ids: Tensor, mask: Tensor, internals: bool = False) -> Answer:
        """Ids and mask: [batch, tokens]."""
        out = self.encoder(
            input_ids=ids, attention_mask=mask, output_hidden_states=internals, output_attentions=internals
        )
        weight = mask.unsqueeze(-1).to(out.last_hidden_state.dtype)
        mean = (out.last_hidden_state * weight).sum(1) / weight.sum(1)
        logits = self.head(self.dropout(mean))
        return Answer(logits, tuple(out.hidden_states), tuple(out.attentions)) if internals else Answer(logits)


class Ready(nn.Module):
    """A `...ForSequenceClassification` model of transformers with the user's labels; `order`: its columns for them."""

    def __init__(self, model: nn.Module, order: Sequence[int]) -> None:
        super().__init__()
        self.model, self.order = model, list(order)

    def forward(self, ids: Tensor, mask: Tensor, internals: bool = False) -> Answer:
        """As `Classifier.forward`."""
        out = self.model(
            input_ids=ids, attention_mask=mask, output_hidden_states=internals, output_attentions=internals
        )
        logits = out.logits[:, self.order]
        return Answer(logits, tuple(out.hidden_states), tuple(out.attentions)) if internals else Answer(logits)


@dataclass(frozen=True)
class Teacher:
    """`tuned`: whether it knows the user's labels; otherwise its head is new."""

    model: nn.Module
    tokenizer: Tokenizer
    config: Any
    tuned: bool

    @property
    def table(self) -> Tensor:
        """The embeddings of its pieces [pieces, features], detached."""
        inner = self.model.encoder if isinstance(self.model, Classifier) else self.model.model
        return inner.get_input_embeddings().weight.detach()


def load_teacher(folder: Path, labels: Sequence[str], tokens: int) -> Teacher:
    """Read a folder of transformers, or one that `save_teacher` wrote, for sentences of up to `tokens`.

    Raises CompileError for a folder that is not such an encoder.
    """
    _require_files(folder)
    try:
        return _loaded(folder, labels, tokens)
    except CompileError:
        raise
    except Exception as error:
        fact, remedy = f"cannot be loaded: {first_line(error)}", "save it again with save_pretrained"
        if "trust_remote_code" in str(error):
            fact = "names code of its own (auto_map in config.json), which is not run"
            remedy = "take a model that transformers has the code of: BERT, MiniLM, RoBERTa, ..."
        raise CompileError(Problem(str(folder), "", fact, remedy)) from error


def _loaded(folder: Path, labels: Sequence[str], tokens: int) -> Teacher:
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    _require_encoder(folder, config)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()  # both are for the caller
    tokenizer.no_truncation()
    names = [config.id2label[i] for i in sorted(config.id2label)] if config.id2label else []
    order = [names.index(x) for x in labels] if sorted(names) == sorted(labels) else None
    model = None
    if order is not None and (config.architectures or [""])[0].endswith("ForSequenceClassification"):
        found, missing = _pretrained(AutoModelForSequenceClassification, folder)
        model = None if missing else Ready(found, order)  # an encoder that is named a classifier is tuned as others
    tuned = model is not None
    if model is None:
        encoder, missing = _pretrained(AutoModel, folder)
        _require_weights(folder, [name for name in missing if not name.startswith("pooler.")])  # which is not used
        model = Classifier(encoder, len(labels))
        if order is not None and (folder / _HEAD).is_file():
            state = torch.load(folder / _HEAD, weights_only=True)
            model.head.load_state_dict({k: v[order] for k, v in state.items()})
            tuned = True
    _require_finite(folder, model)
    _require_room(folder, model, config, tokens)
    teacher = Teacher(model, tokenizer, config, tuned)
    most = max(tokenizer.get_vocab().values(), default=0)
    if most >= len(teacher.table):
        fact = f"has {len(teacher.table):,} embeddings, and a tokenizer whose pieces count to {most + 1:,}"
        raise CompileError(Problem(str(folder), "", fact, "put the tokenizer.json there that it was trained with"))
    return teacher


def _pretrained(kind: Any, folder: Path) -> tuple[Any, list[str]]:
    """(model, parameters that its files do not have, which are random). Raises CompileError for others' sizes."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        model, loading = kind.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation="eager",
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # which are refused here, by their names
        )
    if loading["mismatched_keys"]:
        name, given, wanted = min(loading["mismatched_keys"])
        fact = f"has {name} of {_sizes(given)} numbers, and by its config.json {_sizes(wanted)}"
        raise CompileError(Problem(str(folder), "", fact, "put the config.json there that the weights were saved with"))
    return model, sorted(loading["missing_keys"])


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def save_teacher(teacher: Teacher, labels: Sequence[str], folder: Path) -> None:
    """Write a fine-tuned teacher as a folder of transformers, with its head beside it."""
    assert isinstance(teacher.model, Classifier)
    encoder = teacher.model.encoder
    encoder.config.id2label = dict(enumerate(labels))
    encoder.config.label2id = {name: i for i, name in enumerate(labels)}
    encoder.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(teacher.tokenizer.to_str(pretty=True), encoding="utf-8")
    save_tensors(teacher.model.head.state_dict(), folder / _HEAD)


def _require_files(folder: Path) -> None:
    if not folder.is_dir():
        fact, remedy = "is not a folder", "name one with config.json, tokenizer.json and model.safetensors"
        raise CompileError(Problem(str(folder), "", fact, remedy))
    if not (folder / "config.json").is_file():
        fact = "has no config.json, so it is no model of transformers"
        raise CompileError(Problem(str(folder), "", fact, "name the folder that save_pretrained wrote"))
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CompileError(Problem(str(folder / "config.json"), "", f"is not a JSON file: {error}")) from error
    if not (folder / "tokenizer.json").is_file():
        fact, remedy = "has no tokenizer.json", "save its tokenizer there: AutoTokenizer...save_pretrained"
        raise CompileError(Problem(str(folder), "", fact, remedy))


def _require_encoder(folder: Path, config: Any) -> None:
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False):
        fact, remedy = f"is a decoder ({config.model_type})", "a teacher is an encoder: BERT, MiniLM, RoBERTa, ..."
        raise CompileError(Problem(str(folder), "", fact, remedy))


def _require_weights(folder: Path, missing: Sequence[str]) -> None:
    if missing:
        others = f" and {len(missing) - 1} others" if missing[1:] else ""
        fact = f"has no weights for {missing[0]}{others} of its config.json"
        raise CompileError(Problem(str(folder), "", fact, "save model and config.json together with save_pretrained"))


def _require_finite(folder: Path, model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            fact = f"has weights that are no numbers (nan or infinite), in {name}"
            raise CompileError(Problem(str(folder), "", fact, "train it again, or take another teacher"))


def _require_room(folder: Path, model: nn.Module, config: Any, tokens: int) -> None:
    """RoBERTa and its like have positions from the one behind that of padding."""
    tables = [m for name, m in model.named_modules() if name.endswith("embeddings.position_embeddings")]
    first = next((m.padding_idx + 1 for m in tables if getattr(m, "padding_idx", None) is not None), 0)
    room = (getattr(config, "max_position_embeddings", None) or first + tokens) - first
    if room < tokens:
        fact = f"takes {room} tokens, the student {tokens}"
        raise CompileError(Problem(str(folder), "", fact, "lower student.tokens, or take another teacher"))
