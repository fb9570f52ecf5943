"""The slots of a timing: the same whoever asks, and those that a calendar names, also where the clocks change."""

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chicory.errors import ScheduleError
from chicory.schedules.timing import LONGEST, SHORTEST, Cron, Every

ROME = ZoneInfo("Europe/Rome")
# Clocks that change at 2:00 and at midnight, by an hour and by half of one, in spring and in autumn; and two that rest.
ZONES = [
    *("Europe/Rome", "America/New_York", "America/Havana", "Africa/Cairo"),
    *("Australia/Lord_Howe", "Pacific/Auckland", "Asia/Kolkata", "UTC"),
]
SPRING, AUTUMN = datetime(2026, 3, 29, tzinfo=ROME), datetime(2026, 10, 25, tzinfo=ROME)

instants = st.floats(0, 4e9)


def fields(low, high, most=4):
    return st.sets(st.integers(low, high), min_size=1, max_size=most)


def written(values):
    return ",".join(map(str, sorted(values)))


def wall(*parts, zone=ROME, fold=0):
    return datetime(*parts, tzinfo=zone, fold=fold).timestamp()


def slots(timing, start, count):
    found = []
    while len(found) < count:
        start = timing.after(start)
        found.append(start)
    return found


def told(timing, start, count, zone=ROME):
    return [datetime.fromtimestamp(slot, zone).strftime("%d %H:%M%z") for slot in slots(timing, start, count)]


timings = st.one_of(
    st.builds(Every, st.floats(SHORTEST, LONGEST) | st.sampled_from([1.0, 1.5, 7.0, 30.0, 86400.0])),
    st.builds(
        Cron,
        st.sampled_from(
            [
                "* * * * *",
                "*/15 9-17 * * MON-FRI",
                "30 2 * * *",
                "0 0 29 2 *",
                "59 23 31 12 *",
                "*/10 */2 * * *",
                "15,45 1-3 * * *",
                "* * * * * *",
                "0 0 L * *",
                "*/30 0 * * SUN",
            ]
        ),
        st.sampled_from(ZONES),
    ),
)


@given(timings, instants)
@example(Every(4294967.4464534195), 0)
def test_the_next_slot_is_later_and_is_a_slot(timing, instant):
    slot = timing.after(instant)

    assert slot > instant
    assert timing.after(math.nextafter(slot, 0)) == slot


@given(timings, instants, st.floats(0, 1))
@example(Cron("30 2 * * *", "Europe/Rome"), wall(2026, 10, 25, 2, 15), 0.5)
@example(Cron("*/30 0 * * SUN", "America/Havana"), wall(2026, 3, 7, 12, zone=ZoneInfo("America/Havana")), 0.6)
def test_the_next_slot_is_the_same_from_wherever_before_it_one_asks(timing, instant, part):
    slot = timing.after(instant)
    between = instant + part * (slot - instant)

    assert between >= slot or timing.after(between) == slot


@given(st.sampled_from(ZONES), fields(0, 59), fields(0, 23), st.integers(2000, 2060), st.integers(0, 364))
@example("Africa/Cairo", {0, 30}, {0, 1}, 2026, 113)
@example("America/Havana", {0, 15}, {0, 1}, 2026, 303)
@example("America/New_York", {5}, {1, 2}, 2026, 66)
@example("Australia/Lord_Howe", {0, 15, 45}, {1, 2}, 2026, 93)
@example("Australia/Lord_Howe", {0, 15, 45}, {1, 2}, 2026, 275)
def test_a_line_with_fixed_times_fires_at_each_of_them_once_a_day(zone, minutes, hours, year, day):
    here = ZoneInfo(zone)
    days = [datetime(year, 1, 1) + timedelta(days=day + number) for number in range(3)]
    named = [date.replace(hour=hour, minute=minute) for date in days for hour in hours for minute in minutes]

    def real(naive):
        """The instant, or where that never comes the end of the gap."""
        while datetime.fromtimestamp(naive.replace(tzinfo=here).timestamp(), here).replace(tzinfo=None) != naive:
            naive += timedelta(minutes=1)
        return naive.replace(tzinfo=here).timestamp()

    expected = sorted({real(naive) for naive in named})
    timing = Cron(f"{written(minutes)} {written(hours)} * * *", zone)

    assert slots(timing, expected[0] - 1, len(expected)) == expected


@given(st.sampled_from(ZONES), st.integers(1, 59), fields(0, 23), fields(0, 6), st.integers(0, 2_000_000_000))
@example("Africa/Cairo", 30, {0, 1}, {5}, int(datetime(2026, 4, 23, tzinfo=UTC).timestamp()))
@example("America/Havana", 30, {0, 1}, {0}, int(datetime(2026, 3, 7, tzinfo=UTC).timestamp()))
@example("Australia/Lord_Howe", 15, {3}, {0}, int(datetime(2026, 10, 3, tzinfo=UTC).timestamp()))
@example("Australia/Lord_Howe", 15, {2, 5}, {0}, int(datetime(2026, 4, 4, tzinfo=UTC).timestamp()))
@example("America/Havana", 1, {1, 14}, {0}, int(datetime(1978, 5, 5, tzinfo=UTC).timestamp()))
def test_a_line_that_begins_with_a_star_fires_whenever_the_clock_on_the_wall_fits(zone, step, hours, days, start):
    here, start = ZoneInfo(zone), start // 60 * 60
    minutes = (start + 60 * number for number in range(1, 10 * 1440))
    walls = ((minute, datetime.fromtimestamp(minute, here)) for minute in minutes)
    expected = [
        minute
        for minute, time in walls
        if time.minute % step == 0 and time.hour in hours and time.isoweekday() % 7 in days
    ]
    timing = Cron(f"*/{step} {written(hours)} * * {written(days)}", zone)

    assert slots(timing, start, len(expected)) == expected


