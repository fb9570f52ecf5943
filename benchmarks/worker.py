"""The worker process that is measured: `python -m benchmarks.worker`, told what to do by arguments and standard input.

It says "ready" when it holds its lease.  It ends when it has settled `--until` tasks, or when standard input ends, and
its last words are one JSON line.
"""

import gc
import json
import resource
import time
from typing import Any

import click
import trio

from benchmarks.tasks import app, latencies, started
from chicory import Worker, WorkerConfig


@click.command()
@click.option("--concurrency", type=int, required=True)
@click.option("--prefetch", type=int, default=0)
@click.option("--until", type=int, default=0)
def main(concurrency: int, prefetch: int, until: int) -> None:
    """See the module."""
    report = trio.run(_work, WorkerConfig(concurrency=concurrency, prefetch=prefetch), until)
    print(json.dumps(report), flush=True)


async def _work(config: WorkerConfig, until: int) -> dict[str, Any]:
    worker = Worker(app, config)
    spent: dict[str, float] = {}

    async def time_it() -> None:
        await worker.joined()
        # The first fetch starts now; what came before is start-up.
        seconds, cpu = time.perf_counter(), _cpu()
        print("ready", flush=True)
        if until:
            await worker.settled(until)
            spent.update(seconds=time.perf_counter() - seconds, cpu=_cpu() - cpu)
        else:
            await trio.lowlevel.wait_readable(0)
        worker.stop()

    async with app, trio.open_nursery() as nursery:
        gc.collect()
        nursery.start_soon(time_it)
        await worker.run()
    return {**spent, "report": worker.report(), "started": started, "latencies": latencies}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
