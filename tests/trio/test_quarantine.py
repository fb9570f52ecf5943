"""Messages whose workers died: they get one last run, alone, and nobody is blamed for a neighbour."""

import pytest
import trio

from chicory import DeliveryMode
from chicory.config import evolve
from chicory.scheduler.scheduler import Scheduler
from chicory.testing import running_worker
from chicory.worker.quarantine import PATIENCE
from chicory.worker.worker import Worker
from tests.trio.books import close_books


async def crashed(app, messages, times):
    """*messages* in their queue again after *times* workers died with all of them."""
    await app.publish_many(messages)
    async with app.broker.keeper(["default"]) as keeper:
        for number in range(times):
            name = f"{messages[0].id}-{number}"
            async with app.broker.consumer(["default"], name=name, limit=len(messages)) as consumer:
                assert len(await consumer.receive(len(messages))) == len(messages)
                await keeper.reclaim(dead=name, why="killed by SIGSEGV", most=3)


class Runs:
    """What ran when."""

    def __init__(self, app):
        self.spans = {}

        @app.task(name="work")
        async def work(word: str, seconds: float) -> None:
            began = trio.current_time()
            await trio.sleep(seconds)
            assert word not in self.spans
            self.spans[word] = (began, trio.current_time())

        self.work = work

    def beside(self, word):
        """The others that ran at the same time."""
        began, ended = self.spans[word]
        return {other for other, span in self.spans.items() if other != word and span[0] < ended and began < span[1]}


@pytest.fixture
def runs(app):
    return Runs(app)


async def dead(app):
    return [letter.error for letter in await app.broker.get_dlq_messages()]


async def test_a_suspect_runs_alone_and_then_all_goes_on(autojump_clock, app, books, runs):
    words = [f"before-{number}" for number in range(3)]
    await app.publish_many([runs.work.message(word, 10) for word in words])

    async with running_worker(app, concurrency=4) as worker:
        await worker.busy(3)
        await crashed_while(app, worker, [runs.work.message("suspect", 10)])
        await worker.busy(1)
        await app.publish_many([runs.work.message(f"after-{number}", 10) for number in range(3)])
        await worker.settled(7)

    assert runs.beside("suspect") == set()
    assert runs.beside("before-0") == set(words[1:])
    assert runs.beside("after-0") == {"after-1", "after-2"}
    assert await dead(app) == []


async def crashed_while(app, worker, messages):
    """As `crashed`, while *worker* fetches nothing."""
    worker.quiet()
    await trio.testing.wait_all_tasks_blocked()
    await crashed(app, messages, 2)
    worker.resume()


async def test_innocents_that_shared_every_death_run_one_by_one_and_none_is_dead(autojump_clock, app, books, runs):
    words = [str(number) for number in range(8)]
    await crashed(app, [runs.work.message(word, 5) for word in words], 2)

    async with running_worker(app, concurrency=4, prefetch=4) as one, running_worker(app, concurrency=4) as other:
        await trio.sleep(8 * 5 + 10)
        assert len(runs.spans) == 8
        assert one.report()["done"] + other.report()["done"] == 8
        # Two workers share them, so nobody waits for all the others.
        assert max(ended for _, ended in runs.spans.values()) < 8 * 5

    assert max(len(runs.beside(word)) for word in words) <= 1
    assert await dead(app) == []