def test_a_fixed_time_in_the_gap_fires_at_its_end_and_one_in_the_fold_fires_once():
    nightly = Cron("30 2 * * *", "Europe/Rome")

    assert told(nightly, SPRING.timestamp() - 86400, 3) == ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"]
    assert told(nightly, AUTUMN.timestamp() - 86400, 3) == ["24 02:30+0200", "25 02:30+0200", "26 02:30+0100"]


def test_a_quarter_of_an_hour_is_one_also_in_the_gap_and_in_the_fold():
    quarters = Cron("*/15 * * * *", "Europe/Rome")

    for day in (SPRING, AUTUMN):
        found = slots(quarters, day.timestamp(), 40)
        assert {later - earlier for earlier, later in pairwise(found)} == {900}


def test_the_29th_of_february_comes_in_leap_years_only():
    found = slots(Cron("0 0 29 2 *"), datetime(2095, 1, 1, tzinfo=UTC).timestamp(), 2)

    assert [datetime.fromtimestamp(slot, UTC).year for slot in found] == [2096, 2104]


def test_the_year_ends_where_the_zone_says():
    (found,) = slots(Cron("59 23 31 12 *", "Pacific/Auckland"), datetime(2026, 6, 1, tzinfo=UTC).timestamp(), 1)

    assert datetime.fromtimestamp(found, UTC) == datetime(2026, 12, 31, 10, 59, tzinfo=UTC)


def test_an_interval_is_counted_from_the_epoch_without_adding_up_an_error():
    assert slots(Every(30), 1_800_000_010.25, 2) == [1_800_000_030, 1_800_000_060]
    assert Every(1.1).after(1_700_000_000 * 1.1 + 0.5) == round(1_700_000_001 * 1.1, 3)


def test_what_two_timings_say_differs_when_they_do():
    assert str(Cron("0  3 * * *", "Europe/Rome")) == "cron 0 3 * * * Europe/Rome"
    assert str(Every(86400)) == "every 86400 s"
    assert str(Every(1.5)) == "every 1.5 s"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("60 * * * *", "has a bad minute; write *, 0-59"),
        ("* 24 * * *", "has a bad hour; write *, 0-23"),
        ("* * 0 * *", "has a bad day-of-month"),
        ("* * * 13 *", "has a bad month; write *, 1-12 or JAN-DEC"),
        ("* * * * MOON", "has a bad day-of-week; write *, 0-7 or SUN-SAT"),
        ("* * * *", "has 4 fields; write five"),
        ("@daily", "has 1 field; write five"),
        ("", "has 0 fields"),
        ("0 0 31 2 *", "has a bad day-of-month"),
        ("0 0 31 2,4 *", "has a bad day-of-month"),
        ("*/0 * * * *", "has a bad minute"),
        (f"{'9' * 5000} * * * *", "at most 200 characters"),
        (None, "a cron line is a str"),
        (5, "a cron line is a str"),
    ],
)
def test_a_wrong_line_is_refused_with_what_to_write(line, why):
    with pytest.raises(ScheduleError) as caught:
        Cron(line)

    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text("0123456789*/-,#LWabcMONFEB \n²", max_size=30) | st.text(max_size=20))
@example("* * * * 1#2/2")
@example("* * * * L")
@example("* * 1L * *")
@example("0 0 30 2 1#5")
@example("* * L/2 * *")
def test_any_text_is_a_line_that_fires_or_an_error(line):
    try:
        timing = Cron(line, "Europe/Rome")
    except ScheduleError:
        return

    assert timing.after(1_800_000_000) > 1_800_000_000
    assert timing.explain()


@pytest.mark.parametrize(
    ("zone", "why"),
    [
        ("Europe/Rom", "there is no time zone 'Europe/Rom'; did you mean 'Europe/Rome'?"),
        ("CEST", "there is no time zone 'CEST'"),
        ("", "there is no time zone ''"),
        ("../../etc/passwd", "there is no time zone"),
        ("Europe", "there is no time zone 'Europe'"),
        ("Europe/Ro\0me", "there is no time zone"),
        (None, "there is no time zone None"),
    ],
)
def test_a_wrong_zone_is_refused_with_the_nearest(zone, why):
    with pytest.raises(ScheduleError) as caught:
        Cron("* * * * *", zone)

    assert why in str(caught.value)


def test_where_there_are_no_zones_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("zoneinfo.available_timezones", set)

    assert Cron("* * * * *").after(0) == 60
    with pytest.raises(ScheduleError, match="pip install tzdata"):
        Cron("* * * * *", "Mars/Olympus")


@pytest.mark.parametrize("seconds", [0, -1, 0.5, math.inf, math.nan, 1e12])
def test_a_wrong_interval_is_refused_with_the_right_ones(seconds):
    with pytest.raises(ScheduleError, match="give one from 1 s to 366 days"):
        Every(seconds)
