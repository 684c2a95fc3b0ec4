"""report.html: a page that holds together, needs nothing else, and says what report.json says."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from slm2c import report, report_html
from slm2c.board import load_board
from slm2c.build import build
from slm2c.compile import Options, compile_model
from tests.test_report import BOARD, mlp

VOID = {"meta", "wbr"}
HOSTILE = "</title></svg><script src=//evil.example/x>alert('1')</script>&\"\x1b[31m\ud800"

Facts = dict[str, Any]


class Page(HTMLParser):
    """Elements of a page; fails on one that is closed wrongly. `text`: what a reader sees, without breaks."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def pictures(source: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", source, re.DOTALL)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mlp(tmp_path_factory.mktemp("model") / "small.onnx", 32, 48, 17, 5, rows=2)


@pytest.fixture(scope="module")
def built(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Facts]:
    """An output folder, and the report that the build returned."""
    out = tmp_path_factory.mktemp("build") / "out"
    return out, build(model, out, load_board(BOARD), Options())


@pytest.fixture(scope="module")
def unmeasured(model: Path) -> Facts:
    """The report of a build without cross compiler, for a board with code and blob in different memories."""
    return report.build(compile_model(model, load_board("mps2-an500"), Options()), "arm-none-eabi-gcc: not found")


def test_build_writes_what_report_json_says(built: tuple[Path, Facts]) -> None:
    out, made = built
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page == report_html.render(made) == report_html.render(report.read(out))


def test_page_is_well_formed_and_needs_nothing_else(built: tuple[Path, Facts], unmeasured: Facts) -> None:
    for facts in (built[1], unmeasured):
        source = report_html.render(facts)
        page = Page(source)
        assert len(pictures(source)) == page.tags.count("svg") > 4
        assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
        assert not {"src", "href", "srcset", "style"} & {name for name, _ in page.attributes}
        assert not any(name.startswith("on") for name, _ in page.attributes)
        assert not re.search(r"https?:|url\(|@import", source)


def test_page_has_the_figures(built: tuple[Path, Facts]) -> None:
    made = built[1]
    text = Page(report_html.render(made)).text
    figures = [made["flash"]["blob_bytes"], made["sram"]["arena_bytes"], made["sram"]["caller_bytes"]]
    figures += [made["schedule"]["instructions"], made["schedule"]["weight_bytes_read"], made["model"]["macs"]]
    figures += [layer[key] for layer in made["layers"] for key in ("macs", "weight_bytes")]
    figures += [n for layer in made["layers"] for n in layer["instructions"]]
    if "reason" not in made["measured"]:
        figures += [made["flash"]["code_bytes"], made["sram"]["stack_bytes"]]
        figures += [row["bytes"] for stack in made["measured"]["stacks"] for row in stack["path"]]
        figures += [row["bytes"] for key in ("sections", "code") for row in made["measured"][key]]
    assert [x for x in figures if f"{x:,}" not in text] == []
    for row in (*made["layers"], *made["tensors"]):
        assert row["node"] in text
    assert f"{min(t['sqnr_db'] for t in made['tensors']):.1f} dB" in text


def test_bars_add_up(built: tuple[Path, Facts], unmeasured: Facts) -> None:
    """A bar is as long as what it stands for, and its parts do not overlap."""
    for facts in (built[1], unmeasured):
        regions = [region for region in facts["board"]["regions"] if region["used"]]
        bars = [p for p in pictures(report_html.render(facts)) if p.get("class") == "bar"]
        assert len(bars) == len(regions)
        for bar, region in zip(bars, regions, strict=True):
            rects = bar.findall("rect")
            ends = [float(r.attrib["x"]) + float(r.attrib["width"]) for r in rects]
            used = sum(region["used"].values())
            assert ends[-1] == pytest.approx(1000 * used / region["bytes"], abs=0.02)
            assert [float(r.attrib["x"]) for r in rects[1:]] == pytest.approx(ends[:-1], abs=0.02)