async def test_a_death_while_a_suspect_waits_is_not_its_fault(autojump_clock, app, runs):
    await crashed(app, [runs.work.message("suspect", 1)], 2)
    scheduler = Scheduler(app.broker, ["default"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        for number in range(5):
            async with app.broker.consumer(["default"], name=f"doomed-{number}", limit=1) as consumer:
                (delivery,) = await consumer.receive(1)
                assert delivery.count == 3
                scheduler.died(f"doomed-{number}", "killed")
                await scheduler.buried()
        nursery.cancel_scope.cancel()

    async with running_worker(app) as worker:
        await worker.settled(1)

    assert set(runs.spans) == {"suspect"}
    assert await dead(app) == []
    await close_books(app)


async def test_a_death_while_it_runs_alone_is_its_fault(autojump_clock, app, books, runs):
    poison = runs.work.message("poison", 500)
    neighbours = [runs.work.message(str(number), 1) for number in range(3)]
    await crashed(app, [poison, *neighbours], 2)
    scheduler = Scheduler(app.broker, ["default"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        # Stands for a process that dies: it says nothing any more, and then it is cancelled.
        doomed = Worker(app, evolve(app.config.worker, concurrency=4), name="doomed", clock=trio.current_time)
        nursery.start_soon(doomed.run)
        await doomed.busy()  # the poison was published first
        await trio.sleep(10)
        assert (doomed.running, runs.spans) == (1, {})
        scheduler.died("doomed", "killed by SIGSEGV")
        await scheduler.buried()
        with trio.fail_after(60):
            while len(runs.spans) < 3 or await app.broker.get_dlq_count() == 0:
                await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert set(runs.spans) == {"0", "1", "2"}
    (error,) = await dead(app)
    assert error == "WorkerLost: delivered 3 times, and each time its worker died: killed by SIGSEGV"


async def test_with_one_delivery_any_death_counts(autojump_clock, app, books, runs):
    await app.publish(runs.work.message("once", 1))
    scheduler = Scheduler(app.broker, ["default"], max_deliveries=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        async with app.broker.consumer(["default"], name="doomed", limit=1) as consumer:
            await consumer.receive(1)
            scheduler.died("doomed", "killed")
            await scheduler.buried()
        nursery.cancel_scope.cancel()

    async with running_worker(app, max_deliveries=1) as worker:
        await worker.settled(1)

    assert runs.spans == {}
    assert len(await dead(app)) == 1


async def test_a_suspect_does_not_wait_for_ever_for_a_long_neighbour(autojump_clock, app, books, runs):
    async with running_worker(app, concurrency=4) as worker:
        await app.publish(runs.work.message("long", 1000))
        await worker.busy()
        await crashed_while(app, worker, [runs.work.message("suspect", 1)])
        await trio.sleep(1)
        assert (worker.running, worker.held) == (1, 2)
        start = trio.current_time()
        async with running_worker(app, scheduler=False) as other:
            # It is given back when patience ends, and then whoever is idle may have it.
            await other.settled(1)
        assert trio.current_time() - start == pytest.approx(PATIENCE, abs=2)

    assert set(runs.spans) == {"suspect"}


async def test_a_worker_whose_neighbours_are_always_long_gets_to_its_suspect(autojump_clock, app, books, runs):
    async with running_worker(app, concurrency=3) as worker:
        await app.publish(runs.work.message("long", 200))
        await worker.busy()
        await crashed_while(app, worker, [runs.work.message("suspect", 1)])
        await trio.sleep(1)
        await app.publish(runs.work.message("other", 1))
        # It waits for 30 s and 60 s in vain, each time the others then run for as long, and the third time is enough.
        await worker.settled(5)

    assert worker.report()["release"] == 2
    assert runs.spans["other"][0] == pytest.approx(PATIENCE, abs=2)
    assert runs.spans["suspect"][0] == pytest.approx(200, abs=2)
    assert runs.beside("suspect") == set()


@pytest.mark.parametrize("started", [False, True])
async def test_a_stop_gives_a_suspect_back_or_lets_it_finish(autojump_clock, app, books, runs, started):
    async with running_worker(app, concurrency=4, scheduler=False) as worker:
        await app.publish(runs.work.message("neighbour", 5))
        await worker.busy()
        await crashed_while(app, worker, [runs.work.message("suspect", 10)])
        await trio.sleep(7 if started else 1)
        assert worker.running == 1
        worker.stop()

    sizes = await app.broker.get_queue_sizes()
    assert sizes.ready == (0 if started else 1)
    assert [task["end"] for task in worker.drained()] == ["finished"]
    assert set(runs.spans) == ({"neighbour", "suspect"} if started else {"neighbour"})


async def test_an_at_most_once_suspect_runs_alone_too(autojump_clock, app, books, runs):
    @app.task(name="metric", delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def metric() -> None:
        began = trio.current_time()
        await trio.sleep(1)
        runs.spans["metric"] = (began, trio.current_time())

    await crashed(app, [metric.message(), runs.work.message("other", 1)], 2)
    async with running_worker(app) as worker:
        await worker.settled(3)

    assert set(runs.spans) == {"metric", "other"}
    assert runs.beside("metric") == set()


async def test_a_quarantine_is_told(autojump_clock, app, runs, caplog):
    message = runs.work.message("suspect", 1)
    await crashed(app, [message], 2)
    async with running_worker(app) as worker:
        await worker.settled(1)

    (told,) = [text for text in caplog.messages if "alone" in text]
    assert told == f"work ({message.id}) was in flight when 2 workers died (the last: killed by SIGSEGV); it runs alone"
