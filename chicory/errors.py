"""Everything Chicory raises, by whose fault it is.

ChicoryError
├── UsageError                 you: mend the call, the settings or the task
│   ├── ConfigError            a setting is unknown, of the wrong type or out of range
│   ├── AppImportError         `module:app` cannot be imported or is not a Chicory
│   ├── TaskNotFoundError      no task of this name is registered
│   ├── DuplicateTaskError     two tasks want one name
│   ├── ScheduleError          a schedule's cron line, time zone, interval, name or arguments are wrong
│   ├── ArgumentsError         the arguments do not fit the task's signature
│   │   └── ValidationError    they do, and one of them is not what its type hint says; `.path` says which
│   ├── PayloadError           not JSON, too large or too deep
│   └── DelayError             a delay that is negative, not a number or out of range
├── BrokerError                they: the broker or the way to it
│   ├── BrokerUnavailable      cannot be reached now; trying again later may work
│   │   └── BrokerBlocked      takes no messages for now, for lack of memory or disk; nothing was sent
│   ├── BrokerRefused          answers, and will not do: wrong password, too old, evicting keys
│   ├── BrokerFull             out of memory
│   ├── QueueFull              the queue has reached its limit
│   └── PublishUnknown         no answer: the message may or may not be there; repeating it with the same id is safe
├── RunError                   nobody raises these: as failures of tasks they have names, for retry_on and ignore_on
│   ├── TaskTimeout            took longer than its timeout
│   └── ProcessDied            its child process died by itself
├── LifespanError              yours: the app's lifespan failed, so its worker ends
├── LeaseLost                  neither: this worker was taken for dead, its deliveries went to others
└── ResultError
    ├── RemoteTaskError        the task failed for good; `.failure` says how
    │   └── TaskDeadLettered   and is kept as a dead letter
    ├── TaskCancelled          somebody cancelled it before it had ended
    ├── ResultTimeout          not finished in time; the task goes on
    ├── ResultUnknown          no task of this id was ever published here
    ├── ResultExpired          finished, but the result's time to live is over
    │   └── TaskExpired        the message came too late, so it was never run
    ├── ResultInvalid          finished, but its result is not what the task's type hint says
    └── NoBackend              the app keeps no results
"""

import builtins
import difflib
import signal
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chicory.types import Failure


class ChicoryError(Exception):
    """The base of all errors raised on purpose.

    published: of the messages that were to be published together, how many surely are there, from the first on.
    """

    published = 0


class UsageError(ChicoryError):
    """A call, a setting or a task is wrong; the message says what to mend."""


class ConfigError(UsageError):
    """A setting is unknown, of the wrong type or out of range."""


class AppImportError(UsageError):
    """`module:app` cannot be imported, or what it names is not a Chicory."""


class TaskNotFoundError(UsageError):
    """No task of this name is registered."""

    def __init__(self, name: str, *, known: Iterable[str] = ()) -> None:
        self.name = name
        super().__init__(
            f"no task named {name!r}{did_you_mean(name, known)} Is the module that defines it imported by the app?"
        )


class DuplicateTaskError(UsageError):
    """Two tasks want one name."""

    def __init__(self, name: str, first: str, second: str) -> None:
        self.name = name
        why = f"by {first} and by {second}; give one of them @app.task(name=...)"
        if first == second:
            why = (
                f"by {first} each time; was its module reloaded, or imported under two names? Begin a new process, or"
                " give each that a loop makes @app.task(name=...)"
            )
        super().__init__(f"task {name!r} is registered twice, {why}")


class ScheduleError(UsageError):
    """A schedule's cron line, time zone, interval, name or arguments are wrong."""


class ArgumentsError(UsageError):
    """The arguments do not fit the task's signature."""


class ValidationError(ArgumentsError):
    """A value is not what its type hint says.

    problems: the path of each mistake, as `orders[2].price`, and what is wrong there.  path: that of the first.
    """

    def __init__(self, task: str, problems: Sequence[tuple[str, str]]) -> None:
        self.task = task
        self.problems = tuple(problems)
        self.path = self.problems[0][0]
        super().__init__(f"{task}: {_listed(self.problems)}")


class PayloadError(UsageError):
    """Arguments or a result that cannot travel: not JSON, too large or too deep."""


class DelayError(UsageError):
    """A delay that is negative, not a number or out of range."""


class BrokerError(ChicoryError):
    """The broker, or the way to it."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached now; trying again later may work."""


class BrokerBlocked(BrokerUnavailable):
    """The broker takes no messages for now, for lack of memory or disk; nothing was sent, and work goes on."""


class BrokerRefused(BrokerError):
    """The broker answers and will not do: wrong password, too old, or set to delete what it was given."""


