"""The report against the linked image, byte by byte, as GNU binutils read it; stack bounds against emulated cores."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest

from slm2c import measure, report
from slm2c.board import Board, load_board
from slm2c.build import build
from slm2c.compile import Options
from slm2c.students import student
from slm2c.toolchain import Firmware
from tests.binutils import binutils, sections
from tests.boards import MARKS, board_params
from tests.generated import text_folder

LINKED = (
    "generic-m7-512k-4m",
    "stm32f746g-disco",
    "stm32h743zi",
    "rp2350-pico2",
    "mps2-an386",
    "mps3-an547",
    "qemu-rv32",
)
"""One memory, ITCM and QSPI, many memories, a boot block, code and blob apart, another architecture."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A student without text, whose caller holds ids and scores, and a text model."""
    folder = tmp_path_factory.mktemp("models")
    onnx.save(student(2, 32, 2, 256, 36, 50, classes=3), folder / "ids.onnx")
    return {"ids": folder / "ids.onnx", "text": text_folder(folder / "text")}


def regions(board: Board, elf: Path) -> dict[str, int]:
    """How far the image reaches into each region: the highest address behind a section, used or loaded."""
    ends = Counter[str]()
    for _, size, used, loaded in sections(board, elf):
        for at in {used, loaded}:
            home = next(region for region in board.memory if region.origin <= at < region.end)
            ends[home.name] = max(ends[home.name], at + size - home.origin)
    return dict(ends)


def symbols(board: Board, elf: Path) -> dict[str, int]:
    return {
        name: int(value, 16)
        for value, name in re.findall(r"^(\w+) \w (\S+)$", binutils(board, "nm", elf), re.MULTILINE)
    }


@pytest.mark.parametrize("kind", ["ids", "text"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=MARKS[load_board(n).architecture]) for n in LINKED])
def test_report_is_what_is_linked(name: str, kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    board = load_board(name)
    build(models[kind], tmp_path / "out", board, Options(method="minmax", name="m"))
    made = report.read(tmp_path / "out")
    firmware = measure.image_of(tmp_path / "out", "m", board, tmp_path / "again")
    used = {region["name"]: region["used"] for region in made["board"]["regions"] if region["used"]}
    assert {region: sum(parts.values()) for region, parts in used.items()} == regions(board, firmware.elf)
    _sections_are_those_of_the_elf(made, board, firmware)
    total = Counter[str]()
    for parts in used.values():
        total.update(parts)
    named = symbols(board, firmware.elf)
    assert total["arena"] == made["sram"]["arena_bytes"] == named["slm_arena_end"] - named["slm_arena_start"]
    assert total["stack"] == board.stack_size == named["slm_stack_top"] - named["slm_stack_guard"]
    assert total["blob"] == made["flash"]["blob_bytes"] == (tmp_path / "out" / "m_blob.bin").stat().st_size
    variables = total["variables"] + total["inputs and outputs"]
    assert variables == sum(named[f"slm_{x}_end"] - named[f"slm_{x}_start"] for x in ("bss", "data"))
    assert total["inputs and outputs"] == made["sram"]["caller_bytes"]
    assert total["alignment"] < 256 * len(board.memory)  # of the stack, at most
    _code_is_that_of_its_objects(made, board, firmware, total)


def _sections_are_those_of_the_elf(made: dict[str, Any], board: Board, firmware: Firmware) -> None:
    found = [(s["section"], s["bytes"], s["address"]) for s in made["measured"]["sections"]]
    expected = [(name, size, at) for name, size, *places in sections(board, firmware.elf) for at in {*places}]
    assert sorted(found) == sorted(expected)
    listed = re.findall(r"^(\.\S+) +(\d+) +(\d+)$", binutils(board, "size", "-A", "-d", firmware.elf), re.MULTILINE)
    # size lists what lies at address 0 like what lies nowhere.
    here = {(s["section"], s["bytes"], s["address"]) for s in made["measured"]["sections"] if not s["load"]}
    assert {entry for entry in here if entry[2]} == {
        (name, int(size), int(at)) for name, size, at in listed if int(at) and int(size)
    }


def _code_is_that_of_its_objects(made: dict[str, Any], board: Board, firmware: Firmware, total: Counter[str]) -> None:
    """Functions and constants that nm finds in model and runtime are no more than is reported, and nearly all of it."""
    own = {obj: source for source, obj in firmware.objects.items() if source.parent.name != "firmware"}
    own = {obj: source for obj, source in own.items() if source.name != "cost.c"}
    assert {row["file"].split("/")[-1] for row in made["measured"]["code"]} == {source.name for source in own.values()}
    linked = symbols(board, firmware.elf)
    functions = Counter[str]()
    for obj in own:
        for size, kind, name in re.findall(r"^\w+ (\w+) (\w) (\S+)$", binutils(board, "nm", "-S", obj), re.MULTILINE):
            if kind in "TtRr" and name in linked:
                functions[kind.upper()] += int(size, 16)
    hot = total["hot code"]
    assert made["flash"]["code_bytes"] == sum(row["bytes"] for row in made["measured"]["code"])
    assert total["code"] <= made["flash"]["code_bytes"] <= total["code"] + hot
    assert total["hot code, load image"] == hot
    assert (
        0.85 * made["flash"]["code_bytes"] < functions.total() <= made["flash"]["code_bytes"]
    )  # literal pools, strings


@pytest.mark.parametrize("kind", ["ids", "text"])
@pytest.mark.parametrize("name", board_params(emulated=True))
def test_no_call_goes_deeper_than_its_bound(name: str, kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    """On each core the bound holds, and the entry point that needs the most comes as deep; on RISC-V within the padding
    of frames, to 16 bytes, and what a library function takes on other cores.
    """
    made = build(models[kind], tmp_path / "out", load_board(name), Options(method="minmax", name="m"))
    assert made["measured"]["emulated"]["board"] == name
    stacks = {stack["entry"]: stack for stack in made["measured"]["stacks"]}
    entries = {"ids": {"m_init", "m_run"}, "text": {"m_init", "m_run", "m_tokenize", "m_classify"}}
    assert stacks.keys() == entries[kind]
    for stack in stacks.values():
        assert stack["unbounded"] == [] and sum(row["bytes"] for row in stack["path"]) == stack["bytes"]
        assert stack["path"][0]["function"] == stack["entry"]
        assert 0 < stack["measured_bytes"] <= stack["bytes"]
    deepest = max(stacks.values(), key=lambda stack: stack["bytes"])
    assert deepest["bytes"] == made["sram"]["stack_bytes"]
    assert deepest["bytes"] - deepest["measured_bytes"] <= (24 if name == "qemu-rv32" else 0)
