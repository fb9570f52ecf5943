"""What trio alone can await, called from any thread, loop and fork: the process's own trio thread does it."""

import asyncio
import contextvars
import gc
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio
import trio.testing

from chicory import gather_sync
from chicory.errors import ResultTimeout, ResultUnknown
from chicory.links import trio_thread
from chicory.links.executor import CALLERS
from chicory.links.sync_executor import finish
from chicory.links.trio_thread import on_trio
from chicory.outcome import Done
from chicory.types import TaskState
from tests.callers.forks import in_a_child
from tests.contract.harness import finish_all, receive, settle, worker

pytestmark = pytest.mark.kinds("sqlite", "rabbitmq")


class Desk:
    """What only trio can await."""

    callers = CALLERS

    def __init__(self):
        self.begun = threading.Event()
        self.cancelled = threading.Event()
        self.ends = 0

    @on_trio
    async def rest(self):
        self.begun.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()

    @on_trio
    async def read(self, variable):
        await trio.lowlevel.checkpoint()
        return variable.get(), threading.get_ident()

    @on_trio
    async def leave(self):
        raise SystemExit

    @on_trio
    async def crash(self):
        async def spoil():
            raise ValueError

        trio.lowlevel.spawn_system_task(spoil)
        await trio.sleep_forever()

    async def aclose(self):
        await trio_thread.closed(self, self._close)

    async def _close(self):
        self.ends += 1


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def app(make, ground):
    app = make(ground.url)
    yield app
    app.close()


async def there(broker, expected):
    """The ids of the calls that have come, each of them once."""
    found = [one.message.id for one in await finish_all(broker, expected=expected)]
    assert len(set(found)) == expected
    return set(found)


