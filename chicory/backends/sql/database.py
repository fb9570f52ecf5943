"""One database as one trio run uses it: a synchronous engine, whose calls take turns in threads."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import trio
from sqlalchemy import Connection, Engine, create_engine, inspect
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from chicory.backends.sql import sqlite
from chicory.backends.sql.address import Address
from chicory.backends.sql.complaints import complaint, passing
from chicory.backends.sql.line import PATIENCE, Line
from chicory.backends.sql.tables import Results
from chicory.errors import BrokerError

T = TypeVar("T")

# For what may succeed at once.
_TRIES = 3


class Database:
    """Connections to *address*, *size* at most, and the table of *results*, made when it is first used.

    Whatever is called must bear being done twice: no answer, and a connection that was found dead, leave open whether
    it was done; the latter, and what met a deadlock, is tried again at once.
    """

    def __init__(self, address: Address, results: Results, *, size: int) -> None:
        self.address = address
        self._results = results
        # SQLite has one writer at a time, so threads of one process would only wait for each other in it.
        size = 1 if address.kind == "sqlite" else size
        self._engine = _engine(address, size)
        self._reader = _reader(self._engine, address.kind)
        self._gate = sqlite.gate(self._engine) if address.kind == "sqlite" else nullcontext()
        self._turns = trio.Semaphore(size)
        self._limiter = trio.CapacityLimiter(size)
        self._made = False
        self._pid = os.getpid()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What *work*, which changes nothing, returns in a thread; BrokerError when the database does not."""
        return await self._call(lambda line: self._read(work, line))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """The same in a transaction, committed when this returns."""
        return await self._call(lambda line: self._write(work, line))

    async def open(self, greeting: str) -> Connection:
        """A connection to which *greeting* was said, the caller's own to close; it is not counted among the others."""
        opened: list[Connection] = []
        try:
            await self._call(lambda line: opened.append(self._open(greeting, line)))
        except BaseException:
            # Cancelled while the thread was opening it: what a call returns is lost then, and this must not be.
            for connection in opened:
                connection.close()
            raise
        return opened[0]

    @property
    def inherited(self) -> bool:
        """Whether the connections are the parent's of this process: to close one would say goodbye in its name."""
        return self._pid != os.getpid()

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is done."""
        self._engine.dispose(close=not self.inherited)

    async def _call(self, work: Callable[[Line], T]) -> T:
        # Taken before the clock starts, so that the wait for a turn counts as nobody's silence.
        async with self._turns:
            line = Line()
            ended: T | BrokerError | None = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(line.guard)
                try:
                    ended = await trio.to_thread.run_sync(self._attempt, work, line, limiter=self._limiter)
                finally:
                    line.ended()
        if isinstance(ended, BrokerError):
            raise ended
        return ended

    def _attempt(self, work: Callable[[Line], T], line: Line) -> T | BrokerError:
        with self._gate:
            return self._try(work, line)

    def _try(self, work: Callable[[Line], T], line: Line) -> T | BrokerError:
        for again in reversed(range(_TRIES)):
            try:
                if not self._made:
                    self._make(line)
                    self._made = True
                return work(line)
            # Drivers' own too: what is told a new connection, SQLAlchemy does not wrap.
            except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
                # After an outage the table may be another one's, of a database that was restored.
                self._made = False
                if not (again and passing(error)) or line.was_cut:
                    return _noted(complaint(error, str(self.address)), error)
        raise AssertionError("the last try returns")

    def _read(self, work: Callable[[Connection], T], line: Line) -> T:
        with _using(self._reader, line) as connection:
            return work(connection)

    def _write(self, work: Callable[[Connection], T], line: Line) -> T:
        with _using(self._engine, line) as connection, connection.begin():
            return work(connection)

    def _open(self, greeting: str, line: Line) -> Connection:
        connection = self._reader.connect()
        try:
            connection.detach()
            with line.holding(connection.connection.driver_connection):
                connection.exec_driver_sql(greeting)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self, line: Line) -> None:
        try:
            self._write(self._results.metadata.create_all, line)
        except DBAPIError:
            # Where two make it at once, the later one is told that it is there.
            name = self._results.table.name
            if not self._read(lambda connection: inspect(connection).has_table(name), line):
                raise


@contextmanager
def _using(engine: Engine, line: Line) -> Generator[Connection]:
    with engine.connect() as connection:
        try:
            with line.holding(connection.connection.driver_connection):
                yield connection
        finally:
            if line.was_cut:
                connection.invalidate()


def _engine(address: Address, size: int) -> Engine:
    if address.kind == "sqlite":
        sqlite.create_private(address.url.database or "")
        engine = create_engine(
            address.url, pool_size=size, max_overflow=0, hide_parameters=True, connect_args=address.arguments()
        )
        sqlite.prepare(engine)
        return engine
    return create_engine(
        address.url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=PATIENCE,
        hide_parameters=True,
        # Whatever the default: stricter levels refuse what waited for a row, and MySQL's own locks gaps between rows.
        isolation_level="READ COMMITTED",
        connect_args=address.arguments(),
    )


def _reader(engine: Engine, kind: str) -> Engine:
    if kind == "sqlite":
        return engine.execution_options(**{sqlite.READING: True})
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _noted(error: BrokerError, cause: Exception) -> BrokerError:
    error.__cause__ = cause
    return error
