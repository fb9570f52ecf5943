"""RemoteTask: a task as one knows it who sends it, and all ways of doing so."""

import copy
import functools
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, Self, TypeVar, TypeVarTuple, cast

import attrs
from msgspec.structs import replace

from chicory.clock import unix_now
from chicory.conditions import SendOptions, TaskSettings
from chicory.errors import DelayError, UsageError
from chicory.ids import new_id
from chicory.links.sync_executor import finish
from chicory.result import AsyncResult
from chicory.retry import RetryPolicy
from chicory.types import DeliveryMode, TaskMessage
from chicory.unique import Unique
from chicory.validation.contract import Arguments
from chicory.wire import check_name

if TYPE_CHECKING:
    from chicory.app import Chicory

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound="RemoteTask[..., Any]")
X = TypeVar("X")
X_contra = TypeVar("X_contra", contravariant=True)
Ts = TypeVarTuple("Ts")

_NO_OPTIONS = SendOptions()


class OfMany(Protocol):
    """A task that is called many times at once."""

    app: "Chicory"

    @property
    def identified(self) -> bool: ...


class OfOne(OfMany, Protocol[X_contra, R]):
    """A task that may be called with one argument alone."""

    def message(self, argument: X_contra, /) -> TaskMessage: ...
    def result(self, task_id: str) -> AsyncResult[R]: ...


class OfSome(OfMany, Protocol[*Ts, R]):
    """A task that may be called with these arguments."""

    def message(self, *arguments: *Ts) -> TaskMessage: ...
    def result(self, task_id: str) -> AsyncResult[R]: ...


