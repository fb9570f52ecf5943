"""What waiting costs."""

import time

from benchmarks import proc
from benchmarks.daemon import running_daemon
from benchmarks.figures import Figure
from benchmarks.process import process
from benchmarks.server import Server

SECONDS = 10.0
WORKERS = 2
_SETTLE = 1.0


def measure(server: Server, rounds: int) -> list[Figure]:
    """CPU and commands of processes that have nothing to do, over one stretch of time whatever *rounds* says."""
    del rounds
    server.flush()
    with process("benchmarks.worker", "--concurrency", 32, url=server.url) as worker:
        worker.await_ready()
        time.sleep(_SETTLE)
        figures = _watch("a worker with its scheduler", server, worker.pid)
        worker.finish()
    with running_daemon(server, WORKERS) as pid:
        return figures + _watch(f"chicoryd, its scheduler and {WORKERS} workers", server, pid)


def _watch(what: str, server: Server, pid: int) -> list[Figure]:
    pids = proc.family(pid)
    cpu, calls, begin = sum(map(proc.cpu_seconds, pids)), _calls(server), time.monotonic()
    time.sleep(SECONDS)
    cpu, calls = sum(map(proc.cpu_seconds, pids)) - cpu, _calls(server) - calls
    seconds = time.monotonic() - begin
    name = f"idle: {what}, {SECONDS:g} s"
    return [
        Figure(group="idle", name=f"{name}, CPU of one core", unit="%", ours=[100 * cpu / seconds], digits=2),
        Figure(group="idle", name=f"{name}, Redis commands", unit="/s", ours=[calls / seconds], digits=1),
    ]


def _calls(server: Server) -> int:
    """Commands so far, those of scripts included and our own questions not."""
    stats = server.info("commandstats")
    return sum(
        int(fields.partition("calls=")[2].partition(",")[0]) for name, fields in stats.items() if name != "cmdstat_info"
    )
