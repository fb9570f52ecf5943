"""Tells the broker and the backend what became of deliveries, many at a time.

Whatever ends while one flush is under way goes with the next: nothing waits for a timer, and a busy worker writes large
batches by itself.
"""

import logging
from collections.abc import Sequence
from typing import Any

import trio
from msgspec.structs import replace

from chicory.backends.base import Backend, StoredRecord
from chicory.brokers.base import Consumer, Settlement
from chicory.errors import BrokerError, BrokerUnavailable, LeaseLost
from chicory.outage import Outage
from chicory.types import TaskMessage
from chicory.worker.holdings import Holdings, Tally

log = logging.getLogger("chicory.worker")

MOST = 256
# Longer than a driver waits for an answer, so that the driver is the one to say what went wrong.
PATIENCE = 15.0


class Settler:
    """Settles what has ended.

    backend: where results go before the settling; None when the broker stores them itself or none are kept.
    """

    def __init__(
        self, consumer: Consumer, backend: Backend | None, holdings: Holdings, tally: Tally, outage: Outage
    ) -> None:
        self._consumer = consumer
        self._backend = backend
        self._holdings = holdings
        self._tally = tally
        self._outage = outage
        self._ended: list[Settlement] = []
        self._work = trio.Event()
        self._deadline = float("inf")
        self._lost = False

    def add(self, settlement: Settlement) -> None:
        """*settlement* goes with the next flush."""
        self._ended.append(settlement)
        if not self._work.is_set():
            self._work.set()

    @property
    def pending(self) -> bool:
        """Whether something has ended and is not settled."""
        return bool(self._ended)

    def ended(self) -> set[Any]:
        """The receipts of what has ended and is not settled."""
        return {settlement.delivery.receipt for settlement in self._ended}

    def lost(self) -> None:
        """The lease is gone: others hold these deliveries, so nothing is said about them."""
        self._lost = True
        self._work.set()

    async def run(self) -> None:
        """Settle whatever is added, until cancelled."""
        while True:
            await self._work.wait()
            await self._flush()

    async def finish(self, seconds: float) -> int:
        """Settle the rest, within *seconds* whatever happens around; returns how many are left to the lease."""
        self._deadline = trio.current_time() + seconds
        with trio.CancelScope(deadline=self._deadline, shield=True):
            await self._flush()
        return len(self._ended)

    async def _flush(self) -> None:
        while self._ended:
            if self._lost:
                self._drop()
                break
            batch = self._ended[:MOST]
            try:
                held = await self._write(batch)
            except LeaseLost:
                self._lost = True
                continue
            except BrokerError as error:
                await trio.sleep(self._outage.failed("settle", error))
                continue
            self._outage.answered("settle")
            del self._ended[: len(batch)]
            self._note(batch, held)
        self._work = trio.Event()

    async def _write(self, batch: list[Settlement]) -> Sequence[bool]:
        # Shielded, because half an answer helps nobody; with a deadline, because the stop must not hang on it.
        deadline = min(trio.current_time() + PATIENCE, self._deadline)
        with trio.CancelScope(deadline=deadline, shield=True):
            if self._backend is None:
                return await self._consumer.settle(batch)
            records = [
                StoredRecord(one.delivery.message.id, one.record)
                for one in batch
                if one.record is not None and isinstance(one.delivery.message, TaskMessage)
            ]
            # Before settling: a crash in between runs the task again, the other order would lose its result.
            if records:
                await self._backend.store(records)
            return await self._consumer.settle([replace(one, record=None) for one in batch])
        raise BrokerUnavailable("no answer to the settling of finished tasks")

    def _note(self, batch: list[Settlement], held: Sequence[bool]) -> None:
        stale = 0
        counts = self._tally.outcomes
        for settlement, ours in zip(batch, held, strict=True):
            self._holdings.settled(settlement.delivery.receipt)
            if ours:
                counts[type(settlement.outcome).__name__.lower()] += 1
            else:
                stale += 1
        if stale:
            log.warning("%d deliveries belonged to another worker when they ended; their outcomes were not used", stale)
        self._tally.stale += stale
        self._tally.settled += len(batch)
        self._tally.changed()

    def _drop(self) -> None:
        dropped, self._ended = self._ended, []
        # It asks no more, and an outage lasts until all are answered who do.
        self._outage.answered("settle")
        self._note(dropped, [False] * len(dropped))
