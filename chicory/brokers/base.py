"""What a broker must be able to do.  Workers and the scheduler know these protocols and no broker.

A message is in exactly one of five places: delayed, ready, delivered, done, dead.  Each method moves messages from one
to the next atomically, or in an order in which a crash can only repeat.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import msgspec

from chicory.errors import BrokerError
from chicory.outcome import Outcome
from chicory.schedules.entry import Entry, Look
from chicory.types import DLQMessage, Finding, Health, QueueSizes, TaskMessage, Undecodable, WorkerInfo

if TYPE_CHECKING:
    from chicory.backends.base import Backend


# The roads a message may take, as `Broker.counters` names them.
ROADS = (
    *("published", "done", "failed", "dead", "retried", "released", "reclaimed"),
    *("replayed", "deleted", "trimmed", "purged", "stale", "lost"),
)


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One message in the hands of one worker.

    receipt: opaque, and the only key to settle it by.
    count: 1-based; grows only when a worker died with the message.
    acked: acknowledged before its run (at most once), so no longer in its queue; settling it stores its result and
        keeps its dead letter.
    cause: why the worker that held it last died, where known.
    raw: the bytes of the message, because a task may change its arguments.
    """

    message: TaskMessage | Undecodable
    queue: str
    receipt: Any
    count: int = 1
    acked: bool = False
    cause: str = ""
    raw: bytes = b""


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """A delivery, what becomes of it, and the packed result record to store with it (None: store nothing)."""

    delivery: Delivery
    outcome: Outcome
    record: bytes | None = None


class Consumer(Protocol):
    """One worker's hold on the queues, under one lease.  Leaving the context gives back what was not started."""

    @property
    def name(self) -> str:
        """The lease's name, never used again once lost."""
        ...

    @property
    def lease(self) -> float:
        """Seconds the broker waits after a renewal before it may take this worker for dead."""
        ...

    def now(self) -> float:
        """Unix seconds by the broker's clock, as of the last renewal plus the time since."""
        ...

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """Wait for at least one delivery and return at most *limit*.

        All or nothing: a cancelled call leaves no delivery behind that nobody holds.
        """
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery | None]:
        """Settle *deliveries* before their runs (at most once): each comes back with acked=True, or None if lost."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """Carry the outcomes out.  False: the delivery was no longer ours, and nothing was done."""
        ...

    async def isolate(self, delivery: Delivery) -> None:
        """From now on *delivery* is all that runs: should this worker die, then because of it.

        What was read ahead and not received is given back; to be called while nobody is in `receive`.
        """
        ...

    async def renew(self) -> bool:
        """Renew the lease.  False: it was lost, and every delivery with it; the consumer is of no more use."""
        ...

    def reconnect(self) -> None:
        """Begin to read anew, on new connections where that costs none of what is held: the present ones may be of no
        use however well they look.  What waits may fail as in an outage.
        """
        ...

    async def reconcile(self, held: Collection[Any]) -> Sequence[Delivery]:
        """Deliveries the broker says are ours whose receipt is not among *held*: replies that never arrived."""
        ...


@runtime_checkable
class CancellingConsumer(Protocol):
    """A consumer of a `CancellingBroker`."""

    @property
    def cancelled(self) -> Collection[str]:
        """Ids of cancelled tasks, always the same collection and mostly empty.

        Whatever was cancelled before it was delivered is in it when `receive` returns; settling takes it out.
        """
        ...

    async def heard(self) -> Collection[str]:
        """Wait until there are more; returns those, or more than those after a while in which nothing was heard."""
        ...


def next_life(worker: str, life: int) -> str:
    """The consumer's name of *worker* in its life number *life*, 1-based: each new lease needs a name of its own."""
    return worker if life == 1 else f"{worker}+{life}"


def life(name: str, worker: str) -> int:
    """Which life of *worker* the consumer *name* is; 0 when it is somebody else."""
    if name == worker:
        return 1
    rest = name.removeprefix(f"{worker}+")
    return int(rest) if rest != name and rest.isascii() and rest.isdigit() else 0


