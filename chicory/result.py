"""AsyncResult: the end of a task, waited for by push."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final

from chicory.callers import check_caller
from chicory.errors import NoBackend, ResultExpired, ResultTimeout, ResultUnknown, TaskFailed
from chicory.links.executor import running
from chicory.links.sync_executor import finish
from chicory.types import ResultRecord, TaskState

if TYPE_CHECKING:
    from chicory.backends.base import Backend

R = TypeVar("R")


@final
class AsyncResult(Generic[R]):
    """What became of the task *id*.

    read: makes what was returned of what is stored; None when that is the same.
    """

    __slots__ = ("_backend", "_read", "_why_none", "id")

    def __init__(
        self,
        task_id: str,
        backend: "Backend | None",
        *,
        why_none: str = "the app keeps no results",
        read: Callable[[Any], Any] | None = None,
    ) -> None:
        self.id = task_id
        self._backend = backend
        self._why_none = why_none
        self._read = read

    async def get(self, timeout: float | None = None) -> R:
        """Wait until the task is finished and return what it returned.

        Raises TaskFailed, ResultTimeout after *timeout* seconds (the task goes on), ResultUnknown, ResultExpired,
        ResultInvalid, or NoBackend.
        """
        record = await self.wait(timeout)
        match record.state:
            case TaskState.SUCCESS:
                return cast("R", record.value if self._read is None else self._read(record.value))
            case TaskState.FAILURE:
                assert record.failure is not None
                raise TaskFailed(self.id, record.failure)
            case TaskState.EXPIRED:
                raise ResultExpired(f"the result of task {self.id} is gone; a longer result_ttl keeps results longer")
            case _:
                raise ResultUnknown(f"no task {self.id} was ever published here; is this the same broker and prefix?")

    async def wait(self, timeout: float | None = None) -> ResultRecord:
        """Wait until the task is finished and return what is known of it; raises ResultTimeout or NoBackend."""
        backend = self._required()
        if timeout is None:
            return await backend.wait(self.id)
        # Who has no time to wait may still look.
        record = await (running().within(timeout, backend.wait(self.id)) if timeout > 0 else backend.fetch(self.id))
        if record is not None and (record.state.finished or record.state is TaskState.UNKNOWN):
            return record
        raise ResultTimeout(f"task {self.id} is not finished after {timeout:g} s; it goes on")

    async def record(self) -> ResultRecord:
        """What is known now; raises NoBackend."""
        return await self._required().fetch(self.id)

    async def state(self) -> TaskState:
        """How far the task is; raises NoBackend."""
        return (await self.record()).state

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

    def _required(self) -> "Backend":
        if self._backend is None:
            raise NoBackend(f"no result of task {self.id} is kept: {self._why_none}")
        check_caller(self._backend)
        return self._backend

    def __repr__(self) -> str:
        return f"<result of task {self.id}>"
