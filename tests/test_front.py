"""What of `slm2c fit` needs no PyTorch: the front, what is proposed, the picture."""

import random
import re
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from slm2c import show
from slm2c.distill import front_plot, proposals, recipe
from slm2c.distill.front_plot import Box, Limit
from slm2c.distill.pareto import Point, best, dominates, front
from slm2c.distill.recipe import Shape
from tests import browser

SVG = "{http://www.w3.org/2000/svg}"

# ---------------------------------------------------------------- the front, worked by hand

LARGE = Point("large", 0.92, 2400, 29, 28, False)
MIDDLE = Point("middle", 0.90, 1200, 29, 14, True)
WASTEFUL = Point("wasteful", 0.89, 1300, 30, 15, True)  # middle is better in everything
LEAN = Point("lean", 0.88, 1250, 20, 16, True)  # middle has a larger arena
SMALL = Point("small", 0.80, 300, 15, 3, True)
POINTS = (WASTEFUL, SMALL, LARGE, LEAN, MIDDLE)


def test_a_point_dominates_if_it_is_nowhere_worse_and_somewhere_better() -> None:
    assert dominates(MIDDLE, WASTEFUL) and not dominates(WASTEFUL, MIDDLE)
    assert not dominates(MIDDLE, LEAN) and not dominates(LEAN, MIDDLE)
    assert not dominates(MIDDLE, replace(MIDDLE, name="twin"))
    assert dominates(MIDDLE, replace(MIDDLE, arena=30)) and dominates(replace(MIDDLE, accuracy=0.91), MIDDLE)


def test_the_front_is_what_nothing_dominates_the_smallest_first() -> None:
    assert front(POINTS) == (SMALL, MIDDLE, LEAN, LARGE)
    assert front(POINTS, ["flash"]) == (SMALL, MIDDLE, LARGE)
    assert front(POINTS, ["arena"]) == (SMALL, LEAN, LARGE)  # middle has large's arena, and less accuracy
    assert front([]) == () and front([LEAN]) == (LEAN,)
    twin = replace(SMALL, name="twin")
    assert front([SMALL, twin]) == (SMALL, twin)


def test_the_best_fits_and_of_equals_is_the_cheapest() -> None:
    assert best(POINTS) == MIDDLE
    assert best([*POINTS, replace(MIDDLE, name="slower", instructions=15, flash=1)]) == MIDDLE
    assert best([*POINTS, cheap := replace(MIDDLE, name="leaner", flash=1100)]) == cheap
    assert best([LARGE]) is None and best([]) is None


# ---------------------------------------------------------------- what is proposed


def test_proposals_lie_around_the_recipe() -> None:
    found = proposals.shapes(Shape())
    assert found["6x128-8k"] == Shape() and found["3x128-4k"] == replace(Shape(), layers=3, vocabulary=4096)
    assert found["3x128-f256-2k"] == replace(Shape(), layers=3, ffn=256, vocabulary=2048)
    assert all(s.hidden == 32 * s.heads and s.ffn % 8 == 0 and s.tokens == 32 for s in found.values())
    assert max(s.hidden for s in found.values()) == 192 and min(s.layers for s in found.values()) == 1


def test_no_shape_is_proposed_twice() -> None:
    found = proposals.shapes(Shape(layers=1, hidden=16, heads=1, ffn=16, vocabulary=300))
    assert len(set(found.values())) == len(found) < len(proposals.shapes(Shape()))
    assert all(s.layers == 1 and s.vocabulary >= 200 and s.ffn >= 8 for s in found.values())


def test_cuts_leave_what_they_say() -> None:
    found = proposals.cuts(Shape())
    cut, shape = found["heads80"]
    assert cut == proposals.Cut(heads=0.8, layers=6)
    assert shape.heads == (4, 3, 3, 3, 3, 3) and shape.head_size == 32 and set(shape.ffn_of) == {512}
    assert sum(shape.heads_of) == round(0.8 * 24)
    cut, shape = found["layers4-ffn50"]
    assert (shape.layers, shape.heads, shape.ffn) == (4, (4,) * 4, (256,) * 4) and (cut.layers, cut.rank) == (4, 0)
    assert found["rank64"][1].rank == found["heads75-ffn50-rank64"][1].rank == 64
    assert found["heads50-ffn25"][1].ffn == (128,) * 6
    assert all(_faultless(shape) for _, shape in found.values())


def _faultless(shape: Shape) -> bool:
    return not recipe._shape_faults(shape)


