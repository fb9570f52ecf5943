"""What one worker more costs, and what the supervisor does."""

from functools import partial

from benchmarks import proc
from benchmarks.daemon import running_daemon
from benchmarks.figures import Figure, Target
from benchmarks.process import process
from benchmarks.server import Server

EXAMPLE = "examples.census.tasks:app"

_MB = 1e6


def measure(server: Server, rounds: int) -> list[Figure]:
    """Megabytes: private of one more worker, forked and spawned, and of one by itself; resident of the supervisor."""
    figure = partial(Figure, group="memory", unit="MB", digits=1)
    extra = "private memory per extra worker of chicoryd"
    forked, spawned = (
        [_daemon(server, 3, method) - _daemon(server, 2, method) for _ in range(rounds)]
        for method in ("template", "exec")
    )
    alone = [_alone(server) for _ in range(rounds)]
    supervisor = [_supervisor(server) for _ in range(rounds)]
    return [
        figure(name=f"{extra}, forked", ours=forked, target=Target(8, at_most=True, absolute=True)),
        figure(name=f"{extra}, spawned", ours=spawned),
        figure(name="private memory of a worker by itself", ours=alone),
        figure(
            name="resident memory of the supervisor alone",
            ours=supervisor,
            target=Target(25, at_most=True, absolute=True),
        ),
    ]


def _daemon(server: Server, workers: int, method: str) -> float:
    with running_daemon(server, workers, app=EXAMPLE, method=method) as pid:
        return sum(map(proc.private_bytes, proc.family(pid))) / _MB


def _alone(server: Server) -> float:
    server.flush()
    with process("benchmarks.worker", "--concurrency", 32, url=server.url) as worker:
        worker.await_ready()
        private = proc.private_bytes(worker.pid) / _MB
        worker.finish()
        return private


def _supervisor(server: Server) -> float:
    with running_daemon(server, 2, app=EXAMPLE) as pid:
        return proc.resident_bytes(pid) / _MB
