"""Many simulations, in several processes."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from chicory.testing.simulation.plan import Plan, plan
from chicory.testing.simulation.shrink import shrink
from chicory.testing.simulation.world import Report, perform

# Seeds that a process takes at a time.
BATCH = 50


def failing(seeds: Sequence[int], processes: int) -> Iterator[int]:
    """Those of *seeds* whose plans fail."""
    batches = [seeds[start : start + BATCH] for start in range(0, len(seeds), BATCH)]
    # Spawned, for whoever calls may have threads.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(_failing, batches):
            yield from found


def _failing(seeds: Sequence[int]) -> list[int]:
    return [seed for seed in seeds if perform(plan(seed)).wrongs]


def smallest(report: Report) -> Report:
    """That of a small plan that goes wrong in one of the ways that *report* tells of."""
    ways = {_way(wrong) for wrong in report.wrongs}
    return perform(shrink(report.plan, partial(_goes_wrong, ways)))


def _goes_wrong(ways: set[str], smaller: Plan) -> bool:
    return any(_way(wrong) in ways for wrong in perform(smaller).wrongs)


def _way(wrong: str) -> str:
    """What is wrong, without who it happened to: that may have another name in another plan."""
    return " ".join(word for word in wrong.split() if word.isalpha())
