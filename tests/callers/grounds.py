"""Where callers call to: a broker with its results, the app that goes there, and what its worker does."""

from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar

import trio

from chicory import Chicory
from chicory.backends.redis import RedisBackend
from chicory.backends.sql import SqlBackend
from chicory.brokers.redis import RedisBroker
from chicory.config import RedisBackendConfig, RedisBrokerConfig, SqlBackendConfig
from chicory.ids import new_id
from tests.contract.harness import Apart
from tests.servers import Server


class RedisGround:
    """Redis with its own results, alone with its keys."""

    # What it cannot promise to callers, and why.
    cannot: ClassVar[dict[str, str]] = {}
    resp = True

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.prefix = f"t{new_id()}"
        self.url = server.url

    def app(self, url: str, *, joined: bool = True, **settings: Any) -> Chicory:
        """An app on the server at *url*; all of one ground share their messages."""
        broker = RedisBroker(RedisBrokerConfig(url=url, key_prefix=self.prefix, **settings))
        backend = RedisBackend(RedisBackendConfig(url=url, key_prefix=self.prefix))
        if not joined:
            backend.joins = lambda broker: False
        return Chicory(broker, backend)

    def program(self, body: str) -> str:
        """The source of a program that has an app with a task `add`, and then *body*."""
        ends = ", ".join(map(repr, self.ends))
        task = '@app.task(name="add")\nasync def add(x: int, y: int) -> int:\n    return x + y\n'
        return f"from chicory import Chicory\napp = Chicory({ends})\n{task}{dedent(body)}"

    @property
    def ends(self) -> tuple[str, ...]:
        """The URLs of broker and backend."""
        return (self.url,)

    def worked(self, app: Chicory) -> Any:
        """The broker of *app*, whose consumers see to the results too."""
        return app.broker

    async def waited(self) -> None:
        """Returns when somebody waits for the end of a task."""
        with self.server.client() as client, trio.fail_after(5):
            while not any(b":done:" in channel for channel in client.pubsub_channels()):
                await trio.sleep(0.005)


class SqliteGround(RedisGround):
    """Redis beside results in a file."""

    cannot: ClassVar[dict[str, str]] = {"subscriptions": "a file tells nobody what is written into it"}

    def app(self, url: str, *, joined: bool = True, **settings: Any) -> Chicory:
        broker = RedisBroker(RedisBrokerConfig(url=url, key_prefix=self.prefix, **settings))
        return Chicory(broker, SqlBackend(SqlBackendConfig(url=self.ends[1])))

    @property
    def ends(self) -> tuple[str, ...]:
        return self.url, f"sqlite:///{self.directory}/results.db"

    def worked(self, app: Chicory) -> Any:
        return Apart(app.broker, app.backend)

    async def waited(self) -> None:
        """Nobody sees who reads a file, so whatever comes next may come before or after somebody waits."""
