"""What the fleet is told, and what it asks for.  `fleet.step` turns the former into the latter."""

from collections.abc import Mapping
from enum import StrEnum

import attrs

from chicoryd.plan import Plan

Message = Mapping[str, object]


class Role(StrEnum):
    """What a child is there for."""

    SERVER = "server"
    TEMPLATE = "template"  # has imported the app, and forks the scheduler and workers
    SCHEDULER = "scheduler"
    WORKER = "worker"
    CHECK = "check"  # examines new settings before anything relies on them


@attrs.frozen
class Started:
    """The child that was asked for as *consumer* runs.  *draw* in [0, 1) sets it apart from others of its kind."""

    consumer: str
    pid: int
    draw: float


@attrs.frozen
class StartFailed:
    """It could not be started.  *draw* in [0, 1) is the jitter of the next try."""

    consumer: str
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
    """A child was reaped.  *code* is its exit status, or minus the signal that killed it.

    starved: whether the kernel says that it killed somebody of ours for want of memory.
    """

    pid: int
    code: int
    draw: float
    starved: bool = False


@attrs.frozen
class Asked:
    """An operator wants something: the name of a signal (`SIGTERM`) or of a command (`scale`) with its *argument*.

    ticket: of whoever waits for a Reply; 0 when nobody does.
    """

    what: str
    argument: str = ""
    ticket: int = 0


@attrs.frozen
class HaveRead:
    """The settings as they are now, or *why* they cannot be used."""

    plan: Plan | None
    why: str = ""


@attrs.frozen
class Woke:
    """The supervisor itself stood still for *seconds*, as in a debugger or a suspended machine."""

    seconds: float


@attrs.frozen
class Tick:
    """All that was said so far has been heard.  Only now may patience end: a word in a pipe must count."""


Event = Started | StartFailed | Said | HungUp | Exited | Asked | HaveRead | Woke | Tick


@attrs.frozen
class Start:
    """Start a child; the answer is Started or StartFailed, at once or later.

    template: the pid of the template to fork it from; None is a fresh process, which reads the file *settings*.
    first: whether the daemon never worked yet, so that a failure will be the last thing it tells.
    """

    role: Role
    consumer: str
    template: int | None
    settings: str
    first: bool


@attrs.frozen
class Abandon:
    """Wait no more for the child asked for as *consumer*; the answer is StartFailed."""

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
class Abort:
    """Send SIGABRT to *pid*, so that it tells where it stands."""

    pid: int


@attrs.frozen
class Kill:
    """Send SIGKILL to *pid* and all of its process group."""

    pid: int


@attrs.frozen
class Read:
    """Read the settings again; the answer is HaveRead."""


@attrs.frozen
class Notify:
    """Tell the service manager."""

    text: str


@attrs.frozen
class Reply:
    """Answer the one who asked with *ticket*."""

    ticket: int
    message: Message


@attrs.frozen
class Log:
    """Tell the operator.  *level* is info, warning or error."""

    text: str
    level: str = "info"


@attrs.frozen
class Reopen:
    """Go on in the log file that has the name now."""


@attrs.frozen
class Quit:
    """No child is left; end with *code*."""

    code: int


Action = Start | Abandon | Tell | Terminate | Abort | Kill | Read | Notify | Reply | Log | Reopen | Quit
