"""In an asyncio loop: native, cancellable, and no surprise when one loop follows another."""

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading

import anyio
import pytest
import trio

from chicory.errors import UsageError
from chicory.outcome import Done
from tests.callers.callers import open_caller
from tests.contract.harness import receive, settle, worker

pytestmark = pytest.mark.kinds("redis")


@pytest.fixture
async def caller():
    async with open_caller("asyncio") as opened:
        yield opened


def sizes(server, app):
    with server.client() as client:
        return client.xlen(f"{app.broker.config.key_prefix}:stream:default")


def connected(server):
    """How many clients the server has, but for who asks."""
    with server.client() as client:
        return len(client.client_list()) - 1


def test_one_loop_follows_another_and_leaves_nothing_behind(make, server):
    app = make(server.url)
    before = connected(server)

    async def main():
        result = await app.tasks["add"].delay(1, 2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(result.get(), 0.01)

    for _ in range(3):
        asyncio.run(main())
        # A connection that was forgotten would warn now, and a warning is an error here.
        gc.collect()
        assert connected(server) == before

    assert sizes(server, app) == 3


def test_a_loop_that_is_run_by_hand_is_left_by_aclose(make, server):
    app = make(server.url)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(app.tasks["add"].send(1, 2))
    loop.run_until_complete(app.aclose())
    loop.close()

    asyncio.run(app.tasks["add"].send(1, 2))

    assert sizes(server, app) == 2


def test_loops_in_several_threads_do_not_meet(make, server):
    app = make(server.url)

    async def main():
        for _ in range(50):
            await app.tasks["add"].send(1, 2)

    threads = [threading.Thread(target=asyncio.run, args=[main()]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sizes(server, app) == 200


async def test_callers_at_once_share_a_connection_and_waiters_another(make, proxy, server, caller, broker):
    app = make(proxy.url)
    task = app.tasks["add"]

    async def publish_and_wait():
        results = await asyncio.gather(*[task.delay(number, 1) for number in range(100)])
        assert proxy.accepted == 1
        return await asyncio.gather(*[result.get(10) for result in results])

    got = []
    with server.client() as client:
        subscribed = len(client.client_list(_type="pubsub"))
    async with worker(broker) as consumer, trio.open_nursery() as nursery:

        async def call():
            got.extend(await caller.run(publish_and_wait))

        nursery.start_soon(call)
        first, *others = await receive(consumer, 100)
        with server.client() as client:
            while client.pubsub_numsub(f"{app.backend.keys.done}{others[-1].message.id}")[0][1] == 0:
                await trio.sleep(0.005)
            assert len(client.client_list(_type="pubsub")) - subscribed == 1
        for delivery in (first, *others):
            await settle(consumer, [delivery], Done(sum(delivery.message.args)))

    assert got == [number + 1 for number in range(100)]
    await caller.close(app)


async def test_a_call_cancelled_while_an_answer_is_owed_closes_its_connection(make, proxy, caller, broker):
    app = make(proxy.url)
    task = app.tasks["add"]
    await caller.send(task, 0, 0)
    proxy.blackhole(up=False)

    async def cancelled():
        call = asyncio.ensure_future(task.send(1, 1))
        waiting = asyncio.ensure_future(task.send(2, 2))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(call), 0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return waiting

    waiting = await caller.run(cancelled)
    proxy.heal()
    await caller.run(lambda: waiting)

    # The doubtful one went out again on a new connection, under its number, before the one that waited.
    assert proxy.accepted == 2
    assert (await broker.get_queue_sizes()).ready == 3
    await caller.close(app)


async def test_a_wait_that_is_cancelled_disturbs_nobody(make, server, caller, broker):
    app = make(server.url)
    result = await caller.delay(app.tasks["add"], 1, 2)

    async def two():
        first, second = asyncio.ensure_future(result.get()), asyncio.ensure_future(result.get())
        await asyncio.wait([first], timeout=0.1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return second

    second = await caller.run(two)
    async with worker(broker) as consumer:
        await settle(consumer, await receive(consumer, 1), Done(3))

    assert await caller.run(lambda: second) == 3
    await caller.close(app)


def test_a_thread_that_inherits_context_variables_is_no_loop(make, server):
    app = make(server.url)

    async def main():
        # AnyIO notes its library in a context variable, and asyncio hands those to its threads.
        await asyncio.to_thread(app.tasks["add"].send_sync, 1, 2)
        await app.tasks["add"].send(1, 2)

    anyio.run(main)
    app.close()

    assert sizes(server, app) == 2


async def test_looking_at_a_queue_works_too(make, server, caller):
    app = make(server.url)
    await caller.send(app.tasks["add"], 1, 2)

    assert (await caller.run(app.broker.get_queue_sizes)).ready == 1
    assert (await caller.run(app.broker.ping)).startswith("Redis 7.")
    assert await caller.run(app.broker.purge_queue) == 1
    await caller.close(app)


def test_a_call_in_a_loop_of_no_library_says_what_to_call(make, server):
    call = make(server.url).tasks["add"].delay(1, 2)

    with pytest.raises(UsageError, match=r"sync code calls delay_sync\(\), send_sync\(\)"):
        call.send(None)


def test_neither_world_loads_what_the_other_needs(server):
    program = textwrap.dedent(
        """
        import sys
        import chicory
        assert "trio" not in sys.modules and "asyncio" not in sys.modules
        from chicory import Chicory, Worker
        app = Chicory({url!r})

        @app.task(name="add")
        async def add(x: int, y: int) -> int:
            return x + y

        async def main():
            result = await add.delay(1, 2)
            await {work}
            await app.aclose()

        import {library}
        {library}.run(main{parentheses})
        assert ("asyncio" in sys.modules) is ({library!r} == "asyncio")
        assert not {{"redis", "aio_pika", "trio_asyncio"}} & set(sys.modules)
        """
    )
    for library, parentheses, work in (
        ("trio", "", "Worker(app, burst=True).run()"),
        ("asyncio", "()", "result.state()"),
    ):
        source = program.format(url=server.url, library=library, parentheses=parentheses, work=work)
        subprocess.run([sys.executable, "-W", "error", "-c", source], check=True)
