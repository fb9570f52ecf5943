"""Which runs are abandoned, and when somebody looks again."""

from hypothesis import given
from hypothesis import strategies as st

from chicory.worker.overtime import TICK, overdue

instants = st.floats(-1000, 1000)
graces = st.floats(0.001, 100)
# Sums of floats, taken in another order.
NEARLY = 1e-6


@given(ends=st.dictionaries(st.integers(), instants), grace=graces, now=instants)
def test_a_run_is_abandoned_once_the_grace_after_its_end_is_over_and_not_before(ends, grace, now):
    late, _ = overdue(ends, grace, now)

    assert set(late) == {receipt for receipt, end in ends.items() if end + grace <= now}
    assert [ends[receipt] for receipt in late] == sorted(ends[receipt] for receipt in late)


@given(ends=st.dictionaries(st.integers(), instants), grace=graces, now=instants, begins=graces, limit=graces)
def test_no_run_is_abandoned_later_than_a_tick_after_its_time(ends, grace, now, begins, limit):
    late, again = overdue(ends, grace, now)

    assert again >= now + TICK
    waiting = [end + grace for receipt, end in ends.items() if receipt not in late]
    # One that begins before the next look is no exception.
    for due in (*waiting, now + begins + limit + grace):
        assert again <= max(due, now + TICK) + NEARLY


def test_with_nothing_to_look_at_somebody_looks_once_a_grace():
    assert overdue({}, 10.0, 100.0) == ([], 110.0)
