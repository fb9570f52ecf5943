"""The processes of a simulation, what happens to them, and the supervisor that replaces them."""

from collections import defaultdict
from collections.abc import Sequence
from contextvars import copy_context
from functools import partial
from typing import final

import trio

from chicory.app import Chicory
from chicory.brokers.base import life
from chicory.clock import unix_now
from chicory.scheduler.scheduler import Scheduler
from chicory.testing.simulation.books import Books
from chicory.testing.simulation.line import Line, Read
from chicory.testing.simulation.plan import ALL, HITS, PUBLISHER, Mishap, Plan
from chicory.testing.simulation.process import Process, current_process
from chicory.testing.simulation.trace import Trace
from chicory.worker.worker import Worker

# Seconds from the end of a mishap until whoever it happened to has noticed all that follows from it.
NOTICED = 5.0
# Seconds after which a process that has ended by itself is replaced.
REPLACED_AFTER = 0.5


@final
class Fleet:
    """Processes in the places that *plan* has for them: workers first, then schedulers.

    nursery: what their tasks are started in.
    """

    def __init__(
        self, plan: Plan, books: Books, trace: Trace, app: Chicory, nursery: trio.Nursery, *, lease: float
    ) -> None:
        self._plan = plan
        self._books = books
        self._trace = trace
        self._app = app
        self._nursery = nursery
        self._lease = lease
        # That of the supervisor, and of the broker: of no process.
        self._context = copy_context()
        self._ever: list[Process] = []
        self._there: dict[int, Process] = {}
        self._workers: dict[int, Worker] = {}
        self._schedulers: dict[int, Scheduler] = {}
        # What goes on in a place, and until when, whoever is there.
        self._weather: defaultdict[int, list[tuple[str, float]]] = defaultdict(list)
        places = range(PUBLISHER, plan.workers + plan.schedulers)
        self._lines = {place: self._line(place) for place in places}

    def start(self) -> None:
        """Start all processes, and see to it that the mishaps happen."""
        for place in range(self._plan.workers + self._plan.schedulers):
            self._begin(place)
        for mishap in self._plan.mishaps:
            if mishap.what not in HITS:
                self._nursery.start_soon(self._strike, mishap)

    def calm(self) -> None:
        """Nothing more is to happen."""
        for line in self._lines.values():
            line.calm()

    @property
    def whole(self) -> bool:
        """Whether all workers are there and do their work."""
        return len(self._workers) == self._plan.workers and all(
            worker.state == "working" and not worker.held for worker in self._workers.values()
        )

    def states(self) -> str:
        """What each of the workers is doing."""
        return ", ".join(f"{worker.name} {worker.state}" for worker in self._workers.values())

    def line(self) -> Line:
        """That of whoever calls."""
        process = current_process()
        return self._lines[PUBLISHER if process is None else process.number]

    def serve(self, read: Read) -> None:
        """Have the broker answer *read*, whatever becomes of its process."""
        self._context.run(self._nursery.start_soon, read.serve)

    def reclaimed(self, consumer: str) -> None:
        """What *consumer* held was taken from it."""
        self._trace.note(consumer, "reclaimed")
        judge, now = current_process(), unix_now()
        owner = next(process for process in self._ever if life(consumer, process.name))
        assert judge is not None
        # Who was not there for a whole lease, or stood still, cannot know that all were away.
        aware = judge.since + self._lease <= now and not self._books.harmed(judge.pid, now, alone=True)
        if aware and not owner.dead and not self._books.harmed(owner.pid, now, alone=True):
            self._books.wrongs.append(f"{owner}: its lease was taken for no reason")

    def kill(self, process: Process, why: str, *, absent: float | None = None) -> None:
        """End *process* at once, and replace it after *absent* seconds; None is as soon as one is."""
        if process.dead:
            return
        self._trace.note(process, why)
        now = unix_now()
        self._books.fault(why, now, now, process.pid)
        self._books.killed(process.pid, now)
        process.kill()
        self._lines[process.number].drop(silently=why == "vanish")
        pause = REPLACED_AFTER if absent is None else absent
        self._context.run(self._nursery.start_soon, self._replace, process, why, pause)

    def bury(self) -> None:
        """End all there are, and let what is left of them be cancelled."""
        for process in self._ever:
            process.kill()
            process.bury()

    # -- their lives

    def _begin(self, place: int) -> None:
        kind, pid, now = "w" if place < self._plan.workers else "s", len(self._ever) + 1, unix_now()
        process = Process(pid, place, f"{kind}{place}.{pid}", now)
        self._ever.append(process)
        self._there[place] = process
        for what, until in self._weather[place]:
            if until > now:
                self._books.fault(what, now, until, pid)
        self._trace.note(process, "begins")
        process.context.run(self._nursery.start_soon, self._live, process)

    async def _live(self, process: Process) -> None:
        place, config = process.number, self._app.config.worker
        try:
            if place < self._plan.workers:
                worker = self._workers[place] = self._worker(process)
                self._tell()
                await worker.run()
            else:
                scheduler = self._schedulers[place] = Scheduler(
                    self._app.broker, config.consumed, app=self._app, max_deliveries=config.max_deliveries
                )
                self._tell()
                await scheduler.run()
        except Exception as error:
            self._books.wrongs.append(f"{process} failed: {error!r}")
        except BaseExceptionGroup as group:
            # What it met when it was killed comes with the cancellation of what is left of it, and concerns nobody.
            cancelled = group.subgroup(trio.Cancelled)
            if cancelled is None or not process.buried:
                raise
            raise cancelled from None
        if not process.dead:
            # It has left, and leaves nothing behind.
            self.kill(process, "end")

    def _worker(self, process: Process) -> Worker:
        return Worker(
            self._app,
            scheduler=not self._plan.schedulers,
            name=process.name,
            clock=trio.current_time,
            leave=partial(self._leave, process),
        )

    def _leave(self, process: Process, running: int) -> None:
        if not self._books.harmed(process.pid, unix_now(), alone=False):
            self._books.wrongs.append(f"{process}: left {running} tasks for no reason")
        self.kill(process, "leave")

    async def _replace(self, process: Process, why: str, absent: float) -> None:
        """What a supervisor does when a process has ended."""
        self._workers.pop(process.number, None)
        self._schedulers.pop(process.number, None)
        self._tell()
        # With the host went its supervisor.
        if self._plan.supervised and why != "vanish" and process.number < self._plan.workers:
            for scheduler in self._schedulers.values():
                scheduler.died(process.name, why)
        await trio.sleep(absent)
        self._begin(process.number)

    def _tell(self) -> None:
        if self._plan.supervised:
            for scheduler in self._schedulers.values():
                scheduler.live([worker.name for worker in self._workers.values()])

    # -- what happens to them

    def _line(self, place: int) -> Line:
        hits = [one for one in self._plan.mishaps if one.what in HITS and one.process == place]
        return Line(place, hits, self._trace, lambda why: self.kill(self._there[place], why))

    async def _strike(self, mishap: Mishap) -> None:
        await trio.sleep_until(mishap.at)
        what, place, lasting = mishap.what, mishap.process, mishap.lasting
        self._trace.note("" if place == ALL else place, f"{what} for {lasting:.3f}")
        match what:
            case "cut" | "deafen":
                self._cut(what, self._all() if place == ALL else [place], lasting)
            case "skew":
                self._lines[place].skew += lasting
            case _ if self._there[place].dead:
                pass
            case "crash" | "vanish":
                self.kill(self._there[place], what, absent=lasting)
            case "pause":
                await self._pause(self._there[place], lasting)
            case "stop":
                await self._stop(self._there[place])
            case _:
                raise ValueError(what)

    def _all(self) -> Sequence[int]:
        """Whoever meets it when the broker is away."""
        return range(PUBLISHER if self._plan.joined else 0, self._plan.workers + self._plan.schedulers)

    def _cut(self, what: str, places: Sequence[int], lasting: float) -> None:
        now = unix_now()
        until = now + lasting + NOTICED
        for place in places:
            self._lines[place].cut(lasting, replies_only=what == "deafen")
        if len(places) > 1:
            self._books.fault(what, now, until, None)
            return
        (place,) = places
        self._weather[place].append((what, until))
        if place in self._there:
            self._books.fault(what, now, until, self._there[place].pid)

    async def _pause(self, process: Process, lasting: float) -> None:
        now = unix_now()
        self._books.fault("pause", now, now + lasting + NOTICED, process.pid, blind=True)
        process.pause()
        await trio.sleep(lasting)
        process.go_on()

    async def _stop(self, process: Process) -> None:
        await trio.lowlevel.checkpoint()
        if process.number in self._workers:
            self._books.fault("stop", unix_now(), float("inf"), process.pid)
            self._workers[process.number].stop()
        else:
            self.kill(process, "stop")
