"""The values users meet: messages, delivery modes, retry policies, states, failures and dead letters."""

from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any

import attrs

from chicory.ids import new_id

__all__ = [
    "BackendType",
    "BrokerType",
    "DLQMessage",
    "DeliveryMode",
    "Failure",
    "QueueSizes",
    "ResultRecord",
    "RetryPolicy",
    "TaskMessage",
    "TaskState",
    "Undecodable",
]


class BrokerType(Enum):
    """Which broker an app talks to."""

    EMBEDDED = "embedded"
    REDIS = "redis"
    RABBITMQ = "rabbitmq"
    MEMORY = "memory"


class BackendType(Enum):
    """Where results are kept.  EMBEDDED is the private server of the embedded broker."""

    EMBEDDED = "embedded"
    REDIS = "redis"
    MEMORY = "memory"
    NONE = "none"


class DeliveryMode(StrEnum):
    """What a crash may do to a task: repeat it (at least once) or lose it (at most once)."""

    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"


class TaskState(StrEnum):
    """What is known of a task.  States only move forward: PENDING, RETRYING, then SUCCESS or FAILURE.

    UNKNOWN: no task of this id was ever published here.  EXPIRED: it was, and its result's time to live is over.
    """

    UNKNOWN = "unknown"
    PENDING = "pending"
    RETRYING = "retrying"
    SUCCESS = "success"
    FAILURE = "failure"
    EXPIRED = "expired"

    @property
    def finished(self) -> bool:
        """Whether the state is final."""
        return self in (TaskState.SUCCESS, TaskState.FAILURE, TaskState.EXPIRED)


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and how soon a task that raised is tried again.

    max_retries: tries after the first; 0 never retries.
    delay, max_delay: seconds before the first retry, and the cap of its growth.
    multiplier: growth of the wait from one retry to the next.
    jitter: share of the wait, 0 to 1, that chance may take away.
    """

    max_retries: int = attrs.field(default=3, validator=attrs.validators.ge(0))
    delay: float = attrs.field(default=1.0, validator=attrs.validators.ge(0))
    max_delay: float = attrs.field(default=3600.0, validator=attrs.validators.ge(0))
    multiplier: float = attrs.field(default=2.0, validator=attrs.validators.ge(1))
    jitter: float = attrs.field(default=0.5, validator=[attrs.validators.ge(0), attrs.validators.le(1)])


@attrs.frozen
class TaskMessage:
    """One task on its way: what to call, with what, and under which conditions.

    id: up to 200 printable ASCII characters without quotes or backslashes; made by `new_id` when not given.
    args, kwargs: JSON values, and datetime, UUID, Decimal and bytes.
    retries: how often it has been tried again after an exception.
    eta, expires: not before, not after.  A naive datetime is read as UTC.
    priority: 0 and up, higher first; None is 0.  Needs `max_priority` in the broker's settings.
    timeout: seconds one run may take.
    delivery_mode: None leaves it to the task.
    """

    id: str = attrs.field(factory=new_id)
    name: str = attrs.field(kw_only=True)
    args: list[Any] = attrs.field(factory=list[Any], kw_only=True)
    kwargs: dict[str, Any] = attrs.field(factory=dict[str, Any], kw_only=True)
    retries: int = attrs.field(default=0, kw_only=True)
    eta: datetime | None = attrs.field(default=None, kw_only=True)
    priority: int | None = attrs.field(default=None, kw_only=True)
    queue: str = attrs.field(default="default", kw_only=True)
    timeout: float | None = attrs.field(default=None, kw_only=True)
    expires: datetime | None = attrs.field(default=None, kw_only=True)
    headers: dict[str, str] = attrs.field(factory=dict[str, str], kw_only=True)
    reply_to: str | None = attrs.field(default=None, kw_only=True)
    delivery_mode: DeliveryMode | None = attrs.field(default=None, kw_only=True)
    ignore_result: bool = attrs.field(default=False, kw_only=True)

    @property
    def due(self) -> float | None:
        """`eta` in unix seconds."""
        return None if self.eta is None else timestamp(self.eta)


def timestamp(instant: datetime) -> float:
    """*instant* in unix seconds; a naive one is read as UTC, whatever the host's time zone says."""
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()


@attrs.frozen
class Undecodable:
    """Bytes from a broker that are no task message, and why."""

    raw: bytes
    why: str


@attrs.frozen
class Failure:
    """Why a run ended badly, as text only: nothing in it is ever imported or called.

    type: the exception's class name, or one of Chicory's own words (`TaskTimeout`, `WorkerLost`, `UnknownTask`, ...).
    """

    type: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


@attrs.frozen
class ResultRecord:
    """What the backend keeps of a task.  *finished_at* is in unix seconds."""

    state: TaskState
    value: Any = None
    failure: Failure | None = None
    retries: int = 0
    finished_at: float | None = None


@attrs.frozen(kw_only=True)
class DLQMessage:
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


@attrs.frozen(kw_only=True)
class QueueSizes:
    """How many messages of a queue are in each place.  *ready* excludes what workers hold (*delivered*)."""

    ready: int
    delayed: int
    delivered: int
    dead: int
