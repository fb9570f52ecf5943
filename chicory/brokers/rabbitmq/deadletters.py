"""Dead letters in RabbitMQ: a queue, of which one reader at a time holds what he looks at.

Looking takes the letters without acknowledging them, on a channel of its own, and then each is put back where it was,
in order.  Meanwhile others would find the queue empty, so everybody who touches it takes a lock first: a queue that
only one connection can have, and that ends with the connection, whatever becomes of its owner.
"""

import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import attrs
import trio
from msgspec.structs import replace

from chicory.brokers.rabbitmq.books import Books
from chicory.brokers.rabbitmq.line import Line
from chicory.brokers.rabbitmq.mail import LETTER, Sender, letter_of
from chicory.brokers.rabbitmq.publisher import Publisher
from chicory.brokers.rabbitmq.topology import Names
from chicory.errors import BrokerError, BrokerUnavailable, PublishUnknown
from chicory.ids import born
from chicory.links import amqp_methods
from chicory.links.amqp_port import RESOURCE_LOCKED, Channel, ChannelError, Fate, Got
from chicory.outcome import afresh
from chicory.types import DLQMessage, TaskMessage, Undecodable

_PAGE = 256
_PAUSE = 0.02
# Seconds for what must not be left half done.
_LAST = 5.0


@attrs.frozen(eq=False)
class _Taken:
    """A letter in our hands."""

    tag: int
    letter: DLQMessage


