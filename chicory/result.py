"""AsyncResult: the end of a task, waited for by push."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, final

from chicory.callers import check_caller
from chicory.errors import (
    NoBackend,
    ResultExpired,
    ResultTimeout,
    ResultUnknown,
    TaskCancelled,
    TaskExpired,
    UsageError,
    remote_error,
)
from chicory.ids import born
from chicory.links.executor import running
from chicory.links.sync_executor import finish
from chicory.types import ResultRecord, TaskInfo, TaskState

if TYPE_CHECKING:
    from chicory.backends.base import Backend

R = TypeVar("R")


class Canceller(Protocol):
    """What can cancel a task, such as its app."""

    async def cancel(self, task_id: str, /) -> bool:
        """Cancel it; whether its end is to be cancelled."""
        ...


@final
class AsyncResult(Generic[R]):
    """What became of the task *id*.

    read: makes what was returned of what is stored; None when that is the same.
    canceller: cancels the task; None where nobody can.
    known: how the task ended, where somebody has looked already; then nobody looks again.
    """

    __slots__ = ("_backend", "_canceller", "_known", "_read", "_why_none", "id")

    def __init__(
        self,
        task_id: str,
        backend: "Backend | None",
        *,
        why_none: str = "the app keeps no results",
        read: Callable[[Any], Any] | None = None,
        canceller: Canceller | None = None,
        known: ResultRecord | None = None,
    ) -> None:
        self.id = task_id
        self._backend = backend
        self._why_none = why_none
        self._read = read
        self._canceller = canceller
        self._known = known

    async def get(self, timeout: float | None = None) -> R:
        """Wait until the task is finished and return what it returned.

        Raises RemoteTaskError when it failed, which is TaskDeadLettered when it is kept as a dead letter; one of
        Python's own exceptions is raised as that exception, too, so `except ValueError` works.  Raises TaskCancelled,
        TaskExpired, ResultTimeout after *timeout* seconds (the task goes on), ResultUnknown, ResultExpired,
        ResultInvalid, or NoBackend.
        """
        return self.value(await self.wait(timeout))

    def value(self, record: ResultRecord) -> R:
        """What `get` makes of *record*: the value in it, or the error."""
        match record.state:
            case TaskState.SUCCESS:
                return cast("R", record.value if self._read is None else self._read(record.value))
            case TaskState.FAILURE | TaskState.DEAD_LETTERED:
                assert record.failure is not None
                raise remote_error(self.id, record.failure, dead=record.state is TaskState.DEAD_LETTERED)
            case TaskState.CANCELLED:
                raise TaskCancelled(f"task {self.id} was cancelled")
            case TaskState.EXPIRED if record.failure is not None:
                raise TaskExpired(f"task {self.id} was never run: {record.failure.message}")
            case TaskState.EXPIRED:
                raise ResultExpired(f"the result of task {self.id} is gone; a longer result_ttl keeps results longer")
            case _:
                raise ResultUnknown(f"no task {self.id} was ever published here; is this the same broker and prefix?")

    async def wait(self, timeout: float | None = None) -> ResultRecord:
        """Wait until the task is finished and return what is known of it; raises ResultTimeout or NoBackend."""
        if self._known is not None:
            return self._known
        backend = self.backend()
        if timeout is None:
            return await backend.wait(self.id)
        # Who has no time to wait may still look.
        record = await (running().within(timeout, backend.wait(self.id)) if timeout > 0 else backend.fetch(self.id))
        if record is not None and not record.state.awaited:
            return record
        raise ResultTimeout(f"task {self.id} is not finished after {timeout:g} s; it goes on")

    async def record(self) -> ResultRecord:
        """What is known now; raises NoBackend."""
        return await self.backend().fetch(self.id)

    async def state(self) -> TaskState:
        """How far the task is; raises NoBackend."""
        return (await self.record()).state

    async def ready(self) -> bool:
        """Whether waiting is over: the task is finished, or unknown; raises NoBackend."""
        return not (await self.state()).awaited

    async def failed(self) -> bool:
        """Whether the task has ended otherwise than well; raises NoBackend."""
        state = await self.state()
        return state.finished and state is not TaskState.SUCCESS

    async def info(self) -> TaskInfo:
        """State, times, attempts, worker and progress, as far as known; raises NoBackend."""
        return _info(self.id, await self.record())

    async def cancel(self) -> bool:
        """Cancel the task: see `Chicory.cancel`."""
        if self._canceller is None:
            raise UsageError(f"nothing is known of task {self.id} but its id; app.cancel(id) cancels a task")
        return await self._canceller.cancel(self.id)

    def cancel_sync(self) -> bool:
        """`cancel` for sync code."""
        return finish(self.cancel(), "await cancel()")

    def get_sync(self, timeout: float | None = None) -> R:
        """`get` for sync code: blocks this thread, and raises what `get` raises."""
        return finish(self.get(timeout), "await get()")

    def wait_sync(self, timeout: float | None = None) -> ResultRecord:
        """`wait` for sync code."""
        return finish(self.wait(timeout), "await wait()")

    def record_sync(self) -> ResultRecord:
        """`record` for sync code."""
        return finish(self.record(), "await record()")

    def state_sync(self) -> TaskState:
        """`state` for sync code."""
        return finish(self.state(), "await state()")

    def ready_sync(self) -> bool:
        """`ready` for sync code."""
        return finish(self.ready(), "await ready()")

    def failed_sync(self) -> bool:
        """`failed` for sync code."""
        return finish(self.failed(), "await failed()")

    def info_sync(self) -> TaskInfo:
        """`info` for sync code."""
        return finish(self.info(), "await info()")

    def backend(self) -> "Backend":
        """Where the result is; raises NoBackend when nowhere, UsageError when it does not serve who calls."""
        if self._backend is None:
            raise NoBackend(f"no result of task {self.id} is kept: {self._why_none}")
        check_caller(self._backend)
        return self._backend

    def knowing(self, record: ResultRecord) -> "AsyncResult[R]":
        """This result for somebody who need not look again."""
        return AsyncResult(
            self.id, self._backend, why_none=self._why_none, read=self._read, canceller=self._canceller, known=record
        )

    def __repr__(self) -> str:
        return f"<result of task {self.id}>"


def _info(task_id: str, record: ResultRecord) -> TaskInfo:
    started = record.state not in (TaskState.UNKNOWN, TaskState.PENDING) and record.started_at is not None
    return TaskInfo(
        id=task_id,
        state=record.state,
        enqueued_at=None if record.state is TaskState.UNKNOWN else _instant(born(task_id)),
        started_at=_instant(record.started_at),
        finished_at=_instant(record.finished_at) if record.state.finished else None,
        retries=record.retries,
        # A retry that waits has not been started yet.
        attempts=record.retries + (started and record.state is not TaskState.RETRY),
        worker=record.worker or None,
        progress=record.progress,
        failure=record.failure,
    )


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
