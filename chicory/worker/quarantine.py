"""Runs a suspect with nothing beside it, so that no neighbour can be blamed for what it does, nor it for a neighbour.

A message is a suspect when its workers died with it as often as may be but once.  Whoever receives it stops fetching,
gives back what has not started, lets the rest finish, and tells the broker before the suspect starts.  Only a death
after that can bring a message to the dead letters: see `outcome.most_shared`.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

from chicory.brokers.base import Consumer, Delivery
from chicory.errors import BrokerError, LeaseLost
from chicory.worker.drain import identity
from chicory.worker.fetch import Gate
from chicory.worker.holdings import Holdings, Tally

log = logging.getLogger("chicory.worker")

# Seconds that a suspect waits here for the rest to finish.  Then it goes back to its queue, for another worker may be
# idle, and for as long again suspects are put aside and all others run.  After that the next may wait for twice as
# long, or where tasks are long it would never run.
PATIENCE = 30.0


class Quarantine:
    """At most one suspect at a time, and none for a while after one has waited in vain.

    rested: waits until no fetch is under way.  give_back: gives back what waits.  release: gives one delivery back.
    """

    def __init__(
        self,
        consumer: Consumer,
        holdings: Holdings,
        tally: Tally,
        gate: Gate,
        *,
        rested: Callable[[], Awaitable[None]],
        give_back: Callable[[], None],
        release: Callable[[Delivery], None],
    ) -> None:
        self.suspect: Delivery | None = None
        self._started = False
        self._resting = False
        self._aside: list[Delivery] = []
        self._consumer = consumer
        self._holdings = holdings
        self._tally = tally
        self._gate = gate
        self._rested = rested
        self._give_back = give_back
        self._release = release
        self._patience = PATIENCE

    @property
    def idle(self) -> list[Delivery]:
        """What is held here and does not run."""
        return [*self._aside, *([] if self.suspect is None or self._started else [self.suspect])]

    def put_aside(self, suspect: Delivery) -> bool:
        """Keep *suspect* for later, if it cannot be taken now."""
        if self._resting:
            self._aside.append(suspect)
        return self._resting

    async def run(self, suspect: Delivery, start: Callable[[Delivery], bool], go_on: Callable[[], None]) -> None:
        """See *suspect* through: *start* starts it, unless the worker may start nothing; then *go_on* with the rest.

        Cancelled before it was started, the suspect is given back.
        """
        whose = identity(suspect)
        log.warning(
            "%s (%s) was in flight when %d workers died (the last: %s); it runs alone",
            *(whose["name"], whose["id"], suspect.count - 1, suspect.cause),
        )
        self._gate.close("suspect")
        self._give_back()
        released = False
        try:
            with trio.move_on_after(self._patience):
                await self._prepare(suspect)
                self._started = start(suspect)
            if self._started:
                self._patience = PATIENCE
                # Until it is settled, not only until it ends: until then a death would be charged to it.
                await self._tally.until(lambda: suspect.receipt not in self._holdings.held)
            else:
                self._resting = released = True
                self._release(suspect)
                # Before fetching again, so that whoever is idle gets it first.
                await self._tally.until(lambda: suspect.receipt not in self._holdings.held)
        except (BrokerError, LeaseLost) as error:
            log.warning("%s (%s) cannot be run alone now: %s", whose["name"], whose["id"], error)
        finally:
            if not self._started and not released:
                self._release(suspect)
            self.suspect, self._started = None, False
            self._gate.open("suspect")
            go_on()
        if self._resting:
            await self._rest(go_on)

    async def _rest(self, go_on: Callable[[], None]) -> None:
        try:
            await trio.sleep(self._patience)
        finally:
            self._patience *= 2
            self._resting = False
            self._holdings.waiting.extend(self._aside)
            self._aside.clear()
            go_on()

    async def _prepare(self, suspect: Delivery) -> None:
        """Hold nothing but *suspect*, and let the broker know."""
        await self._rested()
        await self._tally.until(lambda: len(self._holdings.held) == 1)
        await self._consumer.isolate(suspect)
