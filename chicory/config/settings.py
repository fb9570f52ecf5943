"""The settings, one class for each table of the file.

All are keyword only and frozen.  What a key means stands here and, for those who run Chicory, in conf/chicory.toml.
"""

from typing import ClassVar, Literal

import attrs

from chicory.config.rules import (
    AppName,
    File,
    Folder,
    Fraction,
    Hosts,
    Integer,
    Maybe,
    Member,
    Name,
    Names,
    RabbitMQUrl,
    RedisUrl,
    Seconds,
    Secret,
    Size,
    SqlUrl,
    Switch,
    TablePrefix,
    Text,
    Word,
)
from chicory.config.section import Section, evolve, origins_of, setting, settings, subsection, with_origins
from chicory.errors import ConfigError
from chicory.secret import SecretStr
from chicory.types import BackendType, BrokerType
from chicory.wire import MAX_BODY

CONNECTION = ("host", "port", "db", "username", "password", "url")

OnLeaseLoss = Literal["cancel", "finish"]
QueueType = Literal["classic", "quorum"]
DataPath = Literal["native", "aio-pika"]
StartMethod = Literal["template", "exec"]
LogFormat = Literal["console", "json"]


@settings
class RedisBrokerConfig(Section):
    """A Redis of yours as the broker, and how its streams are used.

    url: overrides host, port, db, username and password; `rediss://` is TLS, `unix://` a socket.
    block_ms: how long one read waits for a message.
    claim_min_idle_ms: the lease: how long a worker may be silent before its messages go to others.
    max_stream_length: publishing to a queue of this length raises QueueFull.
    dlq_max_length: the oldest dead letters beyond this are dropped.
    cluster: write queue names as hash tags.
    max_priority: priorities from 0 to this, one stream for each.
    reconnect_delay, reconnect_max_delay: seconds before the second attempt to reach the server, twice as many before
    each further one, and the most that this grows to; each is shortened by chance, by half at most.
    """

    section: ClassVar[str] = "broker.redis"

    host: str = setting(default="localhost", converter=Text())
    port: int = setting(default=6379, converter=Integer(1, 65535))
    db: int = setting(default=0, converter=Integer(0))
    username: str | None = setting(default=None, converter=Maybe(Text()))
    password: SecretStr | None = setting(default=None, converter=Maybe(Secret()))
    url: SecretStr | None = setting(default=None, converter=Maybe(RedisUrl()))
    consumer_group: str = setting(default="chicory-workers", converter=Name())
    block_ms: int = setting(default=5000, converter=Integer(1))
    claim_min_idle_ms: int = setting(default=30_000, converter=Integer(10))
    max_stream_length: int | None = setting(default=None, converter=Maybe(Integer(1)))
    dlq_max_length: int | None = setting(default=None, converter=Maybe(Integer(1)))
    key_prefix: str = setting(default="chicory", converter=Name())
    cluster: bool = setting(default=False, converter=Switch())
    max_priority: int | None = setting(default=None, converter=Maybe(Integer(1, 255)))
    connect_timeout: float = setting(default=5.0, converter=Seconds())
    publish_timeout: float = setting(default=10.0, converter=Seconds())
    reconnect_delay: float = setting(default=0.02, converter=Seconds())
    reconnect_max_delay: float = setting(default=1.0, converter=Seconds())


