"""What lies between a process and the broker, and what may happen to a command there."""

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, final

import attrs
import trio

from chicory.brokers.base import Consumer, Delivery
from chicory.errors import BrokerUnavailable, LeaseLost
from chicory.testing.simulation.plan import Mishap
from chicory.testing.simulation.trace import Trace

T = TypeVar("T")

# Seconds that a driver waits for an answer.
ANSWER_WITHIN = 10.0
# Seconds, at most, from when a line is whole until what was lost on it is sent again.
SENT_AGAIN = 1.0


@final
class Line:
    """That of the processes which have one place in the plan, one after another.

    Each command is sent, applied and answered; it may be stopped before any of them, and only then.
    hits: what is to happen to commands.  die: ends the process at once.
    """

    def __init__(self, who: int, hits: Sequence[Mishap], trace: Trace, die: Callable[[str], None]) -> None:
        self.skew = 0.0
        self._who = who
        self._hits = sorted(hits, key=lambda hit: hit.at)
        self._trace = trace
        self._die = die
        self._cut_until = -math.inf
        self._deaf_until = -math.inf
        self._reads: set[Read] = set()

    def cut(self, seconds: float, *, replies_only: bool) -> None:
        """Let nothing through for so long, or no replies."""
        until = trio.current_time() + seconds
        self._deaf_until = max(self._deaf_until, until)
        if not replies_only:
            self._cut_until = max(self._cut_until, until)
        if seconds > ANSWER_WITHIN:
            for read in self._reads:
                read.fail_at(trio.current_time() + ANSWER_WITHIN)

    def calm(self) -> None:
        """Nothing more is to happen here."""
        self._hits.clear()

    def drop(self, *, silently: bool) -> None:
        """Its process is gone; *silently*: so is its host, and the broker does not hear of it for a while."""
        for read in self._reads:
            read.fail_at(trio.current_time() + (ANSWER_WITHIN if silently else 0.0))

    async def call(self, command: str, apply: Callable[[], Awaitable[T]]) -> T:
        """What *apply* returns.  Raises BrokerUnavailable when no answer comes; then it was applied or not."""
        hit = await self._send(command)
        answer = await apply()
        if hit == "send twice":
            answer = await apply()
        self._trace.note(self._who, f"{command}: {answer}")
        await self._hear(command, hit)
        return answer

    async def read(self, consumer: Consumer, limit: int, begin: Callable[["Read"], None]) -> Sequence[Delivery]:
        """What *consumer* receives.  The broker may deliver while the process stands still, and when it is gone."""
        hit = await self._send("receive")
        read = Read(consumer, limit)
        self._reads.add(read)
        begin(read)
        try:
            with read.patience:
                await read.over.wait()
        except trio.Cancelled:
            if not read.taken:
                read.fail_at(trio.current_time() + ANSWER_WITHIN if self.away else -math.inf)
                raise
        finally:
            self._reads.discard(read)
        if read.lost is None and read.taken is None:
            raise BrokerUnavailable("no answer to receive")
        self._trace.note(self._who, f"receive: {_listed(read.taken or ())}")
        # What has come is not to be lost by a cancellation, as a driver sees to.
        with trio.CancelScope(shield=True):
            await self._hear("receive", hit)
        if read.lost is not None:
            raise read.lost
        assert read.taken is not None
        return read.taken

    @property
    def away(self) -> bool:
        """Whether an answer would not come now."""
        return trio.current_time() < self._deaf_until

    async def _send(self, command: str) -> str:
        """Return when the command reaches the broker, with what is to happen then."""
        hit = self._hit(command)
        what = "" if hit is None else hit.what
        if what == "die before":
            self._die(what)
            await trio.lowlevel.checkpoint()
        if what == "lose the request":
            await self._miss(command)
        await self._pass(command, lambda: self._cut_until)
        if hit is not None and what == "delay the reply":
            self._deaf_until = max(self._deaf_until, trio.current_time() + hit.lasting)
        return what

    async def _hear(self, command: str, what: str) -> None:
        """Return when the answer is here."""
        if what == "die after":
            self._die(what)
            await trio.lowlevel.checkpoint()
        if what == "lose the reply":
            await self._miss(command)
        await self._pass(command, lambda: self._deaf_until)

    async def _miss(self, command: str) -> None:
        await trio.sleep(ANSWER_WITHIN)
        raise BrokerUnavailable(f"no answer to {command}")

    async def _pass(self, command: str, until: Callable[[], float]) -> None:
        give_up = trio.current_time() + ANSWER_WITHIN
        while (now := trio.current_time()) < until():
            if now >= give_up:
                raise BrokerUnavailable(f"no answer to {command}")
            await trio.sleep_until(min(until() + random.uniform(0.0, SENT_AGAIN), give_up))

    def _hit(self, command: str) -> Mishap | None:
        now = trio.current_time()
        for hit in self._hits:
            if hit.at > now:
                return None
            if hit.command == command:
                self._hits.remove(hit)
                self._trace.note(self._who, f"{command}: {hit.what}")
                return hit
        return None


@final
@attrs.define(eq=False)
class Read:
    """A read that the broker answers when there is something to deliver."""

    consumer: Consumer
    limit: int
    over: trio.Event = attrs.field(factory=trio.Event)
    # How long the process waits, and the broker.
    patience: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    open: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    taken: Sequence[Delivery] | None = None
    lost: LeaseLost | None = None

    async def serve(self) -> None:
        """The broker's side."""
        with self.open:
            try:
                self.taken = await self.consumer.receive(self.limit)
            except LeaseLost as error:
                self.lost = error
        self.over.set()

    def fail_at(self, instant: float) -> None:
        """Nobody waits for longer."""
        self.patience.deadline = min(self.patience.deadline, instant)
        self.open.deadline = min(self.open.deadline, instant)


def _listed(deliveries: Sequence[Delivery]) -> str:
    return " ".join(str(delivery.receipt) for delivery in deliveries)
