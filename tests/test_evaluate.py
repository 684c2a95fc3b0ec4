"""evaluate: the C's answers, its arrays, and the comparison with the float graph."""

import json
from pathlib import Path

import numpy as np
import pytest

from slm2c import evaluate, fixedpoint, samples
from slm2c.errors import CompileError
from slm2c.interpret import run_fused
from slm2c.quantize import run_int
from slm2c.tokenizer import read_tokenizer
from tests import generated
from tests.generated import LABELS, SENTENCES, Built, compile_into

TEXTS = (
    *SENTENCES,
    "",
    " ",
    "Turn ON the LIGHTS!",
    "line\nbreak\ttab",
    "größe 😀 \ud800",
    "light " * 200,
    "x" * 10_000,
)


@pytest.fixture(scope="module")
def text(host_cc: str, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A text classifier."""
    folder = tmp_path_factory.mktemp("text")
    return compile_into(folder, generated.text_folder(folder / "in"), "text")


@pytest.fixture(scope="module")
def tagger(host_cc: str, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A model with a row of outputs for each token."""
    return compile_into(tmp_path_factory.mktemp("tagger"), generated.tagger(), "tagger")


def by_reference(built: Built, texts: tuple[str, ...]) -> list[tuple[int, tuple[int, ...], float]]:
    """(class, ids, probability) of each text, from the integer graph and the tokenizer in Python."""
    output, found = built.output, []
    assert output.tokenizer is not None and output.interface is not None
    name = output.graph.outputs[0]
    quant = output.graph.tensors[name].quant
    assert quant is not None
    for sample in samples.from_texts(texts, read_tokenizer(output.tokenizer), output.interface):
        real = fixedpoint.dequantize(run_int(output.graph, sample)[name], quant).ravel().astype(np.float64)
        share = np.exp(real - real.max()) / np.exp(real - real.max()).sum()
        found.append((int(real.argmax()), tuple(sample["input_ids"].tolist()), float(share.max())))
    return found


def test_answers_are_those_of_the_integer_graph(text: Built) -> None:
    answers = evaluate.run_text(text.output, TEXTS)
    expected = by_reference(text, TEXTS)
    assert [(a.index, a.ids) for a in answers] == [(index, ids) for index, ids, _ in expected]
    assert [a.label for a in answers] == [LABELS[a.index] for a in answers]
    assert len({a.index for a in answers}) > 1
    assert all(a.n == len(a.ids) for a in answers)
    for answer, (_, _, score) in zip(answers, expected, strict=True):
        assert answer.score == pytest.approx(score, rel=0.01)  # slm_top_s16 promises 1 %


def test_no_text_no_answer(text: Built) -> None:
    assert evaluate.run_text(text.output, []) == []


def test_labels_of_a_file_come_out_exactly(host_cc: str, tmp_path: Path) -> None:
    labels = ["tab\tand\nnewline", "*/ ??/ %s \\", "größe 😀", 'quoted "label"', ""]
    built = compile_into(tmp_path, generated.text_folder(tmp_path / "in", labels=labels), "text")
    words = generated.WORDS.split(" ")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    answers = evaluate.run_text(built.output, [*words, *letters, *(f"{a} {b}" for a in letters for b in words)])
    assert {a.index for a in answers} == set(range(5)), "the data no longer shows every class"
    assert {a.label for a in answers} == {*labels[:4], "4"}
    assert all(a.label == (labels[a.index] or str(a.index)) for a in answers)


@pytest.mark.parametrize("label", ["a\0b", "\ud800"])
def test_labels_that_no_c_string_holds_are_refused(label: str, tmp_path: Path) -> None:
    folder = generated.text_folder(tmp_path / "in", labels=["a", "b", "c", "d", label])
    with pytest.raises(CompileError, match="does not hold label names"):
        compile_into(tmp_path, folder, "text")


def test_a_zero_byte_is_refused(text: Built) -> None:
    with pytest.raises(CompileError, match="zero byte"):
        evaluate.run_text(text.output, ["a\0b"])


def test_evaluation(text: Built) -> None:
    words = generated.WORDS.split(" ")
    texts = [f"{a} {b} {c}" for a in words for b in words for c in words[:3]]
    answers = evaluate.run_text(text.output, texts)
    assert text.output.tokenizer is not None and text.output.interface is not None
    encoded = samples.from_texts(texts, read_tokenizer(text.output.tokenizer), text.output.interface)
    graph = text.output.float_graph
    floats = [run_fused(graph, s)[graph.outputs[0]].ravel() for s in encoded]
    # Labelled by the float model, but for every tenth text.
    labels = [LABELS[(int(f.argmax()) + (i % 10 == 0)) % 5] for i, f in enumerate(floats)]
    seen: list[tuple[str, int, int]] = []
    found = evaluate.evaluate(text.output, texts, labels, lambda *x: seen.append(x))

    differ = [i for i, (a, f) in enumerate(zip(answers, floats, strict=True)) if a.index != f.argmax()]
    assert 0 < len(differ) < 0.1 * len(texts), "the data no longer shows a disagreement, or too many"
    assert found.n == len(texts)
    assert found.agreement == pytest.approx(1 - len(differ) / len(texts))
    assert found.accuracy_float == pytest.approx(1 - len(texts[::10]) / len(texts))
    assert found.accuracy_c == np.mean([LABELS[a.index] == label for a, label in zip(answers, labels, strict=True)])
    assert sorted(d.text for d in found.worst) == sorted(texts[i] for i in differ)
    assert [d.float_score for d in found.worst] == sorted((d.float_score for d in found.worst), reverse=True)
    for d in found.worst:
        i = texts.index(d.text)
        share = np.exp(floats[i].astype(np.float64))
        assert (d.expected, d.float_label) == (labels[i], LABELS[int(floats[i].argmax())])
        assert d.float_score == pytest.approx(share.max() / share.sum())
        assert (d.c_label, d.c_score) == (answers[i].label, answers[i].score)
    assert seen[0] == ("evaluate", 0, len(texts)) and seen[-1] == ("evaluate", len(texts), len(texts))


def test_unknown_labels_are_listed(text: Built) -> None:
    with pytest.raises(CompileError, match=r"no label 'foo', 'zoo'; its labels are 'lights', 'music'"):
        evaluate.evaluate(text.output, ["a", "b", "c"], ["zoo", "lights", "foo"])


def test_models_without_text_say_what_they_lack(tagger: Built, text: Built, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="'tagger': does not answer text: it has no single output with scores"):
        evaluate.run_text(tagger.output, ["a"])
    arrays = compile_into(tmp_path, generated.text_classifier(), "arrays")
    with pytest.raises(CompileError, match="it has no tokenizer; build it with --tokenizer"):
        evaluate.evaluate(arrays.output, ["a"], ["lights"])


def test_arrays_are_those_of_the_integer_graph(host_cc: str, tagger: Built, tmp_path: Path) -> None:
    two = compile_into(tmp_path, generated.two_by_two(), "two")
    for built in (tagger, two):
        output, graph = built.output, built.output.graph
        found = evaluate.run_arrays(output, output.samples)
        assert len(found) == len(output.samples)
        for sample, values in zip(output.samples, found, strict=True):
            expected = run_int(graph, sample)
            assert list(values) == list(output.outputs)
            for (name, shape), x in zip(output.outputs.items(), graph.outputs, strict=True):
                quant = graph.tensors[x].quant
                assert quant is not None and values[name].shape == shape
                flat = fixedpoint.dequantize(expected[x], quant).ravel()
                np.testing.assert_array_equal(values[name].ravel()[: flat.size], flat)
                assert not values[name].ravel()[flat.size :].any(), "rows of tokens that there are not"
    assert tagger.output.outputs == {"tags": (1, 9, 3)} and two.output.outputs == {"ya": (1, 17), "sum": (1, 17)}


def test_what_the_c_refuses_is_the_users(tagger: Built) -> None:
    with pytest.raises(CompileError, match="a token id lies outside the vocabulary"):
        evaluate.run_arrays(tagger.output, [{"input_ids": np.array([50], np.int32)}])


def test_the_program_is_built_once_for_each_content(text: Built) -> None:
    first = evaluate.host_program(text.output)
    built = first.stat().st_mtime_ns
    assert evaluate.host_program(text.output) == first and first.stat().st_mtime_ns == built
    source = text.folder / "slm" / "slm_classify.c"
    content = source.read_text(encoding="utf-8")
    source.write_text(content.replace("uint32_t top = 0;", "uint32_t top = 0; count = 1u;"), encoding="utf-8")
    assert {a.index for a in evaluate.run_text(text.output, TEXTS)} == {0}
    source.write_text(content, encoding="utf-8")
    assert evaluate.host_program(text.output) == first
    assert [x.name for x in first.parent.iterdir() if not x.name.startswith("text_cli-")] == []


def test_a_damaged_folder_is_reported(tmp_path: Path, host_cc: str) -> None:
    built = compile_into(tmp_path, generated.text_folder(tmp_path / "in"), "text")
    data = bytearray(built.blob.read_bytes())
    data[500] ^= 1
    built.blob.write_bytes(data)
    with pytest.raises(CompileError, match="the blob is damaged"):
        evaluate.run_text(built.output, ["a"])
    (built.folder / "host" / "main.c").unlink()
    with pytest.raises(CompileError, match=r"main\.c.: is missing; build it again"):
        evaluate.run_text(built.output, ["a"])


def test_a_folder_that_cannot_be_written_is_reported(host_cc: str, tmp_path: Path) -> None:
    built = compile_into(tmp_path, generated.mlp(), "mlp")
    (built.folder / "build").write_text("in the way", encoding="utf-8")
    with pytest.raises(CompileError, match=r"build'?: cannot be built: "):
        evaluate.run_arrays(built.output, built.output.samples)


def test_a_text_without_tokens_is_named(host_cc: str, tmp_path: Path) -> None:
    folder = generated.text_folder(tmp_path / "in")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}), encoding="utf-8")
    built = compile_into(tmp_path, folder, "text")
    assert [a.n for a in evaluate.run_text(built.output, ["turn on", "stop"])] == [2, 1]
    with pytest.raises(CompileError, match=r"^'  ': the input has no token$"):
        evaluate.run_text(built.output, ["turn on", "  ", "stop"])