class Keeper(Protocol):
    """Moves what time moves.  Any number of keepers may run at once: every operation is atomic and idempotent."""

    @property
    def lease(self) -> float:
        """Seconds the broker waits after a renewal before it may take a worker for dead."""
        ...

    async def promote(self, limit: int = 256) -> float | None:
        """Make at most *limit* due messages of each queue ready.

        Returns the seconds until the next is due by the broker's clock (0 when more are due now, None when none waits).
        """
        ...

    async def reclaim(
        self, limit: int = 256, *, dead: str | None = None, why: str = "", most: int | None = None
    ) -> int:
        """Give the deliveries of dead consumers back, charged; returns how many.

        Dead is who let its lease lapse, and the worker *dead* in all its lives, whatever its leases say; *why* travels
        as the cause.  No count is charged above *most*, except of a delivery that was isolated: see
        `outcome.most_shared`.
        """
        ...

    async def renew(self, workers: Collection[str]) -> int:
        """Renew the leases of *workers*, who are known to live although they may be too busy to say so.

        Of each the last life that has a lease: the others are over.  A lease that is not there is not made.  Returns
        how many leases there were, over all queues.
        """
        ...

    async def changed(self) -> None:
        """Wait until a message may have become the next one due."""
        ...


class Timetable(Protocol):
    """Remembers which slots of which schedules are over.  Any number of schedulers may use it at once: each slot is
    fired by one of them, because firing sets the mark and publishes, and of all who try one at a time may.
    """

    async def look(self, entries: Sequence[Entry], *, begin: bool = True) -> Look:
        """What is remembered of *entries*, and of whatever else is remembered with them.

        begin: those that are new begin now, and what nobody has named for RETENTION is forgotten.
        """
        ...

    async def fire(self, entry: Entry, slot: float, message: TaskMessage) -> bool:
        """Publish *message*, ready, and set the mark to *slot*, once.

        Both or neither; or in an order in which a crash, or an error that is raised, can only repeat it.
        False, and nothing is done, when the slot is over or has not come yet, when the schedule is paused, and when a
        joined backend knows the message's id; also when another message has its unique key, and then the slot is over.
        Asked again after a lost answer it does nothing.  Raises as `publish`.
        """
        ...

    async def pause(self, entry: Entry) -> bool:
        """Fire nothing of *entry* once this has returned, until it is resumed; False when it was paused already."""
        ...

    async def resume(self, entry: Entry) -> bool:
        """Go on with the slots after now; those of the pause are over.  False when it was not paused.

        A mark that lies ahead, because the broker's clock was set back, is brought back to now too.
        """
        ...


