"""Task: a function of the app that can be called here and now, or sent to a worker."""

import copy
import functools
import inspect
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, cast, get_args

import attrs
from msgspec.structs import replace

from chicory.binding import Shape
from chicory.clock import unix_now
from chicory.context import TaskContext, wants_context
from chicory.delay import check_delay
from chicory.errors import DelayError, UsageError
from chicory.ids import new_id
from chicory.links.sync_executor import finish
from chicory.naming import dotted
from chicory.result import AsyncResult
from chicory.retry import RetryPolicy
from chicory.types import DeliveryMode, Flavor, TaskMessage, ValidationMode
from chicory.validation.contract import Contract
from chicory.wire import check_name, check_queue

if TYPE_CHECKING:
    from chicory.app import Chicory

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound="Task[..., Any]")


def _limit(_: object, attribute: "attrs.Attribute[float | None]", value: float | None) -> None:
    if value is not None and not 0 < value < math.inf:
        raise UsageError(f"{attribute.name} must be a positive number of seconds, not {value}")


def check_flavor(flavor: str) -> Flavor:
    """*flavor*, when there is one called so; else UsageError."""
    if flavor not in get_args(Flavor):
        raise UsageError(f"flavor must be one of {', '.join(map(repr, get_args(Flavor)))}, not {flavor!r}")
    return cast("Flavor", flavor)


def _queue(_: object, __: object, value: str) -> None:
    check_queue(value)


def _policy(_: object, attribute: "attrs.Attribute[RetryPolicy | None]", value: object) -> None:
    if value is not None and not isinstance(value, RetryPolicy):
        raise UsageError(f"{attribute.name} must be a RetryPolicy, not {value!r:.80}")


@attrs.frozen(kw_only=True)
class TaskSettings:
    """What `@app.task(...)` says about every message of a task; `options()` may say otherwise of one.

    queue: None is the worker's default queue, "default".
    retry_policy, delivery_mode, validation_mode: None is the app's.
    flavor: what an async function is written for; None is the app's.
    timeout: seconds one run may take.  expires: seconds after sending during which it is worth running.
    """

    queue: str = attrs.field(default="default", validator=_queue)
    retry_policy: RetryPolicy | None = attrs.field(default=None, validator=_policy)
    delivery_mode: DeliveryMode | None = attrs.field(default=None, converter=attrs.converters.optional(DeliveryMode))
    validation_mode: ValidationMode | None = attrs.field(
        default=None, converter=attrs.converters.optional(ValidationMode)
    )
    flavor: Flavor | None = attrs.field(default=None, converter=attrs.converters.optional(check_flavor))
    timeout: float | None = attrs.field(default=None, validator=_limit)
    expires: float | None = attrs.field(default=None, validator=_limit)
    priority: int | None = None
    ignore_result: bool = False


@attrs.frozen(kw_only=True)
class SendOptions:
    """What `options()` says about the messages of one bound task; None leaves it to the task."""

    queue: str | None = None
    delay: float | None = None
    eta: datetime | None = None
    expires: datetime | float | None = None
    priority: int | None = None
    timeout: float | None = attrs.field(default=None, validator=_limit)
    task_id: str | None = None
    headers: Mapping[str, str] | None = None
    reply_to: str | None = None
    ignore_result: bool | None = None
    delivery_mode: DeliveryMode | None = None
    retry_policy: RetryPolicy | None = attrs.field(default=None, validator=_policy)


_NO_OPTIONS = SendOptions()


