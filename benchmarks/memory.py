"""What one worker more costs."""

from benchmarks import proc
from benchmarks.daemon import running_daemon
from benchmarks.figures import Figure
from benchmarks.process import process
from benchmarks.server import Server

_MB = 1e6


def measure(server: Server, rounds: int) -> list[Figure]:
    """Private megabytes: of one more worker under chicoryd, and of a worker process by itself."""
    extra = [_daemon(server, 3) - _daemon(server, 2) for _ in range(rounds)]
    alone = [_alone(server) for _ in range(rounds)]
    return [
        Figure(group="memory", name="private memory per extra worker of chicoryd", unit="MB", ours=extra, digits=1),
        Figure(group="memory", name="private memory of a worker by itself", unit="MB", ours=alone, digits=1),
    ]


def _daemon(server: Server, workers: int) -> float:
    with running_daemon(server, workers) as pid:
        return sum(map(proc.private_bytes, proc.family(pid))) / _MB


def _alone(server: Server) -> float:
    server.flush()
    with process("benchmarks.worker", "--concurrency", 32, url=server.url) as worker:
        worker.await_ready()
        private = proc.private_bytes(worker.pid) / _MB
        worker.finish()
        return private
