"""Which slots of which schedules are over, in RabbitMQ: a table in a register, which is replaced with each slot.

A slot is published first and noted then, and a crash in between repeats it, under the same id.  The other order would
lose it, and RabbitMQ does not do both in one step: its transactions are atomic within one queue only.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import msgspec
import trio

from chicory.brokers.rabbitmq.books import Books
from chicory.brokers.rabbitmq.mail import Parcel
from chicory.brokers.rabbitmq.publisher import REMEDY
from chicory.brokers.rabbitmq.register import Page, Register
from chicory.brokers.rabbitmq.topology import SCHEDULES
from chicory.clock import unix_now
from chicory.config import RabbitMQBrokerConfig
from chicory.errors import BrokerRefused, PayloadError, PublishUnknown, QueueFull
from chicory.links.amqp_port import Fate
from chicory.links.trio_thread import on_trio
from chicory.schedules.entry import Entry, Look
from chicory.schedules.table import Table
from chicory.types import TaskMessage


class RabbitMQTimetable:
    """See `brokers.base.Timetable`.  RabbitMQ tells nobody its clock, so it is that of whoever asks.

    register: where the table is.  parcel: a message on its way into its queue.  claimed: see `Uniques.claimed`.
    """

    def __init__(
        self,
        register: Callable[[], Register],
        parcel: Callable[[TaskMessage], Parcel],
        config: RabbitMQBrokerConfig,
        books: Books,
        claimed: Callable[[TaskMessage], AbstractAsyncContextManager[str | None]],
    ) -> None:
        self._register = register
        self._parcel = parcel
        self._config = config
        self._books = books
        self._claimed = claimed

    @on_trio
    async def look(self, entries: Sequence[Entry], *, begin: bool = True) -> Look:
        """See `Timetable.look`."""
        async with self._register().taken() as page:
            table, now = _table(page), unix_now()
            if begin:
                table.begin(entries, now)
                await _keep(page, table)
        return Look(now, table.known())

    @on_trio
    async def fire(self, entry: Entry, slot: float, message: TaskMessage) -> bool:
        """See `Timetable.fire`."""
        register, parcel = self._register(), self._parcel(message)
        await register.line.ensure(parcel.names)
        async with register.taken() as page:
            table, now = _table(page), unix_now()
            if not table.ready(entry, slot, now):
                return False
            table.fire(entry, slot, now)
            # To the end, for half of it is another one of the slot.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._config.publish_timeout):
                async with self._claimed(message) as holder:
                    if holder is None:
                        await self._publish(page, parcel)
                await _keep(page, table)
                return holder is None
        raise PublishUnknown([message.id], f"no confirm in {self._config.publish_timeout:g} s")

    @on_trio
    async def pause(self, entry: Entry) -> bool:
        """See `Timetable.pause`."""
        async with self._register().taken() as page:
            table = _table(page)
            changed = table.pause(entry, unix_now())
            await _keep(page, table)
        return changed

    @on_trio
    async def resume(self, entry: Entry) -> bool:
        """See `Timetable.resume`."""
        async with self._register().taken() as page:
            table = _table(page)
            changed = table.resume(entry, unix_now())
            await _keep(page, table)
        return changed

    async def _publish(self, page: Page, parcel: Parcel) -> None:
        flight = await page.publish(parcel.outgoing)
        if flight.fate is Fate.RETURNED:
            line = self._register().line
            line.missing(parcel.names)
            await line.ensure(parcel.names)
            flight = await page.publish(parcel.outgoing)
        if flight.oversized:
            raise PayloadError(f"{flight.batch.error}; {REMEDY}")
        if flight.fate is Fate.REJECTED:
            raise QueueFull(parcel.names.queue, self._config.queue_max_length or 0)
        if flight.fate is not Fate.TAKEN:
            raise PublishUnknown([parcel.outgoing.id], str(flight.batch.error or "its queue is deleted every time"))
        self._books.note(parcel.names.queue, "published")


def _table(page: Page) -> Table:
    if page.body is None:
        return Table()
    try:
        return msgspec.json.decode(page.body, type=Table)
    except msgspec.DecodeError as error:
        raise BrokerRefused(
            f"what is in {SCHEDULES.name} cannot be read ({error}); delete that queue, and all schedules begin anew"
        ) from error


async def _keep(page: Page, table: Table) -> None:
    """Write what has changed."""
    body = msgspec.json.encode(table)
    if body != page.body:
        await page.write(body)
