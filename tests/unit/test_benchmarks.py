"""The benchmarks compute right; how fast anything is, no test asks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.burst import Burst, judge
from benchmarks.figures import Figure, Target, interleaved, percentile
from benchmarks.proc import private_of, resident_of

values = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50)


def figure(ours, bare=(), target=None):
    return Figure(group="g", name="n", unit="/s", ours=ours, bare=bare, target=target)


def test_a_figure_is_the_median_of_its_rounds():
    measured = figure([10, 1000, 12], bare=[20, 30, 20])

    assert measured.our_median == 12
    assert measured.bare_median == 20


def test_the_ratio_is_the_median_of_the_rounds_ratios_so_a_slow_minute_does_not_count():
    # In the second and third round the whole machine was ten times slower.
    measured = figure([50, 5, 5], bare=[100, 10, 10])

    assert measured.ratio == 0.5


def test_without_a_bare_figure_there_is_no_ratio():
    assert figure([1]).ratio is None
    assert figure([1]).met is None


def test_rounds_that_have_no_counterpart_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        _ = figure([1, 2], bare=[1]).ratio


@pytest.mark.parametrize(
    ("target", "ours", "met"),
    [
        (Target(0.5), 50, True),
        (Target(0.5), 49, False),
        (Target(2, at_most=True), 200, True),
        (Target(2, at_most=True), 201, False),
        (Target(25, at_most=True, absolute=True), 25, True),
        (Target(25, at_most=True, absolute=True), 26, False),
    ],
)
def test_a_target_is_met_by_the_ratio_or_where_absolute_by_the_figure_itself(target, ours, met):
    assert figure([ours], bare=[100], target=target).met is met


def test_a_target_reads_as_what_it_asks():
    assert str(Target(0.45)) == "≥ 0.45 ×"
    assert str(Target(25, at_most=True, absolute=True)) == "≤ 25"


@given(values, st.floats(0.01, 1))
def test_a_percentile_is_one_of_the_values_and_so_many_do_not_exceed_it(measured, share):
    found = percentile(measured, share)

    assert found in measured
    assert sum(value <= found for value in measured) >= share * len(measured)
    assert sum(value < found for value in measured) < share * len(measured)


def test_the_99th_percentile_of_a_hundred_and_fifty_leaves_one_out():
    assert percentile(range(150), 0.99) == 148


def test_interleaved_runs_take_turns_and_keep_their_own_values():
    order = []

    def run(name, value):
        def once():
            order.append(name)
            return value

        return once

    assert interleaved(2, run("bare", 1.0), run("ours", 2.0)) == [[1.0, 1.0], [2.0, 2.0]]
    assert order == ["bare", "ours", "bare", "ours"]


def test_a_burst_is_judged_by_its_last_start_and_counts_what_must_not_be():
    started = [(0, 10.1), (1, 9.9), (2, 10.4), (2, 10.2)]

    assert judge(started, due=10.0, count=5) == Burst(pytest.approx(0.4), early=1, twice=1, never=2)


def test_private_memory_leaves_shared_pages_out_and_resident_memory_does_not():
    text = "\n".join(
        [
            "55d0-7ffc ---p 00000000 00:00 0    [rollup]",
            "Rss:               20000 kB",
            "Pss:               11000 kB",
            "Shared_Clean:       9000 kB",
            "Private_Clean:       100 kB",
            "Private_Dirty:       900 kB",
        ]
    )

    assert private_of(text) == 1000 * 1024
    assert resident_of(text) == 20000 * 1024