class Broker(Protocol):
    """A place where messages wait.  Usable from any trio run; connects when first used."""

    def join(self, backend: "Backend") -> None:
        """Store results in *backend*, which said that it joins; called once, before anything else.

        From then on publishing marks tasks as pending, an id that the backend knows is not published again, and
        settling stores the records in the same step.
        """
        ...

    def announce(self, reopen: Callable[[str], Awaitable[None]]) -> None:
        """Call *reopen* with the id of each task whose dead letter is about to be replayed: its result is kept
        elsewhere.  Called once, instead of `join`.
        """
        ...

    async def publish(self, message: TaskMessage, queue: str | None = None, *, delay: float | None = None) -> str:
        """Return once the broker has *message*, ready or delayed.

        Returns its id, or, where the queue has one with the same unique key, the id of that one; then nothing is done.

        queue: instead of message.queue.  delay: seconds from now by the broker's clock, instead of message.eta.
        Raises PayloadError, DelayError, QueueFull, BrokerFull, BrokerUnavailable (surely not there) or
        PublishUnknown (perhaps there; repeating with the same id is safe).
        """
        ...

    async def publish_many(self, messages: Sequence[TaskMessage], queue: str | None = None) -> Sequence[str]:
        """Publish all, in order within a queue and a priority, and in as few round trips as will do.

        Returns for each what `publish` would.  All are checked before the first is sent.  An error says in `published`
        how many surely are there: the first ones, where all have one queue and one priority.
        """
        ...

    def consumer(self, queues: Sequence[str], *, name: str, limit: int) -> AbstractAsyncContextManager[Consumer]:
        """Join as *name*, holding at most *limit* deliveries at a time."""
        ...

    def keeper(self, queues: Sequence[str]) -> AbstractAsyncContextManager[Keeper] | None:
        """None: the broker does that work itself."""
        ...

    def timetable(self) -> Timetable | None:
        """None: the broker cannot remember which slots are over, so apps that have schedules cannot use it."""
        ...

    async def get_dlq_messages(self, queue: str = "default", count: int = 100, start: str = "") -> list[DLQMessage]:
        """The *count* oldest dead letters after message id *start*, oldest first; nothing changes by looking."""
        ...

    async def replay_from_dlq(self, message_id: str, queue: str = "default", *, reset_retries: bool = True) -> bool:
        """Put a dead letter back into its queue, exactly once however often it is asked; False if it is not there.

        *message_id*: its id among the dead letters, or its task's id.
        """
        ...

    async def delete_from_dlq(self, message_id: str, queue: str = "default") -> bool:
        """Forget a dead letter; False if it is not there."""
        ...

    async def purge_dlq(self, queue: str = "default") -> int:
        """Forget all dead letters of *queue*; returns how many."""
        ...

    async def get_dlq_count(self, queue: str = "default") -> int:
        """How many dead letters *queue* has."""
        ...

    async def get_queue_sizes(self, queue: str = "default") -> QueueSizes:
        """How many messages are in each place."""
        ...

    async def get_queue_size(self, queue: str = "default") -> int:
        """How many messages are ready, and no worker has them."""
        ...

    async def get_pending_count(self, queue: str = "default") -> int:
        """How many messages workers hold: delivered and not settled."""
        ...

    async def get_consumer_count(self, queue: str = "default") -> int:
        """How many workers take messages from *queue*, busy or not; one that is dead counts until its lease is over."""
        ...

    async def purge_queue(self, queue: str = "default", *, delayed: bool = True) -> int:
        """Forget what is ready in *queue*, and what is delayed unless told otherwise; returns how many.

        What workers hold stays.  A joined backend forgets these tasks: they will never run, and whoever waits for one
        is told that it is UNKNOWN.
        """
        ...

    async def counters(self, queue: str = "default") -> dict[str, int]:
        """How many messages ever took each of ROADS.  Deleted and trimmed are dead letters forgotten by hand and by
        `dlq_max_length`; stale was settled too late, so not at all; lost is what somebody else deleted.

        The books close: published + replayed = done + failed + dead + purged + ready + delayed + delivered + lost.
        """
        ...

    async def healthcheck(self) -> Health:
        """Whether the server answers, and will have us; never raises for that."""
        ...

    async def ping(self) -> str:
        """Which server answers, e.g. "Redis 7.0.15"; raises BrokerUnavailable or BrokerRefused with the remedy."""
        ...

    async def examine(self) -> list[Finding]:
        """What this server keeps of what it acknowledges, what it may lose, and what to do about it.

        Also of a server that workers would refuse.  Raises BrokerUnavailable and BrokerRefused.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection of the current trio run."""
        ...


@runtime_checkable
class CancellingBroker(Protocol):
    """A broker that remembers which tasks are cancelled, until they are settled, and tells its consumers."""

    async def cancel(self, task_id: str) -> bool:
        """See to it that the task is not started any more, and that what runs of it is cancelled.

        With a joined backend its record becomes CANCELLED in the same step, and False means that it is finished.
        Whatever outcome a cancelled task is settled with, it is neither retried nor kept as a dead letter.
        """
        ...


@runtime_checkable
class ListsWorkers(Protocol):
    """A broker that knows its workers by name."""

    async def get_active_workers(self) -> list[WorkerInfo]:
        """The workers whose lease is not over, busy or not, by name; read here, and no worker is asked."""
        ...


@runtime_checkable
class ListedConsumer(Protocol):
    """A consumer that a `ListsWorkers` lists."""

    def introduce(self, tell: Callable[[], WorkerInfo]) -> None:
        """Ask *tell* with each heartbeat what to write down of this worker."""
        ...


async def health_of(broker: Broker) -> Health:
    """What `healthcheck` says when `ping` says all there is to know."""
    began = time.monotonic()
    try:
        ok, detail = True, await broker.ping()
    except BrokerError as error:
        ok, detail = False, str(error)
    return Health(ok=ok, detail=detail, seconds=time.monotonic() - began)
