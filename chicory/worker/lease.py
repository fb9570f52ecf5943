"""The worker's side of its lease: renewing it, and stopping in time when that does not succeed."""

import logging
import time
from collections.abc import Callable
from enum import Enum

import trio

from chicory.brokers.base import Consumer
from chicory.errors import BrokerError, BrokerUnavailable, LeaseLost
from chicory.outage import Outage

log = logging.getLogger("chicory.worker")


class Fence(Enum):
    """What a worker may do.

    OPEN: everything.
    ASK: start nothing new until the broker has said who holds the lease.  The event loop has stood still, so nothing
        was renewed and nothing heard; but somebody else may have renewed the lease meanwhile.
    HOLD: start nothing new and cancel what runs, for the lease may lapse.
    LEAVE: whatever still runs must be gone, for others may start it at any moment.
    """

    OPEN = "open"
    ASK = "ask"
    HOLD = "hold"
    LEAVE = "leave"


def fence(silent: float, lease: float) -> Fence:
    """What to do *silent* seconds after the last renewal of a lease of *lease* seconds.  Pure."""
    if silent < lease * 2 / 3:
        return Fence.OPEN
    return Fence.HOLD if silent < lease * 9 / 10 else Fence.LEAVE


# The part of a lease that the broker has for its answer, once the loop turns again.
ANSWER_WITHIN = 1 / 10
# So many looks at the lease have to be missed before the loop has stood still.
MISSED = 3


def boottime() -> float:
    """Seconds that also pass while the machine is suspended, as they do for the broker."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeaseKeeper:
    """Renews the lease every *interval* seconds and tells how much it may be trusted.

    clock: seconds that never stop.  renewed: when the lease was taken, by that clock.
    fenced: called with each change of the fence.  lost: called when the broker says that the lease is over.
    """

    def __init__(
        self,
        consumer: Consumer,
        outage: Outage,
        *,
        interval: float,
        clock: Callable[[], float],
        renewed: float,
        fenced: Callable[[Fence], None],
        lost: Callable[[], None],
    ) -> None:
        self._consumer = consumer
        self._outage = outage
        self._interval = min(interval, consumer.lease / 3)
        self._clock = clock
        self._renewed = renewed
        self._fenced = fenced
        self._lost = lost
        self._tick = min(1.0, consumer.lease / 30)
        self._last = Fence.OPEN
        self._looked = clock()
        self._answer_by = float("-inf")
        self._asking = trio.Event()

    def hasten(self) -> None:
        """Renew at once, and then as usual."""
        self._asking.set()

    async def renew(self) -> None:
        """Renew for ever, or until the lease is lost."""
        while True:
            # Since the renewal was asked for, not since its answer: that may have waited for a loop that stood still.
            with trio.move_on_after(max(0.0, self._renewed + self._interval - self._clock())):
                await self._asking.wait()
            self._asking = trio.Event()
            while not await self._renew_once():
                pass

    async def _renew_once(self) -> bool:
        # Counted from before the request: the broker may have started the new lease as early as that.
        asked = self._clock()
        try:
            with trio.move_on_after(self._consumer.lease / 3):
                held = await self._consumer.renew()
                self._outage.answered("renew")
                if held:
                    self._renewed = asked
                    self.look()
                    return True
                raise LeaseLost
            raise BrokerUnavailable("no answer to the renewal of the lease")
        except LeaseLost:
            self._lost()
            await trio.sleep_forever()
        except BrokerError as error:
            await trio.sleep(self._outage.failed("renew", error))
        return False

    async def watch(self) -> None:
        """Tell `fenced` of each change, also while a renewal gets no answer."""
        while True:
            self._looked = self._clock()
            await trio.sleep(self._tick)
            self.look()

    def look(self) -> None:
        """Judge the lease now."""
        now = self._clock()
        judged = fence(now - self._renewed, self._consumer.lease)
        if judged is not Fence.OPEN:
            if self._last is Fence.OPEN and now - self._looked > MISSED * self._tick:
                self._answer_by = now + self._consumer.lease * ANSWER_WITHIN
                self._asking.set()
            if self._last in (Fence.OPEN, Fence.ASK) and now < self._answer_by:
                judged = Fence.ASK
        if judged is Fence.LEAVE and self._last in (Fence.OPEN, Fence.ASK):
            self._fenced(Fence.HOLD)
        if judged is not self._last:
            self._last = judged
            self._fenced(judged)
