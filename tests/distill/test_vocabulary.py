"""Vocabularies cut and trained, and embeddings that start where the teacher's are."""

import json
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models

from slm2c.distill import vocabulary
from slm2c.distill.vocabulary import SPECIAL
from slm2c.errors import CompileError
from slm2c.tokenizer import read_tokenizer
from tests.distill.tiny import LETTERS, PIECES, WORDS, rows

TEXTS = [text for text, _ in rows()]


def teacher(pieces: list[str] = PIECES) -> Tokenizer:
    return vocabulary._bert(pieces, None, None, 100)


def test_cut_keeps_what_the_sentences_use() -> None:
    used = len(SPECIAL) + 2 * len(LETTERS) + len(WORDS)
    cut = vocabulary.cut_vocabulary(teacher(), TEXTS, [], used)
    assert [cut.id_to_token(i) for i in range(5)] == list(SPECIAL)
    assert set(WORDS) <= set(cut.get_vocab()) and not {"kitchen", "light", "##ing"} & set(cut.get_vocab())
    more = vocabulary.cut_vocabulary(teacher(), TEXTS, [], used + 1)
    assert set(more.get_vocab()) - set(cut.get_vocab()) == {"##ing"}  # what comes first in the teacher's order
    for text in TEXTS:
        assert cut.encode(text).tokens == teacher().encode(text).tokens


def test_cut_prefers_labelled_sentences() -> None:
    room = len(SPECIAL) + 2 * len(LETTERS) + 2
    cut = vocabulary.cut_vocabulary(teacher(), ["turn lamp"], ["radio radio radio"] * 50, room)
    assert cut.get_vocab_size() == room and {"turn", "lamp"} <= set(cut.get_vocab())
    assert cut.encode("radio").tokens == ["[CLS]", "r", "##a", "##d", "##i", "##o", "[SEP]"]


def test_cut_is_the_teacher_on_every_word_whose_pieces_are_kept() -> None:
    """On 3,000 random words over pieces that overlap, of which a third are kept."""
    rng = random.Random(5)
    made = {"".join(rng.choices("abc", k=rng.randrange(2, 5))) for _ in range(60)}
    pieces = [*SPECIAL, *LETTERS, *(f"##{c}" for c in LETTERS), *sorted(made), *sorted(f"##{x}" for x in made)]
    full = teacher(pieces)
    used = [" ".join(rng.sample(sorted(made), 10))]
    cut = vocabulary.cut_vocabulary(full, used, [], 75)
    kept = set(cut.get_vocab())
    compared = 0
    for _ in range(3000):
        word = "".join(rng.choices("abc", k=rng.randrange(1, 9)))
        expected = full.encode(word).tokens
        if set(expected) <= kept:
            compared += 1
            assert cut.encode(word).tokens == expected
        assert "[UNK]" not in cut.encode(word).tokens
    assert 300 < compared < 3000 and len(kept) == 75


def test_cut_refuses_what_is_not_wordpiece() -> None:
    with pytest.raises(CompileError, match=r"kind BPE.*pieces = \"own\""):
        vocabulary.cut_vocabulary(Tokenizer(models.BPE()), TEXTS, [], 200)
    with pytest.raises(CompileError, match=r"has no \[MASK\]"):
        vocabulary.cut_vocabulary(_without_mask(), TEXTS, [], 200)


def _without_mask() -> Tokenizer:
    spec = json.loads(teacher().to_str())
    spec["added_tokens"] = [x for x in spec["added_tokens"] if x["content"] != "[MASK]"]
    del spec["model"]["vocab"]["[MASK]"]
    return Tokenizer.from_str(json.dumps(spec))


def test_own_vocabulary() -> None:
    own = vocabulary.own_vocabulary(TEXTS, 120)
    assert own.get_vocab_size() <= 120 and sorted(own.get_vocab().values()) == list(range(own.get_vocab_size()))
    for _ in range(5):
        assert vocabulary.own_vocabulary(TEXTS, 120).to_str() == own.to_str()
    assert own.encode("turn").tokens == ["[CLS]", "turn", "[SEP]"]  # frequent, so it has become one piece
    assert "[UNK]" not in own.encode("quixotic zephyr").tokens


