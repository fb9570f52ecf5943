"""An asyncio loop in a thread of its own, and the way there for those who wait on trio."""

import asyncio
import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn, final

import outcome
import trio

from chicory.groups import holds

log = logging.getLogger("chicory.worker")

# The call in whose context something happens on a loop.
_current: contextvars.ContextVar["_Call | None"] = contextvars.ContextVar("chicory_asyncio_call", default=None)


@final
class AsyncioLoop:
    """Begins with its thread when it is made, in a trio run, and lasts until `aclose`, or until the loop breaks.

    What a task does to the loop does not break it: `loop.stop()`, and SystemExit in a callback or in a task of the
    task's own, stop it for a moment, and nobody else notices.
    """

    def __init__(self) -> None:
        # When it last turned after a `ping`, by time.monotonic().
        self.turned = float("-inf")
        self._token = trio.lowlevel.current_trio_token()
        self._calls: set[_Call] = set()
        self._posted: deque[Callable[[], object]] = deque()
        # As long as there is no loop, nobody can ring; its first act is to look what was posted.
        self._rung = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        self._why: BaseException | None = None
        self._careless: set[str] = set()
        self._ended = trio.Event()
        self._thread = threading.Thread(target=self._serve, name="chicory asyncio", daemon=True)
        self._thread.start()

    @property
    def thread(self) -> int | None:
        """The identifier of its thread."""
        return self._thread.ident

    @property
    def over(self) -> bool:
        """Whether it takes no more calls: from the moment it broke, although what is on it may take a while to end."""
        return self._why is not None or self._ended.is_set()

    @property
    def busy(self) -> int:
        """How many calls have not ended."""
        return len(self._calls)

    def ping(self) -> None:
        """Have `turned` set as soon as the loop turns."""
        self._post(self._turn)

    async def call(
        self, function: Callable[..., Coroutine[Any, Any, Any]], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """What *function* returns, awaited on the loop, in a copy of the present context.

        Cancelled here, it is cancelled there, once, as asyncio does, and waited for until it has ended.  So are the
        tasks that it leaves behind.  Raises RuntimeError when the loop breaks.
        """
        call = _Call(self, function, args, kwargs, trio.lowlevel.current_task())
        cancelled: Callable[[], NoReturn] | None = None

        def abort(raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
            nonlocal cancelled
            cancelled = raise_cancel
            self._post(call.cancel)
            return trio.lowlevel.Abort.FAILED

        self._calls.add(call)
        self._post(call.begin)
        try:
            return await trio.lowlevel.wait_task_rescheduled(abort)
        except BaseException as error:
            if holds(error, asyncio.CancelledError):
                if cancelled is not None:
                    cancelled()
                if self._why is not None:
                    raise RuntimeError("the asyncio loop that it ran on broke") from self._why
            raise

    async def hold(
        self, manager: AbstractAsyncContextManager[Any], entered: Callable[[Any], None], leave: trio.Event
    ) -> None:
        """Enter *manager* on the loop, tell what that gave, and leave it after *leave*."""
        leaving = asyncio.Event()

        async def stay() -> None:
            async with manager as state:
                self._token.run_sync_soon(entered, state)
                await leaving.wait()

        async def pass_on() -> None:
            await leave.wait()
            self._post(leaving.set)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_on)
            await self.call(stay, (), {})
            nursery.cancel_scope.cancel()

    async def aclose(self) -> None:
        """End the loop as `asyncio.run` does: what is left on it is cancelled and waited for."""
        self._closing = True
        self._post(self._stop)
        await self._ended.wait()
        # Saying so was its last act.
        self._thread.join()

    def report(self, call: "_Call", result: "outcome.Outcome[Any]") -> None:
        """*call* has ended so; said on the loop."""
        self._token.run_sync_soon(self._end, call, result)

    def blame(self, task: "asyncio.Task[Any]") -> None:
        """Say that *task* was left behind, once for each function that is."""
        name = getattr(task.get_coro(), "__qualname__", task.get_name())
        if name not in self._careless:
            self._careless.add(name)
            log.warning("%s was left running on the asyncio loop when its task ended; it is cancelled", name)

    def _post(self, what: Callable[[], object]) -> None:
        self._posted.append(what)
        loop = self._loop
        if self._rung or loop is None:
            return
        self._rung = True
        try:
            loop.call_soon_threadsafe(self._take)
        except RuntimeError:  # it broke, and whoever waits for something will be told by `_after`
            return

    # What follows happens on the loop.

    def _serve(self) -> None:
        try:
            with asyncio.Runner() as runner:
                loop = self._loop = runner.get_loop()
                loop.set_task_factory(_adopt)
                loop.call_soon(self._take)
                while not self._closing:
                    try:
                        loop.run_forever()
                    except (SystemExit, KeyboardInterrupt) as error:
                        log.warning("%r left a callback or a task on the asyncio loop; the loop goes on", error)
                    except BaseException as error:
                        self._why = error
                        raise
        except BaseException as error:
            # What came first is the reason: a loop that is broken cannot be closed in order either.
            self._why = self._why or error
        self._token.run_sync_soon(self._after)

    def _take(self) -> None:
        self._rung = False
        while self._posted:
            self._posted.popleft()()

    def _turn(self) -> None:
        self.turned = time.monotonic()

    def _stop(self) -> None:
        asyncio.get_running_loop().stop()

    # And this on trio.

    def _end(self, call: "_Call", result: "outcome.Outcome[Any]") -> None:
        if call in self._calls:
            self._calls.remove(call)
            trio.lowlevel.reschedule(call.waiter, result)

    def _after(self) -> None:
        self._ended.set()
        if self._why is not None:
            log.error("the asyncio loop broke; the next task begins another", exc_info=self._why)
        for call in list(self._calls):
            self._end(call, outcome.Error(asyncio.CancelledError()))


@final
class _Call:
    """One call as the loop sees it: the task that makes it, and the tasks that were begun within it."""

    def __init__(
        self,
        loop: AsyncioLoop,
        function: Callable[..., Coroutine[Any, Any, Any]],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        waiter: trio.lowlevel.Task,
    ) -> None:
        self.waiter = waiter
        self.task: asyncio.Task[outcome.Outcome[Any]] | None = None
        self.begun: set[asyncio.Task[Any]] = set()
        self._loop = loop
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._context = contextvars.copy_context()

    @property
    def coroutine(self) -> Any:
        """What is awaited on the loop, for those who look where it waits."""
        return None if self.task is None else self.task.get_coro()

    def begin(self) -> None:
        self._context.run(_current.set, self)
        self.task = asyncio.Task(self._contained(), context=self._context)
        self.task.add_done_callback(self._report)

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    async def _contained(self) -> "outcome.Outcome[Any]":
        """How the function ended, SystemExit included: asyncio would let that stop the loop."""
        result: outcome.Outcome[Any]
        # What outcome.acapture does, which relies on what the exception says of its traceback.
        try:
            result = outcome.Value(await self._function(*self._args, **self._kwargs))
        except BaseException as error:
            result = outcome.Error(error)
        while left := [task for task in self.begun if not task.done()]:
            for task in left:
                self._loop.blame(task)
                task.cancel()
            try:
                await asyncio.wait(left)
            except asyncio.CancelledError:
                continue  # what does not end is told once more
        return result

    def _report(self, task: "asyncio.Task[outcome.Outcome[Any]]") -> None:
        # Cancelled itself only if that came before its first step.
        self._loop.report(self, outcome.Error(asyncio.CancelledError()) if task.cancelled() else task.result())


def _adopt(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> "asyncio.Task[Any]":
    """The task factory: a task belongs to the call in whose context it begins."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **more)
    context = more.get("context")
    call = _current.get() if context is None else context.get(_current)
    if call is not None and call.task is not None and not call.task.done():
        call.begun.add(task)
        task.add_done_callback(call.begun.discard)
    return task
