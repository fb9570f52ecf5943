"""When the scheduler looks next."""

import math

from hypothesis import given
from hypothesis import strategies as st

from chicory.scheduler.pacing import LOOK_EVERY, RECLAIM_EVERY, next_look, next_wake

seconds = st.floats(allow_nan=True, allow_infinity=True)


@given(st.none() | seconds, seconds, st.booleans())
def test_a_sleep_is_never_negative_and_never_long(due, reclaim, more):
    assert 0 <= next_wake(due, reclaim, more=more) <= RECLAIM_EVERY


@given(st.floats(0, 1e9), st.floats(0, RECLAIM_EVERY))
def test_it_never_sleeps_past_what_is_due(due, reclaim):
    assert next_wake(due, reclaim) <= min(due, reclaim)


@given(st.floats(0, RECLAIM_EVERY))
def test_it_does_not_wake_before_there_is_something_to_do(due):
    assert next_wake(due, RECLAIM_EVERY) == due
    assert next_wake(None, due) == due


def test_more_to_reclaim_does_not_wait():
    assert next_wake(math.inf, 5.0, more=True) == 0


@given(seconds)
def test_schedules_are_looked_at_when_a_slot_is_due_and_now_and_then(slot):
    assert 0 <= next_look(slot) <= LOOK_EVERY
    assert not 0 <= slot <= LOOK_EVERY or next_look(slot) == slot
