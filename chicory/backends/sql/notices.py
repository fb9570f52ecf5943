"""What PostgreSQL says of results the moment they are stored: one connection that listens, for all who wait."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import trio
from sqlalchemy import Connection

from chicory.backends.sql.database import Database
from chicory.errors import BrokerUnavailable

if TYPE_CHECKING:
    import psycopg
    from psycopg.pq.abc import PGconn

# A notice may have fewer than 8000 bytes.
_ROOM = 7900


def payloads(task_ids: Sequence[str]) -> list[str]:
    """*task_ids* as few notices; ids have no spaces in them."""
    found: list[str] = []
    for task_id in task_ids:
        if found and len(found[-1]) + 1 + len(task_id) <= _ROOM:
            found[-1] += f" {task_id}"
        else:
            found.append(task_id)
    return found


class Notices:
    """Listens to *channel*.  What is said while the line is down is not heard."""

    def __init__(self, database: Database, channel: str) -> None:
        self._database = database
        self._channel = channel
        self._connection: Connection | None = None

    async def listen(self) -> bool:
        """See to it that nothing said from now on is missed; True when it may have been until now."""
        if self._connection is not None:
            await trio.lowlevel.checkpoint()
            return False
        self._connection = await self._database.open(f'LISTEN "{self._channel}"')
        return True

    async def heard(self) -> set[str]:
        """Wait for the next notices and return the ids in them.  Raises BrokerUnavailable when the line breaks."""
        told: set[str] = set()
        while not told:
            try:
                line = self._line()
                await trio.lowlevel.wait_readable(line.socket)
                # Neither waits: what has come is read, no more.
                line.consume_input()
                while (notice := line.notifies()) is not None:
                    told.update(notice.extra.decode(errors="replace").split())
            except Exception as error:
                self.close()
                raise BrokerUnavailable(f"{self._database.address}: the line broke while listening") from error
        return told

    def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is None or self._database.inherited:
            return
        with contextlib.suppress(Exception):  # the line may be broken already
            trio.lowlevel.notify_closing(_line_of(connection).socket)
        connection.close()

    def _line(self) -> "PGconn":
        if self._connection is None:
            raise trio.ClosedResourceError
        return _line_of(self._connection)


def _line_of(connection: Connection) -> "PGconn":
    driver = cast("psycopg.Connection[object]", connection.connection.driver_connection)
    return driver.pgconn
