"""A worker as a process: it obeys signals and chicoryd, and leaves when it must."""

import faulthandler
import logging
import os
from typing import Any

import trio

from chicory.app import Chicory
from chicory.errors import BrokerError, LifespanError
from chicory.exits import INTERNAL, OK
from chicory.journal import Report, reopen_log
from chicory.lifeline import Lifeline, lifeline_from_env
from chicory.process import beat, obey_signals
from chicory.worker.tasktree import task_tree
from chicory.worker.watchdog import Watchdog
from chicory.worker.worker import Worker

log = logging.getLogger("chicory.worker")


async def serve(app: Chicory, *, scheduler: bool, burst: bool = False) -> None:
    """Run a worker of *app* until it is told to stop; raises BrokerError when it may not start without a broker, and
    LifespanError."""
    refused: BrokerError | LifespanError | None = None
    # Also for SIGABRT, which chicoryd sends to a worker that hangs: the stacks of all threads go to stderr.
    faulthandler.enable()
    async with lifeline_from_env() as line, app:

        def leave(stuck: int) -> None:
            # Threads and tasks that do not end, end with the process; their deliveries are left to the lease, because
            # given back they would run a second time beside the first.
            if stuck:
                log.error("%d task(s) do not end although they were cancelled; leaving without them", stuck)
            else:
                log.warning("leaving without %d abandoned run(s), which go on", len(worker.abandoned))
            line.send("bye", report={**_report(worker), "left": stuck})
            logging.shutdown()
            os._exit(INTERNAL if stuck or not worker.stopping else OK)

        worker = Worker(app, scheduler=scheduler, burst=burst, name=line.name, leave=leave)
        watchdog = Watchdog(line.descriptor, worker.config.shutdown_timeout)

        def facts() -> dict[str, Any]:
            return {**worker.beat(), "lag": round(watchdog.lag(), 4)}

        with watchdog.watching():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watchdog.pulse, worker.look)
                nursery.start_soon(watchdog.watch, worker.flavors)
                nursery.start_soon(_signals, worker, line)
                nursery.start_soon(_listen, worker, line)
                # From the first moment: one that waits for its broker must not be taken for one that hangs.
                nursery.start_soon(beat, line, worker.config.heartbeat_interval, facts)
                nursery.start_soon(_announce, worker, line)
                try:
                    await worker.run()
                except (BrokerError, LifespanError) as error:
                    refused = error
                nursery.cancel_scope.cancel()
        why = {} if refused is None else {"why": " ".join(str(refused).split())}
        line.send("bye", report={**_report(worker), **why})
    if refused is not None:
        raise refused


def _report(worker: Worker) -> dict[str, Any]:
    return {**worker.report(), "tasks": worker.drained()}


async def _signals(worker: Worker, line: Lifeline) -> None:
    # Under chicoryd Ctrl-C goes to the whole group, and chicoryd alone says what it means.
    await obey_signals(worker.stop, worker.hurry, interrupts=not line.supervised)


async def _listen(worker: Worker, line: Lifeline) -> None:
    async for message in line:
        obey(worker, message)
    log.warning("chicoryd has gone; finishing what runs")
    worker.stop()


def obey(worker: Worker, message: dict[str, Any]) -> None:
    """Do what *message* of chicoryd says."""
    match message:
        case {"t": "stop", "grace": int(grace) | float(grace)} if grace > 0:
            worker.stop(grace)
        case {"t": "stop", "grace": int() | float()}:
            worker.hurry()
        case {"t": "stop"}:
            worker.stop()
        case {"t": "quiet"}:
            worker.quiet()
        case {"t": "resume"}:
            worker.resume()
        case {"t": "reconnect"}:
            worker.reconnect()
        case {"t": "dump"}:
            dump(worker)
        case {"t": "reopen"}:
            reopen_log()
        case _:
            pass  # of a newer chicoryd


def dump(worker: Worker) -> None:
    """Tell the log which tasks run, and what everything in this process waits for."""
    tasks = [f"  {task['name']} ({task['id']}) for {task['age']} s" for task in worker.tasks()]
    tasks += [f"  {message.name} ({message.id}), abandoned" for message in worker.abandoned]
    log.warning(Report(f"{worker.state}, {worker.running} running", "\n".join([*tasks, task_tree()])))


async def _announce(worker: Worker, line: Lifeline) -> None:
    # Not sooner: in a reload this says that the new code and settings work, to those who would stop the old ones.
    await worker.joined()
    line.send("ready")
