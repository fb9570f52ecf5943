"""The scheduler process that chicoryd starts."""

import logging
from functools import partial

import trio

from chicory.app import Chicory
from chicory.config import ChicoryConfig, load_config
from chicory.lifeline import Lifeline, lifeline_from_env
from chicory.loading import import_app
from chicory.process import OK, beat, obey_signals, refuse_memory, resident, run, start_logging
from chicory.scheduler.scheduler import Scheduler

log = logging.getLogger("chicory.scheduler")


def main() -> int:
    """Schedule until told to stop; returns the exit code."""
    return run("scheduler", _main)


def _main() -> int:
    where = load_config().app
    # Through the app, because its code may say which broker to use.
    app = import_app(where) if where is not None else Chicory()
    start_logging(app.config.worker.log_level)
    refuse_memory(app.config)
    trio.run(_serve, app, app.config)
    return OK


async def _serve(app: Chicory, config: ChicoryConfig) -> None:
    async with lifeline_from_env() as line, app:
        scheduler = Scheduler(app.broker, config.worker.consumed)

        def facts() -> dict[str, object]:
            return {"reclaimed": scheduler.reclaimed, "rss": resident()}

        async with trio.open_nursery() as nursery:

            def stop() -> None:
                nursery.cancel_scope.cancel()

            nursery.start_soon(partial(obey_signals, stop, stop, interrupts=not line.supervised))
            nursery.start_soon(beat, line, config.worker.heartbeat_interval, facts)
            nursery.start_soon(scheduler.run)
            line.send("ready")
            await _listen(scheduler, line)
            stop()
        line.send("bye", report={"reclaimed": scheduler.reclaimed})


async def _listen(scheduler: Scheduler, line: Lifeline) -> None:
    """Obey chicoryd; returns when it says stop or has gone."""
    async for message in line:
        match message:
            case {"t": "stop"}:
                return
            case {"t": "dead", "consumer": str(consumer), "why": str(why)}:
                scheduler.died(consumer, why)
            case _:
                pass  # of a newer chicoryd, or for workers
    log.warning("chicoryd has gone; leaving")
