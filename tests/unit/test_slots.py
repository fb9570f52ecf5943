"""Which slots are fired: each once, in order, never early, and after a rest as the policy says."""

import math
from datetime import UTC, datetime
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.schedules.slots import BATCH, ON_TIME, Misfire, due
from chicory.schedules.timing import Cron, Every

HOUR = 3600.0
START = 1_800_000_000.0  # a full hour

timings = st.sampled_from(
    [Every(1), Every(7), Every(60), Every(HOUR), Cron("*/15 9-17 * * MON-FRI", "Europe/Rome"), Cron("30 2 * * *")]
)
policies = st.sampled_from(get_args(Misfire))


def passed(timing, mark, now):
    """Every slot after *mark* up to *now*, one by one."""
    found = []
    while (slot := timing.after(found[-1] if found else mark)) <= now:
        found.append(slot)
    return found


@given(timings, st.floats(0, 2e9), st.floats(0, 4000), policies)
def test_what_is_fired_is_what_the_policy_says_of_what_passed(timing, mark, rest, misfire):
    now = mark + rest
    expected = passed(timing, mark, now)

    answer = due(timing, mark, now, misfire)

    if misfire == "all":
        assert list(answer.slots) == expected[:BATCH]
    elif misfire == "once":
        assert list(answer.slots) == expected[-1:]
    else:
        assert list(answer.slots) == [slot for slot in expected[-1:] if now - slot <= ON_TIME]
    assert answer.next == timing.after(answer.slots[-1] if answer.slots and misfire == "all" else now)


@given(timings, st.lists(st.floats(-2000, 2000), max_size=8), policies)
def test_however_the_clock_is_set_no_slot_is_fired_twice_or_early_or_out_of_order(timing, steps, misfire):
    now = mark = START
    fired = []

    for step in steps:
        now += step
        answer = due(timing, mark, now, misfire)
        assert all(slot <= now for slot in answer.slots)
        assert answer.next > mark
        fired += answer.slots
        mark = answer.slots[-1] if answer.slots else mark

    assert fired == sorted(set(fired))


@given(timings, st.lists(st.floats(0, 500), max_size=30))
def test_all_leaves_no_slot_out_however_often_one_looks(timing, steps):
    now = mark = START
    fired = []

    for step in steps:
        now += step
        more = True
        while more:
            answer = due(timing, mark, now, "all")
            fired += answer.slots
            mark = answer.slots[-1] if answer.slots else mark
            more = answer.next <= now

    assert fired == passed(timing, START, now)


@given(timings, policies)
def test_who_looks_when_a_slot_is_due_fires_it_whatever_the_policy(timing, misfire):
    mark = START

    for _ in range(20):
        answer = due(timing, mark, timing.after(mark), misfire)
        assert answer.slots == (timing.after(mark),)
        mark = answer.slots[0]


@pytest.mark.parametrize(("misfire", "count"), [("skip", 0), ("once", 1), ("all", 5)])
def test_after_five_hours_of_rest(misfire, count):
    answer = due(Every(HOUR), START, START + 5 * HOUR + 61, misfire)

    assert len(answer.slots) == count
    assert answer.next == START + 6 * HOUR


@pytest.mark.parametrize(("misfire", "count"), [("skip", 1), ("once", 1), ("all", 5)])
def test_a_slot_that_is_a_little_late_is_not_skipped(misfire, count):
    assert len(due(Every(HOUR), START, START + 5 * HOUR + 59, misfire).slots) == count


@pytest.mark.parametrize("misfire", ["skip", "once"])
def test_a_rest_of_years_is_over_in_no_time(misfire):
    looked = []

    class Counted(Every):
        def after(self, instant):
            looked.append(instant)
            return super().after(instant)

    now = START + 5 * 365 * 86400

    answer = due(Counted(1), START, now + 0.5, misfire)

    assert answer.slots == (now,)
    assert len(looked) < 200


@pytest.mark.parametrize("misfire", get_args(Misfire))
@pytest.mark.parametrize(("month", "day", "hours"), [(3, 29, 23), (10, 25, 25)])
def test_each_hour_of_the_day_on_which_the_clocks_change(month, day, hours, misfire):
    zone = ZoneInfo("Europe/Rome")
    now = datetime(2026, month, day, tzinfo=zone).timestamp()
    end = datetime(2026, month, day + 1, tzinfo=zone).timestamp()
    timing, fired, mark = Cron("0 * * * *", "Europe/Rome"), [], now

    while now < end:
        answer = due(timing, mark, now, misfire)
        fired += answer.slots
        mark, now = fired[-1] if fired else mark, answer.next

    assert fired == [end - HOUR * number for number in reversed(range(1, hours))]


def test_a_night_missed_on_the_29th_of_february_is_made_up_for_once():
    timing = Cron("0 3 29 2 *")
    back = datetime(2028, 3, 10, tzinfo=UTC).timestamp()

    answer = due(timing, datetime(2024, 3, 1, tzinfo=UTC).timestamp(), back, "once")

    assert answer.slots == (datetime(2028, 2, 29, 3, tzinfo=UTC).timestamp(),)
    assert datetime.fromtimestamp(answer.next, UTC) == datetime(2032, 2, 29, 3, tzinfo=UTC)


def test_a_mark_ahead_of_the_clock_is_waited_for():
    answer = due(Every(60), START + 1000, START, "all")

    assert answer.slots == ()
    assert answer.next == math.ceil((START + 1000.5) / 60) * 60
