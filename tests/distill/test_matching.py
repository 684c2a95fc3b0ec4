"""What teachers are asked and how the student is compared with them, word by word."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from slm2c.distill import targets
from slm2c.distill.batches import encode, predict, words
from slm2c.distill.data import UNLABELLED, Sentences
from slm2c.distill.losses import average_teachers
from slm2c.distill.recipe import Phase, Pool, Shape
from slm2c.distill.student import Lesson, Plan, Student, groups, judge, read_all, start_from_teacher
from slm2c.distill.teacher import load_teacher
from slm2c.distill.training import Moment
from slm2c.distill.vocabulary import _bert, cut_vocabulary
from slm2c.errors import CompileError
from tests.distill import tiny

LAYERS = targets.Layers(hidden=(1, 2), attention=(2,))
TEXTS = ["turn on the lamps", "is the radio running", "start the zebra", "stop"]


def test_words_of_tokens() -> None:
    tokenizer = _bert(tiny.PIECES, None, None, 100)
    (encoding,) = encode(tokenizer, ["the lamps on!"], 12)
    assert encoding.tokens == ["[CLS]", "the", "lamp", "##s", "on", "[UNK]", "[SEP]"]
    assert words(encoding) == [0, 1, 2, 2, 3, 4, 5]
    (cut,) = encode(tokenizer, ["the lamps on"], 4)
    assert words(cut) == [0, 1, 2, 3]


def test_pooling_by_hand() -> None:
    pool = targets.pooling([[0, 1, 1, 2], [0, 1]], 4)
    assert pool[0].tolist() == [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]
    assert pool[1].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_attention_by_word_by_hand() -> None:
    """Rows of a word's tokens are averaged, columns added up: rows still sum to 1."""
    attention = torch.tensor([[[0.2, 0.3, 0.5], [0.6, 0.1, 0.3], [0.4, 0.5, 0.1]]])
    found = targets.by_word(attention, targets.pooling([[0, 1, 1]], 3))
    assert torch.allclose(found[0], torch.tensor([[0.2, 0.8], [0.5, 0.5]]))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[list, Path]:
    """Two teachers, and what they said about TEXTS."""
    folder = tmp_path_factory.mktemp("asked")
    teachers = []
    for seed in (1, 2):
        written = tiny.write_teacher(folder / f"teacher-{seed}", seed=seed)
        teachers.append(load_teacher(written, ("ask", "off", "on"), 12))
    targets.ask(teachers, TEXTS, 12, LAYERS, folder / "targets", lambda *_: None)
    return teachers, folder / "targets"


def test_targets_are_what_the_teachers_say(asked: tuple[list, Path]) -> None:
    teachers, folder = asked
    found = targets.open_targets(folder, LAYERS)
    each = [predict(t.model, [e.ids for e in encode(t.tokenizer, TEXTS, 12)]) for t in teachers]
    assert torch.allclose(found.logits, average_teachers(each), atol=1e-5)
    assert not torch.allclose(each[0], each[1], atol=1e-3)
    (encoding,) = encode(teachers[0].tokenizer, TEXTS[:1], 12)
    with torch.no_grad():
        answer = teachers[0].model(torch.tensor([encoding.ids]), torch.ones(1, len(encoding.ids)), True)
    assert encoding.tokens == ["[CLS]", "turn", "on", "the", "lamp", "##s", "[SEP]"] and found.words(0) == 6
    states = answer.hidden[2][0]
    expected = torch.stack([*states[:4], states[4:6].mean(0), states[6]])
    assert torch.allclose(found.hidden_of(2, [0]), expected, atol=2e-3)  # kept as float16
    attention = found.attention_of(2, 0)
    assert torch.allclose(attention.sum(-1), torch.ones(6), atol=2e-3)
    assert attention[0, 4].item() == pytest.approx(answer.attention[1][0].mean(0)[0, 4:6].sum().item(), abs=1e-3)
    rows = found.hidden_of(1, [1, 3])
    assert torch.equal(rows[found.words(1) :], found.hidden_of(1, [3])) and len(rows) == found.words(1) + 3


@pytest.mark.parametrize("name", ["logits.npy", "index.npz", "hidden-2.npy", "attention-2.npy"])
def test_targets_that_are_damaged(name: str, asked: tuple[list, Path], tmp_path: Path) -> None:
    shutil.copytree(asked[1], tmp_path / "targets")
    path = tmp_path / "targets" / name
    for content in (path.read_bytes()[:-8], b"\0" * 200, b""):
        path.write_bytes(content)
        with pytest.raises(CompileError, match=rf"{name}': cannot be read: .*; remove the folder .*targets, and"):
            targets.open_targets(tmp_path / "targets", LAYERS)
    path.unlink()
    with pytest.raises(CompileError, match="No such file"):
        targets.open_targets(tmp_path / "targets", LAYERS)


class _Stub(torch.nn.Module):
    """A student whose states and attention are given."""

    def __init__(self, hidden: torch.Tensor, attention: torch.Tensor, logits: torch.Tensor) -> None:
        super().__init__()
        self.found = (hidden, attention, logits)

    def bert(self, **_: object) -> object:
        hidden, attention, logits = self.found
        return type("Out", (), {"hidden_states": (hidden, hidden), "attentions": (attention,), "logits": logits})


