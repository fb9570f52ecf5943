"""A chicoryd with all its processes on RabbitMQ."""

from chicory import BackendType, BrokerType, Chicory
from chicory.config import BackendConfig, BrokerConfig, ChicoryConfig, RabbitMQBrokerConfig
from chicory.errors import BrokerError
from tests.faults.tree import PATIENCE, Tree, until

QUEUE = "chicory.queue.default"
# Seconds; the lease is two of them.
HEARTBEAT = 5.0


class RabbitTree(Tree):
    """One daemon in a virtual host of *node*, or in that of the tree *beside*; results are kept nowhere."""

    def __init__(self, node, *, beside=None, queue_type="classic", url=None, **settings):
        self.queue_type = queue_type
        self.node, self.vhost = node, beside.vhost if beside else node.vhost()
        self._hosts = beside._hosts if beside else []
        self._hosts.append(self)
        super().__init__(url(self.vhost) if url else node.url(self.vhost), beside=beside, **settings)

    def client_config(self):
        rabbitmq = RabbitMQBrokerConfig(url=self.url, queue_type=self.queue_type, publish_timeout=20.0)
        return ChicoryConfig(
            broker=BrokerConfig(type=BrokerType.RABBITMQ, rabbitmq=rabbitmq),
            backend=BackendConfig(type=BackendType.NONE),
        )

    def configure(self, **settings):
        super().configure(**settings)
        # What is Redis' own stands in a table that nobody reads.
        text = self.config.read_text().replace('type = "redis"', 'type = "rabbitmq"')
        text = text.replace(f'url = "{self.url}"\n', "")
        table = f'[broker.rabbitmq]\nurl = "{self.url}"\nqueue_type = "{self.queue_type}"\n'
        self.config.write_text(f"{text}{table}heartbeat = {HEARTBEAT}\n")

    async def ready(self):
        workers = self.settings("supervisor", "workers")
        await until(lambda: self._count_ready() == workers, "all workers are ready")
        running = [host.settings("supervisor", "workers") for host in self._hosts if host.process is not None]
        await until(lambda: self.consumers() == sum(running), "all workers consume")
        return self

    def consumers(self):
        """How many workers RabbitMQ delivers to."""
        name = f'rabbit_misc:r(<<"{self.vhost}">>, queue, <<"{QUEUE}">>)'
        return int(
            self.node.evaluate(
                f"case rabbit_amqqueue:lookup({name}) of {{ok, Q}} -> length(rabbit_amqqueue:consumers(Q)); _ -> 0 end."
            )
        )

    def client(self, url=None):
        return Chicory(config=self._client_config)

    def held(self):
        """How many messages RabbitMQ has given to workers, or keeps for them."""
        name = f'rabbit_misc:r(<<"{self.vhost}">>, queue, <<"{QUEUE}">>)'
        return int(
            self.node.evaluate(
                f"{{ok, Q}} = rabbit_amqqueue:lookup({name}), case amqqueue:get_pid(Q) of {{M, _}} ->"
                # Of a quorum queue any member may be asked, and what other nodes know of it by themselves is old.
                " {ok, {_, N}, _} = ra:leader_query({M, node()}, fun rabbit_fifo:query_messages_total/1), N;"
                " _ -> [{_, N}] = rabbit_amqqueue:info(Q, [messages]), N end."
            )
        )


async def close_books(tree, app, *, dead=(), once=(), overlapping=False, twice=False, patience=PATIENCE):
    """Wait until all is done, and check that nothing was lost, and nothing repeated without a reason.

    once: ids of at-most-once tasks.  They may be lost by a fault that met their run, and may not run twice.
    overlapping: a connection broke, so RabbitMQ gave a message to another worker before its run could be cancelled.
    twice: a scheduler was killed between a slot and its note, so there may be two messages of it.
    """

    async def nothing_left():
        try:
            sizes = await app.broker.get_queue_sizes()
        except BrokerError:
            return False
        return not (sizes.ready or sizes.delayed) and tree.held() == 0

    await until(nothing_left, "the queue is empty", patience)
    await until(lambda: not tree.ledger.running(), "everything has ended")
    letters = [letter.task_id for letter in await app.broker.get_dlq_messages()]
    verdict = tree.ledger.judge(dead=letters, once=once)
    tree.ledger.close(verdict)
    if overlapping:
        verdict.overlapping.clear()
    if twice:
        verdict.overlapping.clear()
        verdict.repeated.clear()
    assert verdict.clean(), f"{verdict}\nfaults: {tree.ledger.faults}\n{tree.log()[-4000:]}"
    assert set(letters) == set(dead)