def test_on_trio_itself_no_thread_is_begun(tmp_path):
    program = textwrap.dedent(
        f"""
        import threading, trio
        from chicory import Chicory
        app = Chicory(backend="sqlite:///{tmp_path}/results.db")
        trio.run(app.backend.fetch, "x")
        trio.run(app.aclose)
        app.close()
        assert not [one for one in threading.enumerate() if one.name == "chicory trio"]
        app.result("x").state_sync()
        assert [one for one in threading.enumerate() if one.name == "chicory trio"]
        """
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_a_call_has_the_context_of_its_caller_and_one_thread_serves_all(desk):
    variable = contextvars.ContextVar("variable")
    told = []

    def call(number):
        variable.set(number)
        return finish(desk.read(variable), "")

    async def main():
        variable.set("loop")
        return await desk.read(variable)

    with ThreadPoolExecutor(4) as threads:
        told += threads.map(call, range(8))
    told.append(asyncio.run(main()))

    assert [value for value, _ in told] == [*range(8), "loop"]
    assert len({ident for _, ident in told}) == 1
    assert threading.get_ident() not in {ident for _, ident in told}


def test_a_cancelled_await_ends_what_it_waits_for(desk):
    async def main():
        call = asyncio.ensure_future(desk.rest())
        await asyncio.to_thread(desk.begun.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert desk.cancelled.is_set()

    asyncio.run(main())


def test_a_call_that_is_dropped_ends_what_it_waits_for(desk):
    async def main():
        call = desk.rest()
        call.send(None)
        await asyncio.to_thread(desk.begun.wait)
        call.close()

    asyncio.run(main())

    assert desk.cancelled.wait(5)


def test_what_is_shared_is_closed_by_the_last_who_leaves(desk):
    async def main():
        call = asyncio.ensure_future(desk.rest())
        await asyncio.to_thread(desk.begun.wait)
        await desk.aclose()
        assert desk.ends == 0
        call.cancel()
        await asyncio.wait([call])
        # Comes after that, in the same thread.
        await desk.read(contextvars.ContextVar("none", default=0))

    asyncio.run(main())
    assert desk.ends == 1
    finish(desk.aclose(), "")
    assert desk.ends == 2


def test_what_a_call_raises_is_its_own(desk):
    with pytest.raises(SystemExit):
        finish(desk.leave(), "")

    assert not trio_thread._current.over


def test_a_thread_that_breaks_says_so_and_another_begins(desk, caplog):
    variable = contextvars.ContextVar("variable", default=1)
    finish(desk.read(variable), "")
    broken = trio_thread._current

    with pytest.raises(RuntimeError, match="the log says why"):
        finish(desk.crash(), "")

    assert "the next call begins another" in caplog.text
    assert finish(desk.read(variable), "")[0] == 1
    assert trio_thread._current is not broken


async def test_threads_call_at_once_and_nothing_is_lost_or_doubled(app, broker):
    task = app.tasks["add"]

    def work(_):
        return [task.delay_sync(number, 1) for number in range(10)]

    def run():
        with ThreadPoolExecutor(8) as threads:
            return [one for some in threads.map(work, range(8)) for one in some]

    sent = await trio.to_thread.run_sync(run)

    assert await there(broker, 80) == {one.id for one in sent}
    assert await trio.to_thread.run_sync(gather_sync, sent, 10) == [None] * 80


async def test_threads_and_loops_wait_for_their_own_at_once(app, broker):
    task = app.tasks["add"]

    def wait(number):
        return task.delay_sync(number, 1).get_sync(10)

    async def await_it(number):
        return await (await task.delay(number, 1)).get(10)

    def run():
        with ThreadPoolExecutor(8) as threads:
            sync = [threads.submit(wait, number) for number in range(4)]
            loops = [threads.submit(asyncio.run, await_it(number)) for number in range(4, 8)]
            return [one.result() for one in sync + loops]

    got = []
    with trio.fail_after(15):
        async with worker(broker) as consumer, trio.open_nursery() as nursery:

            async def call():
                got.extend(await trio.to_thread.run_sync(run))

            nursery.start_soon(call)
            for delivery in await receive(consumer, 8):
                await settle(consumer, [delivery], Done(sum(delivery.message.args)))

    assert got == [*range(1, 9)]


async def test_a_child_after_a_fork_calls_on_connections_of_its_own(app, broker, ground):
    task = app.tasks["add"]
    result = await trio.to_thread.run_sync(task.delay_sync, 0, 0)

    def child():
        for _ in range(5):
            assert task.delay_sync(1, 2).state_sync() is TaskState.PENDING
        with pytest.raises(ResultUnknown if "keeping" in ground.cannot else ResultTimeout):
            result.get_sync(0.01)
        app.close()

    assert await trio.to_thread.run_sync(in_a_child, child) == 0
    # What the parent has still works: the child closed its own ends alone.
    await trio.to_thread.run_sync(task.send_sync, 2, 2)
    await there(broker, 7)

    assert await trio.to_thread.run_sync(result.get_sync, 5) is None


@pytest.mark.kinds("redis", "rabbitmq", "sqlite")
async def test_a_child_may_run_trio_though_its_parent_does(app, broker):
    task = app.tasks["add"]
    result = await task.delay(1, 2)

    async def call():
        with trio.fail_after(10):
            assert await (await task.delay(3, 4)).state() is TaskState.PENDING
            await app.aclose()

    def child():
        # Trio warns of another run that seems to listen for signals, and that is the parent's.
        signal.set_wakeup_fd(-1)
        trio.run(call)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(result.get, 10)
        await trio.testing.wait_all_tasks_blocked()
        assert await trio.to_thread.run_sync(in_a_child, child) == 0
        await task.send(5, 6)
        await there(broker, 3)
    await app.aclose()


async def test_a_fork_while_other_threads_call_finds_nothing_locked(app, broker):
    task = app.tasks["add"]
    stop = threading.Event()
    sent = []

    def work():
        while not stop.is_set():
            sent.append(task.delay_sync(1, 2).id)

    def run():
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            return [in_a_child(lambda: [task.delay_sync(3, 4) for _ in range(2)]) for _ in range(3)]
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    assert await trio.to_thread.run_sync(run) == [0] * 3
    assert await there(broker, len(sent) + 6) > set(sent)


async def test_one_loop_follows_another(app, broker):
    async def send():
        return await app.tasks["add"].delay(1, 2)

    async def get(result):
        return await result.get(5)

    def run():
        results = [asyncio.run(send()) for _ in range(3)]
        # A connection that was forgotten would warn now, and a warning is an error here.
        gc.collect()
        return results

    results = await trio.to_thread.run_sync(run)
    assert await there(broker, 3) == {result.id for result in results}

    assert [await trio.to_thread.run_sync(lambda one=one: asyncio.run(get(one))) for one in results] == [None] * 3


@pytest.mark.kinds("rabbitmq")
async def test_a_cancelled_publish_ends_at_once_and_disturbs_nobody(make, proxy, broker):
    app = make(proxy.url)
    task = app.tasks["add"]
    cancelled = threading.Event()

    async def main():
        await task.send(0, 0)
        # What RabbitMQ says does not arrive any more, so neither call is confirmed.
        proxy.blackhole(up=False)
        call, other = asyncio.ensure_future(task.send(1, 1)), asyncio.ensure_future(task.send(2, 2))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(call), 0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        cancelled.set()
        await other
        await app.aclose()

    async def heal():
        await trio.to_thread.run_sync(cancelled.wait)
        proxy.heal()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heal)
            await trio.to_thread.run_sync(asyncio.run, main())

    # The doubtful one had arrived.
    assert len(await finish_all(broker, expected=3)) == 3
    assert proxy.accepted == 2  # publishing, and replies


@pytest.mark.kinds("rabbitmq")
async def test_the_server_is_answered_while_nobody_calls(make, ground):
    app = make(ground.url, heartbeat=1)
    await trio.to_thread.run_sync(app.tasks["add"].options(ignore_result=True).send_sync, 1, 2)
    connection = app.broker._ends._own.publisher._line.connection
    wrote = connection.wrote

    with trio.fail_after(5):
        while connection.wrote == wrote:
            await trio.sleep(0.01)

    assert not connection.closed
    await trio.to_thread.run_sync(app.close)


@pytest.mark.kinds("rabbitmq")
def test_looking_at_a_queue_works_from_a_loop(app):
    async def main():
        broker = app.broker
        sent = await app.tasks["add"].send(1, 2)
        assert (await broker.ping()).startswith("RabbitMQ")
        assert (await broker.healthcheck()).ok
        assert await broker.get_queue_size() == 1
        assert await broker.get_consumer_count() == 0
        assert (await broker.counters())["published"] == 1
        assert await broker.get_dlq_messages() == []
        assert not await broker.replay_from_dlq(sent)
        assert (await broker.timetable().look([])).known == {}
        assert await broker.purge_queue() == 1
        assert await broker.examine() is not None

    asyncio.run(main())


@pytest.mark.kinds("rabbitmq")
async def test_by_rpc_trio_and_all_others_have_a_queue_each(app):
    task = app.tasks["add"]
    on_trio_sent, by_others = await task.delay(1, 2), await trio.to_thread.run_sync(task.delay_sync, 1, 2)

    assert await trio.to_thread.run_sync(on_trio_sent.state_sync) is TaskState.UNKNOWN
    assert await by_others.state() is TaskState.UNKNOWN
    await app.aclose()


@pytest.mark.kinds("rabbitmq")
async def test_by_aio_pika_too(make, ground, broker):
    app = make(ground.url, data_path="aio-pika")
    result = await trio.to_thread.run_sync(app.tasks["add"].delay_sync, 1, 2)
    async with worker(broker) as consumer:
        await settle(consumer, await receive(consumer, 1), Done(3))

    assert await trio.to_thread.run_sync(result.get_sync, 10) == 3
    await trio.to_thread.run_sync(app.close)


def test_a_program_ends_without_a_word_though_it_closes_nothing(ground):
    program = ground.program(
        """
        import threading
        kept = [add.delay_sync(1, 2)]
        threading.Thread(target=kept[0].get_sync, daemon=True).start()
        """
    )
    told = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "always", "-c", program], capture_output=True, text=True, check=True
    )

    assert told.stderr == ""