class BrokerFull(BrokerError):
    """The broker is out of memory."""


class QueueFull(BrokerError):
    """The queue has reached its limit; *published* of the messages given were taken before that, the others not."""

    def __init__(self, queue: str, limit: int, published: int = 0) -> None:
        self.queue = queue
        self.limit = limit
        self.published = published
        super().__init__(
            f"queue {queue!r} is full ({limit} messages); start more workers, publish later or raise max_stream_length"
        )


class PublishUnknown(BrokerError):
    """No answer came: the messages *ids* may or may not be there.  Repeating them with the same ids is safe.

    Of several messages, *published* surely are there, and those that are neither surely are not.
    """

    def __init__(self, ids: Iterable[str], why: str, published: int = 0) -> None:
        self.ids = tuple(ids)
        self.published = published
        super().__init__(f"no answer to publishing {len(self.ids)} message(s) ({why}); repeating the same id is safe")


class RunError(ChicoryError):
    """A run of a task was ended for it."""


class TaskTimeout(RunError, TimeoutError):
    """A run took longer than its timeout."""


class ProcessDied(RunError):
    """The child process of a run ended by itself, with *status*: an exit code, or a signal's number below zero."""

    def __init__(self, status: int) -> None:
        self.status = status
        how = f"exit code {status}" if status >= 0 else _signal(-status)
        super().__init__(f"the task's process died of {how}")


class LifespanError(ChicoryError):
    """A lifespan of the app failed, so the worker ends."""


class LeaseLost(ChicoryError):
    """This worker was taken for dead; its deliveries belong to others now."""


class ResultError(ChicoryError):
    """There is no value to give."""


class RemoteTaskError(ResultError):
    """The task failed for good: it raised *type_name*, with *message* and *traceback*.

    What `remote_error` makes of one of Python's own exceptions is that exception, too.
    """

    def __init__(self, task_id: str, failure: "Failure", text: str = "") -> None:
        self.task_id = task_id
        self.failure = failure
        self.type_name = failure.type
        self.message = failure.message
        self.traceback = failure.traceback
        self._text = text or f"task {task_id} failed: {failure}"
        Exception.__init__(self, self._text)

    # As it stands: a KeyError would quote it once more, and an OSError look for a number.
    def __str__(self) -> str:
        return self._text


class TaskDeadLettered(RemoteTaskError):
    """The task failed for good, and is kept as a dead letter."""


# These mean something to whoever awaits, or are made of more than text.
_NOT_RAISED_HERE = (StopIteration, StopAsyncIteration, BaseExceptionGroup)


@cache
def _own_exceptions() -> dict[str, type[Exception]]:
    return {
        name: kind
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NOT_RAISED_HERE)
    }


def remote_error(task_id: str, failure: "Failure", *, dead: bool = False) -> RemoteTaskError:
    """*failure* to be raised: `except ValueError` sees a task's ValueError, and its text is what it was there.

    The name is looked for among Python's own exceptions only: nothing is imported because a message says so.
    """
    kind = TaskDeadLettered if dead else RemoteTaskError
    own = None if failure.module else _own_exceptions().get(failure.type)
    error = kind(task_id, failure) if own is None else _both(kind, own)(task_id, failure, failure.message)
    if failure.traceback:
        error.add_note(f"in task {task_id}, which ended with\n{failure.traceback}")
    return error


@cache
def _both(kind: type[RemoteTaskError], own: type[Exception]) -> type[RemoteTaskError]:
    return type(own.__name__, (kind, own), {"__module__": kind.__module__})


class TaskCancelled(ResultError):
    """Somebody cancelled the task before it had ended."""


class ResultTimeout(ResultError, TimeoutError):
    """Not finished in time; the task goes on."""


class ResultUnknown(ResultError):
    """No task of this id was ever published here."""


class ResultExpired(ResultError):
    """Finished, but the result's time to live is over."""


class TaskExpired(ResultExpired):
    """The message came later than its `expires` says, so the task was never run."""


class ResultInvalid(ResultError):
    """Finished, but what was stored is not what the task's type hint says; *problems* as in ValidationError."""

    def __init__(self, task: str, problems: Sequence[tuple[str, str]]) -> None:
        self.task = task
        self.problems = tuple(problems)
        super().__init__(f"{task}: {_listed(self.problems)}; is the worker's version of the task another one?")


class NoBackend(ResultError):
    """The app keeps no results."""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _listed(problems: Sequence[tuple[str, str]], most: int = 5) -> str:
    told = "; ".join(f"{path} {why}" for path, why in problems[:most])
    return told if len(problems) <= most else f"{told}; and {len(problems) - most} more"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where something known is near, else a full stop."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else "."
