"""Three RabbitMQ nodes that are one cluster, for tests."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from examples.node import NodeFailed, script
from tests.rabbit import RabbitNode
from tests.servers import missing

SIZE = 3


class RabbitCluster:
    """A cluster on one port mapper, which stands for its nodes where a test asks for one."""

    def __init__(self) -> None:
        first = RabbitNode()
        self.nodes = [first, *(RabbitNode(beside=first) for _ in range(SIZE - 1))]

    def start(self) -> None:
        """Start all at once, and join them one after the other."""
        first, *others = self.nodes
        first.start()
        with ThreadPoolExecutor(len(others)) as threads:
            list(threads.map(RabbitNode.start, others))
        for node in others:
            node.join()

    def url(self, vhost: str = "") -> str:
        """All nodes, in their order."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"amqp://guest:guest@{hosts}/{vhost}"

    @property
    def living(self) -> RabbitNode:
        """A node that runs."""
        return next(node for node in self.nodes if node.runs)

    def vhost(self) -> str:
        """See `RabbitNode.vhost`."""
        return self.living.vhost()

    def evaluate(self, expressions: str) -> str:
        """See `Node.evaluate`, in a node that runs."""
        return self.living.evaluate(expressions)

    def leader(self, vhost: str, queue: str) -> RabbitNode:
        """The node on which the leader of a quorum queue is."""
        name = f'rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)'
        found = self.evaluate(
            f"{{ok, Q}} = rabbit_amqqueue:lookup({name}), [{{leader, L}}] = rabbit_quorum_queue:info(Q, [leader]), L."
        )
        return next(node for node in self.nodes if node.name == found.strip("'"))

    def connected(self, vhost: str) -> set[str]:
        """The names of the nodes that clients of *vhost* are connected to."""
        found = self.evaluate(f'[element(3, C) || C <- rabbit_connection_tracking:list(<<"{vhost}">>)].')
        return {node.name for node in self.nodes if node.name in found}

    def remove(self) -> None:
        """See `Node.remove`."""
        for node in reversed(self.nodes):
            node.remove()


@contextmanager
def running_cluster() -> Iterator[RabbitCluster]:
    """A cluster that lives as long as the block; the test is skipped where there is no RabbitMQ."""
    try:
        script()
    except NodeFailed as why:
        missing(str(why))
    cluster = RabbitCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()
