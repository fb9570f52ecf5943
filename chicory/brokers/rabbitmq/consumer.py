"""One worker's hold on RabbitMQ queues.

The connection is the lease: while it stands, what it delivered is ours, and when it ends the server gives everything
to others at once.  So a consumer lives as long as one connection and one channel on it, and a worker whose connection
broke joins anew.

A message moves in two steps, first its copy into the other queue, confirmed, then the ack: a crash in between leaves
two of it, never none.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence
from itertools import count
from typing import Any

import trio
from msgspec.structs import replace

from chicory.brokers.base import Delivery, Settlement
from chicory.brokers.rabbitmq import uniques
from chicory.brokers.rabbitmq.books import Books
from chicory.brokers.rabbitmq.cancellations import Cancellations
from chicory.brokers.rabbitmq.intake import Acks, Held, Stash
from chicory.brokers.rabbitmq.line import Line
from chicory.brokers.rabbitmq.mail import RENEWED, Parcel, Sender, rest
from chicory.brokers.rabbitmq.outbox import Outbox
from chicory.brokers.rabbitmq.publisher import REMEDY, Publisher
from chicory.brokers.rabbitmq.renewal import Renewal
from chicory.brokers.rabbitmq.returns import Returns
from chicory.brokers.rabbitmq.settling import copy, refusal, reply, road
from chicory.brokers.rabbitmq.topology import LISTED_MS, Names
from chicory.brokers.rabbitmq.versions import limits_channels
from chicory.brokers.rabbitmq.workers import WorkerList
from chicory.clock import unix_now
from chicory.config import RabbitMQBrokerConfig
from chicory.errors import BrokerError, LeaseLost
from chicory.links import amqp_methods
from chicory.links.amqp_frames import Delivered
from chicory.links.amqp_port import Answer
from chicory.outcome import Dead, Done, Release, RetryIn
from chicory.types import TaskMessage, WorkerInfo

log = logging.getLogger("chicory.rabbitmq")

_MOST = 256
# Seconds after which what was delivered and nobody asked for is given back, for others may be idle.
_UNWANTED = 1.0
# Seconds before what could not be done is tried again.
_PAUSE = 1.0
# Seconds after which what is on the list of workers is written anew.
_LISTED_AGAIN = LISTED_MS / 1000 / 4
# What is sent for a delivery.
_REPLY, _COPY, _KEY = "reply", "copy", "key"
_numbers = count(1)


class RabbitMQConsumer:
    """See `brokers.base.Consumer`.

    line: the connection, which is its own and is never opened again.
    trim: forgets the oldest dead letters of a queue beyond a limit.
    most: see `Returns`.
    """

    def __init__(
        self,
        line: Line,
        publisher: Publisher,
        queues: Sequence[Names],
        *,
        name: str,
        limit: int,
        config: RabbitMQBrokerConfig,
        most: int | None,
        books: Books,
        trim: Callable[[str, int], Awaitable[None]],
        cancellations: Cancellations,
        workers: WorkerList,
    ) -> None:
        self.name = name
        self.lease = 2 * config.heartbeat
        self._line = line
        self._publisher = publisher
        self._queues = queues
        self._named = {names.queue: names for names in queues}
        self._limit = limit
        self._config = config
        self._books = books
        self._trim = trim
        self._cancellations = cancellations
        self._workers = workers
        # What there is to say of this worker, whether to say so, what was said last and when.
        self._tell: Callable[[], WorkerInfo] | None = None
        self._due = False
        self._said: tuple[WorkerInfo, str] | None = None
        self._said_at = 0.0
        self._sender = Sender(config.max_priority, config.durable)
        self._timeout = config.connect_timeout
        self._stash = Stash()
        # Received and not yet settled, by receipt.
        self._held: dict[Any, Held] = {}
        self._outbox = Outbox(publisher)
        # Of settlings that were broken off, what was carried out.
        self._answers: dict[Any, bool] = {}
        # Delivered, and not to be received as they are.
        self._aside: list[Held] = []
        self._names: dict[str, Names] = {}
        self._consuming: dict[str, str] = {}
        self._ending: list[Answer] = []
        self._returns = Returns(line, publisher, self._sender, books, most=most, acknowledge=self._acknowledge)
        self._renewal = Renewal(line, publisher, self._sender, config.connect_timeout)
        self._receiving = 0
        self._received_at = trio.current_time()
        self._lost: BrokerError | None = None
        self._left = False
        self._news = trio.Event()
        self._chores = trio.Event()

    # -- joining and leaving

    async def join(self) -> None:
        """Open the channel and see that the queues are there; deliveries come once they are asked for."""
        for names in self._queues:
            await self._line.ensure(names)
        channel = self._channel = await self._line.channel()
        self._acks = Acks(channel)
        # Over all queues of the channel, which quorum queues and newer servers cannot do: there it is for each.
        permitted = self._config.queue_type == "classic" and limits_channels((await self._line.open()).product)
        self._shared = len(self._queues) > 1 and permitted
        channel.delivered, channel.cancelled, channel.ended = self._deliver, self._bereave, self._lose
        await self.sync()
        await self._cancellations.begin()
        trio.lowlevel.spawn_system_task(self._look_after, name="chicory rabbitmq consumer")

    async def leave(self) -> None:
        """Give back what nobody started, and close; what may be running goes to others."""
        self._left = True
        try:
            if self._lost is None:
                await self._rest()
        except BrokerError as error:
            log.warning("left without saying goodbye (%s); RabbitMQ gives back what is pending", error)
        finally:
            if self._line.connection is not None:
                await self._line.connection.aclose(timeout=self._timeout)

    def close(self) -> None:
        """Close at once."""
        self._left = True
        self._line.close()
        self._chores.set()

    async def sync(self) -> None:
        """Return when RabbitMQ has seen what was sent to it, and what it had delivered by then has come."""
        await self._channel.call(amqp_methods.limit(self._limit, shared=self._shared), timeout=self._timeout)

    def _lose(self, error: BrokerError) -> None:
        self._lost = error
        if not self._left:
            log.error("%s has lost its connection, and what it held goes to others: %s", self.name, error)
        # RabbitMQ has put all of it back already.
        self._aside.clear()
        self._stash.take(len(self._stash))
        self._news.set()
        self._chores.set()

    def _check(self) -> None:
        if self._lost is not None:
            raise LeaseLost(f"{self.name}: {self._lost}")

    # -- what comes

    def _deliver(self, delivered: Delivered) -> None:
        content = delivered.content
        self._acks.came(delivered.tag)
        names, headers, now = self._names[delivered.consumer], content.headers, trio.current_time()
        died = delivered.redelivered or RENEWED in headers
        held = Held(names, self._acks, delivered.tag, content, died, now)
        if died or rest(headers):
            self._aside.append(held)
            self._chores.set()
            return
        self._stash.put(held, 0 if self._config.max_priority is None else content.properties.priority or 0)
        self._news.set()

    def _bereave(self, tag: str) -> None:
        """RabbitMQ ended a consumer, most likely because its queue was deleted."""
        log.warning("%s was deleted; declaring it again", self._names[tag].main)
        self._consuming = {queue: one for queue, one in self._consuming.items() if one != tag}
        self._news.set()

    async def _consume(self) -> None:
        """See that RabbitMQ delivers from every queue."""
        missing = [names for names in self._queues if not self._consuming.keys() >= set(names.ready)]
        for names in missing:
            # A queue that is not there would end the channel, and with it take away what is held.
            self._line.missing(names)
            await self._line.ensure(names)
        self._check()
        for names in missing:
            for queue in names.ready:
                if queue not in self._consuming:
                    tag = self._consuming[queue] = f"{self.name}/{next(_numbers)}"
                    self._names[tag] = names
                    self._channel.ask(amqp_methods.consume(queue, tag))

    def _pause(self) -> None:
        """Have nothing more delivered; what is on its way still comes."""
        consuming, self._consuming = self._consuming, {}
        if self._lost is None:
            self._ending += [self._channel.ask(amqp_methods.cancel(tag)) for tag in consuming.values()]

    async def _rest(self) -> None:
        """Have nothing delivered, and give back what nobody received."""
        self._pause()
        for answer in tuple(self._ending):
            await self._channel.answer(answer, timeout=self._timeout)
        self._ending = [answer for answer in self._ending if not answer.done.is_set()]
        await self._returns.charge(self._aside)
        await self._returns.give_back(self._stash)

    # -- receiving

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See `Consumer.receive`.  Raises LeaseLost when the connection broke."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._receiving += 1
        try:
            while True:
                self._check()
                await self._consume()
                room = min(limit, self._limit - len(self._held))
                if room > 0 and len(self._stash):
                    found = [(held.delivery(), held) for held in self._stash.take(room)]
                    self._held.update([(delivery.receipt, held) for delivery, held in found])
                    # Shielded: a cancellation here would leave deliveries that nobody has seen.
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    return [delivery for delivery, _ in found]
                self._news = trio.Event()
                await self._news.wait()
        except trio.Cancelled:
            # Whoever gave up may not come back for long, and others could have what would come here.
            self._pause()
            raise
        finally:
            self._receiving -= 1
            self._received_at = trio.current_time()

    def reconnect(self) -> None:
        """See `Consumer.reconnect`.  On the same connection, which what runs depends on: RabbitMQ delivers anew."""
        self._pause()
        self._news.set()

    async def reconcile(self, held: Collection[Any]) -> Sequence[Delivery]:
        """See `Consumer.reconcile`.  No delivery is the reply to a call, so none gets lost with one."""
        await trio.lowlevel.checkpoint()
        return []

    # -- settling

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery | None]:
        """See `Consumer.acknowledge`."""
        await trio.lowlevel.checkpoint()
        pairs = [(delivery, self._unacked(delivery)) for delivery in deliveries]
        ours = [held for _, held in pairs if held is not None]
        if ours:
            await self._let_go_of_keys(deliveries)
            self._acknowledge(ours)
            for held in ours:
                held.acked = True
            # Only what RabbitMQ has surely heard may be run.
            await self.sync()
            for held in ours:
                held.told = True
        return [None if held is None else replace(delivery, acked=True) for delivery, held in pairs]

    async def _let_go_of_keys(self, deliveries: Sequence[Delivery]) -> None:
        parcels: dict[Hashable, Parcel] = {}
        for one in deliveries:
            names, persistent = self._named[one.queue], self._config.durable
            parcel = uniques.acknowledging(one.message, names, persistent=persistent)
            if parcel is not None:
                parcels[one.receipt, _KEY] = parcel
        if parcels:
            await self._outbox.send(parcels, optional=frozenset())

    def _unacked(self, delivery: Delivery) -> Held | None:
        """What to acknowledge for *delivery*: None when it is lost, or was acknowledged and its worker told so."""
        held = self._held.get(delivery.receipt)
        if held is not None and self._lost is not None and not held.told:
            self._let_go(delivery)
        return held if held is not None and self._lost is None and not held.told else None

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """See `Consumer.settle`.  Raises BrokerUnavailable while a copy is not confirmed; repeating it goes on."""
        await trio.lowlevel.checkpoint()
        settlements = await self._judged(settlements)
        moving: list[Settlement] = []
        done: list[Settlement] = []
        wanted: dict[Hashable, Parcel] = {}
        for one in settlements:
            if one.delivery.receipt in self._answers:
                continue
            parcels = self._parcels(one) if self._ours(one.delivery) else {}
            (moving if parcels else done).append(one)
            wanted.update(parcels)
        # First what needs nobody: a server that takes no messages does not keep tasks from being finished.
        await self._conclude(done)
        if moving:
            # Whoever waited for a result may have gone.
            replies = frozenset((one.delivery.receipt, _REPLY) for one in moving)
            unfit = await self._outbox.send(wanted, optional=replies)
            await self._outbox.send(self._refusals(moving, unfit), optional=replies)
            await self._conclude([one for one in moving if (one.delivery.receipt, _COPY) not in unfit])
            self._leave_to_the_server([one for one in moving if (one.delivery.receipt, _COPY) in unfit])
        return [self._answers.pop(one.delivery.receipt) for one in settlements]

    async def _judged(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        """*settlements* with those of cancelled tasks as failed, unless something else may have been sent already."""
        if not self.cancelled and all(type(one.outcome) is Done for one in settlements):
            return settlements
        begun = {id(one) for one in settlements if self._outbox.holds((one.delivery.receipt, _COPY))}
        if not begun:
            return await self._cancellations.judged(settlements, self.now())
        rest = iter(await self._cancellations.judged([one for one in settlements if id(one) not in begun], self.now()))
        return [one if id(one) in begun else next(rest) for one in settlements]

    def _parcels(self, settlement: Settlement) -> dict[Hashable, Parcel]:
        """What is to be sent for one delivery: its result, and the copy that outlives it.

        The result goes first: a crash before the ack runs the task again, the other way round its result were lost.
        """
        receipt = settlement.delivery.receipt
        names = self._held[receipt].names
        parcels = {
            (receipt, _REPLY): reply(settlement, names, self._sender),
            (receipt, _COPY): copy(settlement, names, self._sender, self.now()),
            (receipt, _KEY): uniques.settling(settlement, names, self.now(), persistent=self._config.durable),
        }
        return {key: parcel for key, parcel in parcels.items() if parcel is not None}

    def _refusals(self, settlements: Sequence[Settlement], unfit: Collection[Hashable]) -> dict[Hashable, Parcel]:
        """What is sent instead of those replies that are among *unfit*."""
        refusals: dict[Hashable, Parcel] = {}
        for one in settlements:
            receipt = one.delivery.receipt
            if (receipt, _REPLY) in unfit:
                refusals[receipt, _REPLY] = refusal(one, self._held[receipt].names, self._sender)
        return refusals

    def _leave_to_the_server(self, settlements: Sequence[Settlement]) -> None:
        """Let go of what the server takes no copy of, so that nothing may be acknowledged: another worker gets it."""
        for one in settlements:
            self._answers[one.delivery.receipt] = False
            self._let_go(one.delivery)
            self._books.note(one.delivery.queue, "stale")
            log.error("RabbitMQ takes no message as large as the one that ended %s; %s", road(one), REMEDY)

    async def _conclude(self, settlements: Sequence[Settlement]) -> None:
        """Acknowledge what is still ours, and note the answers."""
        finished: list[Held] = []
        for one in settlements:
            ours = self._answers[one.delivery.receipt] = self._ours(one.delivery)
            held = self._let_go(one.delivery)
            self._books.note(one.delivery.queue, road(one) if ours else "stale")
            if ours and held is not None:
                finished.append(held)
        self._acknowledge(finished)
        for held in finished:
            if held.alone:
                await self._unmark(held.alone)
        if self.cancelled:
            self._cancellations.forget(_over(settlements))
        limit = self._config.dlq_max_length
        if limit is not None:
            for queue in {one.delivery.queue for one in settlements if isinstance(one.outcome, Dead)}:
                await self._trim(queue, limit)

    def _ours(self, delivery: Delivery) -> bool:
        held = self._held.get(delivery.receipt)
        # One that may have been acknowledged, where nobody knows, is neither run nor given back.
        return held is not None and held.acked == delivery.acked and (held.acked or self._lost is None)

    def _let_go(self, delivery: Delivery) -> Held | None:
        for kind in (_REPLY, _COPY, _KEY):
            self._outbox.forget((delivery.receipt, kind))
        self._news.set()
        return self._held.pop(delivery.receipt, None)

    def _acknowledge(self, done: Sequence[Held]) -> None:
        tags: dict[Acks, list[int]] = {}
        for held in done:
            if not held.acked:
                held.done = True
                tags.setdefault(held.acks, []).append(held.tag)
        for acks, some in tags.items():
            acks.send(some)

    # -- what was cancelled

    @property
    def cancelled(self) -> Collection[str]:
        """See `CancellingConsumer.cancelled`."""
        return self._cancellations.ids

    async def heard(self) -> Collection[str]:
        """See `CancellingConsumer.heard`."""
        return await self._cancellations.heard()

    async def isolate(self, delivery: Delivery) -> None:
        """See `Consumer.isolate`."""
        self._check()
        await self._rest()
        held = self._held.get(delivery.receipt)
        if held is not None and isinstance(delivery.message, TaskMessage):
            mark = held.names.alone(delivery.message.id)
            await self._line.mark(mark)
            held.alone = mark

    async def _unmark(self, mark: str) -> None:
        try:
            await self._line.unmark(mark)
        except BrokerError as error:
            log.info("the mark %s stays until it expires: %s", mark, error)

    # -- the lease

    def now(self) -> float:
        """See `Consumer.now`.  RabbitMQ tells nobody its clock, so this is the host's."""
        return unix_now()

    def introduce(self, tell: Callable[[], WorkerInfo]) -> None:
        """See `ListedConsumer.introduce`."""
        self._tell = tell

    async def renew(self) -> bool:
        """See `Consumer.renew`."""
        if self._lost is None:
            self._due = True
            self._chores.set()
            try:
                await self.sync()
            except BrokerError:
                if self._lost is None:
                    raise
        return self._lost is None

    # -- chores

    async def _look_after(self) -> None:
        while self._lost is None and not self._left:
            self._chores = trio.Event()
            try:
                await self._returns.charge(self._aside)
                await self._renew_old()
                unwanted = not self._receiving and trio.current_time() - self._received_at > _UNWANTED
                if len(self._stash) and unwanted:
                    await self._rest()
                await self._keep_lists()
            except BrokerError as error:
                if self._lost is None and not self._left:
                    log.warning("cannot do what is to be done beside the work (%s); trying on", error)
                    await trio.sleep(_PAUSE)
                continue
            with trio.move_on_after(_UNWANTED):
                await self._chores.wait()

    async def _keep_lists(self) -> None:
        await self._cancellations.tidy()
        hears = self._cancellations.queue
        if self._due and self._tell is not None and hears:
            self._due = False
            said, now = (self._tell(), hears), trio.current_time()
            if said != self._said or now - self._said_at > _LISTED_AGAIN:
                try:
                    await self._workers.write(*said)
                except BrokerError as error:
                    log.info("%s is not on the list of workers (%s); trying on", self.name, error)
                else:
                    self._said, self._said_at = said, now

    async def _renew_old(self) -> None:
        """Renew what has been held for half as long as RabbitMQ allows."""
        since = trio.current_time() - self._config.consumer_timeout / 2
        old = [held for held in self._held.values() if held.since < since and not held.acked]
        for start in range(0, len(old), _MOST):
            await self._renewal.renew(old[start : start + _MOST])

    # -- looking

    def delivered(self, queue: str) -> int:
        """How many of *queue* were received, and neither settled nor acknowledged."""
        return (
            sum(held.names.queue == queue and not held.acked for held in self._held.values()) if not self._lost else 0
        )

    def waiting(self, queue: str) -> int:
        """How many of *queue* were delivered here and not received."""
        return 0 if self._lost else self._stash.count(queue) + sum(one.names.queue == queue for one in self._aside)

    def purge(self, queue: str) -> list[Held]:
        """Forget what of *queue* was not received; returns it."""
        dropped = self._stash.drop(queue)
        self._acknowledge(dropped)
        return dropped if self._lost is None else []


def _over(settlements: Sequence[Settlement]) -> list[str]:
    """The ids of those tasks that are not to be run again."""
    return [
        one.delivery.message.id
        for one in settlements
        if isinstance(one.delivery.message, TaskMessage) and not isinstance(one.outcome, Release | RetryIn)
    ]
