"""What the fleet is told, and what it asks for.  `fleet.step` turns the former into the latter."""

from collections.abc import Mapping
from enum import StrEnum

import attrs

Message = Mapping[str, object]


class Role(StrEnum):
    """What a child is there for.  In the order in which they are started."""

    SERVER = "server"
    SCHEDULER = "scheduler"
    WORKER = "worker"


@attrs.frozen
class Started:
    """The child that was asked for in *slot* runs."""

    slot: str
    pid: int


@attrs.frozen
class StartFailed:
    """The system would not start it.  *draw* in [0, 1) is the jitter of the next try."""

    slot: str
    why: str
    draw: float


@attrs.frozen
class Said:
    """A child said *message* on its lifeline."""

    pid: int
    message: Message


@attrs.frozen
class HungUp:
    """A child closed its end of the lifeline, so it can be told nothing any more."""

    pid: int


@attrs.frozen
class Exited:
    """A child was reaped.  *code* is its exit status, or minus the signal that killed it."""

    pid: int
    code: int
    draw: float


@attrs.frozen
class Asked:
    """An operator wants something: the name of a signal (`SIGTERM`) or of a command (`stop`)."""

    what: str


@attrs.frozen
class Tick:
    """All that was said so far has been heard.  Only now may patience end: a word in a pipe must count."""


Event = Started | StartFailed | Said | HungUp | Exited | Asked | Tick


@attrs.frozen
class Start:
    """Start a child; the answer is Started or StartFailed."""

    slot: str
    role: Role
    consumer: str


@attrs.frozen
class Tell:
    """Say *message* on the lifeline of *pid*."""

    pid: int
    message: Message


@attrs.frozen
class Terminate:
    """Send SIGTERM to *pid*."""

    pid: int


@attrs.frozen
class Kill:
    """Send SIGKILL to *pid* and all of its process group."""

    pid: int


@attrs.frozen
class Notify:
    """Tell the service manager."""

    text: str


@attrs.frozen
class Log:
    """Tell the operator.  *level* is info, warning or error."""

    text: str
    level: str = "info"


@attrs.frozen
class Quit:
    """No child is left; end with *code*."""

    code: int


Action = Start | Tell | Terminate | Kill | Notify | Log | Quit
