"""Unique keys in RabbitMQ: which task holds each key of a queue, in a table that one at a time reads and replaces.

Whoever publishes a unique message has the table meanwhile, so of many callers one is first.  The message goes first and
the note of it then: a crash in between leaves a message whose key another may take, and never a key that nobody gives
back.  Workers do not wait for the table: what becomes of a key is put behind it, before the message is acknowledged,
and counts for whoever reads the table next.
"""

import random
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import assert_never

import msgspec
import trio

from chicory.brokers.base import Settlement
from chicory.brokers.rabbitmq.line import Line
from chicory.brokers.rabbitmq.mail import Parcel
from chicory.brokers.rabbitmq.register import Page, Register
from chicory.brokers.rabbitmq.topology import Names
from chicory.clock import unix_now
from chicory.config import RabbitMQBrokerConfig
from chicory.errors import BrokerRefused, BrokerUnavailable
from chicory.ids import new_id
from chicory.links import amqp_methods
from chicory.links.amqp_frames import Outgoing
from chicory.links.amqp_port import NOT_FOUND, ChannelError
from chicory.outage import Pace
from chicory.outcome import Dead, Done, Failed, Release, RetryIn
from chicory.types import TaskMessage, Undecodable

# Seconds a key is held, beyond the due time of its message: longer than any message should wait.
_UNFINISHED = 30 * 24 * 3600.0


class Hold(msgspec.Struct, array_like=True):
    """Who holds a key; ends: the end of its window; until: when nobody holds it any more, whatever becomes of it."""

    task_id: str
    ends: float
    until: float


class Note(msgspec.Struct, array_like=True, frozen=True):
    """What becomes of a key that a task may hold; until: the unix second, or None for the end of its window."""

    key: str
    task_id: str
    until: float | None


_Table = dict[str, Hold]
_encode = msgspec.json.encode


class Uniques:
    """The keys of all queues, for all who use one broker; *line* is for turns alone, *desk* for questions."""

    def __init__(self, line: Line, desk: Line, config: RabbitMQBrokerConfig) -> None:
        self._line = line
        self._desk = desk
        self._config = config
        self._pace = Pace.of(config)
        self._registers: dict[str, Register] = {}

    @asynccontextmanager
    async def taken(self, names: Names) -> AsyncGenerator["Keys"]:
        """The keys of a queue, which nobody else has before this ends.  Raises as `turn.taken`."""
        register = self._registers.get(names.queue)
        if register is None:
            register = self._registers[names.queue] = Register(self._line, self._config, names.unique.table)
        async with AsyncExitStack() as stack:
            yield Keys(await self._page(register, stack), names, unix_now())

    @asynccontextmanager
    async def claimed(self, names: Names, message: TaskMessage) -> AsyncGenerator[str | None]:
        """Who holds the key of *message*, which is then to be left alone; None: nobody.

        Then *message* holds it when this has ended well.  Also None where it has no key.
        """
        if message.unique is None:
            yield None
            return
        async with self.taken(names) as keys:
            holder = keys.holder(message.unique)
            yield holder
            keys.claim(message, 0.0)
            await keys.write()

    async def _page(self, register: Register, stack: AsyncExitStack) -> Page:
        """What is in *register*, for as long as *stack*; for which it tries as long as a publisher does."""
        deadline, failures = trio.current_time() + self._config.publish_timeout, 0
        while True:
            try:
                return await stack.enter_async_context(register.taken())
            except BrokerUnavailable:
                failures += 1
                pause = self._pace.wait(failures, random.random())
                if trio.current_time() + pause >= deadline:
                    raise
                await trio.sleep(pause)

    async def used(self, names: Names) -> bool:
        """Whether there ever was a unique message."""
        try:
            await self._desk.call(amqp_methods.inspect(names.unique.main))
        except ChannelError as error:
            if error.code != NOT_FOUND:
                raise
            return False
        return True


class Keys:
    """The keys of one queue, in the hands of the one who has them."""

    def __init__(self, page: Page, names: Names, now: float) -> None:
        self._page = page
        self._now = now
        try:
            self._holds = msgspec.json.decode(page.body, type=_Table) if page.body is not None else {}
            notes = [msgspec.json.decode(body, type=Note) for body in page.beside]
        except msgspec.DecodeError as error:
            raise BrokerRefused(
                f"what is in {names.unique.main} cannot be read ({error}); delete that queue, and all keys are free"
            ) from error
        for note in notes:
            hold = self._holds.get(note.key)
            if hold is not None and hold.task_id == note.task_id:
                hold.until = hold.ends if note.until is None else note.until
        self._holds = {key: hold for key, hold in self._holds.items() if hold.until > now}

    def holder(self, key: str) -> str | None:
        """The id of the task that holds *key*; None when it is free."""
        hold = self._holds.get(key)
        return None if hold is None else hold.task_id

    def claim(self, message: TaskMessage, delay: float) -> str | None:
        """The id of the task that holds the key of *message*, which is due after *delay* seconds; None: it does now."""
        assert message.unique is not None
        if (holder := self.holder(message.unique)) is not None:
            return holder
        ends = self._now + (message.unique_window or 0.0)
        self._holds[message.unique] = Hold(message.id, ends, max(ends, self._now + max(delay, 0.0) + _UNFINISHED))
        return None

    def free(self, messages: Iterable[TaskMessage | Undecodable]) -> None:
        """Let go of the keys that *messages* hold."""
        for message in messages:
            key = None if isinstance(message, Undecodable) else message.unique
            if isinstance(message, TaskMessage) and key is not None and self.holder(key) == message.id:
                del self._holds[key]

    async def write(self) -> None:
        """Write what has changed; raises BrokerUnavailable when nobody knows whether it is."""
        body = _encode(self._holds)
        if body != self._page.body or self._page.beside:
            await self._page.write(body)


def acknowledging(message: TaskMessage | Undecodable, names: Names, *, persistent: bool) -> Parcel | None:
    """What becomes of the key of what is acknowledged before its run; None: it has none.

    It is let go then: if the worker died, nobody would hear of the end.
    """
    return _parcel(message, None, names, persistent)


def settling(settlement: Settlement, names: Names, now: float, *, persistent: bool) -> Parcel | None:
    """What becomes of the key of what is settled; None: nothing, or it has none."""
    message = settlement.delivery.message
    if isinstance(message, Undecodable) or message.unique is None or settlement.delivery.acked:
        return None
    match settlement.outcome:
        case Done():
            return _parcel(message, None, names, persistent)
        case Failed() | Dead():
            return _parcel(message, 0.0, names, persistent)
        case RetryIn(delay):
            return _parcel(message, now + delay + _UNFINISHED, names, persistent)
        case Release():
            return None
        case _:
            assert_never(settlement.outcome)


def _parcel(message: TaskMessage | Undecodable, until: float | None, names: Names, persistent: bool) -> Parcel | None:
    if isinstance(message, Undecodable) or message.unique is None:
        return None
    body = _encode(Note(message.unique, message.id, until))
    return Parcel(names.unique, Outgoing("", names.unique.main, new_id(), body, persistent=persistent))
