"""Middleware: functions of an app that every message passes on its way to the broker, or into its run."""

import inspect
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, Protocol, TypeVar, final

from chicory.errors import UsageError
from chicory.types import TaskMessage

CallNext = Callable[[TaskMessage], Awaitable[Any]]


class Middleware(Protocol):
    """An async function of a message and of what comes next, which takes the message, changed or not.

    What it returns is what whoever is around it gets of *call_next*.
    """

    def __call__(self, message: TaskMessage, call_next: CallNext, /) -> Coroutine[Any, Any, Any]: ...


M = TypeVar("M", bound=Middleware)


def check_middleware(function: M, where: str) -> M:
    """*function*, when it can be awaited; else UsageError."""
    if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)):
        raise UsageError(f"{where} takes an async function of message and call_next, not {function!r}")
    return function


def around(middleware: Sequence[Middleware], innermost: CallNext) -> CallNext:
    """*innermost* with *middleware* around it, the first of it outermost."""
    call_next = innermost
    for one in reversed(middleware):
        call_next = _around(one, call_next)
    return call_next


def _around(one: Middleware, following: CallNext) -> CallNext:
    def call_next(message: TaskMessage) -> Awaitable[Any]:
        if not isinstance(message, TaskMessage):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"call_next takes a TaskMessage, not {message!r}; make another one by msgspec's replace()")
        return following(message)

    return lambda message: one(message, call_next)


async def send_through(
    middleware: Sequence[Middleware],
    messages: Sequence[TaskMessage],
    send: Callable[[Sequence[TaskMessage]], Coroutine[Any, Any, Sequence[TaskMessage]]],
) -> Sequence[TaskMessage]:
    """Send *messages* in one go, each with *middleware* around that; returns them as *send* does.

    What one of them is refused with, nobody is sent for, and the others see it, too.
    """
    passages: list[_Passage] = []
    made: list[TaskMessage] = []
    sent: Sequence[TaskMessage] = made
    error: BaseException | None = None
    try:
        for message in messages:
            passage = _Passage(middleware, message)
            made.append(await passage.enter())
            passages.append(passage)
        sent = await send(made)
    except BaseException as raised:
        error = raised
    # As if each were inside the one before it: what they have open, such as a timeout, is closed in order.
    for passage in reversed(passages):
        try:
            await passage.leave(error)
        except BaseException as raised:
            error = raised
    if error is not None:
        raise error
    return sent


@final
class _Passage:
    """One message on its way through the middleware, which can be halted in the middle, where it is to be sent."""

    def __init__(self, middleware: Sequence[Middleware], message: TaskMessage) -> None:
        self._way = _through(around(middleware, _halt), message)

    async def enter(self) -> TaskMessage:
        """Go on to the middle; returns the message as it is there."""
        halt = await _drive(self._way)
        if halt is None:
            raise UsageError("a middleware did not await call_next; it refuses a message by raising an exception")
        return halt.message

    async def leave(self, error: BaseException | None) -> None:
        """Go on to the end, now that the message was sent, or was not for that *error*; raises what comes of it."""
        if await _drive(self._way, error) is not None:
            self._way.close()
            raise UsageError("a middleware awaited call_next twice; a message is sent once")


async def _through(call: CallNext, message: TaskMessage) -> None:
    await call(message)


@final
class _Halt:
    """What is yielded in the middle.  No library sees it: the one who drives does."""

    __slots__ = ("message",)

    def __init__(self, message: TaskMessage) -> None:
        self.message = message


@types.coroutine
def _halt(message: TaskMessage) -> Generator[Any, Any, None]:
    yield _Halt(message)


@types.coroutine
def _drive(way: Coroutine[Any, Any, None], error: BaseException | None = None) -> Generator[Any, Any, _Halt | None]:
    """Drive *way*, beginning with *error* if there is one, to its halt, which is returned, or to its end."""
    value: Any = None
    while True:
        try:
            trap = way.send(value) if error is None else way.throw(error)
        except StopIteration:
            return None
        if isinstance(trap, _Halt):
            return trap
        value, error = None, None
        try:
            value = yield trap
        except BaseException as raised:
            error = raised
