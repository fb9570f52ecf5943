"""One simulation: real workers and schedulers on virtual time, the mishaps of a plan, and what is wrong afterwards."""

from collections.abc import Sequence
from functools import cache
from typing import cast, final

import attrs
import trio
from trio.lowlevel import RunVar
from trio.testing import MockClock

from chicory.app import Chicory
from chicory.backends.base import Backend
from chicory.backends.memory import MemoryBackend
from chicory.brokers.base import Settlement
from chicory.clock import asking, unix_now
from chicory.config import ChicoryConfig, WorkerConfig
from chicory.context import TaskContext
from chicory.errors import BrokerError
from chicory.retry import RetryPolicy
from chicory.testing.simulation.backend import NotedBackend, SimBackend
from chicory.testing.simulation.books import Books
from chicory.testing.simulation.broker import SimBroker
from chicory.testing.simulation.dice import rolled
from chicory.testing.simulation.fleet import Fleet
from chicory.testing.simulation.line import ANSWER_WITHIN, Line, Read
from chicory.testing.simulation.plan import HITS, PUBLISHER, Job, Plan
from chicory.testing.simulation.process import Gates, current_process
from chicory.testing.simulation.trace import Trace, silence
from chicory.testing.simulation.verdict import Run
from chicory.types import BrokerType, DeliveryMode, TaskMessage

# The unix second that virtual time begins at.
EPOCH = 1_800_000_000.0
LEASE = 30.0
QUEUE = "default"
# Seconds from the end of the last mishap in which everything is done: a lease and a keeper's patience may have to run
# out, suspects to wait for their turn, and then there is the load itself.
DONE_WITHIN = 600.0
# Seconds for which a stubborn task goes on when it is cancelled.
STUBBORN = 8.0


@attrs.frozen
class Report:
    """What is wrong, in a line each, and how it came to that.

    took: virtual seconds from the end of the last mishap until everything was done.
    """

    plan: Plan
    wrongs: Sequence[str]
    trace: Trace
    took: float


def perform(plan: Plan) -> Report:
    """Perform *plan*; the same plan goes the same way each time."""
    with rolled(plan.seed), silence(), asking(_now):
        clock = MockClock(autojump_threshold=0)
        return trio.run(World(plan).perform, clock=clock, instruments=[Gates()])


class JobFailed(Exception):
    """A run was to fail."""


