"""corpus: all sentences that the student reads, and its vocabulary for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from slm2c.distill import vocabulary
from slm2c.distill.data import Data, Sentences, augmented, key, unlabelled_sentences
from slm2c.distill.recipe import Recipe
from slm2c.distill.teacher import Teacher


@dataclass(frozen=True)
class Corpus:
    """Labelled sentences first, `altered` augmented ones next, unlabelled ones last; and the student's tokenizer."""

    sentences: Sentences
    altered: int
    pieces: Tokenizer


def gather(data: Data, teacher: Teacher, recipe: Recipe, seed: int) -> Corpus:
    """The corpus of a recipe. Raises CompileError as `vocabulary.require_possible` does."""
    shape = recipe.student
    chosen = np.random.default_rng(seed).permutation(len(data.unlabelled))[: recipe.data.unlabelled]
    others = unlabelled_sentences([data.unlabelled.texts[i] for i in chosen])
    taken = {key(text) for text in (*data.valid.texts, *others.texts)}
    cut = None
    if shape.pieces == "teacher":
        cut = vocabulary.cut_vocabulary(teacher.tokenizer, data.train.texts, others.texts, shape.vocabulary)
    words = data.train.words
    near = vocabulary.neighbours(teacher.tokenizer, teacher.table, words, cut.get_vocab() if cut else words)
    altered = augmented(data.train, recipe.data.copies(len(data.train)), taken, near, seed)
    sentences = data.train + altered + others
    return Corpus(sentences, len(altered), cut or vocabulary.own_vocabulary(sentences.texts, shape.vocabulary))
