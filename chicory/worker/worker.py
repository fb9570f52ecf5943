"""Worker: runs the tasks of an app until it is told to stop."""

import itertools
import logging
import os
import secrets
import socket
from collections.abc import Callable
from typing import Any, final

import trio

from chicory.app import Chicory
from chicory.backends.base import Notable
from chicory.brokers.base import Delivery, next_life
from chicory.config import WorkerConfig
from chicory.errors import BrokerError, LeaseLost, LifespanError
from chicory.groups import sole
from chicory.outage import Outage, Pace
from chicory.process import Memory
from chicory.scheduler.cleaning import clean
from chicory.scheduler.scheduler import Scheduler
from chicory.types import Health, TaskMessage
from chicory.worker.burst import stop_when_empty
from chicory.worker.children import refuse_children
from chicory.worker.drain import Drain
from chicory.worker.fetch import Gate
from chicory.worker.flavors import Flavors
from chicory.worker.holdings import Tally
from chicory.worker.lease import boottime
from chicory.worker.life import Life
from chicory.worker.plan import Catalog
from chicory.worker.session import Session, Terms
from chicory.worker.sight import Sight

log = logging.getLogger("chicory.worker")

# Tasks that a beat names; the others it only counts.
NAMED = 20


@final
class Worker:
    """A worker of *app*.

    config: its settings; None is the app's.
    scheduler: whether it also does the scheduler's work; any number may.
    burst: stop when the queues are empty.
    name: of the first lease; never to be used again.
    clock: seconds that leases are measured by.
    leave: called with the number of runs that do not end although they were cancelled; 0 when those alone do not that
        were abandoned.  A process should exit there, so that they end with it.  None waits for them.
    catalog: makes what says how each task is run.
    """

    def __init__(
        self,
        app: Chicory,
        config: WorkerConfig | None = None,
        *,
        scheduler: bool = True,
        burst: bool = False,
        name: str | None = None,
        clock: Callable[[], float] = boottime,
        leave: Callable[[int], None] | None = None,
        catalog: Callable[[Chicory, WorkerConfig, Flavors], Catalog] = Catalog,
    ) -> None:
        self.app = app
        self.config = config or app.config.worker
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._scheduler = scheduler
        self._burst = burst
        self._clock = clock
        self._leave = leave or _wait_for
        self.flavors = Flavors()
        self._catalog = catalog
        self._life = Life(app, self.flavors, limit=self._time_to_leave)
        self._patience = trio.CancelScope(shield=True)
        self._stop_by = float("-inf")
        self._tally = Tally()
        self._gate = Gate()
        self._drain = Drain()
        self._sight = Sight()
        self._memory = Memory()
        self._grace = self.config.shutdown_timeout
        self._outage = Outage(Pace.of(app.config.broker.server), over=self._doubt)
        self._session: Session | None = None
        self._nursery: trio.Nursery | None = None
        self._joining: trio.CancelScope | None = None
        self._served = False
        self._stopping = False
        self._hurried = False

    async def run(self) -> None:
        """Work until `stop()`, then until what runs has ended or its time is over.

        Cancelling ends it too, without the time to finish: what runs is given back.
        Raises LifespanError when a lifespan of the app fails, UsageError when this system cannot run its tasks, and
        BrokerUnavailable or BrokerRefused at the start when `require_broker` is set; else it tries on.
        """
        refuse_children(self.app)
        refused: BrokerError | LifespanError | None = None
        async with trio.open_nursery() as nursery:
            if self._scheduler:
                scheduler = Scheduler(
                    self.app.broker,
                    self.config.consumed,
                    app=self.app,
                    max_deliveries=self.config.max_deliveries,
                    outage=self._outage,
                )
                nursery.start_soon(scheduler.run)
                nursery.start_soon(clean, self.app.backend)
            if self._burst:
                nursery.start_soon(stop_when_empty, self)
            self._nursery = nursery
            try:
                await self._life.live(self._serve)
            except (BrokerError, LifespanError) as error:
                refused = error
            finally:
                await self._close_flavors()
                self._patience.cancel()
            nursery.cancel_scope.cancel()
        if refused is not None:
            raise refused
        log.info("worker %s ended: %s", self.name, " ".join(f"{key}={count}" for key, count in self.report().items()))

    async def start(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """`run` for `await nursery.start(worker.start)`, which returns when the worker takes messages."""
        async with trio.open_nursery() as nursery:

            async def tell() -> None:
                await self.joined()
                task_status.started()

            nursery.start_soon(tell)
            await self.run()
            nursery.cancel_scope.cancel()

    def stop(self, grace: float | None = None) -> None:
        """Fetch no more, give back what has not started, let what runs finish within `shutdown_timeout`.

        grace: seconds instead, where that is shorter; asked again, the earliest end counts.
        """
        if grace is not None:
            self._grace = min(self._grace, max(0.0, grace))
        self._stopping = True
        self._stop_by = trio.current_time() + self._grace
        self._life.abandon()
        if self._joining is not None:
            self._joining.cancel()
        if self._session is not None:
            self._session.stop(self._grace)

    def hurry(self) -> None:
        """Stop, and do not wait for what runs: it is cancelled and given back."""
        self._hurried = True
        self.stop()
        if self._session is not None:
            self._session.hurry()

    def quiet(self) -> None:
        """Fetch no more until `resume()`; what runs goes on."""
        self._gate.close("quiet")

    def resume(self) -> None:
        """Fetch again."""
        self._gate.open("quiet")

    def reconnect(self) -> None:
        """Connect to the broker anew, whatever state the present connections seem to be in; what runs goes on."""
        if self._session is not None:
            self._session.reconnect()
        elif self._joining is not None:
            self._joining.cancel()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stopping

    @property
    def running(self) -> int:
        """How many tasks run now."""
        return self._session.holdings.running if self._session is not None else 0

    @property
    def abandoned(self) -> list[TaskMessage]:
        """What runs on although it was given up long after its timeout, and has become a failure."""
        return [] if self._session is None else [run.message for run in self._session.overtime.abandoned.values()]

    @property
    def state(self) -> str:
        """In a word: stopping, away (the broker is), entering (the lifespan of the app), joining, held (the lease is in
        doubt), quiet or working.
        """
        if self._stopping:
            return "stopping"
        if self._outage.on:
            return "away"
        if not self._life.begun:
            return "entering"
        if self._session is None:
            return "joining"
        return "held" if self._gate.closed("lease") else "quiet" if self._gate.closed("quiet") else "working"

    @property
    def fetched(self) -> int:
        """How many deliveries it has received."""
        return self._tally.fetched

    @property
    def held(self) -> int:
        """How many deliveries are received and not yet settled."""
        return len(self._session.holdings.held) if self._session is not None else 0

    @property
    def free(self) -> int:
        """How many more deliveries it wants; 0 while it was told to fetch none or runs something alone."""
        if self._stopping or self._gate.by_choice:
            return 0
        return self.config.concurrency + self.config.prefetch - self.held

    async def joined(self) -> None:
        """Wait until it holds a lease and fetches."""
        await self._tally.until(lambda: self._session is not None)

    async def busy(self, count: int = 1) -> None:
        """Wait until *count* tasks run."""
        await self._tally.until(lambda: self.running >= count)

    async def settled(self, count: int) -> None:
        """Wait until *count* deliveries in all have been settled, however they ended."""
        await self._tally.until(lambda: self._tally.settled >= count)

    async def idle(self) -> None:
        """Wait until nothing is held."""
        await self._tally.until(lambda: self._session is not None and not self._session.holdings.held)

    def beat(self) -> dict[str, Any]:
        """How it is doing now, for chicoryd: a word, counts, the tasks that have run for longest, bytes of memory.

        worn: why it should be replaced, if it should.
        """
        now = trio.current_time()
        return {
            "state": self.state,
            "running": self.running,
            "abandoned": len(self.abandoned),
            "worn": self._worn(),
            "tasks": self._sight.tell(self._in_flight(), now, NAMED),
            "free": self.free,
            "fetched": self._tally.fetched,
            "done": self._tally.settled,
            "rss": self._memory.resident(),
            "pss": self._memory.proportional(now),
        }

    def look(self) -> None:
        """Note which tasks run, so that `tasks` and beats can tell their ages; to be called now and then."""
        self._sight.look(self._in_flight(), trio.current_time())

    def tasks(self) -> list[dict[str, Any]]:
        """Id, name and age in seconds of each task that runs, the oldest first."""
        running = self._in_flight()
        return self._sight.tell(running, trio.current_time(), len(running))

    def drained(self) -> list[dict[str, str]]:
        """Id, name and end of each task that ran when it was told to stop: see `Drain`."""
        return self._drain.report()

    def report(self) -> dict[str, int]:
        """What it has done: deliveries fetched and settled, settled by outcome, stale, and left to the lease."""
        return self._tally.report()

    def get_stats(self) -> dict[str, Any]:
        """A word on its state, how many tasks run, are abandoned and are held, how many more it would take, and its
        `report`.
        """
        return {
            "state": self.state,
            "running": self.running,
            "abandoned": len(self.abandoned),
            "held": self.held,
            "free": self.free,
            **self.report(),
        }

    async def healthcheck(self) -> Health:
        """Whether it holds a lease that can be trusted, and its broker answers; never raises for that."""
        if self.state not in ("working", "quiet"):
            await trio.lowlevel.checkpoint()
            return Health(ok=False, detail=self.state, seconds=0.0)
        health = await self.app.broker.healthcheck()
        return Health(ok=health.ok, detail=f"{self.state}; {health.detail}", seconds=health.seconds)

    async def _serve(self) -> None:
        terms = Terms(
            config=self.config,
            catalog=self._catalog(self.app, self.config, self.flavors),
            keeps_results=self.app.backend is not None,
            backend=None if self.app.joined else self.app.backend,
            notable=self.app.backend if isinstance(self.app.backend, Notable) else None,
            tally=self._tally,
            gate=self._gate,
            outage=self._outage,
            clock=self._clock,
            leave=self._leave,
            drain=self._drain,
        )
        names = (next_life(self.name, life) for life in itertools.count(1))
        name = next(names)
        while not self._stopping:
            try:
                # Joined or not, a lease that existed under this name is over when this returns.
                if await self._hold_lease(name, terms):
                    name = next(names)
            except (BrokerError, ExceptionGroup) as error:
                cause = sole(error)
                if not isinstance(cause, BrokerError):
                    raise
                if isinstance(cause, LeaseLost):
                    name = next(names)
                if self.config.require_broker and not self._served:
                    raise cause from None
                await self._try_later(cause)

    def _time_to_leave(self) -> float:
        """Seconds to leave a lifespan in, before it is cancelled."""
        seconds = max(self._stop_by - trio.current_time(), self.config.cancel_grace)
        self._be_patient(seconds + self.config.cancel_grace)
        return seconds

    async def _close_flavors(self) -> None:
        """End what tasks ran on, with the time to clean up that a cancelled task has, too."""
        self._be_patient(self.config.cancel_grace)
        with trio.CancelScope(shield=True):
            await self.flavors.aclose()

    def _be_patient(self, seconds: float) -> None:
        """What is to end now has *seconds* to; then the process leaves without it."""
        self._patience.cancel()
        self._patience = trio.CancelScope(shield=True)
        assert self._nursery is not None
        self._nursery.start_soon(self._lose_patience, self._patience, seconds)

    async def _lose_patience(self, scope: trio.CancelScope, seconds: float) -> None:
        with scope:
            await trio.sleep(seconds)
            self._leave(1)

    async def _hold_lease(self, name: str, terms: Terms) -> bool:
        """Join as *name* and work until that ends; True when the name is used up."""
        asked = self._clock()
        limit = self.config.concurrency + self.config.prefetch
        joining = self._joining = trio.CancelScope()
        with joining:
            async with self.app.broker.consumer(self.config.consumed, name=name, limit=limit) as consumer:
                self._joining = None
                self._session = session = Session(consumer, terms, renewed=asked)
                self._outage.answered("join")
                log.info("worker %s takes %s, %d at a time", name, ", ".join(self.config.consumed), limit)
                self._served = True
                self._tally.changed()
                if self._hurried:
                    session.hurry()
                if self._stopping:
                    session.stop(self._grace)
                try:
                    await session.run()
                finally:
                    self._drain.unsettled(session.holdings.held)
                    self._session = None
        return True

    async def _try_later(self, error: BrokerError) -> None:
        pause = self._outage.failed("join", error)
        joining = self._joining = trio.CancelScope()
        with joining:
            await trio.sleep(pause)
        self._joining = None

    def _in_flight(self) -> list[Delivery]:
        return self._session.in_flight() if self._session is not None else []

    def _worn(self) -> str:
        worn = self._session is not None and self._session.overtime.worn
        return f"{len(self.abandoned)} runs that it has abandoned go on" if worn else ""

    def _doubt(self) -> None:
        if self._session is not None:
            self._session.doubt()


def _wait_for(count: int) -> None:
    if count:
        log.error("%d task(s) do not end although they were cancelled; waiting for them", count)
    else:
        log.warning("abandoned runs go on; waiting for them")