@settings
class RabbitMQBrokerConfig(Section):
    """A RabbitMQ of yours as the broker, and how its queues are used.

    hosts: nodes of a cluster instead of host, each with a port of its own or *port*; the first is asked first.
    url: overrides host, hosts, port, username, password and vhost; `amqps://` is TLS, commas are between several hosts.
    durable: queues and messages outlive the server.
    queue_type: "quorum" keeps several copies in a cluster.
    data_path: what speaks to the server: "native", or "aio-pika" on trio-asyncio.
    queue_max_length: publishing to a queue in which this many messages wait raises QueueFull.
    dlq_max_length: the oldest dead letters beyond this are dropped.
    max_priority: priorities from 0 to this; classic queues only.
    max_message_size: bytes; publishing a larger message is refused before anything is sent.
    heartbeat: the server takes a worker for dead that was silent for twice as long.
    consumer_timeout: the server's setting of that name: what is held for half of it is renewed.
    reconnect_delay, reconnect_max_delay: as in RedisBrokerConfig.
    """

    section: ClassVar[str] = "broker.rabbitmq"

    host: str = setting(default="localhost", converter=Text())
    hosts: tuple[str, ...] = setting(default=(), converter=Hosts())
    port: int = setting(default=5672, converter=Integer(1, 65535))
    vhost: str = setting(default="/", converter=Text())
    username: str = setting(default="guest", converter=Text())
    password: SecretStr = setting(default=SecretStr("guest"), converter=Secret())
    url: SecretStr | None = setting(default=None, converter=Maybe(RabbitMQUrl()))
    durable: bool = setting(default=True, converter=Switch())
    queue_type: QueueType = setting(default="classic", converter=Word[QueueType]("classic", "quorum"))
    data_path: DataPath = setting(default="native", converter=Word[DataPath]("native", "aio-pika"))
    queue_max_length: int | None = setting(default=None, converter=Maybe(Integer(1)))
    dlq_max_length: int | None = setting(default=None, converter=Maybe(Integer(1)))
    max_priority: int | None = setting(default=None, converter=Maybe(Integer(1, 255)))
    max_message_size: int = setting(default=MAX_BODY, converter=Size(MAX_BODY))
    heartbeat: float = setting(default=30.0, converter=Seconds())
    consumer_timeout: float = setting(default=1800.0, converter=Seconds())
    connect_timeout: float = setting(default=5.0, converter=Seconds())
    publish_timeout: float = setting(default=10.0, converter=Seconds())
    reconnect_delay: float = setting(default=0.02, converter=Seconds())
    reconnect_max_delay: float = setting(default=1.0, converter=Seconds())


@settings
class BrokerConfig(Section):
    """Which broker, and where.

    state_dir: the embedded broker's directory.  None is `.chicory` beside the configuration file, or in the current
    directory where there is no file; loading makes it absolute.
    """

    section: ClassVar[str] = "broker"

    type: BrokerType = setting(default=BrokerType.EMBEDDED, converter=Member(BrokerType))
    state_dir: str | None = setting(default=None, converter=Maybe(Folder()))
    redis: RedisBrokerConfig = subsection(factory=RedisBrokerConfig)
    rabbitmq: RabbitMQBrokerConfig = subsection(factory=RabbitMQBrokerConfig)

    @property
    def server(self) -> RedisBrokerConfig | RabbitMQBrokerConfig:
        """The table that holds for this type; the embedded broker and memory go by that of Redis."""
        return self.rabbitmq if self.type is BrokerType.RABBITMQ else self.redis


@settings
class RedisBackendConfig(Section):
    """A Redis for results.  With no word about its connection it is the broker's own.

    result_ttl: seconds a result is kept after the task has finished.
    """

    section: ClassVar[str] = "backend.redis"

    host: str = setting(default="localhost", converter=Text())
    port: int = setting(default=6379, converter=Integer(1, 65535))
    db: int = setting(default=0, converter=Integer(0))
    username: str | None = setting(default=None, converter=Maybe(Text()))
    password: SecretStr | None = setting(default=None, converter=Maybe(Secret()))
    url: SecretStr | None = setting(default=None, converter=Maybe(RedisUrl()))
    result_ttl: int = setting(default=86_400, converter=Integer(1))
    key_prefix: str = setting(default="chicory", converter=Name())


@settings
class RpcBackendConfig(Section):
    """Results as messages to whoever sent the task, each to be read once; with RabbitMQ as the broker.

    result_ttl: seconds that a result waits to be read.
    """

    section: ClassVar[str] = "backend.rpc"

    result_ttl: int = setting(default=86_400, converter=Integer(1, 2_000_000))


