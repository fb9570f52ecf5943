"""A worker's work under one lease: three nested nurseries, read from the top what starts and from the bottom what ends.

Settling outlives running, running outlives fetching; the lease is kept until all three are over.
"""

import logging
import os
import random
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any, final

import attrs
import trio
from msgspec.structs import replace

from chicory.backends.base import Backend, Notable
from chicory.brokers.base import CancellingConsumer, Consumer, Delivery, ListedConsumer, Settlement
from chicory.config import WorkerConfig
from chicory.errors import BrokerError, LeaseLost
from chicory.outage import Outage
from chicory.outcome import Abandoned, Cancelled, Ending, Policy, Release, runs_alone
from chicory.types import DeliveryMode, Progress, TaskMessage, WorkerInfo
from chicory.worker.drain import Drain
from chicory.worker.execute import execute
from chicory.worker.fetch import Fetcher, Gate
from chicory.worker.holdings import Holdings, Tally
from chicory.worker.lease import Fence, LeaseKeeper
from chicory.worker.notes import Notes
from chicory.worker.overtime import FEW, Overtime
from chicory.worker.plan import Catalog, Plan
from chicory.worker.quarantine import Quarantine
from chicory.worker.runner import Ongoing, Runner, Started
from chicory.worker.settle import Settler
from chicory.worker.verdict import Run, verdict

log = logging.getLogger("chicory.worker")

# Seconds for the last outcomes to reach the broker; then they are left to the lease, and the tasks run again.
LAST_FLUSH = 5.0
_UNSTARTED = Cancelled("it was cancelled before it was started")


class End(Enum):
    """Why fetching and running came to an end.  FENCED may begin again, the others may not."""

    STOPPED = auto()
    FENCED = auto()
    LOST = auto()


@attrs.frozen
class Terms:
    """What all sessions of one worker have in common.

    backend: where the worker stores results; None when the broker does, or none are kept.
    notable: who is told of runs that go on.
    leave: called with the number of runs that do not end, when they must not go on in this process; 0 when there are
        only abandoned ones.
    """

    config: WorkerConfig
    catalog: Catalog
    keeps_results: bool
    backend: Backend | None
    notable: Notable | None
    tally: Tally
    gate: Gate
    outage: Outage
    clock: Callable[[], float]
    leave: Callable[[int], None]
    drain: Drain


