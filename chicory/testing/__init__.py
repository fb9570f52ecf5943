"""For your own tests: your app with its messages in memory, drained when the test says so, on a clock that it moves.

    from chicory.testing import memory

    def test_a_welcome_is_sent():
        with memory(app) as queues:
            sign_up("ann")

            queues.assert_enqueued(welcome, ["ann"])
            assert [run.value for run in queues.drain_sync()] == ["Dear ann"]

A task needs no queue to be tested by itself: calling it calls the function.  `memory_app` makes an app for one test,
and `running_worker` runs a worker beside a trio test, in real time or on pytest-trio's `autojump_clock`.  `simulate`
tries whether a task may be cut anywhere and run again.
"""

from chicory.testing.apps import memory, memory_app
from chicory.testing.clock import Clock
from chicory.testing.queues import Queues
from chicory.testing.records import Enqueued, Run, Undrained
from chicory.testing.simulation.idempotence import NotIdempotent, Simulated, simulate
from chicory.testing.workers import running_worker

__all__ = [
    "Clock",
    "Enqueued",
    "NotIdempotent",
    "Queues",
    "Run",
    "Simulated",
    "Undrained",
    "memory",
    "memory_app",
    "running_worker",
    "simulate",
]
