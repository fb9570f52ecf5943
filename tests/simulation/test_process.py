"""A simulated process stands still or dies as a real one does: all of it at once, and without noticing."""

import pytest
import trio
from trio.testing import MockClock

from chicory.testing.simulation.process import Gates, Process, current_process


@pytest.fixture
def run():
    def run(main):
        return trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[Gates()])

    return run


def started(nursery, work):
    process = Process(1, 0, "p", 0.0)
    process.context.run(nursery.start_soon, work)
    return process


def test_what_is_killed_cleans_nothing_up_until_nobody_looks(run):
    told = []

    async def child():
        try:
            await trio.sleep(10)
        finally:
            told.append("child")

    async def work():
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
        finally:
            told.append("parent")

    async def main():
        async with trio.open_nursery() as nursery:
            process = started(nursery, work)
            await trio.sleep(1)
            process.kill()
            await trio.sleep(100)
            assert told == []
            process.bury()
            nursery.cancel_scope.cancel()

    run(main)

    assert told == ["child", "parent"]


def test_what_stands_still_hears_late_of_what_happened_meanwhile(run):
    told = []

    async def work():
        await trio.sleep(2)
        told.append(trio.current_time())
        with trio.move_on_after(3):
            await trio.sleep(10)
        told.append(trio.current_time())

    async def main():
        async with trio.open_nursery() as nursery:
            process = started(nursery, work)
            await trio.sleep(1)
            process.pause()
            await trio.sleep(4)
            process.go_on()

    run(main)

    assert told == [5, 8]


def test_whatever_a_process_starts_belongs_to_it(run):
    found = []

    async def child():
        found.append(current_process())

    async def work():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    async def main():
        async with trio.open_nursery() as nursery:
            found.append(started(nursery, work))
            assert current_process() is None

    run(main)

    assert found[0] is found[1]
