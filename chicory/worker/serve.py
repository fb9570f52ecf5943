"""A worker as a process: it obeys signals and chicoryd, and leaves when it must."""

import logging
import os

import trio

from chicory.app import Chicory
from chicory.errors import BrokerError
from chicory.lifeline import Lifeline, lifeline_from_env
from chicory.process import INTERNAL, beat, obey_signals
from chicory.worker.worker import Worker

log = logging.getLogger("chicory.worker")


async def serve(app: Chicory, *, scheduler: bool, burst: bool = False) -> None:
    """Run a worker of *app* until it is told to stop; raises BrokerError when it may not start without a broker."""
    refused: BrokerError | None = None
    async with lifeline_from_env() as line, app:

        def leave(stuck: int) -> None:
            # Threads and tasks that do not end, end with the process; their deliveries are left to the lease, because
            # given back they would run a second time beside the first.
            log.error("%d task(s) do not end although they were cancelled; leaving without them", stuck)
            line.send("bye", report={**worker.report(), "left": stuck})
            logging.shutdown()
            os._exit(INTERNAL)

        worker = Worker(app, scheduler=scheduler, burst=burst, name=line.name, leave=leave)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_signals, worker, line)
            nursery.start_soon(_listen, worker, line)
            nursery.start_soon(_announce, worker, line)
            try:
                await worker.run()
            except BrokerError as error:
                refused = error
            nursery.cancel_scope.cancel()
        line.send("bye", report=worker.report())
    if refused is not None:
        raise refused


async def _signals(worker: Worker, line: Lifeline) -> None:
    # Under chicoryd Ctrl-C goes to the whole group, and chicoryd alone says what it means.
    await obey_signals(worker.stop, worker.hurry, interrupts=not line.supervised)


async def _listen(worker: Worker, line: Lifeline) -> None:
    async for message in line:
        match message["t"]:
            case "stop":
                worker.stop()
            case "quiet":
                worker.quiet()
            case "resume":
                worker.resume()
            case _:
                pass  # of a newer chicoryd
    log.warning("chicoryd has gone; finishing what runs")
    worker.stop()


async def _announce(worker: Worker, line: Lifeline) -> None:
    await worker.ready()
    line.send("ready")
    await beat(line, worker.config.heartbeat_interval, worker.beat)
