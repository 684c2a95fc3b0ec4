"""The documents say what is so: commands parse, links lead somewhere, the C compiles, the worked example works."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from slm2c import cli, console, toolchain
from slm2c.board import Board, ConsoleKind, list_boards, load_board
from slm2c.ops import TABLE
from slm2c.resources import data_dir
from tests import kernels

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import operators  # noqa: E402

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")])
EXAMPLE = data_dir("examples") / "homecmd"
BOARD = "generic-m7-512k-4m"


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(info string, text) of each fenced block."""
    for match in re.finditer(r"^```(.+?)$\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def ids(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# ---------------------------------------------------------------- text


def anchors(page: Path) -> set[str]:
    """The fragments under which GitHub shows the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text())
    for path, fragment in links:
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not fragment or fragment in anchors(target), f"{path}#{fragment}"


def test_operators_page_is_current() -> None:
    assert operators.PAGE.read_text() == operators.render(), "run `python tools/operators.py`"


@pytest.mark.parametrize("name", TABLE)
def test_operators_page_names_what_lowering_calls(name: str) -> None:
    section = operators.PAGE.read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]
    cases = TABLE[name].cases(np.random.default_rng(0))
    variants = [variant for case in cases for variant in kernels.variants(TABLE[name], case)]
    called = {v.call.symbol for v in variants}
    assert {symbol for symbol in called if f"`{symbol}`" not in section} <= {""}  # a view may call nothing


# ---------------------------------------------------------------- commands


def commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks, continued ones joined, without comments."""
    text = "\n".join(text for info, text in blocks(page) if info == "sh").replace("\\\n", " ")
    return [line for x in text.splitlines() if (line := re.sub(r"\s+#.*", "", x).strip())]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=ids)
def test_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands(page):
        first, *words = re.sub(r'"[^"]*"', "TEXT", command).split()
        if first == "slm2c":
            name, *args = words
            with cli.cli.commands[name].make_context(name, args, obj=console.State()) as context:
                assert context.params is not None
        elif first == "make":
            assert words[0] in targets, command
        elif first in ("python", ".venv/bin/pytest"):
            assert (ROOT / words[0]).is_file(), command
        else:
            assert first in ("pip", "optimum-cli", ".venv/bin/python"), command


def test_tools_that_the_documents_name_exist() -> None:
    for page in PAGES:
        for path in re.findall(
            r"`(?:python )?((?:tools|slm2c|runtime_c|tests|docs|\.ci)/[\w./-]+\w)", page.read_text()
        ):
            if "maximum" not in path:  # the worked example's
                assert (ROOT / path).exists(), f"{page.name}: {path}"


# ---------------------------------------------------------------- boards


