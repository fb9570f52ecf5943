"""Chicory: the tasks of an application, and the broker and backend they go through."""

import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast, final, overload

from msgspec.structs import replace

from chicory.backends.base import Notable, StoredRecord
from chicory.batches import batches, note_published
from chicory.brokers.base import CancellingBroker
from chicory.callers import check_caller
from chicory.carried import Carried
from chicory.conditions import TaskSettings, check_flavor, check_mode, check_policy, check_validation
from chicory.config import ChicoryConfig, RabbitMQBrokerConfig, RedisBrokerConfig, evolve, load_config
from chicory.context import TaskContext
from chicory.drivers import backend_at, broker_of, open_backend, open_broker
from chicory.errors import DuplicateTaskError, ScheduleError, TaskNotFoundError, UsageError
from chicory.lifespan import Lifespan, lifespans_of
from chicory.links.executor import TRIO, on_this_thread
from chicory.links.sync_executor import finish
from chicory.middleware import M, Middleware, check_middleware, send_through
from chicory.remote import RemoteTask, named
from chicory.result import AsyncResult
from chicory.retry import RetryPolicy
from chicory.schedules.schedule import Schedule, Schedules, seconds_of, timing_of
from chicory.schedules.slots import Misfire
from chicory.secret import SecretStr
from chicory.task import AsyncTask, SyncTask, Task, default_name, is_method
from chicory.types import (
    BackendType,
    BrokerType,
    DeliveryMode,
    Flavor,
    ResultRecord,
    TaskMessage,
    TaskState,
    ValidationMode,
)
from chicory.unique import Unique
from chicory.wire import check_name, pack_record

if TYPE_CHECKING:
    from chicory.backends.base import Backend
    from chicory.brokers.base import Broker

P = ParamSpec("P")
R = TypeVar("R")

# Of a task of which nothing is known.
_UNSAID = TaskSettings()

AnyTask = TypeVar("AnyTask", bound=Task[..., Any])


class TaskDecorator(Protocol):
    """What `@app.task(...)` with options returns."""

    # A checker sees that a coroutine is a value too; the first overload that fits is the one meant.
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[Concatenate[TaskContext[Any], P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext[Any], P], R], /) -> SyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...


class ScheduleDecorator(Protocol):
    """What `@app.cron(...)` and `@app.every(...)` return: a task stays as it is, a function becomes one."""

    @overload
    def __call__(self, function: AnyTask, /) -> AnyTask: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[Concatenate[TaskContext[Any], P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext[Any], P], R], /) -> SyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...