def test_cuts_of_a_small_student_are_none_of_it_and_no_two_alike() -> None:
    whole = Shape(layers=2, hidden=16, heads=(1, 2), ffn=16, vocabulary=200, head_size=8)
    found = proposals.cuts(whole)
    shapes = [shape for _, shape in found.values()]
    assert len(set(shapes)) == len(shapes) and all(_faultless(shape) for shape in shapes)
    assert replace(whole, ffn=(16, 16)) not in shapes
    assert list(found) == ["heads80", "layers1", "rank8", "heads75-rank8", "layers1-rank8"]
    both = proposals.cuts(Shape(layers=3, hidden=16, heads=4, ffn=32, share=2))  # layers 1 and 2 have the same heads
    assert both["heads80"][1].heads == (3, 3, 3) and both["heads50-ffn25"][1].heads == (2, 2, 2)
    assert "heads80" not in proposals.cuts(Shape(layers=2, hidden=8, heads=2, ffn=32, share=2))
    assert proposals.cuts(Shape(layers=1, hidden=8, heads=1, ffn=8)) == {}
    shared = proposals.cuts(replace(Shape(), share=2, rank=32))
    assert all(shape.layers == 6 and cut.rank in (0, 32) for cut, shape in shared.values())
    assert not any("rank64" in name for name in shared)


def test_tries_are_spread_and_more_of_them_add_to_the_fewer() -> None:
    nine = list(range(9))
    assert proposals.spread(nine, 1) == [0]
    assert proposals.spread(nine, 3) == [0, 8, 4]
    assert proposals.spread(nine, 5) == [0, 8, 4, 2, 6]
    assert sorted(proposals.spread(nine, 20)) == nine
    assert proposals.spread([7], 3) == [7] and proposals.spread([], 3) == []


# ---------------------------------------------------------------- the table

TAKES = {
    "layers": 6,
    "hidden": 128,
    "heads": [4, 3, 3, 4, 4, 4],
    "vocabulary": 8192,
    "flash": 2_398_080,
    "arena": 28_928,
}
WHOLE = {**TAKES, "name": "whole", "ffn": [512] * 6, "instructions": 27_976_542, "microseconds": 109_109}
WHOLE |= {"fits": False, "faults": ["109 ms"], "chosen": True, "accuracy_integer": 0.9163, "front": True, "folder": "x"}
CUT = {**WHOLE, "name": "layers2-ffn50-rank32", "ffn": [128, 256] * 3, "microseconds": 79_654, "folder": "y y/student"}
CUT |= {"fits": True, "faults": [], "accuracy_integer": 0.9}
OVER = {**WHOLE, "name": "heads80", "chosen": False, "faults": ["332,416 bytes too many for flash", "101 ms"]}
LEFT = {**CUT, "name": "layers3", "chosen": False}
FACTS = {"board": "b", "valid": 992, "tokens": 32, "latency_ms": 80.0, "proposals": [WHOLE, OVER, CUT, LEFT]}
FACTS |= {"candidates": [WHOLE, CUT], "best": "layers2-ffn50-rank32"}


def test_the_table_says_what_fits_what_was_not_trained_and_what_to_build() -> None:
    text = show.front(Path("my front"), FACTS, "b.toml", 61)
    lines = text.splitlines()
    assert all(len(line) <= 100 for line in lines if " slm2c build " not in line)
    whole, cut = (next(x.split() for x in lines if x.startswith(name)) for name in ("whole", "layers2-"))
    assert " ".join(whole) == "whole 6x128 3-4 512 8,192 2,398,080 28,928 28 M 109 91.63% over"
    assert cut[3] == "128-256" and cut[-2:] == ["90.00%", "best"]
    (over,) = (x for x in lines if x.startswith("heads80"))
    assert over.endswith("101 ms") and "not trained, as they do not fit:" in lines
    assert "not tried, though they fit (--tries): layers3" in lines
    assert "slm2c build 'my front/y y/student' -o out --board b.toml" in text


def test_the_table_of_a_board_without_estimate_and_where_nothing_fits() -> None:
    bare = {**CUT, "microseconds": None}
    text = show.front(Path("f"), {**FACTS, "latency_ms": None, "candidates": [bare], "proposals": [bare]}, "b", 1)
    assert "time" not in text and "not trained" not in text and "not tried" not in text
    text = show.front(Path("f"), {**FACTS, "candidates": [WHOLE], "best": None}, "b", 1)
    assert "none that was tried fits" in text and "slm2c build" not in text


# ---------------------------------------------------------------- the picture

LIMITS = {"flash": Limit(2000, "room: 2 KB"), "arena": Limit(500, "room: 500 bytes"), "instructions": Limit(20, "5 ms")}


def drawn(points: list[Point] | tuple[Point, ...] = POINTS) -> ElementTree.Element:
    return ElementTree.fromstring(front_plot.draw(points, LIMITS, "Students <for> a & board", "in integers"))


