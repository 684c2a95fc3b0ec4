"""What goes first, worked by hand."""

import pytest
import torch

from slm2c.distill import choose
from slm2c.distill.choose import Unit
from slm2c.distill.importance import Gates, gates
from slm2c.distill.parts import Part
from slm2c.distill.recipe import Shape
from slm2c.distill.squeeze import Prices, Squeeze
from slm2c.errors import CompileError
from tests.distill.students import student

SHAPE = Shape(layers=2, hidden=8, heads=(2, 3), ffn=(18, 32), head_size=2, rank=0, tokens=8)
FIRST = torch.tensor([5.0, *[1.0] * 15, 0.5, 0.25])
SECOND = torch.cat([torch.full((16,), 3.0), torch.full((16,), 2.0)])
GATES = Gates((torch.tensor([0.3, 0.1]), torch.tensor([0.2, 0.9, 0.4])), (FIRST, SECOND), torch.zeros(0))
HEADS = [Unit("heads", 0, (1,), pytest.approx(0.1)), Unit("heads", 1, (0,), pytest.approx(0.2))]
LAST = Unit("heads", 1, (2,), pytest.approx(0.4))
SMALL = Unit("columns", 0, (16, 17), pytest.approx(0.75))
LARGE = Unit("columns", 1, tuple(range(16, 32)), pytest.approx(32))


def test_units_leave_the_most_important_of_each_layer_and_multiples_of_the_grain() -> None:
    assert choose.units(SHAPE, GATES) == [HEADS[0], SMALL, HEADS[1], LAST, LARGE]


def test_least_important_parts_go_wherever_they_are() -> None:
    found = choose.units(SHAPE, GATES)
    assert choose.least(found, "heads", 2) == HEADS
    assert choose.least(found, "heads", 9) == [*HEADS, LAST]
    assert choose.least(found, "columns", 2) == [SMALL]
    assert choose.least(found, "columns", 3) == [SMALL, LARGE]
    assert choose.least(found, "heads", 0) == []


def test_what_goes_for_bytes_matters_least_for_each_of_them() -> None:
    """0.1, 0.2 and 0.4 for 10 bytes each; 0.75 and 32 for 100: per byte 0.01, 0.02, 0.04; 0.0075, 0.32."""
    found, price = choose.units(SHAPE, GATES), {"heads": 10, "columns": 100}
    assert choose.cheapest(found, price, 100) == [SMALL]
    assert choose.cheapest(found, price, 101) == [SMALL, HEADS[0]]
    assert choose.cheapest(found, price, 121) == [SMALL, *HEADS, LAST]
    assert choose.cheapest(found, {"heads": 10, "columns": 0}, 1000) == [*HEADS, LAST]
    assert choose.cheapest(found, price, 0) == []
    # 32 / 1000 is 0.032 a byte: the head of 0.02 comes before it, and with it is not needed.
    dear = {"heads": 10, "columns": 1000}
    assert choose.cheapest(found[2:], dear, 1000) == [LARGE]
    assert choose.cheapest(found[2:], dear, 1001) == [HEADS[1], LARGE]


def test_what_is_kept_is_the_rest() -> None:
    kept = choose.without(SHAPE, [HEADS[1], SMALL])
    assert kept.heads == ((0, 1), (1, 2)) and kept.components == ()
    assert kept.columns == (tuple(range(16)), tuple(range(32)))


def test_layers_that_share_weights_are_one_unit_and_lose_the_same() -> None:
    shape = Shape(layers=3, hidden=8, heads=2, ffn=16, share=2, rank=16, tokens=8)
    first, last, columns = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 3.0]), torch.ones(16)
    found = choose.units(shape, Gates((first, first, last), (columns,) * 3, torch.arange(16.0)))
    assert found == [Unit("heads", 0, (0,), 1), Unit("heads", 2, (1,), 3), Unit("components", 0, tuple(range(8)), 28)]
    kept = choose.without(shape, found)
    assert kept.heads == ((1,), (1,), (0,)) and kept.components == tuple(range(8, 16))


def test_where_nothing_can_go_what_asks_for_it_is_named() -> None:
    least = student(Shape(layers=1, hidden=8, heads=1, ffn=16, tokens=8))
    squeeze = Squeeze(lambda _: None, lambda x: gates(x.shape, torch.ones), keep_table=True, wish="--flash")
    with pytest.raises(CompileError, match="'--flash': nothing is left of this student that could go, and 7 bytes"):
        squeeze.cut(least, Prices({}, 0), 7)


def test_parts() -> None:
    assert [Part(0.8, True).of(24), Part(19, False).of(24), Part(0.01, True).of(24), Part(99, False).of(24)] == [
        19,
        19,
        1,
        24,
    ]
    assert [str(Part(0.8, True)), str(Part(19, False))] == ["80 %", "19"]