def test_own_vocabulary_holds_every_character() -> None:
    texts = ["größe", "größe", "σίγμα"]
    own = vocabulary.own_vocabulary(texts, 200)
    assert all("[UNK]" not in own.encode(text).tokens for text in texts)
    with pytest.raises(CompileError, match="less than the 89"):
        vocabulary.own_vocabulary(texts, 80)


@pytest.mark.parametrize("kind", ["cut", "own"])
def test_the_compiler_reads_them(kind: str, tmp_path: Path) -> None:
    made = (
        vocabulary.cut_vocabulary(teacher(), TEXTS, [], 200) if kind == "cut" else vocabulary.own_vocabulary(TEXTS, 120)
    )
    made.enable_truncation(8)
    made.save(str(tmp_path / "tokenizer.json"))
    ours = read_tokenizer(tmp_path / "tokenizer.json")
    for text in [*TEXTS, "Ärger, im Flur!", "", "a b c d e f g h i j k"]:
        assert list(ours.encode(text, 8)) == made.encode(text).ids


def test_neighbours_are_whole_words_near_in_the_table() -> None:
    table = torch.zeros(len(PIECES), 3)
    ids = {piece: i for i, piece in enumerate(PIECES)}
    for piece, row in {"lamp": [1, 0, 0], "radio": [2, 0.1, 0], "fan": [0, 1, 0], "light": [0.9, -0.1, 0.1]}.items():
        table[ids[piece]] = torch.tensor(row)
    among = ["lamp", "radio", "fan", "light", "xyz", "##s", "a"]
    near = vocabulary.neighbours(teacher(), table, ["lamp", "fan", "kitchens"], among, 2)
    assert near == {"lamp": ["radio", "light"], "fan": ["radio", "lamp"]}
    assert vocabulary.neighbours(teacher(), table, ["lamp"], ["lamp"]) == {}


def test_teacher_rows() -> None:
    table = torch.randn(len(PIECES), 6, generator=torch.Generator().manual_seed(0))
    student = vocabulary._bert([*SPECIAL, "lamp", "lamps", "##ing"], None, None, 100)
    found = vocabulary.teacher_rows(student, teacher(), table)
    ids = {piece: i for i, piece in enumerate(PIECES)}
    assert torch.equal(found[5], table[ids["lamp"]]) and torch.equal(found[7], table[ids["##ing"]])
    assert torch.allclose(found[6], (table[ids["lamp"]] + table[ids["##s"]]) / 2)  # "lamps" is lamp and ##s there


def test_principal_directions_reconstruct() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(50, 3, generator=generator) @ torch.randn(3, 8, generator=generator) + 5
    mean, basis = vocabulary.principal(rows, 3)
    assert torch.allclose(basis.T @ basis, torch.eye(3), atol=1e-5)
    assert torch.allclose((rows - mean) @ basis @ basis.T + mean, rows, atol=1e-4)


def test_principal_directions_lose_least() -> None:
    """What k directions leave is the sum of the smaller eigenvalues of the scatter matrix (Eckart and Young)."""
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(2)).double().float()
    mean, basis = vocabulary.principal(rows, 4)
    centred = (rows - mean).double()
    left = (centred - centred @ basis.double() @ basis.T.double()).square().sum()
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred)
    assert left.item() == pytest.approx(eigenvalues[:2].sum().item(), rel=1e-5)


def test_principal_directions_of_a_line() -> None:
    mean, basis = vocabulary.principal(torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]), 3)
    assert mean.tolist() == [2, 4]
    assert basis[:, 0].tolist() == pytest.approx([5**-0.5, 2 * 5**-0.5], rel=1e-6)
    assert basis[:, 2].tolist() == [0, 0]  # there are no three directions in a plane