@final
class Chicory:
    """An application.

    broker: a type, a URL (`redis://`, `rediss://`, `unix://`) or a broker object; None is what the settings say, and
        where they say nothing the embedded broker.
    backend: the same for results, and the URL of a database (`postgresql://`, `mysql://`, `mariadb://`, `sqlite:///`);
        None is what goes with the broker.
    config: settings given in code; they win over the environment and the file.
    delivery_mode, retry_policy, validation_mode, flavor: for the tasks that do not say otherwise.

    carry: context variables that go with each call, so that a task finds them as they were where it was called.

    lifespan: an async generator function of the app, or what returns an async context manager; entered in every worker
        process before its first task and left after the last.  It is of the app's flavor; a mapping has one for each.

    Nothing is read or connected before it is needed.
    """

    def __init__(
        self,
        broker: "BrokerType | str | Broker | None" = None,
        backend: "BackendType | str | Backend | None" = None,
        config: ChicoryConfig | None = None,
        delivery_mode: DeliveryMode = DeliveryMode.AT_LEAST_ONCE,
        *,
        retry_policy: RetryPolicy | None = None,
        validation_mode: ValidationMode = ValidationMode.NONE,
        flavor: Flavor = "trio",
        lifespan: Lifespan | Mapping[Flavor, Lifespan] | None = None,
        carry: Iterable[ContextVar[Any]] = (),
        name: str | None = None,
    ) -> None:
        self.name = name
        self.delivery_mode = check_mode(delivery_mode)
        self.validation_mode = check_validation(validation_mode)
        self.retry_policy = check_policy(retry_policy) or RetryPolicy()
        self.flavor: Flavor = check_flavor(flavor)
        self.lifespans = lifespans_of(lifespan, self.flavor)
        # None where there are none, so that asking costs nothing.
        self.carried = Carried(carry) if carry else None
        self._tasks: dict[str, Task[..., Any]] = {}
        self._schedules = Schedules()
        self._on_send: tuple[Middleware, ...] = ()
        # Around each run of a task, for workers; see `on_run`.
        self.run_middleware: tuple[Middleware, ...] = ()
        _check_ends(broker, backend, config)
        self._said = _with_backend(_with_broker(config or ChicoryConfig(), broker), backend)
        self._given_broker = None if broker is None or isinstance(broker, BrokerType | str) else broker
        self._given_backend = None if backend is None or isinstance(backend, BackendType | str) else backend
        self._config: ChicoryConfig | None = None
        self._ends: tuple[Broker, Backend | None, bool] | None = None

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """The registered tasks by name."""
        return MappingProxyType(self._tasks)

    @property
    def schedules(self) -> Schedules:
        """The schedules by name."""
        return self._schedules

    @property
    def said(self) -> ChicoryConfig:
        """The settings that the program itself gave; nothing is read for them."""
        return self._said

    @property
    def config(self) -> ChicoryConfig:
        """The settings, from file, environment and code; read once, when first asked for."""
        if self._config is None:
            self._config = load_config(code=self._said)
        return self._config

    def configure(self, file: Path | str | None = None, flags: Mapping[str, object] | None = None) -> None:
        """Read the settings now, from *file* and with *flags* (by dotted name) on top; for command lines."""
        if self._ends is not None:
            raise UsageError("the settings are read when the broker is first used; configure the app before that")
        self._config = load_config(file, code=self._said, flags=flags)

    @property
    def broker(self) -> "Broker":
        """Where messages wait."""
        return self._connectable()[0]

    @property
    def backend(self) -> "Backend | None":
        """Where results are kept; None when none are."""
        return self._connectable()[1]

    @property
    def joined(self) -> bool:
        """Whether the broker itself stores results, in one step with settling."""
        return self._connectable()[2]

    @contextmanager
    def connected(self, broker: "Broker", backend: "Backend | None", config: ChicoryConfig) -> Generator[None]:
        """While the block lasts, these in place of its own, which are neither read nor connected; for tests."""
        before = self._ends, self._config
        self._ends, self._config = _joined(broker, backend), config
        try:
            yield
        finally:
            self._ends, self._config = before

    def find(self, name: str) -> Task[..., Any]:
        """The task called *name*; raises TaskNotFoundError with the nearest one."""
        try:
            return self._tasks[name]
        except KeyError:
            raise TaskNotFoundError(name, known=self._tasks) from None

    def remote(self, name: str) -> RemoteTask[..., Any]:
        """The task called *name*, whose code is elsewhere: `await app.remote("billing.charge").delay(7)`.

        Nothing is known of it but the name.  So arguments are not checked, results are as they are stored, and what it
        says of its queue, priority or limits is to be said again, with `options()`.
        """
        return named(RemoteTask, name)(self, name, _UNSAID)

    def result(self, task_id: str) -> AsyncResult[Any]:
        """What became of a task whose id is known from elsewhere; `Task.result` also knows of which type it is."""
        return AsyncResult(task_id, self.backend, canceller=self)

    def result_of(self, message: TaskMessage) -> AsyncResult[Any]:
        """What becomes of *message*."""
        if message.ignore_result:
            return AsyncResult(message.id, None, why_none="it was sent with ignore_result=True", canceller=self)
        task = self._tasks.get(message.name)
        read = None if task is None else task.contract.reader
        return AsyncResult(message.id, self.backend, read=read, canceller=self)

    async def publish(self, message: TaskMessage, *, delay: float | None = None) -> TaskMessage:
        """Publish *message* and note that its result is awaited; returns it as middleware made it.

        Where another with the same unique key is there, nothing is sent; what is returned has the id of that one.
        """
        _check_messages([message])
        if not self._on_send:
            return await self._publish(message, delay)
        (sent,) = await send_through(self._on_send, [message], lambda made: self._publish_one(made, delay))
        return sent

    async def _publish_one(self, made: Sequence[TaskMessage], delay: float | None) -> list[TaskMessage]:
        return [await self._publish(made[0], delay)]

    async def _publish(self, message: TaskMessage, delay: float | None) -> TaskMessage:
        broker, backend, joined = self._reachable()
        # A joined broker notes it itself.  Noted first: a task may be finished before publish() returns.
        noting = backend is not None and not joined and not message.ignore_result
        if message.unique is None:
            if backend is not None and noting:
                await backend.expect([message.id])
            await broker.publish(message, delay=delay)
            return message
        there = replace(message, id=await broker.publish(message, delay=delay))
        # Which one is there only the broker knew; what is known of its result already stays as it is.
        if backend is not None and noting:
            await backend.expect([there.id])
        return there

    async def publish_many(self, messages: Iterable[TaskMessage]) -> list[AsyncResult[Any]]:
        """Publish all, in order and in few round trips: `await app.publish_many(task.message(n) for n in ...)`.

        A sequence is checked whole before its first message is sent.  Anything else, such as a generator, is asked for
        a thousand messages at a time, so that never more of them are in memory.

        An error says in `published` how many surely are there, from the first on; PublishUnknown names those that may
        be in `ids`; the others are not there.
        """
        results: list[AsyncResult[Any]] = []
        try:
            for batch in batches(messages):
                results += [self.result_of(message) for message in await self._send_batch(batch)]
        except Exception as error:
            note_published(error, len(results))
            raise
        return results

    async def _send_batch(self, messages: Sequence[TaskMessage]) -> Sequence[TaskMessage]:
        _check_messages(messages)
        if self._on_send:
            return await send_through(self._on_send, messages, self._publish_batch)
        return await self._publish_batch(messages)

    async def _publish_batch(self, messages: Sequence[TaskMessage]) -> Sequence[TaskMessage]:
        broker, backend, joined = self._reachable()
        noting = None if joined else backend
        if noting is not None and (first := [one.id for one in messages if not one.ignore_result and not one.unique]):
            await noting.expect(first)
        ids = await broker.publish_many(messages)
        if not any(one.unique for one in messages):
            return messages
        there = [replace(one, id=task_id) if one.unique else one for one, task_id in zip(messages, ids, strict=True)]
        if noting is not None and (later := [one.id for one in there if one.unique and not one.ignore_result]):
            await noting.expect(later)
        return there

    def publish_sync(self, message: TaskMessage, *, delay: float | None = None) -> TaskMessage:
        """`publish` for sync code: blocks this thread until the broker has *message*."""
        return finish(self.publish(message, delay=delay), "await publish()")

    def publish_many_sync(self, messages: Iterable[TaskMessage]) -> list[AsyncResult[Any]]:
        """`publish_many` for sync code: blocks this thread until the broker has all."""
        return finish(self.publish_many(messages), "await publish_many()")

    async def cancel(self, task_id: str) -> bool:
        """Cancel a task, wherever it is; returns whether its end is to be cancelled, False when it has another already.

        From then on its state is CANCELLED.  What is queued or delayed is not started; a run has its scope cancelled,
        in a worker that may be anywhere, and `checkpoint()` raises in a synchronous one.  It is not retried, and no
        dead letter.  A task whose result is not kept may be finished all the same when this returns True.
        Raises UsageError where the broker cannot cancel.
        """
        broker, backend, joined = self._reachable()
        if not isinstance(broker, CancellingBroker):
            kind = type(broker).__name__
            raise UsageError(f"{kind} keeps no list of cancelled tasks; the brokers of BrokerType do")
        if joined or backend is None:
            return await broker.cancel(task_id)
        record = await backend.fetch(task_id)
        if record.state.finished:
            return record.state is TaskState.CANCELLED
        await broker.cancel(task_id)
        if record.state.awaited:
            cancelled = ResultRecord(TaskState.CANCELLED, retries=record.retries, finished_at=time.time())
            await backend.store([StoredRecord(task_id, pack_record(cancelled))])
            record = await backend.fetch(task_id)
        # Somebody may have been faster; then its entry in the list does no harm.
        return not record.state.finished or record.state is TaskState.CANCELLED

    def cancel_sync(self, task_id: str) -> bool:
        """`cancel` for sync code."""
        return finish(self.cancel(task_id), "await cancel()")

    def on_send(self, middleware: M, /) -> M:
        """Have each message that is sent pass *middleware*, an async function; the first that is given is outermost.

        It may change the message, `await call_next(replace(message, ...))`, refuse it by raising, and see how the
        sending ended.  It awaits nothing else, unless it is never called from another library, or from sync code.
        """
        self._on_send = (*self._on_send, check_middleware(middleware, "on_send"))
        return middleware

    def on_run(self, middleware: M, /) -> M:
        """Have each run of a task pass *middleware*, an async function; the first that is given is outermost.

        `await call_next(message)` returns or raises what the task does, and what *middleware* returns or raises takes
        the place of that.  It runs where the task does; around one that runs in a thread, on trio.
        """
        self.run_middleware = (*self.run_middleware, check_middleware(middleware, "on_run"))
        return middleware

    def close(self) -> None:
        """Close the connections of all sync calls of this process, none of which may be under way.

        Exiting does it too.  What is called afterwards opens new ones.
        """
        finish(self.aclose(), "await aclose()")

    async def aclose(self) -> None:
        """Close the connections of this trio run or asyncio loop; `async with app:` does it at the end."""
        if self._ends is None:
            return
        broker, backend, _ = self._ends
        try:
            await broker.aclose()
        finally:
            if backend is not None:
                await backend.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @overload
    def task(  # pyright: ignore[reportOverlappingOverload]
        self, function: Callable[Concatenate[TaskContext[Any], P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[Concatenate[TaskContext[Any], P], R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        queue: str = "default",
        retry_policy: RetryPolicy | None = None,
        delivery_mode: DeliveryMode | None = None,
        validation_mode: ValidationMode | None = None,
        flavor: Flavor | None = None,
        process: bool = False,
        timeout: float | None = None,
        expires: float | timedelta | None = None,
        priority: int | None = None,
        ignore_result: bool = False,
        unique: Unique | str | Callable[..., str] | bool | None = None,
    ) -> TaskDecorator: ...

    def task(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        queue: str = "default",
        retry_policy: RetryPolicy | None = None,
        delivery_mode: DeliveryMode | None = None,
        validation_mode: ValidationMode | None = None,
        flavor: Flavor | None = None,
        process: bool = False,
        timeout: float | None = None,
        expires: float | timedelta | None = None,
        priority: int | None = None,
        ignore_result: bool = False,
        unique: Unique | str | Callable[..., str] | bool | None = None,
    ) -> Any:
        """Register a function as a task: `@app.task`, `@app.task()` or `@app.task(timeout=30, ...)`.

        The name is `module.function` unless given; it is what messages carry, so a task that moves keeps its messages
        only if it keeps its name.  An async function is awaited where its *flavor* says: on trio, or on an asyncio loop
        that the worker has beside.  A sync one runs in a thread, or with *process* in a child process, which is killed
        when the run is cancelled or takes too long.  The other options are those of `TaskSettings`.
        """
        settings = TaskSettings(
            queue=queue,
            retry_policy=retry_policy,
            delivery_mode=delivery_mode,
            validation_mode=validation_mode,
            flavor=flavor,
            process=process,
            timeout=timeout,
            expires=expires.total_seconds() if isinstance(expires, timedelta) else expires,
            priority=priority,
            ignore_result=ignore_result,
            unique=unique,
        )

        def register(function: Callable[..., Any]) -> Task[..., Any]:
            return self._register(function, name, settings)

        return register if function is None else register(function)

    def cron(
        self,
        line: str,
        *,
        tz: str = "UTC",
        name: str | None = None,
        misfire: Misfire = "once",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> ScheduleDecorator:
        """Send the task below it at each instant that the cron line names: `@app.cron("0 3 * * *", tz="Europe/Rome")`.

        Goes above `@app.task`; above a mere function it makes a task of it too.  See `schedule`.
        """
        return self._scheduling(cron=line, tz=tz, name=name, misfire=misfire, args=args, kwargs=kwargs)

    def every(
        self,
        *,
        seconds: float = 0,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
        name: str | None = None,
        misfire: Misfire = "once",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> ScheduleDecorator:
        """Send the task below it again and again: `@app.every(seconds=30)`, at each multiple since the epoch.

        Goes above `@app.task`; above a mere function it makes a task of it too.  See `schedule`.
        """
        parts = zip((seconds, minutes, hours, days), (1, 60, 3600, 86400), strict=True)
        interval = sum(seconds_of(part) * length for part, length in parts)
        return self._scheduling(every=interval, name=name, misfire=misfire, args=args, kwargs=kwargs)

    def schedule(
        self,
        task: Task[..., Any],
        *,
        cron: str | None = None,
        every: float | timedelta | None = None,
        tz: str = "UTC",
        name: str | None = None,
        misfire: Misfire = "once",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Schedule:
        """Have the scheduler send *task* with *args* and *kwargs*, once for each slot however many schedulers run.

        cron, tz: a cron line of five fields, or six with seconds first, in a time zone.
        every: seconds, or a timedelta, from one slot to the next; give one of the two.
        name: what the broker remembers it by; the task's unless given.
        misfire: of the slots that passed while no scheduler ran, "all" fires each, "once" the newest, "skip" none that
            is more than a minute late.

        Raises ScheduleError, which says what to mend.  `task.options(...)` may say how it is sent.
        """
        if not isinstance(task, Task) or task.app is not self:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ScheduleError(f"a schedule sends a task of its own app, not {task!r}; make it one with @app.task")
        return self._schedules.add(
            Schedule(
                name=name or task.name,
                task=task,
                timing=timing_of(cron, every, tz),
                misfire=misfire,
                args=args,
                kwargs={} if kwargs is None else kwargs,
            )
        )

    def _scheduling(self, **said: Any) -> Any:
        # Now and not when it is applied, so that a wrong line is reported where it stands.
        timing_of(said.get("cron"), said.get("every"), said.get("tz", "UTC"))

        def add(function: Callable[..., Any]) -> Task[..., Any]:
            task = cast("Task[..., Any]", function) if isinstance(function, Task) else self.task(function)
            self.schedule(task, **said)
            return task

        return add

    def _register(self, function: Callable[..., Any], name: str | None, settings: TaskSettings) -> Task[..., Any]:
        if not callable(function):
            raise UsageError(f"@app.task makes a task of a function, not of {function!r}; options are given by keyword")
        if isinstance(function, Task):
            raise UsageError(f"{function!r} is a task already; put @app.cron and @app.every above @app.task")
        if is_method(function):
            raise UsageError(
                f"{function.__qualname__} is a method, and no message carries the object it belongs to; make the task"
                " a function, and give it what it needs"
            )
        name = default_name(function) if name is None else check_name(name)
        if name in self._tasks:
            raise DuplicateTaskError(name, _place(self._tasks[name].function), _place(function))
        task: Task[..., Any] = named(AsyncTask, name)(self, function, name, settings)
        if not task.is_async:
            task = named(SyncTask, name)(self, function, name, settings)
        self._tasks[name] = task
        return task

    def _reachable(self) -> "tuple[Broker, Backend | None, bool]":
        """Broker and backend, when they serve the library that calls; UsageError when they do not."""
        ends = self._ends or self._connectable()
        if on_this_thread.name != TRIO:
            broker, backend, _ = ends
            check_caller(broker)
            if backend is not None:
                check_caller(backend)
        return ends

    def _connectable(self) -> "tuple[Broker, Backend | None, bool]":
        if self._ends is None:
            broker = self._given_broker or open_broker(self.config)
            backend = self._given_backend or open_backend(self.config)
            # Another thread may have been faster; all go on with what it made.
            self._ends = self._ends or _joined(broker, backend)
        return self._ends

    def __repr__(self) -> str:
        return f"<Chicory {self.name or 'app'}: {len(self._tasks)} tasks>"


def _check_messages(messages: Sequence[object]) -> None:
    for one in messages:
        if not isinstance(one, TaskMessage):
            raise UsageError(f"what is published is a TaskMessage, as task.message(...) makes one, not {one!r:.80}")


def _joined(broker: "Broker", backend: "Backend | None") -> "tuple[Broker, Backend | None, bool]":
    """Both, and whether the broker stores the results."""
    if backend is None:
        return broker, None, False
    backend.attend(broker)
    joins = backend.joins(broker)
    if joins:
        broker.join(backend)
    elif isinstance(backend, Notable):
        broker.announce(partial(_reopen, backend))
    return broker, backend, joins


async def _reopen(backend: "Notable", task_id: str) -> None:
    check_caller(backend)
    await backend.reopen(task_id)


def _check_ends(broker: object, backend: object, config: object) -> None:
    # Of what is wrong only the type is named: it may have a password in it.
    if not (broker is None or isinstance(broker, BrokerType | str) or hasattr(broker, "publish")):
        raise UsageError(f"broker must be a BrokerType, a URL or a broker, not a {type(broker).__name__}")
    if not (backend is None or isinstance(backend, BackendType | str) or hasattr(backend, "fetch")):
        raise UsageError(f"backend must be a BackendType, a URL or a backend, not a {type(backend).__name__}")
    if not (config is None or isinstance(config, ChicoryConfig)):
        raise UsageError(f"config must be a ChicoryConfig, not a {type(config).__name__}; load_config() reads a file")


def _with_broker(said: ChicoryConfig, broker: "BrokerType | str | Broker | None") -> ChicoryConfig:
    if isinstance(broker, BrokerType):
        return evolve(said, broker=evolve(said.broker, type=broker))
    if isinstance(broker, str):
        kind = broker_of(broker)
        section = said.broker.rabbitmq if kind is BrokerType.RABBITMQ else said.broker.redis
        server = {kind.value: evolve(section, url=SecretStr(broker))}
        return evolve(said, broker=evolve(said.broker, type=kind, **server))
    # An object says of itself what it is, so that a fitting backend can be found for it.
    if getattr(broker, "in_process", False):
        return evolve(said, broker=evolve(said.broker, type=BrokerType.MEMORY))
    if isinstance(config := getattr(broker, "config", None), RedisBrokerConfig):
        return evolve(said, broker=evolve(said.broker, type=BrokerType.REDIS, redis=config))
    if isinstance(config, RabbitMQBrokerConfig):
        return evolve(said, broker=evolve(said.broker, type=BrokerType.RABBITMQ, rabbitmq=config))
    return said


def _with_backend(said: ChicoryConfig, backend: "BackendType | str | Backend | None") -> ChicoryConfig:
    if isinstance(backend, BackendType):
        return evolve(said, backend=evolve(said.backend, type=backend))
    if isinstance(backend, str):
        return evolve(said, backend=backend_at(backend, said.backend))
    return said


def _place(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    where = f"{code.co_filename}:{code.co_firstlineno}" if code else "an object"
    return f"{getattr(function, '__qualname__', function)} ({where})"
