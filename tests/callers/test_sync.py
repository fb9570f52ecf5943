"""In plain threads: any thread, any process, and never in the way of a loop."""

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from chicory import BrokerType, Chicory, ChicoryConfig
from chicory.config import BrokerConfig, RedisBrokerConfig
from chicory.errors import BrokerUnavailable, ResultTimeout, UsageError
from chicory.testing import running_worker
from tests.callers.forks import in_a_child

pytestmark = pytest.mark.kinds("redis")


@pytest.fixture
def app(make, server):
    app = make(server.url)
    yield app
    app.close()


def ids(server, app):
    """The ids of what waits in the queue, as the server has them."""
    with server.client() as client:
        entries = client.xrange(f"{app.broker.config.key_prefix}:stream:default")
    return [fields[b"task_id"].decode() for _, fields in entries]


def there(server, app):
    """How many there are."""
    return len(ids(server, app))


def connected(server):
    with server.client() as client:
        return len(client.client_list()) - 1


def test_threads_send_at_once_and_nothing_is_lost_or_doubled(app, server):
    task = app.tasks["add"]

    def work(_):
        return [task.send_sync(number, 1) for number in range(200)]

    before = connected(server)
    with ThreadPoolExecutor(8) as threads:
        sent = [one for some in threads.map(work, range(8)) for one in some]
        assert connected(server) - before <= 8

    arrived = ids(server, app)
    assert len(arrived) == 1600
    assert set(arrived) == set(sent)


def test_threads_that_come_and_go_use_the_connections_of_those_before(app, server):
    before = connected(server)

    for _ in range(20):
        thread = threading.Thread(target=app.tasks["add"].send_sync, args=[1, 2])
        thread.start()
        thread.join()

    assert there(server, app) == 20
    assert connected(server) == before + 1


def test_a_child_after_a_fork_sends_on_connections_of_its_own(app, server):
    task = app.tasks["add"]
    result = task.delay_sync(0, 0)
    with pytest.raises(ResultTimeout):
        result.get_sync(0.01)

    def child():
        for number in range(50):
            task.send_sync(number, 1)
        with pytest.raises(ResultTimeout):
            task.delay_sync(1, 2).get_sync(0.01)
        app.close()

    assert in_a_child(child) == 0
    # What the parent has still works: the child closed its own ends alone.
    before = connected(server)
    task.send_sync(2, 2)

    assert connected(server) == before
    assert there(server, app) == 53


def test_a_fork_while_other_threads_send_finds_nothing_locked(app, server):
    task = app.tasks["add"]
    stop = threading.Event()
    sent = []

    def work():
        while not stop.is_set():
            sent.append(task.send_sync(1, 2))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        codes = [in_a_child(lambda: [task.send_sync(3, 4) for _ in range(20)]) for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert codes == [0] * 5
    assert there(server, app) == len(sent) + 100


def test_a_loop_is_never_stopped_by_a_sync_call(app):
    async def call():
        app.tasks["add"].delay_sync(1, 2)

    for run in (asyncio.run, lambda main: trio.run(lambda: main)):
        with pytest.raises(UsageError, match=r"would stop the (trio|asyncio) loop.*await delay\(\)"):
            run(call())


def test_a_call_within_a_call_has_a_place_of_its_own(app, server):
    """As when a signal's handler sends something while its thread waits for a result."""
    task = app.tasks["add"]
    result = task.delay_sync(1, 2)
    signals = []

    def handler(*_):
        signals.append(task.send_sync(3, 4))

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(ResultTimeout):
            result.get_sync(0.3)
    finally:
        signal.signal(signal.SIGALRM, previous)

    assert ids(server, app) == [result.id, *signals]
    assert len(signals) == 1


async def test_a_call_that_is_interrupted_leaves_no_answer_to_the_next(make, proxy, server):
    app = make(proxy.url)
    task = app.tasks["add"]
    await trio.to_thread.run_sync(task.send_sync, 0, 0)
    proxy.blackhole(up=False)

    class Interrupt(BaseException):
        pass

    def handler(*_):
        raise Interrupt

    def program():
        # Signals reach the main thread alone, and that is trio's here; so the program is a child.
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupt):
            task.send_sync(1, 1)
        task.delay_sync(2, 2)

    async with trio.open_nursery() as nursery:

        async def heal():
            # The next connection is the one that the child opens after it was interrupted.
            while proxy.accepted < 3:
                await trio.sleep(0.01)
            proxy.heal()

        nursery.start_soon(heal)
        assert await trio.to_thread.run_sync(in_a_child, program) == 0
    assert there(server, app) == 3
    await trio.to_thread.run_sync(app.close)


async def test_a_sync_task_may_call_another_from_its_thread(make, server):
    app = make(server.url)

    @app.task(name="both")
    def both(x: int) -> int:
        return app.tasks["add"].delay_sync(x, 1).get_sync(10) * 2

    async with app, running_worker(app, concurrency=2):
        assert await (await both.delay(20)).get(10) == 42
    await trio.to_thread.run_sync(app.close)


def test_nobody_there_is_told_with_the_remedy(tmp_path):
    said = BrokerConfig(state_dir=str(tmp_path), redis=RedisBrokerConfig(publish_timeout=0.1))
    app = Chicory(BrokerType.EMBEDDED, config=ChicoryConfig(broker=said))

    @app.task(name="work")
    def work() -> None: ...

    with pytest.raises(BrokerUnavailable, match="start one with: chicoryd start"):
        work.send_sync()


def test_a_program_ends_without_a_word_though_it_closes_nothing(server):
    program = textwrap.dedent(
        f"""
        from chicory import Chicory
        app = Chicory({server.url!r})

        @app.task(name="add")
        async def add(x: int, y: int) -> int:
            return x + y

        kept = [add.delay_sync(1, 2)]
        """
    )
    told = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "always", "-c", program], capture_output=True, text=True, check=True
    )

    assert told.stderr == ""