def test_arena_is_drawn_where_buffers_lie(built: tuple[Path, Facts]) -> None:
    facts = built[1]["memory"]
    (plot,) = [p for p in pictures(report_html.render(built[1])) if "kernel calls" in (p.findtext("title") or "")]
    *rects, peak = plot.findall("rect")
    arena = facts["arena_bytes"]
    drawn = {tuple(int(r.attrib[key]) for key in ("x", "width", "y", "height")) for r in rects}
    asked = [p for p in facts["placements"] if p["bytes"]]
    assert len(rects) == len(asked)
    assert drawn == {
        (p["first"], p["last"] - p["first"] + 1, arena - p["offset"] - p["bytes"], p["bytes"]) for p in asked
    }
    assert peak.attrib["class"] == "peak" and int(peak.attrib["x"]) == facts["peak"]["call"]


def test_names_are_text(built: tuple[Path, Facts]) -> None:
    made = json.loads(json.dumps(built[1]).replace('"fc1', json.dumps("a/" + HOSTILE)[:-1]))
    made["model"]["warnings"] = [HOSTILE]
    made["name"] = made["board"]["name"] = made["board"]["description"] = HOSTILE
    source = report_html.render(made)
    page = Page(source)
    assert "script" not in page.tags and "\x1b" not in source and "\\x1b[31m" in source
    assert "a/</title></svg><script src=//evil.example/x>alert('1')</script>&\"" in page.text
    assert pictures(source) and source.encode()


def test_without_tools_nothing_is_made_up(unmeasured: Facts) -> None:
    text = Page(report_html.render(unmeasured)).text
    assert text.count("not measured: arm-none-eabi-gcc: not found") == 3
    assert "code is not measured and not counted" in text and "None" not in text


def test_calibration_is_said(built: tuple[Path, Facts], model: Path, tmp_path: Path) -> None:
    assert ". Accuracy was not measured" in Page(report_html.render(built[1])).text
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "real.npz", x=rng.normal(size=(9, 2, 32)).astype(np.float32))
    options = Options(calibration=tmp_path / "real.npz", method="percentile")
    made = report.build(compile_model(model, load_board(BOARD), options), "no tools")
    assert "Calibrated on 9 samples of real.npz: percentile" in Page(report_html.render(made)).text


def test_what_was_traded_is_said(built: tuple[Path, Facts]) -> None:
    made = json.loads(json.dumps(built[1]))
    assert "nothing was traded" in report_html.render(made)
    fastest = made["schedule"]["fastest"]
    made["schedule"] |= {"arena_bytes": 123_456, "instructions": 2 * fastest["instructions"]}
    text = Page(report_html.render(made)).text
    assert "100.0 % more instructions" in text and "123,456" in text and f"{fastest['arena_bytes']:,}" in text


@pytest.mark.parametrize(
    ("nodes", "layers"),
    [
        (
            ["/m/emb/Add_1", *(f"/m/e/layer.{i}/{x}/MatMul" for i in range(3) for x in ("query", "out.0"))],
            ["/m/emb", *(f"/m/e/layer.{i}" for i in range(3) for _ in range(2))],
        ),
        (
            ["net_1/conv_1/Relu;net_1/conv_2/Conv", "net_1/conv_2/Relu", "Identity"],
            ["net_1/conv_1", "net_1/conv_2", "Identity"],
        ),
        (["/m/layer.0/query/MatMul", "/m/layer.0/key/MatMul"], ["/m/layer.0/query", "/m/layer.0/key"]),
        (["/m/Relu_1", "/m/Relu_2", "/m/Relu_2", ""], ["/m/Relu_1", "/m/Relu_2", "/m/Relu_2", ""]),
        (["fc0"], ["fc0"]),
        ([], []),
    ],
)
def test_layers_are_told_from_names(nodes: list[str], layers: list[str]) -> None:
    assert report_html._layers_of(nodes) == layers


def test_many_operators_share_a_colour(built: tuple[Path, Facts]) -> None:
    made = json.loads(json.dumps(built[1]))
    layer = made["layers"][0]
    made["layers"] += [{**layer, "node": f"more{i}", "op": f"op{i}", "weight_bytes": 0, "macs": 0} for i in range(9)]
    text = Page(report_html.render(made)).text
    assert text.count("other operators:") == 9 - report_html._COLOURS + 1 and "op8" in text


def test_page_of_a_model_without_arena(built: tuple[Path, Facts]) -> None:
    made = json.loads(json.dumps(built[1]))
    made["memory"] |= {"arena_bytes": 0, "placements": []}
    Page(report_html.render(made))