@final
class Session:
    """One lease of one worker.  *renewed*: when it was taken, by `terms.clock`."""

    def __init__(self, consumer: Consumer, terms: Terms, *, renewed: float) -> None:
        config = terms.config
        self.holdings = Holdings(config.concurrency, config.concurrency + config.prefetch)
        self._consumer = consumer
        self._terms = terms
        self._since = datetime.now(UTC)
        self._cancelled = consumer.cancelled if isinstance(consumer, CancellingConsumer) else frozenset[str]()
        # The runs that have waited for something, by receipt.
        self._ongoing: dict[Any, Ongoing] = {}
        self.overtime = Overtime(
            self._ongoing,
            limit=lambda message: terms.catalog.plan_of(message).timeout_of(message),
            abandon=self._abandon,
            grace=config.timeout_grace,
            most=max(config.concurrency, FEW),
        )
        self._abandoned = self.overtime.abandoned
        self._notes = Notes(consumer, terms.notable, self._ongoing)
        self._settler = Settler(consumer, terms.backend, self.holdings, terms.tally, terms.outage)
        self._fetcher = Fetcher(consumer, self.holdings, terms.tally, terms.outage, accept=self._start, lost=self._lose)
        self.lease = LeaseKeeper(
            consumer,
            terms.outage,
            interval=config.heartbeat_interval,
            clock=terms.clock,
            renewed=renewed,
            fenced=self._fence,
            lost=self._lose,
        )
        if isinstance(consumer, ListedConsumer):
            consumer.introduce(self._tell)
            # What it says of itself goes with a renewal, and the first is long to come.
            self.lease.hasten()
        self._quarantine = Quarantine(
            consumer,
            self.holdings,
            terms.tally,
            terms.gate,
            rested=self._fetcher.rested,
            give_back=self._give_back,
            release=self._release,
        )
        self._fetching: trio.Nursery | None = None
        self._running: trio.Nursery | None = None
        self._runner: Runner | None = None
        self._end: End | None = None
        self._lost = False
        self._ended = trio.Event()
        self._trusted = trio.Event()
        self._trusted.set()
        self._stopped = trio.Event()
        self._hurried = False
        self._deadline = float("inf")
        self._patience: trio.CancelScope | None = None

    def _tell(self) -> WorkerInfo:
        """What the broker lists of this worker."""
        queues = list(self._terms.config.consumed)
        return WorkerInfo(
            name=self._consumer.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=queues,
            concurrency=self.holdings.concurrency,
            running=self.holdings.running,
            since=self._since,
        )

    async def run(self) -> None:
        """Work until stopped, or until the lease is lost."""
        try:
            async with trio.open_nursery() as keeping:
                keeping.start_soon(self.lease.renew)
                keeping.start_soon(self.lease.watch)
                keeping.start_soon(self._notes.run)
                keeping.start_soon(self.overtime.run)
                if isinstance(self._consumer, CancellingConsumer):
                    keeping.start_soon(self._heed, self._consumer)
                async with trio.open_nursery() as settling:
                    settling.start_soon(self._settler.run)
                    while await self._work(keeping) is End.FENCED:
                        await self._trusted.wait()
                    settling.cancel_scope.cancel()
                keeping.cancel_scope.cancel()
        finally:
            # Whatever doubt there was, it was about this lease.
            self._terms.gate.open("lease")
            self._give_back()
            self._terms.tally.left += await self._settler.finish(LAST_FLUSH)

    def stop(self, grace: float) -> None:
        """Fetch no more, give back what has not started, let the rest finish within *grace* seconds.

        Asked more than once, the earliest end counts.
        """
        self.overtime.clear()
        self._deadline = min(self._deadline, trio.current_time() + grace)
        if self._patience is not None:
            self._patience.deadline = self._deadline
        self._terms.drain.begin(self.in_flight())
        self._stopped.set()
        self._finish(End.STOPPED)

    def hurry(self) -> None:
        """Do not wait for running tasks: cancel them."""
        self._hurried = True
        self._terms.tally.changed()

    def in_flight(self) -> list[Delivery]:
        """The deliveries whose tasks run, in the order in which they came."""
        idle = self._settler.ended()
        idle.update(delivery.receipt for delivery in (*self.holdings.waiting, *self._quarantine.idle))
        return [delivery for receipt, delivery in self.holdings.held.items() if receipt not in idle]

    def reconnect(self) -> None:
        """Leave the present connections to the broker and make new ones."""
        self._consumer.reconnect()

    def doubt(self) -> None:
        """The broker was away: compare notes with it."""
        self._fetcher.doubt()

    async def _work(self, keeping: trio.Nursery) -> End:
        """Fetch and run until something ends it, and see what runs to its end."""
        if self._end is End.FENCED:
            self._end, self._ended = None, trio.Event()
        async with trio.open_nursery() as running:
            self._running = running
            context = self._terms.catalog.context()
            self._runner = Runner(running, self._ongoing, self._cancelled, self._start, context)
            async with trio.open_nursery() as fetching:
                self._fetching = fetching
                fetching.start_soon(self._fetcher.run, self._terms.gate)
                fetching.start_soon(self._fetcher.reconcile)
                self._start()
                await self._ended.wait()
                end = self._end
                assert end is not None
                # Not after fetching has ended: a read that a hanging broker does not give up may take seconds to end.
                keeping.start_soon(self._see_out, running, end)
                fetching.cancel_scope.cancel()
            self._give_back()
        self._running = None
        return self._end if self._end is not None else end

    async def _see_out(self, running: trio.Nursery, end: End) -> None:
        """Cancel what runs when its time is over; what does not end even so is left behind with the process."""
        config, tally = self._terms.config, self._terms.tally
        if end is End.STOPPED or config.on_lease_loss == "finish":
            await self._stopped.wait()
            with trio.CancelScope(deadline=self._deadline) as self._patience:
                await tally.until(lambda: self._hurried or self._deserted())
        running.cancel_scope.cancel()
        with trio.move_on_after(config.cancel_grace):
            await tally.until(self._deserted)
        # After a fence there may be time left; the watch on the lease knows.
        await tally.until(lambda: self._end is not End.FENCED or self._deserted())
        if self._running is running:
            with trio.move_on_after(LAST_FLUSH):
                await tally.until(lambda: not self._settler.pending)
            self._terms.leave(self._stuck())

    def _deserted(self) -> bool:
        """Whether nothing runs but what was abandoned, and that may never end."""
        return not self.holdings.running and bool(self._abandoned)

    def _stuck(self) -> int:
        """How many runs there are that others would run a second time once the lease is over."""
        return self.holdings.running + len(self._abandoned.keys() & self.holdings.held.keys())

    def _finish(self, end: End) -> None:
        """The first end counts, but a fence may become something final."""
        if self._end is None or self._end is End.FENCED:
            self._end = end
            self._ended.set()
            self._terms.tally.changed()
            if end is not End.FENCED:
                self._trusted.set()

    def _lose(self) -> None:
        if self._lost:
            return
        self._lost = True
        log.error("%s has lost its lease: others hold its deliveries now", self._consumer.name)
        self._settler.lost()
        if self._terms.config.on_lease_loss == "cancel":
            self.hurry()  # where it is stopping already
        self._finish(End.LOST)

    def _fence(self, fence: Fence) -> None:
        cancels = self._terms.config.on_lease_loss == "cancel"
        if fence is Fence.OPEN:
            log.warning("%s: the lease is renewed", self._consumer.name)
            self._terms.gate.open("lease")
            self._trusted.set()
            self._start()
            return
        if self._trusted.is_set():
            self._trusted = trio.Event()
        if fence is Fence.ASK:
            log.warning("%s: stood still for long, so its lease is in doubt; asking the broker", self._consumer.name)
        elif fence is Fence.HOLD:
            what = "cancelling what runs" if cancels else "letting what runs finish"
            log.error("%s: the lease cannot be renewed: starting nothing, %s", self._consumer.name, what)
            self._terms.gate.close("lease")
            if cancels and self._end is None:
                self._finish(End.FENCED)
            elif cancels:
                self.hurry()
        elif cancels and (stuck := self._stuck()):
            self._terms.leave(stuck)

    def _give_back(self) -> None:
        for delivery in self.holdings.give_up():
            self._release(delivery)

    def _release(self, delivery: Delivery) -> None:
        self._settler.add(Settlement(delivery, Release("the worker did not start it")))

    def _start(self) -> None:
        """Start what waits, as far as there is room."""
        holdings, running, runner = self.holdings, self._running, self._runner
        if not holdings.waiting or running is None or runner is None or self._end is not None:
            return
        if self._quarantine.suspect is not None:
            self._give_back()
            return
        self.lease.look()
        if not self._trusted.is_set():
            return
        once: list[tuple[Delivery, Plan]] = []
        now = self._consumer.now()
        # Nobody can cancel anything before this is over.
        judge = self._judge if self._cancelled else self._terms.catalog.judge
        while holdings.waiting and holdings.running < holdings.concurrency and self._end is None:
            delivery = holdings.waiting.popleft()
            plan = judge(delivery, now)
            if not isinstance(plan, Plan):
                self._conclude(delivery, self._terms.catalog.policy, plan)
                continue
            if delivery.count > 1 and runs_alone(delivery.count, self._terms.config.max_deliveries):
                if self._quarantine.put_aside(delivery):
                    continue
                self._isolate(delivery)
                break
            holdings.running += 1
            message = delivery.message
            assert isinstance(message, TaskMessage)
            if delivery.acked or plan.mode_of(message) is DeliveryMode.AT_LEAST_ONCE:
                runner.start(Started(self._run(delivery, message, plan, now), delivery, message, now))
            else:
                once.append((delivery, plan))
        if once:
            running.start_soon(self._acknowledge, once, runner)
        self._terms.tally.changed()

    def _judge(self, delivery: Delivery, now: float) -> Plan | Ending:
        if self._cancelled and isinstance(delivery.message, TaskMessage) and delivery.message.id in self._cancelled:
            return _UNSTARTED
        return self._terms.catalog.judge(delivery, now)

    async def _heed(self, consumer: CancellingConsumer) -> None:
        """Cancel what was cancelled: what waits is settled, what runs has its scope cancelled."""
        while True:
            heard = await consumer.heard()
            for run in list(self._ongoing.values()):
                if run.message.id in heard:
                    run.scope.cancel()
            waiting = self.holdings.waiting
            gone = [one for one in waiting if isinstance(one.message, TaskMessage) and one.message.id in heard]
            for delivery in gone:
                waiting.remove(delivery)
                self._conclude(delivery, self._terms.catalog.policy, _UNSTARTED)

    def _isolate(self, suspect: Delivery) -> None:
        assert self._fetching is not None
        self._quarantine.suspect = suspect
        self._fetching.start_soon(self._quarantine.run, suspect, self._start_alone, self._start)

    def _start_alone(self, suspect: Delivery) -> bool:
        """Start *suspect*, to which the rest has given way; False when nothing may be started any more."""
        running, runner = self._running, self._runner
        self.lease.look()
        if running is None or runner is None or self._end is not None or not self._trusted.is_set():
            return False
        now = self._consumer.now()
        plan = self._judge(suspect, now)
        if not isinstance(plan, Plan):
            self._conclude(suspect, self._terms.catalog.policy, plan)
            return True
        self.holdings.running += 1
        message = suspect.message
        assert isinstance(message, TaskMessage)
        if plan.mode_of(message) is DeliveryMode.AT_LEAST_ONCE:
            runner.start(Started(self._run(suspect, message, plan, now), suspect, message, now))
        else:
            running.start_soon(self._acknowledge, [(suspect, plan)], runner)
        self._terms.tally.changed()
        return True

    async def _run(self, delivery: Delivery, message: TaskMessage, plan: Plan, started_at: float) -> None:
        policy = plan.policy_of(message)
        if policy.retry.time_budget is not None and message.first_try is None:
            message = replace(message, first_try=started_at)
            delivery = replace(delivery, message=message)
        ending = await execute(plan, message, delivery.count, self._notes.progress)
        if self._abandoned and self.overtime.over(delivery.receipt):
            self._notes.last_said(message.id)
            return
        self.holdings.running -= 1
        if self._cancelled and message.id in self._cancelled:
            # Whatever it made of that: its result says already that it was cancelled.
            ending = Cancelled("it was cancelled while it ran")
        self._conclude(delivery, policy, ending, started_at, self._notes.last_said(message.id))

    def _abandon(self, run: Ongoing) -> None:
        """Conclude *run*, which goes on, and start others in its place."""
        message, plan = run.message, self._terms.catalog.plan_of(run.message)
        timeout = plan.timeout_of(message)
        assert timeout is not None
        ending: Ending = Abandoned(timeout, self._terms.config.timeout_grace)
        if message.id in self._cancelled:
            ending = Cancelled("it was cancelled, and abandoned as it did not end")
        self.holdings.running -= 1
        said = self._notes.last_said(message.id)
        self._conclude(run.delivery, plan.policy_of(message), ending, run.started_at, said)
        self._start()

    def _conclude(
        self,
        delivery: Delivery,
        policy: Policy,
        ending: Ending,
        started_at: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        run = Run(self._consumer.name, started_at, progress) if self._terms.keeps_results else None
        settlement = verdict(delivery, policy, ending, run, now=self._consumer.now(), draw=random.random())
        if self._terms.drain.begun:
            self._terms.drain.ended(delivery, settlement.outcome)
        self._settler.add(settlement)

    async def _acknowledge(self, once: list[tuple[Delivery, Plan]], runner: Runner) -> None:
        """At most once: acknowledge first, then run what was still ours."""
        try:
            acked = await self._acknowledged([delivery for delivery, _ in once])
        except trio.Cancelled:
            # Perhaps acknowledged and perhaps not, so it is not run here; what was not acknowledged goes back.
            self.holdings.running -= len(once)
            for delivery, _ in once:
                self._settler.add(Settlement(delivery, Release("the worker stopped")))
            raise
        now = self._consumer.now()
        for (delivery, plan), ours in zip(once, acked, strict=True):
            if ours is None:
                self.holdings.running -= 1
                self.holdings.settled(delivery.receipt)
                continue
            message = delivery.message
            assert isinstance(message, TaskMessage)
            self.holdings.held[ours.receipt] = ours
            if self._cancelled and message.id in self._cancelled:
                self.holdings.running -= 1
                self._conclude(ours, plan.policy_of(message), _UNSTARTED)
                continue
            runner.start(Started(self._run(ours, message, plan, now), ours, message, now))
        # Where one has not become a run, there is room for another.
        self._start()

    async def _acknowledged(self, deliveries: list[Delivery]) -> list[Delivery | None]:
        while True:
            try:
                acked = list(await self._consumer.acknowledge(deliveries))
            except LeaseLost:
                self._lose()
                await trio.sleep_forever()
            except BrokerError as error:
                await trio.sleep(self._terms.outage.failed("settle", error))
            else:
                self._terms.outage.answered("settle")
                return acked