@final
class World:
    """What *plan* is performed in, and the network of its broker."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._trace = Trace()
        self._books = Books(plan.concurrency)
        self._broker = SimBroker(self, lease=LEASE)
        self._backend = MemoryBackend()
        self._fleet: Fleet | None = None
        self._app = _app()
        self._sending = len(plan.jobs)
        self._cancelling = sum(job.cancelled is not None for job in plan.jobs)

    async def perform(self) -> Report:
        """Live through the plan, and judge."""
        _world.set(self)
        plan = self._plan
        worker = WorkerConfig(concurrency=plan.concurrency, prefetch=plan.prefetch, shutdown_timeout=10.0)
        backend = (NotedBackend if plan.noted else SimBackend)(self, self._backend, joined=plan.joined)
        with self._app.connected(self._broker, cast("Backend", backend), ChicoryConfig(worker=worker)):
            return await self._live()

    async def _live(self) -> Report:
        plan = self._plan
        async with trio.open_nursery() as nursery:
            self._fleet = fleet = Fleet(plan, self._books, self._trace, self._app, nursery, lease=LEASE)
            fleet.start()
            for number, job in enumerate(plan.jobs):
                nursery.start_soon(self._send, number, job)
                nursery.start_soon(self._cancel, number, job)
            await trio.sleep_until(calm_at(plan))
            fleet.calm()
            took = await self._done(fleet)
            await self._judge()
            # Before what is left of the dead is woken, to be cancelled.
            report = Report(plan, tuple(self._books.wrongs), self._trace, took)
            self._trace.close()
            fleet.bury()
            nursery.cancel_scope.cancel()
        return report

    # -- the network

    def line(self) -> Line:
        """See Network."""
        assert self._fleet is not None
        return self._fleet.line()

    def begin(self, read: Read) -> None:
        """See Network."""
        assert self._fleet is not None
        self._fleet.serve(read)

    def settled(self, settlement: Settlement, *, cancelled: bool) -> None:
        """See Network."""
        self._books.settled(settlement, unix_now(), cancelled=cancelled)

    def reclaimed(self, consumer: str) -> None:
        """See Network."""
        assert self._fleet is not None
        self._fleet.reclaimed(consumer)

    # -- the load

    async def _send(self, number: int, job: Job) -> None:
        await trio.sleep_until(job.at)
        mode = DeliveryMode.AT_MOST_ONCE if job.once else None
        message = TaskMessage(f"j{number}", name="work", args=[number], queue=QUEUE, delivery_mode=mode)
        self._books.send(message, unix_now() + job.delay, once=job.once)
        if not self._plan.joined:
            # As an app does whose backend is elsewhere.
            await self._backend.expect([message.id])
        while True:
            try:
                await self._broker.publish(message, delay=job.delay or None)
            except BrokerError:
                await trio.sleep(1.0)
            else:
                self._books.ack(message)
                self._sending -= 1
                return

    async def _cancel(self, number: int, job: Job) -> None:
        if job.cancelled is None:
            return
        await trio.sleep_until(job.at + job.cancelled)
        while True:
            try:
                self._trace.note(PUBLISHER, f"cancel j{number}")
                if await self._app.cancel(f"j{number}"):
                    self._books.cancel(f"j{number}")
            except BrokerError:
                await trio.sleep(1.0)
            else:
                self._cancelling -= 1
                return

    async def work(self, context: TaskContext, number: int) -> int:
        """Do what *number* of the plan's jobs does."""
        process, job = current_process(), self._plan.jobs[number]
        assert process is not None
        assert self._fleet is not None
        run = self._books.begin(context.message, context.deliveries, process.pid, unix_now())
        value = len(self._books.runs)
        self._trace.note(process, f"{run.id} begins ({run.count})")
        try:
            for seconds in job.steps:
                await trio.sleep(seconds)
            if job.poison:
                self._fleet.kill(process, "poison")
                await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            if job.stubborn:
                with trio.CancelScope(shield=True):
                    await trio.sleep(STUBBORN)
            self._end(run, "cut")
            raise
        self._end(run, "end")
        if context.retries < job.failures:
            raise JobFailed
        return value

    def _end(self, run: Run, how: str) -> None:
        self._trace.note(current_process(), f"{run.id}: {how}")
        self._books.end(run, how, unix_now())

    # -- the end

    async def _done(self, fleet: Fleet) -> float:
        """Wait until nothing is left to do; returns how long that took."""
        began = trio.current_time()
        while True:
            sizes = await self._broker.get_queue_sizes(QUEUE)
            left = (
                self._sending or self._cancelling or sizes.ready or sizes.delayed or sizes.delivered or self._books.busy
            )
            took = trio.current_time() - began
            if not left and fleet.whole:
                return took
            if took >= DONE_WITHIN:
                self._books.wrongs.append(f"not done after {took:g} s: {sizes}, workers {fleet.states()}")
                return took
            await trio.sleep(1.0)

    async def _judge(self) -> None:
        jobs = {f"j{number}": job for number, job in enumerate(self._plan.jobs)}
        results = await self._backend.fetch_many(list(jobs))
        poison = [task for task, job in jobs.items() if job.poison]
        self._books.judge(results, poison=poison, fenced=self._plan.joined)
        roads = await self._broker.counters(QUEUE)
        missing = roads["published"] - roads["done"] - roads["failed"] - roads["dead"]
        if missing != self._books.unheard():
            self._books.wrongs.append(f"the books do not close: {roads}")


_world: RunVar[World] = RunVar("chicory_world")


@cache
def _app() -> Chicory:
    """With the one task there is.  One is made for all simulations, because making it takes longer than most."""
    app = Chicory(BrokerType.MEMORY, retry_policy=RetryPolicy(max_retries=2, retry_delay=1.0))

    @app.task(name="work")
    async def work(context: TaskContext, number: int) -> int:
        return await _world.get().work(context, number)

    return app


def calm_at(plan: Plan) -> float:
    """The second after which nothing more is sent and nothing more goes wrong."""
    sent = max((job.at + (job.cancelled or 0.0) for job in plan.jobs), default=0.0)
    ends = [one.at + (ANSWER_WITHIN if one.what in HITS else one.lasting) for one in plan.mishaps]
    return max([sent, *ends])


def _now() -> float:
    return EPOCH + trio.current_time()
