"""The values users meet: messages, delivery modes, states, failures and dead letters.

What every task passes through is a msgspec.Struct and not an attrs class: a frozen one is made ten times faster (a
message in 0.14 µs against 1.9) and decoded straight from JSON.  What is made rarely and must be checked is attrs.
Nor does the garbage collector track it (`gc=False`), which would cost a worker a tenth of its time: each is made of
values that were there before it and never changes, so it is in no cycle.
"""

from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any, Literal

import msgspec

from chicory.errors import UsageError
from chicory.ids import new_id
from chicory.retry import RetryPolicy

__all__ = [
    "BackendType",
    "BrokerType",
    "DLQMessage",
    "DeliveryMode",
    "Failure",
    "Finding",
    "Flavor",
    "Gravity",
    "Health",
    "Progress",
    "QueueSizes",
    "ResultRecord",
    "TaskInfo",
    "TaskMessage",
    "TaskState",
    "Undecodable",
    "ValidationMode",
    "WorkerInfo",
]


class BrokerType(Enum):
    """Which broker an app talks to."""

    EMBEDDED = "embedded"
    REDIS = "redis"
    RABBITMQ = "rabbitmq"
    MEMORY = "memory"


class BackendType(Enum):
    """Where results are kept.  EMBEDDED is the private server of the embedded broker, SQL any database of yours.

    RPC keeps none, it sends them.
    """

    EMBEDDED = "embedded"
    REDIS = "redis"
    SQL = "sql"
    MEMORY = "memory"
    RPC = "rpc"
    NONE = "none"


# What an async function is written for.
Flavor = Literal["trio", "asyncio"]


class DeliveryMode(StrEnum):
    """What a crash may do to a task: repeat it (at least once) or lose it (at most once)."""

    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"


class ValidationMode(StrEnum):
    """What is held to a task's type hints: nothing, its arguments, its result, or both (strict)."""

    NONE = "none"
    INPUTS = "inputs"
    OUTPUTS = "outputs"
    STRICT = "strict"

    @property
    def inputs(self) -> bool:
        """Whether arguments are."""
        return self in (ValidationMode.INPUTS, ValidationMode.STRICT)

    @property
    def outputs(self) -> bool:
        """Whether results are."""
        return self in (ValidationMode.OUTPUTS, ValidationMode.STRICT)


class TaskState(StrEnum):
    """What is known of a task.  States only move forward: PENDING, STARTED, RETRY, STARTED, ..., and one of the ends.

    UNKNOWN: no task of this id was ever published here, or its result was not to be kept.
    PENDING: published, and not seen running.
    STARTED: it runs, and has done so for half a second; what is shorter goes from PENDING to its end.
    RETRY: it failed, and waits for its next attempt.
    SUCCESS, FAILURE: it returned, or failed for good.
    DEAD_LETTERED: it failed for good and is kept as a dead letter; replaying that makes it PENDING again.
    CANCELLED: somebody cancelled it before it had ended.
    EXPIRED: its time is over, and there is nothing to have: the message came too late to be run (`failure` says when),
        or it is finished and its result's time to live is over (then there is no failure).
    """

    UNKNOWN = "unknown"
    PENDING = "pending"
    STARTED = "started"
    RETRY = "retry"
    SUCCESS = "success"
    FAILURE = "failure"
    DEAD_LETTERED = "dead_lettered"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def finished(self) -> bool:
        """Whether the state is final."""
        return self in _FINAL

    @property
    def awaited(self) -> bool:
        """Whether something better may come of waiting."""
        return self in _AWAITED


_AWAITED = frozenset([TaskState.PENDING, TaskState.STARTED, TaskState.RETRY])
_FINAL = frozenset(TaskState) - _AWAITED - {TaskState.UNKNOWN}


class _Identified(msgspec.Struct, frozen=True, gc=False):
    id: str = msgspec.field(default_factory=new_id)


