"""One worker process empties a full RabbitMQ queue of tasks that do nothing, beside loops that do just that."""

import asyncio
import json
import time
from collections.abc import Callable

import aio_pika
import pika
import trio

from benchmarks import bare
from benchmarks.drain import CONCURRENCY, PREFETCH, TASKS
from benchmarks.figures import Figure, Target, interleaved
from benchmarks.process import process
from benchmarks.server import Server
from chicory import BackendType, BrokerType, Chicory, TaskMessage
from chicory.config import BrokerConfig, ChicoryConfig, RabbitMQBrokerConfig
from examples.node import NodeFailed, private_node

# Where Chicory publishes to the queue "bare".
_QUEUE = "chicory.queue.bare"


def measure(_: Server, rounds: int) -> list[Figure]:
    """Tasks per second from the first delivery to the last acknowledgement; messages durable, publishing confirmed."""
    try:
        with private_node() as node:
            asyncio_loop, pika_loop, ours, by_aio_pika = interleaved(
                rounds,
                lambda: _theirs(node.url(), _drain_asyncio),
                lambda: _theirs(node.url(), _drain_pika),
                lambda: _ours(node.url()),
                lambda: _ours(node.url(), "aio-pika"),
            )
    except NodeFailed as failed:
        raise SystemExit(str(failed)) from failed
    name = f"{TASKS} tasks drained from RabbitMQ; one worker, concurrency {CONCURRENCY} + prefetch {PREFETCH}"
    return [
        Figure(
            group="rabbitmq",
            name=f"{name}; beside a loop on aio-pika and asyncio",
            unit="/s",
            ours=ours,
            bare=asyncio_loop,
            target=Target(2.0),
        ),
        Figure(group="rabbitmq", name="the same beside a blocking loop on pika", unit="/s", ours=ours, bare=pika_loop),
        Figure(
            group="rabbitmq",
            name='the same by data_path = "aio-pika", beside the native one',
            unit="/s",
            ours=by_aio_pika,
            bare=ours,
        ),
    ]


def _app(url: str) -> Chicory:
    rabbitmq = RabbitMQBrokerConfig(url=url)
    return Chicory(BrokerType.RABBITMQ, BackendType.NONE, ChicoryConfig(broker=BrokerConfig(rabbitmq=rabbitmq)))


async def _fill(url: str, queue: str) -> None:
    async with _app(url) as app:
        await app.publish_many([TaskMessage(name="noop", args=[bare.TEXT], queue=queue) for _ in range(TASKS)])


def _ours(url: str, data_path: str = "native") -> float:
    trio.run(_fill, url, "default")
    arguments = ("--concurrency", CONCURRENCY, "--prefetch", PREFETCH, "--until", TASKS)
    with process("benchmarks.worker", *arguments, url=url, CHICORY_BROKER_RABBITMQ_DATA_PATH=data_path) as worker:
        said = worker.finish()
    assert said["report"]["done"] == TASKS, said["report"]
    return TASKS / said["seconds"]


def _theirs(url: str, drain: Callable[[str], float]) -> float:
    trio.run(_fill, url, "bare")
    return TASKS / drain(url)


def _drain_pika(url: str) -> float:
    connection = pika.BlockingConnection(pika.URLParameters(url.removesuffix("/") + "/%2F"))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=CONCURRENCY + PREFETCH)
    started = time.perf_counter()
    left = TASKS
    for method, _, body in channel.consume(_QUEUE):
        json.loads(body)
        channel.basic_ack(method.delivery_tag)
        left -= 1
        if not left:
            break
    seconds = time.perf_counter() - started
    channel.cancel()
    connection.close()
    return seconds


def _drain_asyncio(url: str) -> float:
    return asyncio.run(_drain_aio_pika(url))


async def _drain_aio_pika(url: str) -> float:
    connection = await aio_pika.connect(url)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=CONCURRENCY + PREFETCH)
    queue = await channel.get_queue(_QUEUE, ensure=False)
    done = asyncio.Event()
    left = TASKS

    async def finish(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        nonlocal left
        json.loads(message.body)
        await message.ack()
        left -= 1
        if not left:
            done.set()

    started = time.perf_counter()
    await queue.consume(finish)
    await done.wait()
    seconds = time.perf_counter() - started
    await connection.close()
    return seconds
