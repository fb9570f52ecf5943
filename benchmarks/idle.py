"""What waiting costs."""

import time
from collections.abc import Sequence

from benchmarks import proc
from benchmarks.daemon import running_daemon
from benchmarks.figures import Figure, Target
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
        figures += _watch(f"chicoryd, its scheduler and {WORKERS} workers", server, pid)
        return [*figures, _watch_alone("the supervisor alone", pid)]


def _watch(what: str, server: Server, pid: int) -> list[Figure]:
    before, begin = calls(server), time.monotonic()
    share = busy(proc.family(pid))
    made, seconds = calls(server) - before, time.monotonic() - begin
    name = f"idle: {what}, {SECONDS:g} s"
    return [
        Figure(group="idle", name=f"{name}, CPU of one core", unit="%", ours=[share], digits=2),
        Figure(group="idle", name=f"{name}, Redis commands", unit="/s", ours=[made / seconds], digits=1),
    ]


def _watch_alone(what: str, pid: int) -> Figure:
    return Figure(
        group="idle",
        name=f"idle: {what}, {SECONDS:g} s, CPU of one core",
        unit="%",
        ours=[busy([pid])],
        target=Target(0.1, at_most=True, absolute=True),
        digits=3,
    )


def busy(pids: Sequence[int]) -> float:
    """The part of one core, in percent, that *pids* use from now on for a while."""
    cpu, begin = sum(map(proc.cpu_seconds, pids)), time.monotonic()
    time.sleep(SECONDS)
    cpu = sum(map(proc.cpu_seconds, pids)) - cpu
    return 100 * cpu / (time.monotonic() - begin)


def calls(server: Server) -> int:
    """Commands so far, those of scripts included and our own questions not."""
    stats = server.info("commandstats")
    return sum(
        int(fields.partition("calls=")[2].partition(",")[0]) for name, fields in stats.items() if name != "cmdstat_info"
    )
