"""Rescaling: to the nearest integer at any ratio of scales, saturated where calibration was not meant to lead."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slm2c import fixedpoint


@given(st.integers(-(2**31) + 1, 2**31 - 1), st.floats(1e-12, 2.0**40), st.integers(-128, 127))
def test_rescale_is_the_product_rounded_half_up(total: int, ratio: float, zero_point: int) -> None:
    mult, shift = fixedpoint.multiplier(ratio)
    assert 0 <= shift <= 30
    assert 0 <= mult < 2**31
    got = fixedpoint.rescale(np.array([total]), mult, shift, zero_point, "i16")
    exact = total * min(ratio, 2.0**28) + zero_point
    assert abs(got[0] - min(max(exact, -32768), 32767)) <= 0.5 + abs(total) / 2 ** (33 - shift) + 1e-6


@given(st.integers(-(2**15), 2**15), st.floats(1e-6, 2.0**14))
def test_rescale_is_requantize_where_that_has_room(total: int, ratio: float) -> None:
    mult, shift = fixedpoint.multiplier(ratio)
    acc = np.array([total])
    if abs(total) << shift < 2**31:
        assert fixedpoint.rescale(acc, mult, shift, 3, "i16") == fixedpoint.requantize(acc, mult, shift, 3, "i16")


@given(st.integers(0, 2**31 - 1), st.integers(1, 2**15))
def test_divided_multiplier_is_the_nearest(mult: int, count: int) -> None:
    assert abs(int(fixedpoint.divide_multiplier(mult, count)) - mult / count) <= 0.5
