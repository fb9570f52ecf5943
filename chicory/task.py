"""Task: a function of the app that can be called here and now, or sent to a worker."""

import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from chicory.binding import Shape
from chicory.conditions import TaskSettings
from chicory.context import TaskContext, wants_context
from chicory.errors import UsageError
from chicory.naming import dotted
from chicory.remote import RemoteTask
from chicory.result import AsyncResult
from chicory.retry import RetryPolicy
from chicory.types import Flavor
from chicory.validation.contract import Arguments, Contract

if TYPE_CHECKING:
    from chicory.app import Chicory

P = ParamSpec("P")
R = TypeVar("R")


class Task(RemoteTask[P, R]):
    """A function that workers run.  Calling it runs it here; `delay` and `send` publish it."""

    def __init__(self, app: "Chicory", function: Callable[..., Any], name: str, settings: TaskSettings) -> None:
        _check_signature(function, name)
        # First, because it copies the function's own attributes, and those must not win.
        functools.update_wrapper(cast("Callable[..., Any]", self), function)
        super().__init__(app, name, settings)
        _refuse_generators(function, name)
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
        self.flavor: Flavor | None = _flavor(app, name, settings, is_async=self.is_async)
        self.takes_context = _takes_context(function, name)
        self.shape = Shape(function, skip=int(self.takes_context))
        self.contract = Contract(
            name, function, settings.validation_mode or app.validation_mode, skip=int(self.takes_context)
        )

    @property
    def retry_policy(self) -> RetryPolicy:
        """Its own, or the app's; a message may bring another."""
        return self.settings.retry_policy or self.app.retry_policy

    def result(self, task_id: str) -> AsyncResult[R]:
        """What became of a call of this task whose id is known from elsewhere."""
        return AsyncResult(task_id, self.app.backend, read=self.contract.reader, canceller=self.app)

    def _outgoing(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Arguments:
        self.shape.check(self.name, args, kwargs)
        return self.contract.outgoing(args, kwargs) if self.contract.inputs else (args, kwargs)

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
    """A task whose function is not async; workers run it in a thread or a child process."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function itself, here; a task that takes a context is given one of its own."""
        return self._call(args, kwargs)


def default_name(function: Callable[..., Any]) -> str:
    """`module.function`; a script that is run by itself is called as a worker would import it."""
    if not hasattr(function, "__qualname__"):
        raise UsageError(f"a {type(function).__name__} has no name of its own; give it one: app.task(name=...)(...)")
    return dotted(function).replace("<locals>.", "").replace("<lambda>", "lambda")


def is_method(function: Callable[..., Any]) -> bool:
    """Whether *function* is bound to an object, or will be: in a class, and with a `self` or `cls` to be given."""
    if inspect.ismethod(function):
        return True
    home = getattr(function, "__qualname__", "").rpartition(".")[0]
    if not home or home.endswith("<locals>"):
        return False
    return next(iter(inspect.signature(function).parameters), "") in ("self", "cls")


def _check_signature(function: Callable[..., Any], name: str) -> None:
    try:
        inspect.signature(function)
    except ValueError:
        raise UsageError(
            f"task {name!r}: Python does not tell what arguments {function!r:.80} takes; call it in a function of yours"
        ) from None


def _refuse_generators(function: Callable[..., Any], name: str) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(
            f"task {name!r} is a generator function, and nobody would take what it yields; "
            "return a list, or send a task for each item"
        )


def _flavor(app: "Chicory", name: str, settings: TaskSettings, *, is_async: bool) -> Flavor | None:
    """What the function is written for; None when it is not async, and so runs in a thread."""
    if settings.process and (is_async or settings.flavor is not None):
        raise UsageError(f"task {name!r}: process=True is for sync functions, without a flavor; leave out one of them")
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
