"""report.html in headless Chromium: what a reader sees at the width of a phone and of a desktop."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from slm2c.board import load_board
from slm2c.build import build
from slm2c.compile import Options
from slm2c.students import student
from tests.browser import Page, page
from tests.generated import text_folder

pytestmark = pytest.mark.browser

SECTIONS = [
    "Flash and SRAM",
    "The arena over time",
    "Instructions and time",
    "Cost per layer",
    "Schedule",
    "Accuracy and noise",
    "Stack",
]

LAYOUT = """[...document.querySelectorAll("section")].map(section => {
  const box = section.getBoundingClientRect();
  return [section.querySelector("h2").textContent, box.left, box.right, box.height];
})"""

PICTURES = """[...document.querySelectorAll("svg rect")].filter(rect => rect.checkVisibility()).map(rect => {
  const box = rect.getBoundingClientRect(), svg = rect.ownerSVGElement.getBoundingClientRect();
  return [box.width * box.height, svg.width, svg.height, getComputedStyle(rect).fill,
    box.left >= svg.left - 2 && box.right <= svg.right + 2];
})"""

CUT = """[...document.querySelectorAll("b, span, td, p, li, h1, h2, h3, dt, dd, small")].filter(element =>
  element.checkVisibility() && !element.closest(".wide") && element.getBoundingClientRect().right > innerWidth
).map(element => element.textContent)"""

CONTRAST = """[...document.querySelectorAll("p, td, b, small, span, li")].map(element => {
  const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(x => {
    x /= 255; return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const card = element.closest("section") || document.body;
  const [a, b] = [getComputedStyle(element).color, getComputedStyle(card).backgroundColor].map(light);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})"""
"""Ratios as WCAG 2 defines them."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of a student with names as long as exporters make them, and of a text model for a board with many memories."""
    folder = tmp_path_factory.mktemp("reports")
    proto = student(2, 32, 2, 256, 36, 50, classes=3)
    for node in proto.graph.node:
        node.name = f"/model/encoder/{node.name}/an_overly_long_name_without_any_place_to_break/MatMul"
    onnx.save(proto, folder / "student.onnx")
    options = Options(name="m", method="minmax")
    build(folder / "student.onnx", folder / "student", load_board("generic-m7-512k-4m"), options)
    build(text_folder(folder / "in"), folder / "text", load_board("stm32f746g-disco"), options)
    return {name: folder / name / "report.html" for name in ("student", "text")}


@pytest.fixture(scope="module")
def reader() -> Iterator[Page]:
    chromium = shutil.which("chromium")
    assert chromium
    with page(chromium) as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("name", ["student", "text"])
def test_report_is_readable(name: str, width: int, dark: bool, reports: dict[str, Path], reader: Page) -> None:
    reader.open(reports[name], width, dark=dark)
    for folded in (True, False):
        if not folded:
            reader.evaluate('document.querySelectorAll("details").forEach(details => details.open = true)')
        assert reader.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
        assert reader.evaluate(CUT) == []
        found = reader.evaluate(LAYOUT)
        assert [title for title, *_ in found] == SECTIONS
        assert all(0 <= left < right <= width and height > 80 for _, left, right, height in found)
    pictures = reader.evaluate(PICTURES)
    assert len(pictures) > 40 and all(inside for *_, inside in pictures)
    assert all(w > 0 and h > 0 for _, w, h, *_ in pictures) and sum(area > 4 for area, *_ in pictures) > 20
    assert len({fill for *_, fill, _ in pictures}) > 5
    assert min(reader.evaluate(CONTRAST)) >= 4.5
    background = reader.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 23, 26)") == dark
    assert reader.complaints == []


def test_the_reader_notices(tmp_path: Path, reader: Page) -> None:
    """What the test above asks for can fail: errors, requests and scrolling are seen."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<meta name="viewport" content="width=device-width"><p style="width:500px">x</p>'
        '<img src="http://127.0.0.1:9/x.png"><script>console.error("no"); nonsense()</script>',
        encoding="utf-8",
    )
    reader.open(bad, 360)
    assert reader.evaluate("document.documentElement.scrollWidth") > 360
    text = " ".join(reader.complaints)
    reader.complaints.clear()
    assert "127.0.0.1:9" in text and '"no"' in text and "nonsense is not defined" in text
