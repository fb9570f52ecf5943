"""Fetches deliveries: never more than there are free slots, and never one twice."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import trio

from chicory.brokers.base import Consumer, Delivery
from chicory.errors import BrokerError, LeaseLost
from chicory.outage import Outage
from chicory.worker.holdings import Holdings, Tally

log = logging.getLogger("chicory.worker")

RECONCILE_EVERY = 15.0


class Gate:
    """Whether a worker may fetch; closed as long as there is one reason."""

    def __init__(self) -> None:
        self._reasons: set[str] = set()
        self._opened = trio.Event()
        self._opened.set()
        self._scope: trio.CancelScope | None = None

    def close(self, reason: str) -> None:
        """Fetch no more because of *reason*; a fetch under way ends and leaves nothing behind."""
        if not self._reasons:
            self._opened = trio.Event()
        self._reasons.add(reason)
        if self._scope is not None:
            self._scope.cancel()

    def open(self, reason: str) -> None:
        """*reason* is no more."""
        self._reasons.discard(reason)
        if not self._reasons:
            self._opened.set()

    @property
    def by_choice(self) -> bool:
        """Whether it is closed because somebody wants it to be, and not because of the broker."""
        return not self._reasons <= {"lease"}

    def closed(self, reason: str) -> bool:
        """Whether it is closed because of *reason*."""
        return reason in self._reasons

    async def opened(self) -> trio.CancelScope:
        """Wait until there is no reason; returns the scope that ends when there is one again."""
        await self._opened.wait()
        self._scope = trio.CancelScope()
        return self._scope


class Fetcher:
    """Feeds *accept* with the deliveries of one lease."""

    def __init__(
        self,
        consumer: Consumer,
        holdings: Holdings,
        tally: Tally,
        outage: Outage,
        *,
        accept: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._consumer = consumer
        self._holdings = holdings
        self._tally = tally
        self._outage = outage
        self._accept = accept
        self._lost = lost
        self._doubted = trio.Event()
        # What is new with each read; None between two.
        self._reading: object = None
        self._resting = trio.Event()
        self._resting.set()
        # What reconciling brought while a fetch was under way, and what fetching brought while reconciling was: the
        # same delivery may come both ways, and by the second it may long be settled.
        self._reconciled: set[Any] = set()
        self._arrived: set[Any] | None = None

    def doubt(self) -> None:
        """A reply may have got lost: ask the broker soon what it thinks is ours."""
        self._doubted.set()

    async def run(self, gate: Gate) -> None:
        """Fetch whenever *gate* is open, until cancelled."""
        while True:
            with await gate.opened():
                self._resting = trio.Event()
                while True:
                    await self._fetch(await self._holdings.some_free())
            self._resting.set()

    async def rested(self) -> None:
        """Wait until no fetch is under way, where the gate is closed."""
        await self._resting.wait()

    async def _fetch(self, free: int) -> None:
        if self._outage.on:
            # A read that finds nothing says nothing, so whether the broker answers is asked beside it.
            self.doubt()
        self._reading = object()
        try:
            found = await self._consumer.receive(free)
        except LeaseLost:
            self._lost()
            await trio.sleep_forever()
        except BrokerError as error:
            self._reading = None
            self._reconciled.clear()
            await trio.sleep(self._outage.failed("fetch", error))
        else:
            self._outage.answered("fetch")
            if self._reconciled:
                found = [delivery for delivery in found if delivery.receipt not in self._reconciled]
                self._reconciled.clear()
            if self._arrived is not None:
                self._arrived.update([delivery.receipt for delivery in found])
            self._take(found)
            if len(found) < free:
                # Nothing more is waiting, so what came runs before the next read is sent: that saves each of few tasks
                # a tenth of its latency.  With many the broker is better put to work first.
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def reconcile(self) -> None:
        """Compare what we hold with what the broker says we do, now and then and after each outage, until cancelled."""
        while True:
            with trio.move_on_after(RECONCILE_EVERY):
                await self._doubted.wait()
            self._doubted = trio.Event()
            self._arrived = set()
            reading = self._reading
            try:
                missed = await self._consumer.reconcile(frozenset(self._holdings.held))
            except LeaseLost:
                self._lost()
                await trio.sleep_forever()
            except BrokerError as error:
                # Counted with the renewals: they go on, and when one is answered the outage is over and we are asked.
                await trio.sleep(self._outage.failed("renew", error))
            else:
                if reading is not None and reading is self._reading:
                    self._outage.answered("fetch")
                found = [delivery for delivery in missed if delivery.receipt not in self._arrived]
                self._reconciled.update([delivery.receipt for delivery in found])
                if found:
                    log.warning("%d deliveries whose replies were lost are run now", len(found))
                self._take(found)
            finally:
                self._arrived = None

    def _take(self, found: Sequence[Delivery]) -> None:
        holdings = self._holdings
        for delivery in found:
            if holdings.take(delivery):
                holdings.waiting.append(delivery)
        self._tally.fetched += len(found)
        self._accept()
