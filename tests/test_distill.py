"""What of `slm2c distill` needs no PyTorch: recipes, sentences, and the word that the extra is missing."""

import random
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from slm2c import cli, distill, show
from slm2c.distill import data
from slm2c.distill import recipe as recipes
from slm2c.distill.data import UNLABELLED, Sentences
from slm2c.distill.recipe import Recipe, Shape, quick, read_recipe, to_toml
from slm2c.errors import CompileError
from slm2c.sentences import read_labelled

# ---------------------------------------------------------------- the extra


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(distill, "find_spec", lambda name: None if name != "tokenizers" else object())
    args = ["distill", "--teacher", "t", "--train", "a.csv", "--valid", "b.csv", "-o", "out"]
    assert cli.invoke(args) == 1
    error = capsys.readouterr().err
    assert "training needs torch, transformers, which slm2c alone does not install" in error
    assert "pip install 'slm2c[distill]'" in error


@pytest.mark.parametrize(
    "command, option, most",
    [
        *((command, "--seed", 2**32 - 1) for command in ("distill", "compress", "fit")),
        *((command, "--epochs", 10_000) for command in ("compress", "fit")),
    ],
)
def test_seeds_and_epochs_have_bounds(command: str, option: str, most: int, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (most + 1, 2**64, -1):
        assert cli.invoke([command, option, str(number)]) == 2
        assert f"{number} is not in the range" in capsys.readouterr().err
    cli.invoke([command, option, str(most)])
    assert "is not in the range" not in capsys.readouterr().err


# ---------------------------------------------------------------- recipes


def write(folder: Path, text: str, name: str = "student.toml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_an_empty_recipe_is_the_default(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path, "")) == Recipe()


def test_the_page_states_the_defaults(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs" / "DISTILL.md"
    (text,) = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert text == to_toml(Recipe()) and read_recipe(write(tmp_path, text)) == Recipe()


def test_a_recipe_is_written_and_read_back(tmp_path: Path) -> None:
    made = replace(Recipe(), student=Shape(4, 96, 3, 200, 1000, 20, "own"))
    made = replace(made, training=replace(made.training, map=((2, 3), (4, 6)), bf16=True))
    assert read_recipe(write(tmp_path, to_toml(made))) == made != Recipe()


def test_a_recipe_changes_what_it_names(tmp_path: Path) -> None:
    text = "[student]\nlayers = 2\n[distil]\nhidden = 0\ntemperature = [8, 1.5]\n[training]\nmap = [[1, 3], [2, 6]]\n"
    found = read_recipe(write(tmp_path, text))
    assert found.student == replace(Shape(), layers=2) and found.training.map == ((1, 3), (2, 6))
    assert found.distil == replace(Recipe().distil, hidden=(0.0, 0.0), temperature=(8.0, 1.5))
    assert found.fine_tune == Recipe().fine_tune


@pytest.mark.parametrize(
    "text, expected",
    [
        ("layers = 2", "layers: unknown key; known: student, teacher, data"),
        ("[student]\nlayer = 2", "student.layer: unknown key; did you mean 'layers'?; known: layers, hidden"),
        ("student = 3", "student: cannot be 3; give a table"),
        ("[student]\nlayers = 2.5", "student.layers: cannot be 2.5; give a whole number"),
        ("[student]\nlayers = true", "student.layers: cannot be True; give a whole number"),
        ("[training]\nbf16 = 1", "training.bf16: cannot be 1; give true or false"),
        ("[distil]\nrate = [1, 2, 3]", "distil.rate: cannot be [1, 2, 3]; give a number or [start, end]"),
        ("[training]\nmap = [1, 2]", "training.map[0]: cannot be 1; give a list of 2"),
        ("[student]\nheads = []", "student.heads = []; it is from 1 to 65536"),
        ("[student]\nhidden = 100\nheads = 3", "hidden = 100 does not divide into 3 heads"),
        ("[student]\npieces = 'bpe'", "it is 'teacher' or 'own'"),
        ("[distil]\nrate = 0", "it is above 0 at one end"),
        ("[warm_up]\nepochs = 0\n[distil]\nepochs = 0\n[fine_tune]\nepochs = 0", "no phase has an epoch"),
        ("[distil]\nalpha = nan", "distil.alpha: cannot be nan; give a number"),
        (f"[student]\nlayers = 0x1{5000 * '0'}", "student.layers: cannot be a number of 20,001 bits"),
        ("[student", "not a TOML file"),
    ],
)
def test_recipes_that_make_no_sense(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        read_recipe(write(tmp_path, text))
    assert expected in str(caught.value) and "student.toml" in str(caught.value)


OUT_OF_RANGE = {
    "student": [
        *("layers = 0", "layers = 257", "hidden = 65537", "heads = 65537", "heads = [4, 0]", "ffn = 65537"),
        *("vocabulary = 199", "vocabulary = 65537", "tokens = 2", "tokens = 65537", "head_size = -1", "share = 0"),
        "rank = -1",
    ],
    "teacher": [
        *("epochs = 0", "epochs = 10001", "batch = 0", "rate = 0.0", "rate = -0.1", "head_rate = 0.0"),
        *("smoothing = -0.1", "smoothing = 1.0"),
    ],
    "data": [
        *("augment = -1", "augmented = -1", "unlabelled = -1", "repeats = 0", "share = 1.1", "steps = 0"),
        "augmented = 1000000000001",
    ],
    "training": [
        *("batch = 0", "batch = 65537", "decay = -0.1", "clip = 0.0", "clip = -1.0", "dropout = 1.0", "dropout = -0.1"),
        *("average = 1.0", "average = -0.1", "matched = 0", "threads = -1", "threads = 1000000"),
    ],
    "distil": [
        *("epochs = -1", "epochs = 10001", "alpha = 1.5", "temperature = [0.0, 1.0]", "temperature = [1.0, 101.0]"),
        *("hidden = [-1.0, 1.0]", "attention = [0.0, -1.0]", "rate = [0.1, -0.1]"),
    ],
    "warm_up": ["epochs = -1", "temperature = [1e+30, 1e+30]"],
    "fine_tune": ["epochs = -1"],
    "finish": ["epochs = -1", "epochs = 10001", "rate = 0.0"],
}


@pytest.mark.parametrize("table, line", [(table, line) for table, lines in OUT_OF_RANGE.items() for line in lines])
def test_numbers_that_are_out_of_range(table: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=re.escape(f"{table}.{line}; it is ")):
        read_recipe(write(tmp_path, f"[{table}]\n{line}"))


def test_a_negative_number_of_epochs_is_not_one_epoch(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"distil\.epochs = -1; it is from 0 to 10000"):
        read_recipe(write(tmp_path, "[warm_up]\nepochs = 0\n[distil]\nepochs = -1\n[fine_tune]\nepochs = 0"))


def test_the_ends_of_ranges(tmp_path: Path) -> None:
    text = "[student]\nlayers = 256\nhidden = 65536\nffn = 65536\n[training]\ndropout = 0\naverage = 0.9999\n"
    text += "[teacher]\nsmoothing = 0\n[distil]\nepochs = 10000\ntemperature = 100\n[finish]\nepochs = 0\n"
    assert read_recipe(write(tmp_path, text)).student.layers == 256


def test_every_number_of_a_recipe_has_a_range() -> None:
    for part in fields(Recipe):
        table = getattr(Recipe(), part.name)
        numbers = {f.name for f in fields(table) if f.type not in ("bool", "str")} - {"map"}
        assert set(recipes._RANGES[part.name]) == numbers


def test_the_recipe_of_homecmd_makes_sense() -> None:
    assert read_recipe(Path(__file__).parents[1] / "examples" / "homecmd" / "student.toml").student == Shape()


def test_quick_is_less_of_everything() -> None:
    full, short = Recipe(), quick(Recipe())
    assert short.distil.epochs == 4 and short.fine_tune.epochs == 1 and short.teacher.epochs == 2
    assert short.student == full.student and short.distil.rate == full.distil.rate
    assert short.data.augmented < full.data.augmented
    assert not any(max(phase.hidden) for phase in short.phases.values())
    assert short.data.augment == 1
    assert quick(replace(full, data=replace(full.data, augment=0))).data.augment == 0


@pytest.mark.parametrize("share, far", [(0.89, True), (0.9, False), (None, False)])
def test_a_student_that_is_far_from_its_teacher_is_told_so(share: float | None, far: bool) -> None:
    figures = {"parameters": 10, "accuracy_float": 0.5, "accuracy_integer": 0.5, "agreement": 1.0, "of_teacher": share}
    teacher = {"accuracy": 0.9, "parameters": 100}
    facts = {"student": figures, "teacher": teacher, "finish": None, "sentences": {"valid": 8}}
    text = show.student(Path("out"), facts, 61)
    assert ("far from its teacher" in text) == far and "student      50.00%" in text
    assert max(map(len, text.splitlines())) <= 100


# ---------------------------------------------------------------- sentences


def files(folder: Path, train: str, valid: str = "text,label\nlights up,on\n") -> tuple[Path, Path]:
    return write(folder, train, "train.csv"), write(folder, valid, "valid.csv")


TRAIN = 'text,label\nturn it on,on\n"off, please",off\nswitch on,on\n'


def test_reading(tmp_path: Path) -> None:
    other = write(tmp_path, "Turn it ON!\nsomething else\nlights up\nsomething else\n", "more.txt")
    found = data.read_data(*files(tmp_path, TRAIN), [other])
    assert found.names == ("off", "on")
    assert found.train == Sentences(("turn it on", "off, please", "switch on"), (1, 0, 1))
    assert found.valid == Sentences(("lights up",), (1,))
    assert found.unlabelled == Sentences(("something else",), (UNLABELLED,))
    assert found.left_out == 1


def test_columns_may_stand_anywhere(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffid,label,text\n1,on,turn it on\n\n2,off,no more\n", "a.csv")
    assert [(r.line, r.text, r.label) for r in read_labelled(path)] == [
        (2, "turn it on", "on"),
        (4, "no more", "off"),
    ]


def test_validation_sentences_are_not_trained_on(tmp_path: Path) -> None:
    found = data.read_data(*files(tmp_path, TRAIN, "text,label\nSwitch on!,on\n"))
    assert "switch on" not in found.train.texts and found.left_out == 1


@pytest.mark.parametrize(
    "train, valid, expected",
    [
        ("text,label\na b,x\nno label\n", "", "train.csv, line 3': has no label: no label; give it one"),
        ("text,label\na b,x\n,y\n", "", "train.csv, line 3': has no text: ,y; give it one"),
        (
            "text,label\nyes, do it,x\n",
            "",
            "line 2': has 3 fields, the header 2; put a text that holds commas in \"quot",
        ),
        ('text,label\n"two\nlines",x\nb,\n', "", "line 4': has no label"),
        ('text,label\n"two\nlines",x\nb,\n', "", "line 3': has a text of several lines: two"),
        ('text,label\n"not closed,x\nb,y\n', "", "is not CSV: unexpected end of data; put a text that holds"),
        ("sentence,label\na,x\n", "", "has no column text in its first line; its first line is: text,label"),
        ("", "", "has no column text and no column label"),
        ("text,label\n", "", "holds no sentence"),
        ("text,label\na,x\nb,x\n", "", "has a single label, 'x'; a classifier tells at least two apart"),
        (TRAIN, "text,label\nabc,maybe\n", "valid.csv, line 2': has the label 'maybe', which train.csv has not"),
        (TRAIN, "text,label\noff please,off\n", "has no sentence of off that valid.csv does not have, too"),
    ],
)
def test_faulty_files(train: str, valid: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        data.read_data(*files(tmp_path, train, valid or "text,label\nlights up,on\n"))
    assert expected in str(caught.value)


def test_every_faulty_line_is_named_up_to_five(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label\n" + "broken\n" * 9, "a.csv")
    with pytest.raises(CompileError) as caught:
        read_labelled(path)
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_files_that_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    if content:
        (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(CompileError, match="cannot be read"):
        read_labelled(tmp_path / "a.csv")


# ---------------------------------------------------------------- augmentation

SENTENCES = Sentences(tuple(f"please turn the {x} in the {y} on" for x in "abcd" for y in ("hall", "attic")), (0,) * 8)


def test_augmentation() -> None:
    taken = {"turn the a in the hall on"}
    found = data.augmented(SENTENCES, 40, taken, {"hall": ["kitchen"]}, 1)
    assert found == data.augmented(SENTENCES, 40, taken, {"hall": ["kitchen"]}, 1)
    assert found != data.augmented(SENTENCES, 40, taken, {"hall": ["kitchen"]}, 2)
    keys = [data.key(text) for text in found.texts]
    assert len(found) == 40 == len(set(keys)) and set(found.labels) == {UNLABELLED}
    assert not set(keys) & (taken | {data.key(text) for text in SENTENCES.texts})
    assert any("kitchen" in text for text in found.texts)
    known = {word for text in SENTENCES.texts for word in text.split()} | {"kitchen"}
    assert {word for text in found.texts for word in text.split()} <= known


def test_augmentation_ends_where_there_is_nothing_new() -> None:
    assert len(data.augmented(Sentences(("on",), (0,)), 100, (), {}, 1)) < 100


def test_half_cross_over_at_a_word_that_both_sentences_have() -> None:
    train = Sentences(("wake me at seven", "remind her at noon tomorrow"), (0, 1))
    found = data.augmented(train, 40, (), {}, 1)
    assert {"wake me at noon tomorrow", "remind her at seven"} <= set(found.texts)


def test_altered_sentences_keep_a_word() -> None:
    rng = random.Random(3)
    words = data._Words([["on"], ["turn", "on"], ["turn", "it", "on"]], {})
    for number in range(3):
        for _ in range(300):
            assert words.altered(number, rng).split()


def test_the_same_sentence() -> None:
    assert data.key("Turn it ON, please!") == data.key("turn it on please") != data.key("don't")
    assert data.key("Größe") == "größe"
    assert data.key("“Send an e-mail”, now…") == data.key("send an e mail now!") and data.key("हाँ।") == data.key("हाँ")


@pytest.mark.parametrize(
    "one, other",
    [
        ("\N{SNOWMAN}", "\N{WHITE SMILING FACE}"),
        ("volume +", "volume -"),
        ("play C#", "play C++"),
        ("कल", "कुल"),
        ("?", "..."),
    ],
)
def test_sentences_that_a_sign_tells_apart(one: str, other: str, tmp_path: Path) -> None:
    assert data.key(one) and data.key(other) and data.key(one) != data.key(other)
    train = write(tmp_path, f"text,label\n{one},a\nx,b\n", "train.csv")
    assert data.read_data(train, write(tmp_path, f"text,label\n{other},a\n", "valid.csv")).left_out == 0


def test_labels_are_numbered_as_a_student_has_them(tmp_path: Path) -> None:
    train = write(tmp_path, "text,label\non,a\noff,b\nask,c\n", "train.csv")
    found = data.read_data(train, write(tmp_path, "text,label\nis it,c\n", "valid.csv"))
    other = data.as_student(found, ("b", "c", "a"), train)
    assert other.names == ("b", "c", "a") and other.train.labels == (2, 0, 1) and other.valid.labels == (1,)
    assert data.as_student(found, ("a", "b", "c"), train) == found
