"""Where callers call to: a broker with its results, the app that goes there, and what its worker does."""

from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar

import trio

from chicory import Chicory
from chicory.backends.rabbitmq import RpcBackend
from chicory.backends.redis import RedisBackend
from chicory.backends.sql import SqlBackend
from chicory.brokers.rabbitmq import RabbitMQBroker
from chicory.brokers.redis import RedisBroker
from chicory.config import RabbitMQBrokerConfig, RedisBackendConfig, RedisBrokerConfig, SqlBackendConfig
from chicory.ids import new_id
from tests.contract.harness import Apart
from tests.proxy import Proxy, open_proxy
from tests.rabbit import RabbitNode
from tests.servers import Server


class RedisGround:
    """Redis with its own results, alone with its keys."""

    # What it cannot promise to callers, and why.
    cannot: ClassVar[dict[str, str]] = {}

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.prefix = f"t{new_id()}"
        self.url = server.url
        self._socket = server.directory / f"p{new_id()[-6:]}"

    def app(self, url: str, *, joined: bool = True, **settings: Any) -> Chicory:
        """An app on the server at *url*; all of one ground share their messages."""
        broker = RedisBroker(RedisBrokerConfig(url=url, key_prefix=self.prefix, **settings))
        backend = RedisBackend(RedisBackendConfig(url=url, key_prefix=self.prefix))
        if not joined:
            backend.joins = lambda broker: False
        return Chicory(broker, backend)

    def worked(self, app: Chicory) -> Any:
        """The broker of *app*, whose consumers see to the results too."""
        return app.broker

    def proxy(self) -> Any:
        """A bad network in front of the server."""
        return open_proxy(self.server.address, unix=self._socket)

    def through(self, proxy: Proxy) -> str:
        """The URL of the server behind *proxy*."""
        return proxy.url

    async def waited(self) -> None:
        """Returns when somebody waits for the end of a task."""
        with self.server.client() as client, trio.fail_after(5):
            while not any(b":done:" in channel for channel in client.pubsub_channels()):
                await trio.sleep(0.005)


class RabbitGround:
    """RabbitMQ with results by rpc, in a virtual host of its own."""

    # docs/brokers.md, docs/rabbitmq.md and docs/calling.md say it to users.
    cannot: ClassVar[dict[str, str]] = {
        "deduplication": "RabbitMQ recognises no message: an id that is published again is there twice",
        "subscriptions": "a result is sent to a queue that its caller's process reads all the time",
        "keeping": "a result by rpc can be read once, and by whoever sent the task",
    }

    def __init__(self, server: RabbitNode, directory: Path) -> None:
        self.server = server
        self.vhost = server.vhost()
        self.url = server.url(self.vhost)
        self.results = f"sqlite:///{directory}/results.db"

    def app(self, url: str, *, max_stream_length: int | None = None, **settings: Any) -> Chicory:
        config = RabbitMQBrokerConfig(url=url, queue_max_length=max_stream_length, **settings)
        return Chicory(RabbitMQBroker(config), RpcBackend(config, result_ttl=60))

    @property
    def ends(self) -> str:
        """What makes an app of this ground in another process."""
        return f"{self.url!r}, BackendType.RPC"

    def program(self, body: str) -> str:
        """The source of a program that has such an app with a task `add`, and then *body*."""
        task = '@app.task(name="add")\nasync def add(x: int, y: int) -> int:\n    return x + y\n'
        return f"from chicory import BackendType, Chicory\napp = Chicory({self.ends})\n{task}{dedent(body)}"

    def worked(self, app: Chicory) -> Any:
        return app.broker

    def proxy(self) -> Any:
        return open_proxy(self.server.address, resp=False)

    def through(self, proxy: Proxy) -> str:
        return self.url.replace(f":{self.server.port}/", f":{proxy.address[1]}/")

    async def waited(self) -> None:
        """Nobody sees who waits, so whatever comes next may come before or after somebody does."""


class SqliteGround(RabbitGround):
    """RabbitMQ beside results in a file."""

    cannot: ClassVar[dict[str, str]] = {
        **{promise: why for promise, why in RabbitGround.cannot.items() if promise != "keeping"},
        "subscriptions": "a file tells nobody what is written into it",
    }

    def app(self, url: str, **settings: Any) -> Chicory:
        return Chicory(super().app(url, **settings).broker, SqlBackend(SqlBackendConfig(url=self.results)))

    @property
    def ends(self) -> str:
        return f"{self.url!r}, {self.results!r}"

    def worked(self, app: Chicory) -> Any:
        return Apart(app.broker, app.backend)
