"""Models that do not fit: what is said, and that what it says helps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from slm2c import budget
from slm2c.board import Board, list_boards, load_board, with_reserve
from slm2c.build import build
from slm2c.compile import Options
from slm2c.errors import CompileError, Problem
from slm2c.students import student

pytestmark = pytest.mark.qemu  # for the cross compiler: the linker's figures are in the messages

SMALL = "generic-m7-512k-4m"


def board(flash: int, sram: int) -> Board:
    """The generic Cortex-M7 with less memory."""
    full = load_board(SMALL)
    sizes = {"flash": flash, "sram": sram}
    return replace(full, stack_size=2048, memory=tuple(replace(r, size=sizes[r.name]) for r in full.memory))


def made(folder: Path, *, layers: int = 4, tokens: int = 96) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"student_{layers}_{tokens}.onnx"
    onnx.save(student(layers, 64, 2, 256, tokens, 1500, classes=5), path)
    return path


def with_vocabulary(path: Path, rows: int) -> Path:
    """The same student, whose last words are cut off."""
    model = onnx.load(path)
    (table,) = [x for x in model.graph.initializer if x.name == "word_embeddings"]
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:rows], table.name))
    onnx.save(model, path.with_name(f"cut_{rows}.onnx"))
    return path.with_name(f"cut_{rows}.onnx")


def refused(path: Path, out: Path, on: Board) -> tuple[Problem, ...]:
    before = sorted(out.parent.iterdir())
    with pytest.raises(CompileError) as caught:
        build(path, out, on, Options(name="s", method="minmax"))
    assert sorted(out.parent.iterdir()) == before  # nothing written
    return caught.value.problems


def figures(problem: Problem) -> tuple[int, int, int, list[int]]:
    """Bytes needed, there, too many, and of each part."""
    found = re.fullmatch(
        r"needs ([\d,]+) bytes of \w+ \((.*)\), ([\d,]+) are available: ([\d,]+) too many", problem.reason
    )
    assert found, problem.reason
    needed, there, over = (int(found[i].replace(",", "")) for i in (1, 3, 4))
    return (
        needed,
        there,
        over,
        [int(x.replace(",", "")) for x in re.findall(r"[\d,]*\d(?=,|$)", found[2].replace(", ", ",,"))],
    )


def remedies(problem: Problem) -> list[str]:
    return re.split(r"; \(\d\) |\(1\) ", problem.remedy.removeprefix("what helps: "))[1:]


def saved(texts: Sequence[str]) -> list[int]:
    found = [re.search(r"saves? (?:about )?([\d,]+) bytes", text) for text in texts]
    return [int(match[1].replace(",", "")) for match in found if match]


def check(problems: tuple[Problem, ...], regions: Sequence[str]) -> None:
    """A sum that adds up, the largest contributors by size, remedies by what they save, for each region."""
    heads = [p for p in problems if "too many" in p.reason]
    assert [re.search(r"bytes of (\w+)", p.reason)[1] for p in heads] == list(regions)  # type: ignore[index]
    for head in heads:
        needed, there, over, parts = figures(head)
        assert needed == sum(parts) == there + over
        assert parts == sorted(parts, reverse=True)
        found = remedies(head)
        assert len(found) >= 2 and saved(found) == sorted(saved(found), reverse=True) and saved(found)
        assert "a board that it fits: " in found[-1]
    for kind in (r"bytes of weights", r"bytes at the arena's peak"):
        sizes = [int(p.reason.split(" ")[0].replace(",", "")) for p in problems if kind in p.reason]
        assert sizes == sorted(sizes, reverse=True) and len(sizes) in (0, 3, 4, 5)
        assert bool(sizes) == (("flash" if "weights" in kind else "sram") in regions)
    assert all(p.node and p.op for p in problems if p not in heads)


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, text
    return int(found[1].replace(",", ""))


def test_too_much_flash(tmp_path: Path) -> None:
    """The vocabulary or the layers that the message names fit; they are the most that do."""
    path, small = made(tmp_path / "in"), board(300_000, 262_144)
    problems = refused(path, tmp_path / "out", small)
    check(problems, ["flash"])
    text = problems[0].remedy
    fits = number(r"a vocabulary of at most ([\d,]+) instead of 1,500 entries", text)
    build(with_vocabulary(path, fits), tmp_path / "out", small, Options(name="s", method="minmax"))
    over, entry = figures(problems[0])[2], 64
    assert (1500 - fits - 1) * entry < over <= (1500 - fits) * entry
    assert (1500 - fits) * entry in saved(remedies(problems[0]))
    fits = number(r"at most (\d) layers? instead of 4", text)
    build(made(tmp_path / "in", layers=fits), tmp_path / "fewer", small, Options(name="s", method="minmax"))
    refused(made(tmp_path / "in", layers=fits + 1), tmp_path / "more", small)


def test_a_student_of_ours_can_be_cut(tmp_path: Path) -> None:
    path, small = made(tmp_path / "in"), board(300_000, 262_144)
    assert not any("slm2c compress" in str(p) for p in refused(path, tmp_path / "out", small))
    path.with_name("student.toml").touch()
    *others, last = refused(path, tmp_path / "out", small)
    check(tuple(others), ["flash"])
    told = f"'{path.parent}': is a student of `slm2c distill`; try `slm2c compress --fit` with this board"
    assert str(last) == told


def test_too_much_sram(tmp_path: Path) -> None:
    """The length that the message names fits; one token more does not."""
    path, small = made(tmp_path / "in"), board(1 << 20, 18_000)
    problems = refused(path, tmp_path / "out", small)
    check(problems, ["sram"])
    fits = number(r"^at most (\d+) tokens instead of 96 save", remedies(problems[0])[0])
    build(made(tmp_path / "in", tokens=fits), tmp_path / "out", small, Options(name="s", method="minmax"))
    refused(made(tmp_path / "in", tokens=fits + 1), tmp_path / "more", small)


def test_too_much_of_both(tmp_path: Path) -> None:
    """Each region has its message; following the first remedy of both fits."""
    path, small = made(tmp_path / "in"), board(200_000, 18_000)
    problems = refused(path, tmp_path / "out", small)
    check(problems, ["flash", "sram"])
    heads = [p for p in problems if "too many" in p.reason]
    layers = number(r"at most (\d) layers? instead of 4", heads[0].remedy)
    tokens = number(r"at most (\d+) tokens instead of 96", heads[1].remedy)
    smaller = made(tmp_path / "in", layers=layers, tokens=tokens)
    build(smaller, tmp_path / "out", small, Options(name="s", method="minmax"))


def test_what_the_application_keeps_counts(tmp_path: Path) -> None:
    """It is there in the report, and where it does not leave enough the message says so."""
    path, full = made(tmp_path / "in"), board(1 << 20, 65_536)
    kept = build(path, tmp_path / "out", with_reserve(full, {"sram": 20_000}), Options(name="s", method="minmax"))
    (sram,) = [region for region in kept["board"]["regions"] if region["name"] == "sram"]
    assert sram["used"]["application"] == 20_000 and sum(sram["used"].values()) <= 65_536
    free = 65_536 - sum(sram["used"].values())
    fits = with_reserve(full, {"sram": 20_000 + free - budget.DATA_BYTES})
    assert build(path, tmp_path / "all", fits, Options(name="s", method="minmax"))["sram"] == kept["sram"]
    (first, *_) = refused(path, tmp_path / "more", with_reserve(full, {"sram": 60_000}))
    assert "application 60,000, " in first.reason
    needed, there, over, parts = figures(first)
    assert needed == sum(parts) == there + over and there == 65_536
    fits = number(r"--reserve sram=(\d+) instead of 60000 saves", first.remedy)
    assert build(path, tmp_path / "fits", with_reserve(full, {"sram": fits}), Options(name="s", method="minmax"))
    refused(path, tmp_path / "more", with_reserve(full, {"sram": fits + 1}))


def test_boards_that_are_named_fit_with_what_the_application_keeps(tmp_path: Path) -> None:
    """Not the refused one itself, which would fit without."""
    path, kept = made(tmp_path / "in"), {"sram": 520_000}
    (first, *_) = refused(path, tmp_path / "out", with_reserve(load_board(SMALL), kept))
    named = remedies(first)[-1].removeprefix("a board that it fits: ").split(", ")
    assert named and SMALL not in named and set(named) < set(list_boards())
    assert "qemu-rv32" not in named, "it has no memory of that name"
    build(path, tmp_path / named[0], with_reserve(load_board(named[0]), kept), Options(name="s", method="minmax"))


def test_what_does_not_suffice_says_what_is_missing(tmp_path: Path) -> None:
    """Two remedies that do not suffice alone: what each saves and what it leaves are the excess."""
    (first, *_) = refused(made(tmp_path / "in"), tmp_path / "out", board(60_000, 262_144))
    over, found = figures(first)[2], [text for text in remedies(first) if "a board that it fits" not in text]
    assert any("1 layer instead of 4" in text for text in found) and any("vocabulary" in text for text in found)
    for text in found:
        (saves,) = saved([text])
        missing = number(r", and ([\d,]+) more are needed$", text)
        assert saves + missing == over


def test_layers_that_share_their_weights_do_not_save_them(tmp_path: Path) -> None:
    """What the message promises of fewer layers is no more than they save."""
    paths = {}
    for layers in (1, 4):
        paths[layers] = made(tmp_path / "in", layers=layers)
        model = onnx.load(paths[layers])
        first = {x.name: x for x in model.graph.initializer if x.name.startswith("layer.0/")}
        for x in model.graph.initializer:
            if x.name.startswith("layer."):
                same = first["layer.0/" + x.name.partition("/")[2]]
                x.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(same), x.name))
        onnx.save(model, paths[layers])
    needed = {}
    for layers, path in paths.items():
        (first_problem, *_) = refused(path, tmp_path / "out", board(60_000, 262_144))
        needed[layers] = figures(first_problem)[0]
        text = first_problem.remedy
    promised = number(r"at most 1 layer instead of 4 save about ([\d,]+) bytes", text)
    assert 0 < promised <= needed[4] - needed[1] < 20_000


def test_moving_the_stack_takes_along_what_lies_with_it() -> None:
    disco = load_board("stm32f746g-disco")
    needs = [
        budget.Need("dtcm", "stack", 8192),
        budget.Need("dtcm", "variables", 1024),
        budget.Need("sram", "arena", 5),
    ]
    (remedy,) = budget._other_region(disco, [*needs, budget.Need("dtcm", "inputs and outputs", 100)], "dtcm", 1)
    assert remedy.saves == 9316 and "the stack in itcm instead saves 9,316 bytes (placement.stack" in remedy.text


def test_what_the_application_keeps_of_another_memory_counts_once() -> None:
    """Room for the arena is what is neither reserved nor used, however much of both there is."""
    disco = with_reserve(load_board("stm32f746g-disco"), {"sram": 100_000})
    found = budget._reserved(disco, [budget.Need("dtcm", "arena", 120_000), budget.Need("sram", "variables", 1024)])
    (remedy, *_) = budget._other_region(disco, found, "dtcm", 60_000)
    assert "the arena in sram instead saves 120,000 bytes" in remedy.text


@pytest.mark.parametrize(
    "reserve, message",
    [
        ({"srm": 1}, r"has no memory region 'srm'; did you mean 'sram'\?; its regions: flash, sram"),
        ({"sram": 65_536}, r"'sram' has 65,536 bytes, 65,536 are to be kept; keep less"),
    ],
)
def test_what_cannot_be_kept_is_refused(reserve: dict[str, int], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        with_reserve(board(1 << 20, 65_536), reserve)