def crowded(seed: int) -> list[Point]:
    rng = random.Random(seed)
    return [
        Point(f"heads80-ffn{i}0", rng.uniform(0.88, 0.92), *(rng.randrange(100, 200) for _ in range(3)), i % 3 > 0)
        for i in range(10)
    ]


def test_every_panel_has_every_point_once() -> None:
    panels = drawn().findall(f"{SVG}g")
    assert len(panels) == 3
    for panel in panels:
        labels = [text.text for text in panel.iter(f"{SVG}text") if "label" in text.get("class", "")]
        assert sorted(labels) == sorted(point.name for point in POINTS)
        kinds = [circle.get("class") for circle in panel.iter(f"{SVG}circle")]
        assert sorted(kinds) == ["best", "fits", "fits", "fits", "over"]


def test_points_lie_where_their_figures_say() -> None:
    for panel, cost in zip(drawn().findall(f"{SVG}g"), ("flash", "arena", "instructions"), strict=True):
        circles = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in panel.iter(f"{SVG}circle")]
        for (one, (x, y)), (other, (a, b)) in combinations(zip(POINTS, circles, strict=True), 2):
            assert (x < a) == (one.takes(cost) < other.takes(cost)) and (y < b) == (one.accuracy > other.accuracy)


def test_limits_are_lines_or_are_told_where_they_are_far() -> None:
    flash, arena, instructions = drawn().findall(f"{SVG}g")

    def lines(panel: ElementTree.Element) -> list[str]:
        return [x.get("d", "") for x in panel.iter(f"{SVG}path") if x.get("class") == "limit"]

    def words(panel: ElementTree.Element) -> list[str | None]:
        return [x.text for x in panel.iter(f"{SVG}text") if x.get("class") == "limit"]

    assert len(lines(flash)) == len(lines(instructions)) == 1 and lines(arena) == []
    assert words(flash) == ["room: 2 KB"] and words(arena) == ["room: 500 bytes →"]
    at = float(re.match(r"M([\d.]+) ", lines(flash)[0])[1])  # type: ignore[index]
    over = next(c for c in flash.iter(f"{SVG}circle") if c.get("class") == "over")
    assert at < float(over.get("cx", ""))


def test_one_point_alone_and_all_alike_can_be_drawn() -> None:
    assert len(list(drawn([SMALL]).iter(f"{SVG}circle"))) == 3 + 3  # and the legend's
    drawn([replace(SMALL, name=str(i), accuracy=1.0) for i in range(3)])
    drawn([replace(SMALL, accuracy=0.0)])


def test_the_same_figures_make_the_same_bytes() -> None:
    one, other = (front_plot.draw(crowded(1), LIMITS, "t", "s") for _ in range(2))
    assert one == other


@pytest.mark.parametrize("seed", range(10))
def test_labels_meet_neither_each_other_nor_points(seed: int) -> None:
    rng = random.Random(seed)
    plot = Box(46, 90, 340, 148)
    points = {f"heads80-ffn{i}0": (rng.uniform(60, 380), rng.uniform(100, 230)) for i in range(10)}
    labels = front_plot.place(points, plot)
    assert all(label.box.within(plot) for label in labels.values())
    assert not any(a.box.meets(b.box) for a, b in combinations(labels.values(), 2))
    spots = [Box(x - 4, y - 4, 8, 8) for x, y in points.values()]
    assert not any(label.box.meets(spot) for label in labels.values() for spot in spots)


OVERLAPS = """(() => {
  const boxes = [...document.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
  const found = [], all = document.documentElement.getBoundingClientRect();
  for (const [i, [a, p]] of boxes.entries()) {
    if (p.left < all.left || p.right > all.right || all.right > innerWidth) found.push(a + ' leaves the picture');
    for (const [b, q] of boxes.slice(i + 1))
      if (p.left < q.right && q.left < p.right && p.top + 2 < q.bottom - 2 && q.top + 2 < p.bottom - 2)
        found.push(a + ' meets ' + b);
  }
  return found;
})()"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 360])
def test_in_a_browser_no_text_meets_another(width: int, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    assert chromium
    with browser.page(chromium) as page:
        two = (replace(SMALL, flash=1970, instructions=20), replace(LARGE, flash=2320, instructions=28))
        for i, points in enumerate((POINTS, crowded(1), crowded(2), two)):
            path = tmp_path / f"{i}.svg"
            path.write_text(front_plot.draw(points, LIMITS, "Students for generic-m7-512k-4m", "in integers"))
            page.open(path, width, dark=i % 2 == 1)
            assert page.evaluate(OVERLAPS) == [] and page.complaints == []
            smallest = "Math.min(...[...document.querySelectorAll('text')].map(e => e.getBoundingClientRect().height))"
            assert page.evaluate(smallest) >= 11  # pixels of a line, of letters then about 10
