"""What a student is said to take is what its build takes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from slm2c import budget, cli
from slm2c.board import load_board
from slm2c.distill import integer
from slm2c.distill.footprint import CODE_BYTES, footprint, footprint_of, of_lowered, texts_of
from slm2c.distill.recipe import Shape
from slm2c.lower import sketch, target_of
from tests.distill import students

BOARD = load_board("generic-m7-512k-4m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = Shape(layers=2, hidden=16, heads=2, ffn=32, tokens=12)
    return students.write(tmp_path_factory.mktemp("student"), students.student(shape))


@pytest.fixture(scope="module")
def compiled(folder: Path) -> integer.Compiled:
    return integer.compile_folder(folder, lambda *_: None)


def test_it_is_what_the_build_reports(
    folder: Path, compiled: integer.Compiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["build", str(folder), "-o", str(tmp_path / "out"), "--board", BOARD.name, "--json"]
    assert cli.invoke(args) == 0
    report = json.loads(capsys.readouterr().out)
    found = footprint_of(compiled, texts_of(folder, compiled.fused), BOARD)
    assert found.flash == report["flash"]["blob_bytes"]
    assert found.arena == report["sram"]["arena_bytes"]
    assert found.sram == found.arena + BOARD.stack_size + budget.DATA_BYTES
    assert found.instructions == report["cost"]["lengths"][-1]["instructions"]


def test_without_calibration_only_tensors_that_become_int16_are_missing(
    folder: Path, compiled: integer.Compiled
) -> None:
    exact = footprint_of(compiled, texts_of(folder, compiled.fused), BOARD)
    found = footprint(folder, BOARD)
    tables = sum(node.op == "lut" for node in compiled.fused.graph.nodes)
    assert exact.flash - 512 * tables <= found.flash <= exact.flash
    assert found.arena <= exact.arena and found.instructions <= exact.instructions


def test_a_memory_that_is_too_small_is_named_with_what_is_missing(folder: Path, compiled: integer.Compiled) -> None:
    lowered = sketch(compiled.fused, texts_of(folder, compiled.fused), "student", target_of(BOARD))
    assert not of_lowered(lowered, BOARD).over
    taken = sum(need.bytes for need in budget.needs(BOARD, lowered, CODE_BYTES) if need.region == "flash")
    flash = replace(BOARD.region("flash"), size=taken - 7)
    small = replace(BOARD, memory=tuple(flash if r.name == "flash" else r for r in BOARD.memory))
    assert of_lowered(lowered, small).over == {"flash": 7}
