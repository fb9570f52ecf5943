"""What a consumer puts back into its queues: what was delivered before, with one more death, and what nobody received.

A delivery that RabbitMQ calls redelivered was with a worker that died or lost its connection; which of the two, and how
often before, RabbitMQ does not say.  So it never reaches a worker: it goes back with the death on its count, and comes
as a new delivery that knows.
"""

import logging
from collections.abc import Callable, Sequence

import trio

from chicory.brokers.rabbitmq.books import Books
from chicory.brokers.rabbitmq.intake import Held, Stash
from chicory.brokers.rabbitmq.line import Line
from chicory.brokers.rabbitmq.mail import Parcel, Sender, cause, rest, spent
from chicory.brokers.rabbitmq.publisher import REMEDY, Publisher
from chicory.types import TaskMessage
from chicory.wire import unpack

DIED = "its worker was killed, or lost its connection to the broker"

_MOST = 256

log = logging.getLogger("chicory.rabbitmq")


class Returns:
    """Puts back for one consumer.

    most: the count up to which deaths are charged that may be a neighbour's fault; None is no limit.
    acknowledge: called with what has safely arrived again.
    """

    def __init__(
        self,
        line: Line,
        publisher: Publisher,
        sender: Sender,
        books: Books,
        *,
        most: int | None,
        acknowledge: Callable[[Sequence[Held]], None],
    ) -> None:
        self._line = line
        self._publisher = publisher
        self._sender = sender
        self._books = books
        self._most = most
        self._acknowledge = acknowledge
        self._turn = trio.Lock()

    async def charge(self, aside: list[Held]) -> None:
        """Put back what stands *aside*, and take it out there: it was delivered before, or has still to wait."""
        async with self._turn:
            while aside:
                some = aside[:_MOST]
                await self._move([(held, await self._charged(held)) for held in some])
                del aside[: len(some)]
                for held in some:
                    if held.redelivered:
                        self._books.note(held.names.queue, "reclaimed")
                    if held.alone:
                        # It stood for one death; of the next, whoever gets the message may be as innocent as any.
                        await self._line.unmark(held.alone)

    async def give_back(self, stash: Stash) -> None:
        """Put back what nobody received, as it was."""
        async with self._turn:
            while len(stash):
                some = stash.take(_MOST)
                try:
                    await self._move([(held, self._unchanged(held)) for held in some])
                except BaseException:
                    for held in some:
                        stash.put(held, 0)
                    raise

    async def _charged(self, held: Held) -> Parcel:
        headers = held.content.headers
        message = unpack(held.content.body)
        deaths, why = spent(headers), cause(headers)
        if held.redelivered:
            mark = held.names.alone(message.id) if isinstance(message, TaskMessage) else ""
            innocent = self._most is not None and deaths + 1 >= self._most
            if mark and innocent and await self._line.marked(mark):
                held.alone = mark
            if not innocent or held.alone:
                deaths += 1
            why = DIED
        return self._sender.again(held.names, message, spent=deaths, cause=why, delay=rest(headers))

    def _unchanged(self, held: Held) -> Parcel:
        headers = held.content.headers
        return self._sender.again(held.names, unpack(held.content.body), spent=spent(headers), cause=cause(headers))

    async def _move(self, moves: Sequence[tuple[Held, Parcel]]) -> None:
        fitting = [(held, parcel) for held, parcel in moves if self._publisher.takes(parcel)]
        if len(fitting) < len(moves):
            stuck = len(moves) - len(fitting)
            log.error("%d messages are larger than RabbitMQ takes now, and wait for another worker; %s", stuck, REMEDY)
        await self._publisher.move([parcel for _, parcel in fitting])
        self._acknowledge([held for held, _ in fitting])