def _lesson(asked: tuple[list, Path], phase: Phase) -> tuple[torch.Tensor, Mapping[str, torch.Tensor], targets.Targets]:
    """A student that says exactly what the teacher does, but in other pieces; "zebra" is spelt by both."""
    _, folder = asked
    found = targets.open_targets(folder, LAYERS)
    pieces = _bert([*tiny.PIECES, "lamps"], None, None, 100)
    reading = read_all(pieces, Sentences(tuple(TEXTS[:1]), (2,)), 12)
    assert len(reading.ids[0]) == 6  # a token a word
    hidden = found.hidden_of(2, [0])[None]
    student = _Stub(hidden, found.attention_of(2, 0)[None, None], found.logits[:1])
    project = torch.nn.Linear(24, 24)
    torch.nn.init.eye_(project.weight)
    torch.nn.init.zeros_(project.bias)
    lesson = Lesson(student, reading, found, ((1, 2),), torch.nn.ModuleList([project]))
    loss, terms = lesson(np.array([0]), Moment(phase, 0.0))
    return loss, terms, found


def test_a_student_that_says_what_the_teacher_says_has_nothing_to_learn(asked: tuple[list, Path]) -> None:
    phase = Phase(1, alpha=0.0, temperature=(3.0, 1.0), hidden=(2.0, 0.0), attention=(4.0, 0.0))
    loss, terms, _ = _lesson(asked, phase)
    assert set(terms) == {"hard", "soft", "hidden", "attention"}
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_terms(asked: tuple[list, Path]) -> None:
    loss, terms, found = _lesson(asked, Phase(1, alpha=0.25, hidden=(2.0, 0.0), attention=(4.0, 0.0)))
    assert terms["hard"].item() == pytest.approx(-found.logits[0].log_softmax(-1)[2].item(), rel=1e-4)
    weighted = 0.25 * terms["hard"] + 0.75 * terms["soft"] + 2 * terms["hidden"] + 4 * terms["attention"]
    assert loss.item() == pytest.approx(weighted.item(), rel=1e-5)


def test_sentences_whose_words_differ_are_not_matched(asked: tuple[list, Path]) -> None:
    _, folder = asked
    found = targets.open_targets(folder, LAYERS)
    reading = read_all(_bert(tiny.PIECES, None, None, 100), Sentences(("one word more than that now",), (0,)), 12)
    student = _Stub(torch.zeros(1, 9, 24), torch.zeros(1, 1, 9, 9), torch.zeros(1, 3))
    lesson = Lesson(student, reading, found, ((1, 2),), torch.nn.ModuleList([torch.nn.Linear(24, 24)]))
    _, terms = lesson(np.array([0]), Moment(Phase(1), 0.0))
    assert set(terms) == {"hard", "soft"}


def test_embeddings_start_at_the_teachers(asked: tuple[list, Path]) -> None:
    """As many directions as the teacher has features: angles between pieces are the teacher's, but for the scale."""
    teacher = asked[0][0]
    pieces = cut_vocabulary(teacher.tokenizer, TEXTS, [], 200)
    student = Student(Shape(1, 24, 2, 8, 200, 12), pieces.get_vocab_size(), ("a", "b"), 0.0)
    start_from_teacher(student, pieces, teacher)
    table = student.bert.bert.embeddings.word_embeddings.weight.detach()
    ids = teacher.tokenizer.get_vocab()
    rows = teacher.table[[ids[pieces.id_to_token(i)] for i in range(len(table))]]
    rows = rows - rows.mean(0)
    ratio = (table @ table.T)[5:, 5:] / (rows @ rows.T)[5:, 5:]
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-2)
    assert table[0].abs().sum() == 0
    norm = table[1:].norm(dim=1).mean().item()
    assert norm == pytest.approx(0.04 * 24**0.5, rel=0.05)


def test_plan_of_an_epoch() -> None:
    labels = np.array([0, 1, 2] + [UNLABELLED] * 10)
    plan = Plan([4] * 13, labels, Pool(repeats=2, share=0.5, steps=1), 4, 1)
    counts = np.bincount(np.concatenate(plan(0, Phase(1))), minlength=13)
    assert counts[:3].tolist() == [2, 2, 2] and counts[3:].sum() == 5 and counts[3:].max() == 1
    other = np.bincount(np.concatenate(plan(1, Phase(1))), minlength=13)
    assert counts.tolist() != other.tolist()
    assert np.bincount(np.concatenate(plan(0, Phase(1, labelled=True)))).tolist() == [2, 2, 2]


def test_an_epoch_of_few_sentences_reads_them_several_times() -> None:
    plan = Plan([4] * 13, np.array([0, 1, 2] + [UNLABELLED] * 10), Pool(repeats=2, share=0.5, steps=8), 4, 1)
    batches = plan(0, Phase(1))  # 11 sentences are 3 batches, 22 are 6, 33 are 9
    assert len(batches) == 9 and np.bincount(np.concatenate(batches))[:3].tolist() == [6, 6, 6]


def test_judging() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0]])
    value, figures = judge(logits, [0, 1, 1, 1])
    assert figures["valid_accuracy"] == 0.75 and 0.7499 < value < 0.75
    assert judge(logits * 0.5, [0, 1, 1, 1])[0] != value  # the loss decides between equals


def test_what_decays() -> None:
    student = Student(Shape(1, 8, 2, 8, 200, 12), 50, ("a", "b"), 0.0)
    aids = torch.nn.Linear(8, 4)
    matrices, others, thrown = groups(student, aids, 0.02)
    assert matrices.decay == 0.02 and others.decay == thrown.decay == 0
    assert len(matrices.parameters) == 6 + 1 + 1  # of the layer, the pooler, the classifier
    assert sum(map(len, (matrices.parameters, others.parameters))) == len(list(student.parameters()))
