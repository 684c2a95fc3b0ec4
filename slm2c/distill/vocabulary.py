"""vocabulary: the student's WordPiece tokenizer, and embeddings for its pieces that start where the teacher's are.

The teacher's vocabulary cut to the pieces in use gives most words the very pieces that they had: greedy
longest-match-first finds the same ones as long as they are there, since what is gone can only have been a longer match.
A vocabulary of one's own is smaller for the same words where sentences are far from what the teacher was trained on.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from slm2c.distill.recipe import Shape
from slm2c.errors import CompileError, Problem

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Special tokens of the student; their positions are their ids."""

_LETTERS = string.ascii_lowercase + string.digits
_EMPHASIS = 1000  # a piece of a labelled sentence counts as often as this many of others


def cut_vocabulary(teacher: Tokenizer, labelled: Sequence[str], others: Sequence[str], size: int) -> Tokenizer:
    """The teacher's tokenizer with at most `size` pieces: special tokens, single letters, then the most frequent.

    The letters make any word of them, so that few become [UNK]. Room that is left goes to the teacher's other pieces of
    letters, in its order, which for BERT is that of frequency: words that the sentences lack start with a meaning, too.
    Raises CompileError if the tokenizer is not BERT's kind.
    """
    spec = json.loads(teacher.to_str())
    _require_wordpiece(spec)
    used: Counter[str] = Counter()
    for texts, weight in ((labelled, _EMPHASIS), (others, 1)):
        for encoding in teacher.encode_batch(list(texts)):
            for piece in encoding.tokens:
                used[piece] += weight
    known = spec["model"]["vocab"]
    prefix = spec["model"]["continuing_subword_prefix"]
    always = [*SPECIAL, *_LETTERS, *(prefix + c for c in _LETTERS), *string.punctuation]
    frequent = sorted(used, key=lambda piece: (-used[piece], known.get(piece, 0)))
    others_known = sorted((p for p in known if len(p) > 1 and p.removeprefix(prefix).isalpha()), key=known.__getitem__)
    kept = [piece for piece in dict.fromkeys([*always, *frequent, *others_known]) if piece in known][:size]
    return _bert(kept, spec["normalizer"], spec["pre_tokenizer"], spec["model"]["max_input_chars_per_word"])


def own_vocabulary(texts: Sequence[str], size: int) -> Tokenizer:
    """A lower-case WordPiece tokenizer of at most `size` pieces, trained on the texts (Wu et al., arXiv 1609.08144).

    The trainer numbers continuations of words in no fixed order, and breaks ties by numbers; it is given all of them
    beforehand, in order, so that the same texts make the same vocabulary.
    """
    tokenizer = _bert(SPECIAL, None, None, 100)
    given, alphabet = _single_pieces(texts, size)
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, special_tokens=given, limit_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary = tokenizer.get_vocab()
    return _bert(sorted(vocabulary, key=vocabulary.__getitem__), None, None, 100)


def require_possible(shape: Shape, teacher: Tokenizer, texts: Sequence[str]) -> None:
    """Raises CompileError, before anything is trained, if the student's vocabulary cannot be made."""
    if shape.pieces == "own":
        _single_pieces(texts, shape.vocabulary)
    else:
        _require_wordpiece(json.loads(teacher.to_str()))


def _require_wordpiece(spec: Mapping[str, Any]) -> None:
    """`spec`: what a tokenizer.json holds."""
    model = spec["model"]
    kind = model.get("type")
    strange = set(SPECIAL) - set(model["vocab"]) if kind == "WordPiece" else set()
    if kind != "WordPiece" or strange:
        fact = f"has a tokenizer of the kind {kind}" if kind != "WordPiece" else f"has no {', '.join(sorted(strange))}"
        remedy = 'set pieces = "own" in [student], for a WordPiece vocabulary of its own'
        raise CompileError(Problem("the teacher", "", f"{fact}; its vocabulary cannot be cut", remedy))


def _single_pieces(texts: Sequence[str], size: int) -> tuple[list[str], int]:
    """(special tokens and every character, as a word and within one, the number of characters)."""
    normalize = normalizers.BertNormalizer(lowercase=True).normalize_str
    seen = {c for text in texts for c in normalize(text) if not c.isspace()}
    alphabet = sorted({*seen, *_LETTERS})
    given = [*SPECIAL, *alphabet, *(f"##{c}" for c in alphabet)]
    if len(given) > size:
        fact = f"is less than the {len(given)} single characters of the sentences"
        raise CompileError(Problem("student.vocabulary", "", fact, "raise it, or clean the sentences"))
    return given, len(alphabet)


def _bert(pieces: Sequence[str], normalizer: Any, pre_tokenizer: Any, word_chars: int) -> Tokenizer:
    """BERT's tokenizer of these pieces; normalizer and pre-tokenizer as in a tokenizer.json, None for BERT's own."""
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    model = models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=word_chars)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    spec = json.loads(tokenizer.to_str())
    spec |= {k: v for k, v in (("normalizer", normalizer), ("pre_tokenizer", pre_tokenizer)) if v is not None}
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def neighbours(
    tokenizer: Tokenizer, table: Tensor, words: Iterable[str], among: Iterable[str], count: int = 8
) -> dict[str, list[str]]:
    """For each of the words that is one piece, the `count` pieces of `among` nearest to it, by cosine.

    Pieces are whole words of two letters or more; `table` [pieces, features] holds the tokenizer's embeddings. TinyBERT
    takes what may replace a word from a table of word vectors, and the teacher has one.
    """
    vocabulary = tokenizer.get_vocab()
    own, others = (sorted({w for w in x if len(w) > 1 and w.isalpha() and w in vocabulary}) for x in (words, among))
    if not own or len(others) < 2:
        return {}
    rows, columns = (
        torch.nn.functional.normalize(table[[vocabulary[w] for w in x]].float(), dim=1) for x in (own, others)
    )
    best = (rows @ columns.T).topk(min(count + 1, len(others)), dim=1).indices.tolist()
    found = {word: [others[i] for i in row if others[i] != word] for word, row in zip(own, best, strict=True)}
    return {word: nearest[:count] for word, nearest in found.items()}


def teacher_rows(student: Tokenizer, teacher: Tokenizer, table: Tensor) -> Tensor:
    """[pieces of the student, teacher's features]: the teacher's embedding of each piece.

    A piece that the teacher does not have is the mean of the teacher's pieces for its letters.
    """
    vocabulary, known = student.get_vocab(), teacher.get_vocab()
    rows = torch.zeros(len(vocabulary), table.shape[1])
    for piece, i in vocabulary.items():
        if piece in known:
            rows[i] = table[known[piece]]
        elif piece not in SPECIAL:
            ids = teacher.encode(piece.removeprefix("##"), add_special_tokens=False).ids
            rows[i] = table[ids].mean(0) if ids else 0
    return rows


def principal(rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(mean [features], basis [features, size]): the first principal directions of the rows, orthonormal columns.

    Each direction points where its largest component is positive, so that the result does not hang on the solver.
    Columns beyond the rank that the shape allows are 0.
    """
    mean = rows.mean(0)
    _, _, directions = torch.linalg.svd((rows - mean).double(), full_matrices=False)
    found = directions[:size]
    largest = found.abs().argmax(1, keepdim=True)
    found = found * found.gather(1, largest).sign()
    basis = torch.zeros(rows.shape[1], size)
    basis[:, : len(found)] = found.T.float()
    return mean, basis