def test_the_page_on_boards_names_every_board_and_every_key() -> None:
    text = (ROOT / "docs" / "BOARDS.md").read_text()
    table = text.split("<!-- tools/boards.py -->")[1].split("<!-- end -->")[0]
    assert tuple(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == list_boards()
    keys = re.search(r"^## The file\n(.*?)^### ", text, re.MULTILINE | re.DOTALL)
    assert keys
    named = re.findall(r"^\| `\[*(\w+)\]*` \|", keys[1], re.MULTILINE)
    assert set(named) == {field.name for field in fields(Board)} - {"name"}
    rows = text.split("### The console")[1].split("\n|---")[1].split("\n\n")[0]
    kinds = re.findall(r"^\| `([\w-]+)` \|", rows, re.MULTILINE)
    assert set(kinds) == set(get_args(ConsoleKind))


def test_board_files_in_the_page_are_read(tmp_path: Path) -> None:
    (example,) = [text for info, text in blocks(ROOT / "docs" / "BOARDS.md") if info == "toml"]
    board = (data_dir("boards") / f"{BOARD}.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(example + board, encoding="utf-8")
    assert [step.wait for step in load_board(tmp_path / "mine.toml").setup] == [False, True]


# ---------------------------------------------------------------- README's example

_MAIN = """
#include <stdio.h>
#include <string.h>

const uint8_t weights_partition[WEIGHTS_SIZE] = {0};

int main(void)
{
    int16_t scores[HOMECMD_OUTPUT_0_SIZE];
    int best = 0;
    if (intent_start() != SLM_OK || intent_scores("make me an espresso", scores) != SLM_OK) {
        return 1;
    }
    for (int i = 1; i < (int)HOMECMD_OUTPUT_0_SIZE; i++) {
        best = scores[i] > scores[best] ? i : best;
    }
    if (intent_update() != SLM_ERR_BLOB_MAGIC) {
        return 2;
    }
    printf("%d %s", best, intent_of("make me an espresso"));
    return 0;
}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, host_cc: str) -> Path:
    """homecmd, calibrated on a few sentences."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "some.txt").write_text("\n".join((EXAMPLE / "commands.txt").read_text().splitlines()[::3]))
    args = ["build", str(EXAMPLE), "-o", str(folder / "out"), "--board", BOARD, "--method", "minmax"]
    assert cli.invoke([*args, "--calib", str(folder / "some.txt")]) == 0
    return folder / "out"


@pytest.mark.parametrize("compiler", ["", "clang"])
def test_the_c_of_the_readme_compiles_and_runs(compiler: str, built: Path, host_cc: str, tmp_path: Path) -> None:
    cc = shutil.which(compiler) if compiler else host_cc
    if not cc:
        pytest.skip(f"no {compiler}")
    text = "".join(text for info, text in blocks(ROOT / "README.md") if info == "c")
    source = tmp_path / "intent.c"
    source.write_text(text + _MAIN)
    sources = [source, built / "homecmd.c", *sorted((built / "slm").glob("*.c")), built / "homecmd_blob.S"]
    program = tmp_path / "intent"
    flags = [*toolchain.WARNINGS, "-O2", f"-I{built}", f"-I{built / 'slm'}"]
    subprocess.run([cc, *flags, *sources, "-o", program], cwd=built, check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    labels = json.loads((EXAMPLE / "config.json").read_text())["id2label"]
    best, label = done.stdout.split()
    assert label == labels[best] == "iot_coffee"


def test_files_that_the_readme_names_are_in_the_output(built: Path) -> None:
    section = (ROOT / "README.md").read_text().split("\n## The C\n")[1].split("\n## ")[0]
    named = set(re.findall(r"`(homecmd[\w.]+|slm/|Makefile|CMakeLists\.txt)`", section))
    assert {"homecmd.h", "homecmd.c", "homecmd_blob.bin", "homecmd_blob.S", "slm/"} <= named
    assert [name for name in named if not (built / name).exists()] == []


def test_figures_of_the_readme_are_those_of_the_benchmark() -> None:
    totals = json.loads((ROOT / "docs/performance.json").read_text())["totals"]
    runs = {t["tokens"]: t for t in totals if (t["board"], t["model"]) == ("mps2-an500", "homecmd")}
    for row, key in (("instructions, ids", "instructions"), ("cycles", "cycles_estimated")):
        shown = re.search(rf"^\| {row}.*?\| ([\d./ ]+) million", (ROOT / "README.md").read_text(), re.MULTILINE)
        assert shown and shown[1] == " / ".join(f"{runs[n][key] / 1e6:.1f}" for n in (8, 16, 32)), row


@pytest.mark.slow
def test_the_demo_prints_what_the_readme_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All but what depends on the cross compiler: code, stack, instructions, and the share of flash that follows."""
    assert cli.invoke(["demo", "-o", str(tmp_path / "slm2c-demo")]) == 0

    def fixed(text: str) -> list[str]:
        changing = r"^ +(code|stack|flash +#|sram +#|instructions|\(\")"
        return [line.rstrip() for line in text.splitlines() if not re.match(changing, line)]

    printed = fixed(capsys.readouterr().out.replace(str(tmp_path / "slm2c-demo"), "slm2c-demo"))
    shown = fixed(next(text for info, text in blocks(ROOT / "README.md") if info == "text"))
    assert [line.split() for line in shown] == [line.split() for line in printed]


# ---------------------------------------------------------------- CONTRIBUTING's worked example


def apply(folder: Path) -> None:
    """Write the files and make the edits of CONTRIBUTING.md in a copy of the checkout."""
    for info, text in blocks(ROOT / "CONTRIBUTING.md"):
        kind, _, path = info.partition(" ")
        if kind != "diff" and path:
            assert not (folder / path).exists(), f"{path} is no longer new: choose another example"
            (folder / path).write_text(text)
        for hunk in text.split("@@\n") if kind == "diff" else []:
            lines = hunk.splitlines()
            old, new = ("\n".join(line[1:] for line in lines if line[:1] != skip) for skip in "+-")
            content = (folder / path).read_text()
            assert content.count(f"\n{old}\n") == 1, f"{path}: once, not {content.count(old)} times: {old}"
            (folder / path).write_text(content.replace(f"\n{old}\n", f"\n{new}\n"))


def test_the_worked_example_adds_an_operator(host_cc: str, tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    for part in ("slm2c", "runtime_c", "templates", "boards", "examples", "tests", "tools", "docs"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    apply(copy)
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""}

    def python(*args: str) -> str:
        done = subprocess.run([sys.executable, *args], cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    selected = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_ops.py", "-k", "maximum")
    assert "3 passed" in selected
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Max", ["a", "b"], ["c"], name="greater")],
        "g",
        [value("a", TensorProto.FLOAT, [3, 1]), value("b", TensorProto.FLOAT, [1, 17])],
        [value("c", TensorProto.FLOAT, [3, 17])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "max.onnx"
    )
    out = str(tmp_path / "out")
    python("-m", "slm2c", "build", str(tmp_path / "max.onnx"), "-o", out, "--board", BOARD)
    found = json.loads(python("-m", "slm2c", "validate", out, "--on", "host", "--json"))
    assert found["ok"] and "slm_maximum_s8(" in (tmp_path / "out" / "max.c").read_text()
    python("tools/operators.py")
    assert "slm_maximum_s8" in (copy / "docs/OPERATORS.md").read_text()