class TaskMessage(_Identified, frozen=True, kw_only=True, repr_omit_defaults=True, gc=False):
    """One task on its way: what to call, with what, and under which conditions.

    id: up to 200 printable ASCII characters without quotes or backslashes; made by `new_id` when not given.
    args, kwargs: JSON values, and datetime, UUID, Decimal and bytes.
    retries: how often it has been tried again after an exception.
    eta, expires: not before, not after.  A naive datetime is read as UTC.
    priority: 0 and up, higher first; None is 0.  Needs `max_priority` in the broker's settings.
    timeout: seconds one run may take.
    delivery_mode, retry_policy: None leaves it to the task.
    first_try: when it was first run, in unix seconds by the broker's clock; kept where a policy has a time budget.
    unique: while a message with this key is unfinished in the queue, no other is published there; up to 512 characters.
    unique_window: seconds from publishing in which none is either, even when that one has succeeded; None is 0.
    """

    name: str
    args: list[Any] = msgspec.field(default_factory=list[Any])
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    retries: int = 0
    eta: datetime | None = None
    priority: int | None = None
    queue: str = "default"
    timeout: float | None = None
    expires: datetime | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    reply_to: str | None = None
    delivery_mode: DeliveryMode | None = None
    ignore_result: bool = False
    retry_policy: RetryPolicy | None = None
    first_try: float | None = None
    unique: str | None = None
    unique_window: float | None = None

    @property
    def due(self) -> float | None:
        """`eta` in unix seconds."""
        return None if self.eta is None else timestamp(self.eta)


def timestamp(instant: datetime) -> float:
    """*instant* in unix seconds; a naive one is read as UTC, whatever the host's time zone says."""
    try:
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    except AttributeError:
        raise UsageError(f"eta and expires must be datetimes, not {instant!r:.80}") from None


class Undecodable(msgspec.Struct, frozen=True):
    """Bytes from a broker that are no task message, and why."""

    raw: bytes
    why: str


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a run ended badly, as text only: nothing in it is ever imported or called.

    type: the exception's class name, or one of Chicory's own words (`TaskTimeout`, `WorkerLost`, `UnknownTask`, ...).
    module: where that class is from; empty for Python's own exceptions and for Chicory's words.
    """

    type: str
    message: str
    traceback: str = ""
    module: str = ""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a task says it is: *done* of *total*, where it knows of how much, and a note."""

    done: float
    total: float | None = None
    note: str = ""


class ResultRecord(msgspec.Struct, frozen=True, gc=False):
    """What the backend keeps of a task.

    finished_at, started_at: unix seconds by the broker's clock; of the last attempt.
    worker: the name of the one that ran it last.
    """

    state: TaskState
    value: Any = None
    failure: Failure | None = None
    retries: int = 0
    finished_at: float | None = None
    started_at: float | None = None
    worker: str = ""
    progress: Progress | None = None

    @property
    def step(self) -> int:
        """How far the task is: a record is only ever replaced by one of the same step or a later one."""
        if self.state in _FINAL:
            return LAST_STEP
        return min(2 * self.retries + (self.state is TaskState.STARTED), LAST_STEP - 1)


# The step of whatever is final; a database keeps steps in 16 bits.
LAST_STEP = 2**15 - 1


class TaskInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What `AsyncResult.info` tells of a task; None where it is not known.

    enqueued_at: when it was sent, by its sender's clock; known of ids that Chicory made.
    started_at, finished_at: of the last attempt, by the broker's clock.
    attempts: how often it has been started, as far as is known; retries: after how many failures.
    worker: the name of the one that ran it last.
    """

    id: str
    state: TaskState
    enqueued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    retries: int = 0
    attempts: int = 0
    worker: str | None = None
    progress: Progress | None = None
    failure: Failure | None = None


class Gravity(StrEnum):
    """How bad a finding is: NOTICE is worth knowing, WARNING may cost messages one day, ERROR stops or loses them."""

    OK = "ok"
    NOTICE = "notice"
    WARNING = "warning"
    ERROR = "error"


class Finding(msgspec.Struct, frozen=True):
    """What an examination of a broker found.  remedy: what to type or to set; empty when there is nothing to do."""

    gravity: Gravity
    what: str
    remedy: str = ""


class DLQMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter.

    message_id: what replay_from_dlq and delete_from_dlq take; the task's id works there too.
    original_message: the message, or Undecodable with the raw bytes.
    """

    message_id: str
    original_message: TaskMessage | Undecodable
    failed_at: datetime
    error: str
    retry_count: int
    queue: str
    task_id: str = ""
    task_name: str = ""
    traceback: str = ""


class QueueSizes(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages of a queue are in each place.  *ready* excludes what workers hold (*delivered*)."""

    ready: int
    delayed: int
    delivered: int
    dead: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether something can do its work; it is true when it can.

    detail: who answered, or why nobody did.  seconds: how long the answer took.
    """

    ok: bool
    detail: str
    seconds: float

    def __bool__(self) -> bool:
        return self.ok


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as its broker knows it, from its last heartbeat.

    name: of its present lease.  concurrency: how many tasks it runs at once; running: how many there were.
    since: when it took its lease, by its own clock.
    """

    name: str
    host: str
    pid: int
    queues: list[str]
    concurrency: int
    running: int
    since: datetime
