"""Numbers with errors: as many digits as the error is worth, and nothing invented."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.readings.notation import with_error


@given(st.floats(-1e3, 1e3), st.floats(1e-5, 10))
def test_what_is_written_is_the_number_to_a_tenth_of_its_error(value, error):
    told = with_error(value, error)
    number, _, spread = told.partition(" +- ")
    assert abs(float(number) - value) <= 0.051 * error + 1e-9
    assert float(spread) == pytest.approx(error, rel=0.06)
    decimals = [len(each.partition(".")[2]) for each in (number, spread)]
    assert decimals[0] == decimals[1]


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_an_unknown_error_is_said(error):
    assert (
        with_error(-0.5, error) == "-0.500 (error unknown)"
        and with_error(0.001, error, sign="+") == "+0.0010 (error unknown)"
    )


def test_no_error_at_all_is_written_as_such():
    assert with_error(0.5, 0.0) == "0.500 +- 0.000"
