"""The benchmark without an emulator: its file, its judgement, its documents and pictures."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from slm2c.bench import __main__ as command
from slm2c.bench import check, plot, render, suite
from slm2c.bench.results import Element, Op, Peer, Results, Skipped, Total, from_json, read, to_json
from slm2c.errors import CompileError

ROOT = Path(__file__).resolve().parents[1]
TOOLS = {"cross_cc": "gcc 12.2", "qemu": "QEMU 7.2", "llvm_mca": "22.1.8"}


def total(tokens: int = 8, instructions: int = 1_000_000, **more: object) -> Total:
    known = {"board": suite.MAIN, "model": "homecmd", "cycles_estimated": 900_000, "code": 17_000, "arena": 32_000}
    return Total(**{**known, "tokens": tokens, "instructions": instructions, "lower_bound": 31_000, **more})  # type: ignore[arg-type]


def op(instructions: int = 10_000, number: int = 3, node: str = "query", **more: object) -> Op:
    known = {"board": suite.MAIN, "model": "homecmd", "tokens": 8, "op": "linear", "shape": "n x 128 -> n x 128"}
    return Op(**{**known, "number": number, "node": node, "macs": 12_500, "instructions": instructions,
                 "cycles_estimated": 8_000, **more})  # type: ignore[arg-type]  # fmt: skip


def peer(tokens: int, part: str, calls: int, instructions: int) -> Peer:
    return Peer("CMSIS-NN", "v7", suite.MAIN, "homecmd", tokens, part, f"arm_{part}", calls, 1000, instructions)


@pytest.fixture
def results() -> Results:
    """Something of everything."""
    totals = [
        *(total(n, 1_000_000 * n, board=board) for board in suite.BOARDS for n in suite.SWEEP),
        *(total(n, 10_000 * n * c.layers, model=c.name) for c in suite.DEPTHS for n in c.tokens),
        total(512, 100_000_000, model="bert_tiny_512"),
        total(512, 110_000_000, model="bert_tiny_512", arena_limit=229_376, arena=200_000, weights_read=12_345_678),
    ]
    ops = [op(10_000 * n, tokens=n, board=board) for board in suite.BOARDS for n in suite.TRACED]
    peers = [x for n in suite.TRACED for x in (peer(n, "up", 6, 400_000 * n), peer(n, "GELU", 6, 50_000 * n))]
    return Results(
        TOOLS,
        tuple(totals),
        tuple(ops),
        tuple(Element(suite.MAIN, "homecmd", n, "softmax", 4 * n * n, 64 * n * n) for n in suite.TRACED),
        tuple(peers),
        (Skipped("bert_mini_512", 409_600, "needs 12 bytes more\nthan there are"),),
    )


def test_the_file_holds_what_was_found(results: Results, tmp_path: Path) -> None:
    text = to_json(results)
    assert from_json(text) == results and to_json(from_json(text)) == text
    (tmp_path / "p.json").write_text(text)
    assert read(tmp_path / "p.json") == results
    facts = json.loads(text)
    assert {"board", "model", "tokens", "instructions", "cycles_estimated"} <= set(facts["totals"][0])
    assert {"board", "model", "tokens", "macs", "instructions", "cycles_estimated"} <= set(facts["ops"][0])
    objects = sum(len(facts[name]) for name in facts if name != "tools")
    assert objects < len(text.splitlines()) < objects + 20


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"totals": [{"board": "b"}]}', None])
def test_another_file_is_an_error(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "p.json").write_text(text)
    with pytest.raises(CompileError, match="make bench"):
        read(tmp_path / "p.json")


def test_the_committed_documents_are_of_the_committed_figures() -> None:
    results = read(ROOT / "docs" / command.JSON)
    files = {"PERFORMANCE.md": render.document(results), **render.pictures(results)}
    assert [name for name, text in files.items() if (ROOT / "docs" / name).read_text() != text] == []


# ---------------------------------------------------------------- check


OLD = Results(TOOLS, (total(),), (op(),))


@pytest.mark.parametrize("field", ["instructions", "code", "arena"])
def test_a_total_may_grow_by_one_percent(field: str) -> None:
    old = replace(OLD.totals[0], **{field: 100_000})
    for value, grown in ((100_000, 0), (101_000, 0), (101_001, 1), (101_100, 1), (98_900, 0)):
        found = check.compare(replace(OLD, totals=(old,)), replace(OLD, totals=(replace(old, **{field: value}),)))
        assert len(found.grown) == grown and len(found.shrunk) == (value < 99_000)
        assert not grown or (found.grown[0].old, found.grown[0].new) == (100_000, value)


def test_a_call_may_grow_by_one_percent() -> None:
    for value, grown in ((10_000, 0), (10_100, 0), (10_101, 1), (10_110, 1)):
        assert len(check.compare(OLD, replace(OLD, ops=(op(value),))).grown) == grown


def test_cycles_depend_on_the_tool_and_are_not_judged() -> None:
    new = Results({**TOOLS, "llvm_mca": "14.0"}, (total(cycles_estimated=10**9),), (op(cycles_estimated=None),))
    found = check.compare(OLD, new)
    assert not found.grown and found.tools == ("llvm_mca: 14.0, not 22.1.8",)
    assert "14.0" in check.report(found, "p.json")


def test_calls_are_known_by_their_names() -> None:
    """A call before another changes the number of that; nodes of one name are told apart by their order."""
    old = replace(OLD, ops=(op(100, 3), op(200, 4, "same"), op(300, 5, "same")))
    new = replace(OLD, ops=(op(50, 3, "first"), op(100, 4), op(200, 5, "same"), op(400, 6, "same")))
    found = check.compare(old, new)
    assert [(c.key[-2:], c.old, c.new) for c in found.grown] == [(("same", "2"), 300, 400)]
    assert [key[-1] for key in found.added] == ["first"] and not found.gone and not found.shrunk


def test_runs_that_are_no_longer_measured_fail() -> None:
    found = check.compare(OLD, replace(OLD, totals=()))
    assert found.failed and not found.grown
    assert "FAILED: no longer measured: homecmd on mps2-an500" in check.report(found, "p.json")


def test_calls_that_are_new_or_gone_are_told_and_pass() -> None:
    found = check.compare(OLD, Results(TOOLS, (total(), total(9)), ()))
    text = check.report(found, "p.json")
    assert not found.failed and not found.grown and len(found.added) == 1 and len(found.gone) == 1
    assert "1 figures are new: homecmd on mps2-an500 (1)" in text and "gone" in text and "passed" in text


def test_limits_of_the_arena_make_another_run() -> None:
    limited = total(instructions=2_000_000, arena_limit=20_000)
    assert not check.compare(OLD, replace(OLD, totals=(total(), limited))).grown


def test_the_report_names_what_grew_totals_first_and_what_to_do() -> None:
    ops = tuple(op(10_000, i, f"node{i}") for i in range(30))
    new = Results(TOOLS, (total(instructions=1_020_000),), tuple(replace(x, instructions=15_000) for x in ops))
    found = check.compare(replace(OLD, ops=ops), new)
    lines = check.report(found, "docs/performance.json").splitlines()
    table = lines[lines.index("More than in docs/performance.json, by more than 1 %:") + 1 :]
    assert re.sub(" +", " ", table[1]) == " mps2-an500 homecmd n = 8, instructions 1,000,000 1,020,000 +2.0 %"
    assert "node0" in table[2] and "+50.0 %" in table[2]
    assert "  and 11 more" in table and "FAILED" in "".join(table) and "make bench" in "".join(table)


@pytest.mark.parametrize("instructions, code", [(1_000_000, 0), (1_010_000, 0), (1_011_000, 1), (900_000, 0)])
def test_the_command_fails_if_something_grew(
    instructions: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / command.JSON).write_text(to_json(OLD))
    monkeypatch.setattr(suite, "run", lambda *_: replace(OLD, totals=(total(instructions=instructions),)))
    monkeypatch.setattr("sys.argv", ["bench", "--check", "--docs", str(tmp_path)])
    assert command.main() == code
    assert ("FAILED" in capsys.readouterr().out) == bool(code)
    assert [path.name for path in tmp_path.iterdir()] == [command.JSON]
    assert (tmp_path / command.JSON).read_text() == to_json(OLD)


def test_the_command_writes_anew_whatever_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / command.JSON).write_text('{"totals": []}')
    monkeypatch.setattr(suite, "run", lambda *_: results)
    monkeypatch.setattr("sys.argv", ["bench", "--docs", str(tmp_path)])
    assert command.main() == 0
    assert read(tmp_path / command.JSON) == results
    assert {p.name for p in tmp_path.iterdir()} == {command.JSON, "PERFORMANCE.md", *render.PICTURES.values()}
    captured = capsys.readouterr()
    assert "does not hold the results" in captured.err and "CMSIS-NN needs 2.70" in captured.out


def test_without_tools_the_command_says_which_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLM2C_CROSS", "no-such-")
    monkeypatch.setattr("sys.argv", ["bench", "--docs", str(tmp_path)])
    assert command.main() == 1
    assert "no-such-gcc" in capsys.readouterr().err and not list(tmp_path.iterdir())


# ---------------------------------------------------------------- documents and pictures


def test_the_document_shows_everything(results: Results) -> None:
    text = render.document(results)
    for said in (
        "| Cortex-M7 | 1.000 | 8.000 | 9.000 | 16.000 | 32.000 | 17,000 | 32,000 | 31,000 |",
        "| softmax | Cortex-M7 | 16.0 | 16.0 |",
        "| times as many with CMSIS-NN | **2.70** |",
        "| `homecmd_run`, million instructions | 1.000 |",
        "| up | `arm_up` | 6 | 400,000 |",
        "| 12 | 0.960 | 1.920 | 3.840 |",
        "| 229,376 | 200,000 | 31,000 | 12,345,678 | 110.000 | +10.0 % |",
        "bert_mini_512: needs 12 bytes more |",
        "llvm-mca 22.1.8",
        "## Cortex-M33: instructions by operator and output",
        "| linear | n x 128 -> n x 128 | 1 | 10,000 | 80,000 |",
    ):
        assert said in text, said
    assert "\n\n\n" not in text and text.endswith("|\n") and "{{" not in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    for picture in re.findall(r"\]\((\S+?\.svg)\)", text):
        assert picture in render.pictures(results)


def test_the_document_does_without_what_was_not_measured(results: Results) -> None:
    tools = {**TOOLS, "llvm_mca": None}
    totals = tuple(replace(t, cycles_estimated=None) for t in results.totals if t.model == "homecmd")
    ops = tuple(replace(x, cycles_estimated=None) for x in results.ops)
    text = render.document(Results(tools, totals, ops))
    assert "no cycles are estimated" in text and "MAC per cycle" not in text
    assert "CMSIS_NN_DIR=DIR make bench" in text and "Long texts" not in text and "an element" not in text
    assert "\n\n\n" not in text
    assert set(render.pictures(Results(tools, totals, ops))) == {"tokens.svg", "tokens-rate.svg"}


def test_pictures_are_well_formed_and_always_the_same(results: Results) -> None:
    found = render.pictures(results)
    assert set(found) == set(render.PICTURES.values()) and found == render.pictures(results)
    for text in found.values():
        root = ET.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        width, height = (float(root.attrib[x]) for x in ("width", "height"))
        circles = root.findall("{*}circle")
        assert circles and all(
            0 < float(c.attrib["cx"]) < width and 0 < float(c.attrib["cy"]) < height for c in circles
        )
    labels = [element.text for element in ET.fromstring(found["tokens.svg"]).findall("{*}text")]
    assert {"tokens", "million instructions", "Cortex-M7", "Cortex-M4", "Cortex-M33", "CMSIS-NN, layers only"} <= {
        *labels
    }
    assert "× 2.70" in labels


def test_names_in_a_picture_are_escaped() -> None:
    text = plot.chart("a < b & c", "x", "y", [plot.Series("<s>", [(1, 1), (2, 3)], "#000", dashed=True, mark="cross")])
    assert [e.text for e in ET.fromstring(text).iter() if e.text and "<" in e.text] == ["a < b & c", "a < b & c", "<s>"]


@pytest.mark.parametrize("smallest", [0, 0.1, 0.9, 0.99])
@pytest.mark.parametrize("largest", [0.003, 0.9, 1, 7, 8.1, 12, 32, 86.6, 100, 512, 2779, 10**6])
def test_ticks_are_few_and_close_around_the_smallest_and_the_largest(smallest: float, largest: float) -> None:
    ticks = plot._ticks(smallest * largest, largest)
    assert 4 <= len(ticks) <= 11 and ticks[-2] < largest <= ticks[-1] * (1 + 1e-9)
    assert ticks[0] <= smallest * largest * (1 + 1e-9) and smallest * largest < ticks[1]
    assert bool(smallest) or ticks[0] == 0


def test_an_axis_need_not_start_at_zero() -> None:
    points = [(0, 84.2), (100, 91.6)]
    for from_zero, lowest in ((True, "0"), (False, "84")):
        svg = ET.fromstring(plot.chart("t", "x", "y", [plot.Series("s", points, "#000")], from_zero=from_zero))
        texts = [e.text for e in svg.findall("{*}text")]
        assert texts[1] == lowest
        first, last = [float(e.attrib["cy"]) for e in svg.findall("{*}circle")[:2]]
        assert 44 <= last < first <= 346 and (first > 300) != from_zero
