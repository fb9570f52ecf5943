"""The Lua scripts beside this file: sent by digest, and whole only when the server does not know them."""

from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any

import attrs

from chicory.errors import BrokerError
from chicory.links.redis import Connection, ServerError, pack_command

_FOLDER = Path(__file__).with_name("scripts")


@attrs.frozen
class Script:
    """One script.  What KEYS and ARGV mean stands at the top of its file."""

    source: bytes
    digest: bytes

    def words(self, keys: list[str], args: list[Any]) -> tuple[Any, ...]:
        """The call by digest."""
        return ("EVALSHA", self.digest, len(keys), *keys, *args)

    def command(self, keys: list[str], args: list[Any]) -> bytes:
        """The call by digest, packed."""
        return pack_command(self.words(keys, args))

    async def load(self, connection: Connection, *, timeout: float) -> None:
        """Give the server the script."""
        await connection.call("SCRIPT", "LOAD", self.source, timeout=timeout)

    async def run(self, connection: Connection, keys: list[str], args: list[Any], *, timeout: float) -> Any:
        """The script's reply.  A server that has lost the script (restart, SCRIPT FLUSH) is given it again."""
        try:
            return await connection.call(*self.words(keys, args), timeout=timeout)
        except ServerError as error:
            if error.code != "NOSCRIPT":
                raise
        return await connection.call("EVAL", self.source, len(keys), *keys, *args, timeout=timeout)

    async def run_many(
        self, connection: Connection, calls: Sequence[tuple[list[str], list[Any]]], *, timeout: float
    ) -> list[Any]:
        """The replies to several calls, each by KEYS and ARGV, sent in one go; raises the first error among them."""
        replies = await connection.exchange(b"".join([self.command(*call) for call in calls]), len(calls), timeout)
        for index, reply in enumerate(replies):
            if isinstance(reply, ServerError) and reply.code == "NOSCRIPT":
                replies[index] = await self.run(connection, *calls[index], timeout=timeout)
            elif isinstance(reply, BrokerError):
                raise reply
        return replies


@cache
def script(name: str) -> Script:
    """The script in `scripts/{name}.lua`."""
    source = (_FOLDER / f"{name}.lua").read_bytes()
    # SHA-1 is how Redis names scripts; nothing is secured by it.
    return Script(source, sha1(source, usedforsecurity=False).hexdigest().encode())
