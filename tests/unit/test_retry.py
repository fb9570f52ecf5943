"""Back-off: never negative, never above the cap, growing, and shortened by chance alone."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.retry import backoff
from chicory.types import RetryPolicy

finite = st.floats(0, 1e9, allow_nan=False)
draws = st.floats(0, 1, exclude_max=True)
attempts = st.integers(1, 100_000)


@st.composite
def policies(draw):
    return RetryPolicy(
        max_retries=draw(st.integers(0, 1000)),
        delay=draw(finite),
        max_delay=draw(finite),
        multiplier=draw(st.floats(1, 1e6)),
        jitter=draw(st.floats(0, 1)),
    )


@given(policies(), attempts, draws)
def test_the_wait_lies_between_nothing_and_the_cap(policy, attempt, draw):
    wait = backoff(policy, attempt, draw)

    assert math.isfinite(wait)
    assert 0 <= wait <= policy.max_delay


@given(policies(), attempts, draws)
def test_jitter_only_ever_shortens_and_by_no_more_than_its_share(policy, attempt, draw):
    longest = backoff(policy, attempt, 0.0)
    wait = backoff(policy, attempt, draw)

    assert longest * (1 - policy.jitter) <= wait <= longest


@given(policies(), attempts, draws)
def test_the_wait_never_shrinks_from_one_attempt_to_the_next(policy, attempt, draw):
    assert backoff(policy, attempt, draw) <= backoff(policy, attempt + 1, draw)


def test_the_first_wait_is_the_delay_and_the_next_ones_grow_by_the_multiplier():
    policy = RetryPolicy(delay=2, multiplier=3, max_delay=50, jitter=0.5)

    assert [backoff(policy, attempt, 0.0) for attempt in (1, 2, 3, 4, 5)] == [2, 6, 18, 50, 50]
    assert backoff(policy, 1, 0.5) == 1.5


def test_an_attempt_too_far_to_compute_waits_the_cap():
    assert backoff(RetryPolicy(delay=1, multiplier=10, max_delay=60, jitter=0), 10_000, 0.0) == 60


@pytest.mark.parametrize(
    "wrong", [{"max_retries": -1}, {"delay": -1}, {"max_delay": -1}, {"multiplier": 0.5}, {"jitter": 1.5}]
)
def test_a_policy_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError):
        RetryPolicy(**wrong)