class Task(Generic[P, R]):
    """A function that workers run.  Calling it runs it here; `delay` and `send` publish it."""

    def __init__(
        self,
        app: "Chicory",
        function: Callable[..., Any],
        name: str,
        settings: TaskSettings,
        options: SendOptions = _NO_OPTIONS,
    ) -> None:
        # First, because it copies the function's own attributes, and those must not win.
        functools.update_wrapper(cast("Callable[..., Any]", self), function)
        self.app = app
        self.name = check_name(name)
        self.function = function
        self.settings = settings
        self.is_async = inspect.iscoroutinefunction(function)
        self.flavor = _flavor(app, name, settings, is_async=self.is_async)
        self.takes_context = _takes_context(function, name)
        self.shape = Shape(function, skip=int(self.takes_context))
        self.contract = Contract(
            name, function, settings.validation_mode or app.validation_mode, skip=int(self.takes_context)
        )
        self._options = options

    async def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Publish a call with these arguments, on trio or asyncio; the result object waits for its end.

        Returns once the broker has the message.  Raises ArgumentsError (and so ValidationError), PayloadError,
        DelayError, QueueFull, or a BrokerError.
        """
        message = self._message(args, kwargs)
        await self.app.publish(message, delay=self._options.delay)
        return self.app.result_of(message)

    async def send(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Publish a call with these arguments, on trio or asyncio, and return the task's id."""
        message = self._message(args, kwargs)
        await self.app.publish(message, delay=self._options.delay)
        return message.id

    def delay_sync(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """`delay` for sync code: blocks this thread until the broker has the message, and raises what `delay` raises.

        Any thread may call it, also of a child after a fork.  Where trio or asyncio runs it raises UsageError.
        """
        return finish(self.delay(*args, **kwargs), "await delay()")

    def send_sync(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """`send` for sync code; see `delay_sync`."""
        return finish(self.send(*args, **kwargs), "await send()")

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
    ) -> Self:
        """This task with other conditions for what it sends; what is left out stays as it was.

        delay: seconds from now by the broker's clock.  eta: an instant; give one of the two.
        expires: an instant, or seconds after sending, after which it is no longer worth running.
        task_id: of your own making; sending the same id again while it is unfinished changes nothing.
        retry_policy: travels with the message; its exceptions as names.
        """
        if delay is not None and eta is not None:
            raise DelayError("give a delay or an eta, not both")
        if queue is not None:
            check_queue(queue)
        said: dict[str, Any] = {
            "queue": queue,
            "delay": None if delay is None else check_delay(_seconds(delay)),
            "eta": eta,
            "expires": expires.total_seconds() if isinstance(expires, timedelta) else expires,
            "priority": priority,
            "timeout": timeout,
            "task_id": task_id,
            "headers": headers,
            "reply_to": reply_to,
            "ignore_result": ignore_result,
            "delivery_mode": None if delivery_mode is None else DeliveryMode(delivery_mode),
            "retry_policy": retry_policy,
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
    def postponed(self) -> bool:
        """Whether `options()` gave what it sends a delay or an eta."""
        return self._options.delay is not None or self._options.eta is not None

    def result(self, task_id: str) -> AsyncResult[R]:
        """What became of a call of this task whose id is known from elsewhere."""
        return AsyncResult(task_id, self.app.backend, read=self.contract.reader)

    def _message(self, args: Sequence[Any], kwargs: dict[str, Any]) -> TaskMessage:
        self.shape.check(self.name, args, kwargs)
        if self.contract.inputs:
            args, kwargs = self.contract.outgoing(args, kwargs)
        settings = self.settings
        if self._options is _NO_OPTIONS and settings.expires is None:
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
            headers=dict(said.headers or {}),
            reply_to=said.reply_to,
            delivery_mode=said.delivery_mode or settings.delivery_mode,
            ignore_result=settings.ignore_result if said.ignore_result is None else said.ignore_result,
            # The task's own policy is the worker's business: a later version of the code may have a better one.
            retry_policy=said.retry_policy,
        )

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.takes_context:
            return self.function(TaskContext.of_call(self.name), *args, **kwargs)
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"


class AsyncTask(Task[P, R]):
    """A task whose function is async."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Run the function itself, here; a task that takes a context is given one of its own."""
        return self._call(args, kwargs)


class SyncTask(Task[P, R]):
    """A task whose function is not async; workers run it in a thread."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function itself, here; a task that takes a context is given one of its own."""
        return self._call(args, kwargs)


def named(kind: type[T], name: str) -> type[T]:
    """*kind* for one task alone: a call of it that nobody awaits is reported by the task's *name*.

    Python names a forgotten coroutine by its function, so the task gets functions of its own; calls cost no more.
    """
    ways: dict[str, FunctionType] = {"delay": kind.delay, "send": kind.send}
    own = {way: _renamed(function, f"{name}.{way}") for way, function in ways.items()}
    return cast("type[T]", type(kind.__name__, (kind,), own))


def _renamed(function: FunctionType, name: str) -> FunctionType:
    copy = FunctionType(function.__code__, function.__globals__, closure=function.__closure__)
    functools.update_wrapper(copy, function)
    copy.__qualname__ = name
    return copy


def default_name(function: Callable[..., Any]) -> str:
    """`module.function`; a script that is run by itself is called as a worker would import it."""
    return dotted(function).replace("<locals>.", "").replace("<lambda>", "lambda")


def is_method(function: Callable[..., Any]) -> bool:
    """Whether *function* is bound to an object, or will be: in a class, and with a `self` or `cls` to be given."""
    if inspect.ismethod(function):
        return True
    home = getattr(function, "__qualname__", "").rpartition(".")[0]
    if not home or home.endswith("<locals>"):
        return False
    return next(iter(inspect.signature(function).parameters), "") in ("self", "cls")


def _flavor(app: "Chicory", name: str, settings: TaskSettings, *, is_async: bool) -> Flavor | None:
    """What the function is written for; None when it is not async, and so runs in a thread."""
    if is_async:
        return settings.flavor or app.flavor
    if settings.flavor is not None:
        raise UsageError(f"task {name!r} is no async function and runs in a thread; leave out its flavor")
    return None


def _takes_context(function: Callable[..., Any], name: str) -> bool:
    """Whether the first parameter is annotated TaskContext; UsageError when another one is."""
    parameters = list(inspect.signature(function).parameters.values())
    wanting = [index for index, parameter in enumerate(parameters) if wants_context(parameter.annotation)]
    if wanting and (wanting != [0] or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY):
        raise UsageError(f"task {name!r}: the TaskContext must be the first parameter, and the only one")
    return bool(wanting)


def _seconds(span: float | timedelta) -> float:
    return span.total_seconds() if isinstance(span, timedelta) else span


def _instant(expires: datetime | float | None) -> datetime | None:
    if expires is None or isinstance(expires, datetime):
        return expires
    return datetime.fromtimestamp(unix_now() + expires, UTC)