@settings
class SqlBackendConfig(Section):
    """A database for results.

    url: `postgresql://`, `mysql://`, `mariadb://` or `sqlite:///`; needed.
    pool_size: connections of one process; SQLite has one.
    result_ttl: seconds a result is kept after the task has finished.
    table_prefix: begins the name of the table, which is made when it is first used.
    """

    section: ClassVar[str] = "backend.sql"

    url: SecretStr | None = setting(default=None, converter=Maybe(SqlUrl()))
    pool_size: int = setting(default=4, converter=Integer(1, 1000))
    result_ttl: int = setting(default=86_400, converter=Integer(1, 1_000_000_000))
    table_prefix: str = setting(default="chicory", converter=TablePrefix())


@settings
class BackendConfig(Section):
    """Where results are kept.  type: None is what goes with the broker; see `ChicoryConfig.chosen_backend`."""

    section: ClassVar[str] = "backend"

    type: BackendType | None = setting(default=None, converter=Maybe(Member(BackendType)))
    redis: RedisBackendConfig = subsection(factory=RedisBackendConfig)
    rpc: RpcBackendConfig = subsection(factory=RpcBackendConfig)
    sql: SqlBackendConfig = subsection(factory=SqlBackendConfig)


@settings
class WorkerConfig(Section):
    """What one worker process does, and for how long it waits.

    concurrency: tasks that run at once.
    queue, queues: what to fetch from; queues, when there are any, replace queue.
    prefetch: messages held beyond those that run.
    use_dead_letter_queue: keep what has used up its retries.
    heartbeat_interval: seconds between signs of life; at most a third of the lease and of heartbeat_ttl.  The default
    is shorter where the lease is short.
    heartbeat_ttl: seconds after which a silent worker is no longer listed.
    timeout_grace: seconds after its timeout in which a run has to end; then it is abandoned and others take its place.
    shutdown_timeout: seconds running tasks are given at a stop; cancel_grace: seconds for their clean-up after that.
    max_deliveries: a message that has seen this many workers die is dead-lettered.
    on_lease_loss: "cancel" what runs, or let it "finish" and accept that it may run twice.
    require_broker: leave with exit code 69 when the broker cannot be reached at the start, instead of trying on.
    """

    section: ClassVar[str] = "worker"

    concurrency: int = setting(default=32, converter=Integer(1, 100_000))
    queue: str = setting(default="default", converter=Name())
    queues: tuple[str, ...] = setting(default=(), converter=Names())
    prefetch: int = setting(default=0, converter=Integer(0, 100_000))
    use_dead_letter_queue: bool = setting(default=True, converter=Switch())
    heartbeat_interval: float = setting(default=5.0, converter=Seconds())
    heartbeat_ttl: float = setting(default=30.0, converter=Seconds())
    timeout_grace: float = setting(default=10.0, converter=Seconds())
    shutdown_timeout: float = setting(default=30.0, converter=Seconds(zero=True))
    cancel_grace: float = setting(default=5.0, converter=Seconds(zero=True))
    log_level: str = setting(default="INFO", converter=Word("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
    max_deliveries: int = setting(default=3, converter=Integer(1))
    on_lease_loss: OnLeaseLoss = setting(default="cancel", converter=Word[OnLeaseLoss]("cancel", "finish"))
    require_broker: bool = setting(default=False, converter=Switch())

    @property
    def consumed(self) -> tuple[str, ...]:
        """The queues to fetch from."""
        return self.queues or (self.queue,)


@settings
class SupervisorConfig(Section):
    """The daemon's own table, as chicoryd reads it for itself.

    workers: worker processes.
    state_dir: where it keeps its lock, its pid file and its control socket; None is the broker's.
    shutdown_timeout: seconds a worker has to leave before it is killed; None is what its own two come to, and a little.
    boot_timeout: seconds without a word after which a child that starts is killed.
    hang_timeout: seconds without a sign of life after which a worker or the scheduler is aborted and replaced.
    start_method: "template" forks workers from a process that has imported the app; "exec" starts each afresh.
    max_tasks, max_age, memory_soft: so many tasks, seconds or bytes after which a worker makes way for a fresh one.
    memory_hard: more bytes of memory of its own than this a worker is refused, so that a task gets a MemoryError.
    jitter: the part by which these differ from worker to worker, so that they are not all replaced at once.
    """

    section: ClassVar[str] = "supervisor"

    workers: int = setting(default=2, converter=Integer(1, 1024))
    state_dir: str | None = setting(default=None, converter=Maybe(Folder()))
    shutdown_timeout: float | None = setting(default=None, converter=Maybe(Seconds()))
    boot_timeout: float = setting(default=60.0, converter=Seconds())
    hang_timeout: float = setting(default=60.0, converter=Seconds())
    start_method: StartMethod = setting(default="template", converter=Word[StartMethod]("template", "exec"))
    max_tasks: int | None = setting(default=None, converter=Maybe(Integer(1)))
    max_age: float | None = setting(default=None, converter=Maybe(Seconds()))
    memory_soft: int | None = setting(default=None, converter=Maybe(Size()))
    memory_hard: int | None = setting(default=None, converter=Maybe(Size()))
    jitter: float = setting(default=0.1, converter=Fraction())


@settings
class LogConfig(Section):
    """The log of the daemon and of its children; its level is `worker.log_level`.

    file: where all of them append; None is standard error.
    """

    section: ClassVar[str] = "log"

    format: LogFormat = setting(default="console", converter=Word[LogFormat]("console", "json"))
    file: str | None = setting(default=None, converter=Maybe(File()))


@settings
class ChicoryConfig(Section):
    """All settings.  app: `module:app`, for the commands that need the tasks."""

    section: ClassVar[str] = ""

    app: str | None = setting(default=None, converter=Maybe(AppName()))
    broker: BrokerConfig = subsection(factory=BrokerConfig)
    backend: BackendConfig = subsection(factory=BackendConfig)
    worker: WorkerConfig = subsection(factory=WorkerConfig)
    supervisor: SupervisorConfig = subsection(factory=SupervisorConfig)
    log: LogConfig = subsection(factory=LogConfig)

    def __attrs_post_init__(self) -> None:
        interval = self.worker.heartbeat_interval
        if self.broker.type is BrokerType.RABBITMQ:
            leases = {"twice broker.rabbitmq.heartbeat": 2 * self.broker.rabbitmq.heartbeat}
        else:
            leases = {"broker.redis.claim_min_idle_ms": self.broker.redis.claim_min_idle_ms / 1000}
        limits = {**leases, "worker.heartbeat_ttl": self.worker.heartbeat_ttl}
        key, limit = min(limits.items(), key=lambda item: item[1])
        # A third, so that two signs of life in a row may get lost without a worker being taken for dead.
        if interval <= limit / 3:
            return
        if "heartbeat_interval" in origins_of(self.worker):
            raise ConfigError(
                f"worker.heartbeat_interval = {interval}: must be at most {limit / 3:g} seconds, a third of {key}"
            )
        shorter = attrs.evolve(self.worker, heartbeat_interval=round(limit / 6, 6))
        object.__setattr__(self, "worker", with_origins(shorter, origins_of(self.worker)))

    @property
    def chosen_backend(self) -> BackendConfig:
        """The backend with what was left open filled in.

        No type: the database whose URL is given, the embedded server or the Redis that is the broker, memory with the
        memory broker, else none.  No word about Redis's connection, or about the prefix of its keys: the broker's.
        """
        mates = {
            BrokerType.EMBEDDED: BackendType.EMBEDDED,
            BrokerType.REDIS: BackendType.REDIS,
            BrokerType.MEMORY: BackendType.MEMORY,
        }
        redis, broker = self.backend.redis, self.broker.redis
        mate = mates.get(self.broker.type, BackendType.NONE)
        if self.backend.sql.url is not None:
            mate = BackendType.SQL
        said = origins_of(redis)
        borrowed: dict[str, object] = {}
        if not any(name in said for name in CONNECTION):
            borrowed = {name: getattr(broker, name) for name in CONNECTION}
        if "key_prefix" not in said:
            borrowed["key_prefix"] = broker.key_prefix
        return evolve(
            self.backend,
            type=self.backend.type or mate,
            redis=evolve(redis, **borrowed),
        )
