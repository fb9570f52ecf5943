"""The connections of one run to one Redis server, made when needed and kept for the next call."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from chicory.errors import BrokerRefused, BrokerUnavailable
from chicory.links.executor import ASYNCIO, SYNC, TRIO, TRIO_EXECUTOR, Executor
from chicory.links.redis import Connection, ServerError, connect
from chicory.links.redis_address import Address

log = logging.getLogger("chicory.redis")

# More idle connections than this are closed rather than kept.
_KEEP = 8


class Pool:
    """Connections to *address*.

    On trio a pool may serve several runs one after another (and a child after a fork): the connections of an earlier
    run are dropped, never reused.  For other executors each run has a pool of its own.  *hint* is added to the error
    when nobody answers.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout: float,
        verify: Callable[[Connection, float], Awaitable[None]] | None = None,
        hint: str = "",
        executor: Executor = TRIO_EXECUTOR,
    ) -> None:
        self.executor = executor
        self.address = address
        self.timeout = timeout
        self._verify = verify
        self._hint = hint
        self._idle: list[Connection] = []
        self._connect = _way_to_connect(executor)
        self._current_run = executor.current_run if executor.name == TRIO else _the_only_one
        self._run: object = None

    def on(self, executor: Executor) -> "Pool":
        """A pool like this one, of another executor."""
        return Pool(self.address, timeout=self.timeout, verify=self._verify, hint=self._hint, executor=executor)

    async def open(self) -> Connection:
        """A new connection, the caller's own to close."""
        try:
            connection = await self._connect(self.address, timeout=self.timeout)
        except BrokerUnavailable as error:
            if self._hint:
                raise BrokerUnavailable(f"{error}; {self._hint}") from error
            raise
        if self._verify is not None:
            try:
                await self._verify(connection, self.timeout)
            except BaseException:
                connection.close()
                raise
        return connection

    def idle(self) -> Connection | None:
        """An idle connection of this run, if there is one; give it back with `keep`."""
        run = self._current_run()
        if self._run is not run:
            self._drop()
            self._run = run
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    def keep(self, connection: Connection) -> None:
        """Give *connection* back."""
        if connection.closed:
            return
        if len(self._idle) < _KEEP and self._run is self._current_run():
            self._idle.append(connection)
        else:
            connection.close()

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """A connection for as long as the context lasts."""
        connection = self.idle() or await self.open()
        try:
            yield connection
        finally:
            self.keep(connection)

    async def call(self, *command: Any) -> Any:
        """The reply to one command that may safely be sent twice: a kept connection that has died is replaced once."""
        while True:
            kept = self.idle()
            connection = kept or await self.open()
            try:
                return await connection.call(*command, timeout=self.timeout)
            except BrokerUnavailable:
                if kept is None or not connection.closed:
                    raise
            finally:
                self.keep(connection)

    def close(self) -> None:
        """Close the idle connections of this run."""
        self._drop()

    def _drop(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()


def _the_only_one() -> object:
    return None


def _way_to_connect(executor: Executor) -> Callable[..., Awaitable[Connection]]:
    if executor.name == ASYNCIO:
        from chicory.links import redis_asyncio

        return redis_asyncio.connect
    if executor.name == SYNC:
        from chicory.links import redis_sync

        return redis_sync.connect
    return connect


async def verify_server(connection: Connection, timeout: float) -> None:
    """Refuse a server that is too old or deletes keys to make room.

    Raises BrokerRefused.  Where the ACL hides INFO, that is said once and taken on trust.
    """
    try:
        info = parse_info(await connection.call("INFO", "server", timeout=timeout))
        info |= parse_info(await connection.call("INFO", "memory", timeout=timeout))
    except BrokerRefused:
        log.warning(
            "%s: INFO is not allowed to this user, so version and eviction policy go unchecked", connection.address
        )
        return
    except ServerError as error:
        raise BrokerRefused(f"{connection.address}: {error}") from error
    version = server_version(info)
    if version < (7, 0):
        raise BrokerRefused(
            f"{connection.address}: Redis {'.'.join(map(str, version))} is too old; Chicory needs 7.0 or newer"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise BrokerRefused(
            f"{connection.address}: maxmemory-policy is {policy}, so Redis may delete tasks; "
            "run: CONFIG SET maxmemory-policy noeviction"
        )


def parse_info(raw: bytes) -> dict[str, str]:
    """The fields of an INFO reply."""
    lines = (line.split(":", 1) for line in raw.decode(errors="replace").splitlines() if ":" in line)
    return {name: value.strip() for name, value in lines}


def server_version(info: Mapping[str, str]) -> tuple[int, ...]:
    """The version of a server by its INFO; Valkey counts by its own."""
    text = info.get("valkey_version") or info.get("redis_version") or "0"
    return tuple(int(part) if part.isdigit() else 0 for part in text.split(".")[:3])