class DeadLetters:
    """The dead letters of one queue.  *turn* is for all who use *line*."""

    def __init__(
        self,
        line: Line,
        publisher: Publisher,
        names: Names,
        *,
        sender: Sender,
        books: Books,
        turn: trio.Lock,
        reopen: Callable[[str], Awaitable[None]] | None,
        claimed: Callable[[Names, TaskMessage], AbstractAsyncContextManager[str | None]],
    ) -> None:
        self._line = line
        self._publisher = publisher
        self._names = names
        self._sender = sender
        self._books = books
        self._turn = turn
        self._reopen = reopen
        self._claimed = claimed

    async def list(self, count: int, start: str) -> list[DLQMessage]:
        """See `Broker.get_dlq_messages`."""
        found: list[DLQMessage] = []
        begun = not start
        async with self._locked() as channel:
            reader = _Reader(channel, self._names, self._publisher.timeout)
            while not (begun and len(found) >= count) and (page := await reader.page(_PAGE)):
                for taken in page:
                    letter = taken.letter
                    if letter.message_id == start:
                        found, begun = [], True
                    elif begun or _later(letter.message_id, start):
                        found.append(letter)
        return found[:count]

    async def replay(self, message_id: str, *, reset_retries: bool) -> bool:
        """See `Broker.replay_from_dlq`."""
        async with self._locked() as channel:
            taken = await self._find(channel, message_id)
            if taken is None:
                return False
            message = taken.letter.original_message
            if isinstance(message, TaskMessage):
                message = replace(afresh(message) if reset_retries else message, eta=None)
                # Before it is replayed: it may be finished a moment later.
                if self._reopen is not None and not message.ignore_result:
                    await self._reopen(message.id)
            # To the end, for half of it would be two of the message.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST):
                async with self._holding_its_key(message):
                    (fate,) = await self._publisher.deliver([self._sender.again(self._names, message)])
                    if fate is not Fate.TAKEN:
                        raise PublishUnknown([message_id], self._publisher.trouble)
                    channel.ack(taken.tag)
                    self._books.note(self._names.queue, "replayed")
                return True
            raise PublishUnknown([message_id], self._publisher.trouble)

    def _holding_its_key(self, message: TaskMessage | Undecodable) -> AbstractAsyncContextManager[object]:
        """It holds its key again, unless another does; its window was that of the first time."""
        if isinstance(message, Undecodable):
            return nullcontext()
        return self._claimed(self._names, replace(message, unique_window=None))

    async def delete(self, message_id: str) -> bool:
        """See `Broker.delete_from_dlq`."""
        async with self._locked() as channel:
            taken = await self._find(channel, message_id)
            if taken is not None:
                channel.ack(taken.tag)
                self._books.note(self._names.queue, "deleted")
            return taken is not None

    async def purge(self) -> int:
        """See `Broker.purge_dlq`."""
        async with self._locked() as channel:
            purge = amqp_methods.purge(self._names.dead)
            purged: int = (await channel.call(purge, timeout=self._publisher.timeout)).message_count
            self._books.note(self._names.queue, "deleted", purged)
            return purged

    async def count(self) -> int:
        """See `Broker.get_dlq_count`."""
        async with self._locked() as channel:
            return await self._line.length(channel, self._names.dead)

    async def trim(self, limit: int) -> None:
        """Forget the oldest beyond *limit*."""
        async with self._locked() as channel:
            excess = await self._line.length(channel, self._names.dead) - limit
            while excess > 0:
                page = await _Reader(channel, self._names, self._publisher.timeout).page(min(excess, _PAGE))
                for taken in page:
                    channel.ack(taken.tag)
                self._books.note(self._names.queue, "trimmed", len(page))
                excess = excess - len(page) if page else 0

    async def _find(self, channel: Channel, message_id: str) -> _Taken | None:
        reader = _Reader(channel, self._names, self._publisher.timeout)
        by_task: _Taken | None = None
        while message_id and (page := await reader.page(_PAGE)):
            for taken in page:
                if taken.letter.message_id == message_id:
                    return taken
                if taken.letter.task_id == message_id:
                    by_task = by_task or taken
        return by_task

    @asynccontextmanager
    async def _locked(self) -> AsyncGenerator[Channel]:
        """A channel that is alone with the letters; what is taken on it and not acknowledged is put back in the end."""
        async with self._turn:
            await self._line.ensure(self._names)
            channel = await self._lock()
            try:
                yield channel
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST):
                    await self._unlock(channel)

    async def _lock(self) -> Channel:
        deadline = trio.current_time() + self._publisher.timeout
        while True:
            channel = await self._line.channel()
            try:
                lock = amqp_methods.queue(self._names.lock, {"x-queue-type": "classic"}, durable=False, exclusive=True)
                await channel.call(lock, timeout=self._publisher.timeout)
            except ChannelError as error:
                if error.code != RESOURCE_LOCKED:
                    raise
                if trio.current_time() > deadline:
                    raise BrokerUnavailable(f"{self._names.dead}: somebody else looks at the dead letters") from error
                await trio.sleep(_PAUSE)
            except BaseException:
                channel.close()
                raise
            else:
                return channel

    async def _unlock(self, channel: Channel) -> None:
        try:
            last = (amqp_methods.recover(), amqp_methods.delete(self._names.lock))
            await channel.answers([channel.ask(method) for method in last], timeout=self._publisher.timeout)
        except BrokerError:
            # The lock may be there still; it ends with its connection.
            self._line.close()
        else:
            channel.close()


class _Reader:
    """Takes letters in order, and names those that somebody else put there: by what they say, and the how manieth."""

    def __init__(self, channel: Channel, names: Names, timeout: float) -> None:
        self._channel = channel
        self._names = names
        self._timeout = timeout
        self._seen: Counter[str] = Counter()

    async def page(self, count: int) -> list[_Taken]:
        """The next letters, at most *count*; none at the end."""
        asked = [self._channel.ask(amqp_methods.get(self._names.dead)) for _ in range(count)]
        page: list[_Taken] = []
        answers: list[Got | None] = await self._channel.answers(asked, timeout=self._timeout)
        for got in answers:
            if got is not None:
                stand_in = "" if LETTER in got.content.headers else self._name(got.content.body)
                page.append(_Taken(got.tag, letter_of(self._names.queue, got.content, stand_in)))
        return page

    def _name(self, body: bytes) -> str:
        digest = hashlib.sha256(body).hexdigest()[:24]
        self._seen[digest] += 1
        return f"{digest}-{self._seen[digest]}"


def _later(letter_id: str, start: str) -> bool:
    """Whether a letter came after *start*, where *start* itself is not there to tell: ids begin with the instant."""
    one, other = born(letter_id), born(start)
    return one is not None and other is not None and one > other
