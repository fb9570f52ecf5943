"""The scheduler process that chicoryd starts."""

import faulthandler
import logging
from functools import partial
from typing import cast

import trio

from chicory.app import Chicory
from chicory.config import ChicoryConfig, load_config
from chicory.exits import OK
from chicory.journal import reopen_log, start_logging
from chicory.lifeline import Lifeline, lifeline_from_env
from chicory.loading import import_app
from chicory.outage import Outage, Pace
from chicory.process import Memory, beat, obey_signals, refuse_memory, run
from chicory.scheduler.cleaning import clean
from chicory.scheduler.scheduler import Scheduler

log = logging.getLogger("chicory.scheduler")

# Seconds for the deliveries of workers that died before the stop; what is left, the next scheduler is told of.
LAST_RITES = 5.0


def main() -> int:
    """Schedule until told to stop; returns the exit code."""
    return run("scheduler", _main)


def _main() -> int:
    where = load_config().app
    # Through the app, because its code may say which broker to use.
    app = import_app(where) if where is not None else Chicory()
    start_logging(app.config)
    refuse_memory(app.config)
    faulthandler.enable()
    trio.run(_serve, app, app.config)
    return OK


async def _serve(app: Chicory, config: ChicoryConfig) -> None:
    async with lifeline_from_env() as line, app:
        outage = Outage(Pace.of(app.config.broker.server))
        most = config.worker.max_deliveries
        scheduler = Scheduler(app.broker, config.worker.consumed, app=app, max_deliveries=most, outage=outage)

        memory = Memory()

        def facts() -> dict[str, object]:
            pss = memory.proportional(trio.current_time())
            return {
                "reclaimed": scheduler.reclaimed,
                "ready": scheduler.ready,
                "rss": memory.resident(),
                "pss": pss,
            }

        async with trio.open_nursery() as nursery:
            obeying = trio.CancelScope()
            hurry = nursery.cancel_scope.cancel
            nursery.start_soon(partial(obey_signals, obeying.cancel, hurry, interrupts=not line.supervised))
            nursery.start_soon(beat, line, config.worker.heartbeat_interval, facts)
            nursery.start_soon(scheduler.run)
            nursery.start_soon(scheduler.backlog)
            nursery.start_soon(clean, app.backend)
            nursery.start_soon(_announce, scheduler, line)
            with obeying:
                await _listen(scheduler, line)
            # Nobody speaks for the workers any more.
            scheduler.live(())
            with trio.move_on_after(LAST_RITES):
                await scheduler.buried()
            nursery.cancel_scope.cancel()
        line.send("bye", report={"reclaimed": scheduler.reclaimed})


async def _announce(scheduler: Scheduler, line: Lifeline) -> None:
    await scheduler.working()
    line.send("ready")


async def _listen(scheduler: Scheduler, line: Lifeline) -> None:
    """Obey chicoryd; returns when it says stop or has gone."""
    async for message in line:
        match message:
            case {"t": "stop"}:
                return
            case {"t": "dead", "consumer": str(consumer), "why": str(why)}:
                scheduler.died(consumer, why)
            case {"t": "alive", "consumers": list()}:
                named = cast("list[object]", message["consumers"])
                scheduler.live([consumer for consumer in named if isinstance(consumer, str)])
            case {"t": "reopen"}:
                reopen_log()
            case _:
                pass  # of a newer chicoryd, or for workers
    log.warning("chicoryd has gone; leaving")
