"""Apps for tests: one made for the test, or the program's own with its messages kept in memory."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime

from chicory.app import Chicory
from chicory.clock import asking
from chicory.config import evolve
from chicory.retry import RetryPolicy
from chicory.testing.backend import ObservedBackend
from chicory.testing.broker import ObservedBroker
from chicory.testing.clock import Clock
from chicory.testing.queues import Queues
from chicory.types import BackendType, BrokerType, DeliveryMode, ValidationMode


def memory_app(
    *,
    delivery_mode: DeliveryMode = DeliveryMode.AT_LEAST_ONCE,
    retry_policy: RetryPolicy | None = None,
    validation_mode: ValidationMode = ValidationMode.NONE,
) -> Chicory:
    """An app whose messages and results live in this process."""
    return Chicory(
        broker=BrokerType.MEMORY,
        backend=BackendType.MEMORY,
        delivery_mode=delivery_mode,
        retry_policy=retry_policy,
        validation_mode=validation_mode,
    )


@contextmanager
def memory(
    app: Chicory,
    *,
    eager: bool = False,
    propagate: bool = False,
    clock: Clock | datetime | None = None,
    autojump: float = 0.0,
) -> Generator[Queues]:
    """While the block lasts, *app* sends its tasks to memory and keeps its results there; afterwards as before.

    Its own broker is not connected, and neither file nor environment is read; what the program says in code holds.

    eager: run each task, with its retries, where it is sent, before `delay()` returns.
    propagate: raise what a task raised, when it has failed for good, from the eager call or the drain.
    clock: the test's time, or when it begins; by default it begins now.
    autojump: real seconds for which tasks of a sync or asyncio test may wait for something else than time, such as a
        network, before time jumps to whatever is due next.
    """
    time = clock if isinstance(clock, Clock) else Clock(clock)
    said = app.said
    redis = said.broker.redis
    broker = ObservedBroker(
        max_stream_length=redis.max_stream_length,
        dlq_max_length=redis.dlq_max_length,
        max_priority=redis.max_priority,
    )
    kept = said.backend.type is not BackendType.NONE
    backend = ObservedBackend(broker, result_ttl=said.backend.redis.result_ttl) if kept else None
    config = evolve(
        said,
        broker=evolve(said.broker, type=BrokerType.MEMORY),
        backend=evolve(said.backend, type=BackendType.MEMORY if kept else BackendType.NONE),
    )
    queues = Queues(app, broker, time, propagate=propagate, autojump=autojump)
    if eager:
        broker.published = queues.run_now
    time.on_advance(broker.skip)
    with asking(time.time), app.connected(broker, backend, config):
        yield queues
