"""The back-off of a slot."""

from hypothesis import given
from hypothesis import strategies as st

from chicoryd.respawn import HEALTHY, failures, pause

counts = st.integers(1, 10_000)
draws = st.floats(0, 1, exclude_max=True)


def test_the_pauses_are_0_1_2_4_and_so_on_up_to_60():
    assert [pause(count, 0.5) for count in range(1, 11)] == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


@given(counts, draws)
def test_jitter_is_a_fifth_either_way(count, draw):
    middle = pause(count, 0.5)

    assert 0.8 * middle <= pause(count, draw) <= 1.2 * middle


@given(counts, draws)
def test_a_pause_never_shrinks_with_more_deaths(count, draw):
    assert pause(count, draw) <= pause(count + 1, draw)


@given(st.integers(0, 10_000), st.floats(0, 1e6))
def test_only_a_healthy_life_resets_the_count(before, lived):
    assert failures(before, lived) == (1 if lived >= HEALTHY else before + 1)
