"""One trial of a task: real workers run it, and are taken from under it where that is planned."""

import linecache
import types
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import attrs
import trio

from chicory.app import Chicory
from chicory.config import WorkerConfig, evolve
from chicory.task import Task
from chicory.testing.broker import ObservedBroker
from chicory.testing.desk import Threads
from chicory.testing.records import Run, Undrained
from chicory.testing.simulation.cuts import Cut
from chicory.testing.simulation.process import Process
from chicory.types import TaskMessage
from chicory.worker.flavors import Flavors
from chicory.worker.plan import Catalog, Plan
from chicory.worker.worker import Worker

# Virtual seconds from one look at what is done to the next, and until a trial is given up.
LOOK_EVERY = 1.0
PATIENCE = 7200.0


@final
class Trial:
    """A trial of *message*, whose first runs are cut as *cuts* say.

    app: has its messages in memory.
    task_id: of the message.  points: how often a run that was not cut has waited.
    where: the line of the task at which each cut met it, "" after its end; None where it did not.
    """

    def __init__(self, app: Chicory, message: TaskMessage, cuts: Sequence[Cut]) -> None:
        assert isinstance(app.broker, ObservedBroker)
        self.points = 0
        self.where: list[str | None] = []
        self.task_id = message.id
        self._app = app
        self._broker = app.broker
        self._message = message
        self._cuts = list(cuts)
        self._processes: list[Process] = []
        self._gone = trio.Event()
        self._worker: Worker | None = None

    async def perform(self, look: Callable[[Run], None]) -> None:
        """Have *look* called with the last run when all is done, while what was killed lies as it fell."""
        await self._broker.publish(self._message)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._supervise, nursery)
            look(await self._done())
            for process in self._processes:
                process.kill()
                process.bury()
            nursery.cancel_scope.cancel()

    async def _supervise(self, nursery: trio.Nursery) -> None:
        """Have a worker, and when it is gone another one."""
        while True:
            number = len(self._processes) + 1
            process = Process(number, 0, f"worker {number}", trio.current_time())
            self._processes.append(process)
            self._gone = trio.Event()
            process.context.run(nursery.start_soon, self._work, process)
            await self._gone.wait()

    async def _work(self, process: Process) -> None:
        queues = {task.settings.queue for task in self._app.tasks.values()}
        config = self._app.config.worker
        self._worker = Worker(
            self._app,
            evolve(config, queues=tuple(sorted({*queues, *config.consumed, self._message.queue}))),
            name=process.name,
            clock=trio.current_time,
            catalog=partial(_CutCatalog, trial=self),
        )
        await self._worker.run()
        self._gone.set()

    async def _done(self) -> Run:
        """Wait until the task is over, and whatever it has sent to be run at once."""
        end = trio.current_time() + PATIENCE
        while trio.current_time() < end:
            await trio.sleep(LOOK_EVERY)
            over = [run for run in self._broker.ran if run.task_id == self.task_id and run.state.finished]
            if over and not await self._busy():
                return over[-1]
        raise Undrained(f"the task does not end within {PATIENCE:g} s", self._broker.enqueued())

    async def _busy(self) -> bool:
        sizes = [await self._broker.get_queue_sizes(queue) for queue in self._broker.queues]
        return any(size.ready or size.delivered for size in sizes)

    # -- called by runs

    def next_cut(self, message: TaskMessage) -> Cut | None:
        """How the run of *message* that begins now is to be cut."""
        if message.id != self.task_id or not self._cuts:
            return None
        self.where.append(None)
        return self._cuts.pop(0)

    def kill(self) -> None:
        """The worker's process is gone, with whatever runs in it."""
        self._processes[-1].kill()
        self._gone.set()

    async def stop(self) -> None:
        """The worker stops, and waits for nothing; never returns."""
        assert self._worker is not None
        self._worker.hurry()
        await trio.sleep_forever()


@final
class _CutCatalog(Catalog):
    """Runs tasks so that they can be cut: those on trio wherever they wait."""

    def __init__(self, app: Chicory, config: WorkerConfig, flavors: Flavors, *, trial: Trial) -> None:
        super().__init__(app, config, flavors)
        self._trial = trial

    def _plan(self, task: Task[..., Any]) -> Plan:
        plan = super()._plan(task)
        return attrs.evolve(plan, elsewhere=self._on_trio if task.is_async else self._in_a_thread, plain=False)

    async def _in_a_thread(
        self, message: TaskMessage, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        cut = self._trial.next_cut(message)
        value = await Threads().call(partial(function, *args, **kwargs))
        await self._end(cut, 0)
        return value

    async def _on_trio(
        self, message: TaskMessage, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        cut = self._trial.next_cut(message)
        run: Coroutine[Any, Any, Any] = function(*args, **kwargs)
        value: Any = None
        waited = 0

        def waits() -> None:
            nonlocal waited
            waited += 1
            if cut is None or cut.at != waited:
                return
            self._trial.where[-1] = _line(run)
            if cut.killed:
                self._trial.kill()
            else:
                scope.cancel()

        with trio.CancelScope() as scope:
            value = await _watched(run, waits)
        if scope.cancelled_caught:
            await self._trial.stop()
        await self._end(cut, waited)
        if cut is None and message.id == self._trial.task_id:
            self._trial.points = waited
        return value

    async def _end(self, cut: Cut | None, waited: int) -> None:
        """It has run to its end; should it be killed after its last wait, then it is now."""
        if cut is not None and cut.killed and cut.at > waited:
            self._trial.where[-1] = ""
            self._trial.kill()
            await trio.lowlevel.checkpoint()


@types.coroutine
def _watched(run: Coroutine[Any, Any, Any], waits: Callable[[], None]) -> Generator[Any, Any, Any]:
    """Await *run*; call *waits* whenever it waits."""
    step = partial(run.send, None)
    while True:
        try:
            trap = step()
        except StopIteration as end:
            return end.value
        waits()
        try:
            step = partial(run.send, (yield trap))
        except BaseException as error:
            step = partial(run.throw, error)


def _line(run: Coroutine[Any, Any, Any]) -> str:
    """The line of the task that waits."""
    frame = run.cr_frame if isinstance(run, types.CoroutineType) else None
    if frame is None:
        return ""
    path, number = frame.f_code.co_filename, frame.f_lineno
    return f" ({Path(path).name}, line {number}: {linecache.getline(path, number).strip()})"
