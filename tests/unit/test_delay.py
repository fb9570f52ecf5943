"""Delays: a number of seconds from nothing to a century, or refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.delay import MAX_DELAY, bounded, check_delay
from chicory.errors import DelayError


@given(st.floats() | st.integers())
def test_a_delay_is_kept_or_refused(delay):
    if 0 <= delay <= MAX_DELAY:
        assert check_delay(delay) == delay
    else:
        with pytest.raises(DelayError):
            check_delay(delay)


@given(st.floats() | st.integers())
def test_a_bounded_delay_is_always_one_that_can_be_kept(delay):
    assert check_delay(bounded(delay)) == bounded(delay)
    assert bounded(delay) == delay or not 0 <= delay <= MAX_DELAY


def test_no_number_is_no_delay():
    assert bounded(math.nan) == 0