class RemoteTask(Generic[P, R]):
    """A task as one knows it who only sends it: by its name, and on which conditions."""

    def __init__(self, app: "Chicory", name: str, settings: TaskSettings) -> None:
        self.app = app
        self.name = check_name(name)
        self.settings = settings
        self._options = _NO_OPTIONS
        self._plain = settings.expires is None and settings.unique is None and app.carried is None

    async def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Publish a call with these arguments, on trio or asyncio; the result object waits for its end.

        Returns once the broker has the message.  Raises ArgumentsError (and so ValidationError), PayloadError,
        DelayError, QueueFull, or a BrokerError.
        """
        message = await self.app.publish(self._message(args, kwargs), delay=self._options.delay)
        return self.app.result_of(message)

    async def send(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Publish a call with these arguments, on trio or asyncio, and return the task's id."""
        message = await self.app.publish(self._message(args, kwargs), delay=self._options.delay)
        return message.id

    def delay_sync(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """`delay` for sync code: blocks this thread until the broker has the message, and raises what `delay` raises.

        Any thread may call it, also of a child after a fork.  Where trio or asyncio runs it raises UsageError.
        """
        return finish(self.delay(*args, **kwargs), "await delay()")

    def send_sync(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """`send` for sync code; see `delay_sync`."""
        return finish(self.send(*args, **kwargs), "await send()")

    async def map(self: OfOne[X, R], arguments: Iterable[X]) -> list[AsyncResult[R]]:
        """Publish a call for each of *arguments*; the results come in their order.

        As `app.publish_many` does: in few round trips, and no more than a thousand calls are in memory at once.
        """
        return await _publish_all(self, (self.message(argument) for argument in arguments))

    async def starmap(self: OfSome[*Ts, R], arguments: Iterable[tuple[*Ts]]) -> list[AsyncResult[R]]:
        """`map` for several arguments: a call for each tuple of them."""
        return await _publish_all(self, (self.message(*several) for several in arguments))

    def map_sync(self: OfOne[X, R], arguments: Iterable[X]) -> list[AsyncResult[R]]:
        """`map` for sync code; see `delay_sync`."""
        return finish(_publish_all(self, (self.message(argument) for argument in arguments)), "await map()")

    def starmap_sync(self: OfSome[*Ts, R], arguments: Iterable[tuple[*Ts]]) -> list[AsyncResult[R]]:
        """`starmap` for sync code; see `delay_sync`."""
        return finish(_publish_all(self, (self.message(*several) for several in arguments)), "await starmap()")

    def message(self, *args: P.args, **kwargs: P.kwargs) -> TaskMessage:
        """The message that `send` would publish, for `app.publish_many`; a delay becomes an `eta` by this clock."""
        message = self._message(args, kwargs)
        if self._options.delay is None:
            return message
        return replace(message, eta=datetime.fromtimestamp(unix_now() + self._options.delay, UTC))

    def options(
        self,
        *,
        queue: str | None = None,
        delay: float | timedelta | None = None,
        eta: datetime | None = None,
        expires: datetime | timedelta | float | None = None,
        priority: int | None = None,
        timeout: float | None = None,
        task_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        ignore_result: bool | None = None,
        delivery_mode: DeliveryMode | None = None,
        retry_policy: RetryPolicy | None = None,
        unique: Unique | str | Callable[..., str] | bool | None = None,
    ) -> Self:
        """This task with other conditions for what it sends; what is left out stays as it was.

        delay: seconds from now by the broker's clock.  eta: an instant; give one of the two.
        expires: an instant, or seconds after sending, after which it is no longer worth running.
        task_id: of your own making; sending the same id again while it is unfinished changes nothing.
        unique: a key, or a Unique with its window: see there.  While a call with the same key is under way no other is
            sent, and who would have sent one is given the id, or the result, of the one that is.
        retry_policy: travels with the message; its exceptions as names.
        """
        if delay is not None and eta is not None:
            raise DelayError("give a delay or an eta, not both")
        said: dict[str, Any] = {
            "queue": queue,
            "delay": delay,
            "eta": eta,
            "expires": expires.total_seconds() if isinstance(expires, timedelta) else expires,
            "priority": priority,
            "timeout": timeout,
            "task_id": task_id,
            "headers": headers,
            "reply_to": reply_to,
            "ignore_result": ignore_result,
            "delivery_mode": delivery_mode,
            "retry_policy": retry_policy,
            "unique": unique,
        }
        # A delay takes the place of an earlier eta, and the other way round.
        base = self._options
        if delay is not None or eta is not None:
            base = attrs.evolve(base, delay=None, eta=None)
        changed = attrs.evolve(base, **{key: value for key, value in said.items() if value is not None})
        # A copy knows what was read of the function, its contract above all.
        task = copy.copy(self)
        task._options = changed
        return task

    @property
    def identified(self) -> bool:
        """Whether `options()` gave what it sends an id, so that there can be but one of it."""
        return self._options.task_id is not None

    @property
    def postponed(self) -> bool:
        """Whether `options()` gave what it sends a delay or an eta."""
        return self._options.delay is not None or self._options.eta is not None

    def result(self, task_id: str) -> AsyncResult[R]:
        """What became of a call of this task whose id is known from elsewhere."""
        return AsyncResult(task_id, self.app.backend, canceller=self.app)

    def _outgoing(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Arguments:
        """Arguments as they travel; raises ArgumentsError."""
        return args, kwargs

    def _message(self, args: Sequence[Any], kwargs: dict[str, Any]) -> TaskMessage:
        given = args, kwargs
        args, kwargs = self._outgoing(args, kwargs)
        settings = self.settings
        if self._options is _NO_OPTIONS and self._plain:
            return TaskMessage(
                new_id(),
                name=self.name,
                args=list(args),
                kwargs=kwargs,
                queue=settings.queue,
                priority=settings.priority,
                timeout=settings.timeout,
                delivery_mode=settings.delivery_mode,
                ignore_result=settings.ignore_result,
            )
        said = self._options
        unique = settings.unique if said.unique is None else said.unique
        headers = said.headers or {}
        if self.app.carried is not None:
            headers = self.app.carried.headers(headers)
        return TaskMessage(
            said.task_id or new_id(),
            name=self.name,
            args=list(args),
            kwargs=kwargs,
            eta=said.eta,
            expires=_instant(settings.expires if said.expires is None else said.expires),
            queue=said.queue or settings.queue,
            priority=settings.priority if said.priority is None else said.priority,
            timeout=said.timeout or settings.timeout,
            headers=dict(headers),
            reply_to=said.reply_to,
            delivery_mode=said.delivery_mode or settings.delivery_mode,
            ignore_result=settings.ignore_result if said.ignore_result is None else said.ignore_result,
            # The task's own policy is the worker's business: a later version of the code may have a better one.
            retry_policy=said.retry_policy,
            unique=unique.key_of(self.name, given, (args, kwargs)) if unique else None,
            unique_window=unique.window if unique and unique.window else None,
        )

    def __repr__(self) -> str:
        return f"<remote task {self.name}>"


def _publish_all(task: OfMany, messages: Iterable[TaskMessage]) -> Coroutine[Any, Any, list[AsyncResult[Any]]]:
    if task.identified:
        raise UsageError("a task_id is the id of one call; leave it out of the options() of many")
    return task.app.publish_many(messages)


def named(kind: type[T], name: str) -> type[T]:
    """*kind* for one task alone: a call of it that nobody awaits is reported by the task's *name*.

    Python names a forgotten coroutine by its function, so the task gets functions of its own; calls cost no more.
    """
    ways: dict[str, FunctionType] = {"delay": kind.delay, "send": kind.send, "map": kind.map, "starmap": kind.starmap}
    own = {way: _renamed(function, f"{name}.{way}") for way, function in ways.items()}
    return cast("type[T]", type(kind.__name__, (kind,), own))


def _renamed(function: FunctionType, name: str) -> FunctionType:
    copy = FunctionType(function.__code__, function.__globals__, closure=function.__closure__)
    functools.update_wrapper(copy, function)
    copy.__qualname__ = name
    return copy


def _instant(expires: datetime | float | None) -> datetime | None:
    if expires is None or isinstance(expires, datetime):
        return expires
    return datetime.fromtimestamp(unix_now() + expires, UTC)
