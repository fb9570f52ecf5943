"""Schedule: a task, when it is sent by itself, and what with; and the schedules of an app by name."""

from collections.abc import Iterator, Mapping, Sequence
from contextvars import Context
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast, final, get_args

import attrs
from msgspec.structs import replace

from chicory.errors import PayloadError, ScheduleError, UsageError, did_you_mean
from chicory.ids import slot_id
from chicory.schedules.entry import Entry
from chicory.schedules.slots import Misfire
from chicory.schedules.timing import Cron, Every, Timing
from chicory.types import TaskMessage
from chicory.wire import check_name, pack

if TYPE_CHECKING:
    from chicory.task import Task

# The headers that tell a task which slot of which schedule it was sent for.
SCHEDULE, SLOT = "chicory-schedule", "chicory-slot"


@final
@attrs.frozen(kw_only=True, eq=False)
class Schedule:
    """Sends *task* with *args* and *kwargs* for each slot of *timing*; *misfire* is what `slots.due` takes.

    name: what the broker remembers it by; a schedule that changes keeps its past only if it keeps its name.
    """

    name: str
    task: "Task[..., Any]"
    timing: Timing
    misfire: Misfire = "once"
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = attrs.field(factory=dict[str, Any])

    def message(self, slot: float) -> TaskMessage:
        """What is sent for *slot*; its id is the same whoever makes it."""
        # In an empty context: it is nobody's call, so there is nothing to carry.
        made = Context().run(self.task.message, *self.args, **self.kwargs)
        headers = {**made.headers, SCHEDULE: self.name, SLOT: datetime.fromtimestamp(slot, UTC).isoformat()}
        return replace(made, id=slot_id(self.name, slot), headers=headers)

    @property
    def entry(self) -> Entry:
        """The schedule as a broker sees it."""
        return Entry(self.name, self.message(0).queue, str(self.timing))

    def check(self) -> None:
        """Raise ScheduleError when its messages could not be sent, or not run."""
        try:
            check_name(self.name)
        except PayloadError:
            raise ScheduleError(
                f"schedule name {self.name!r:.80} must be letters, digits, '_', '.', ':' or '-', at most 200;"
                " give it another name="
            ) from None
        if self.misfire not in get_args(Misfire):
            raise ScheduleError(
                f"schedule {self.name!r}: misfire={self.misfire!r} is none of 'skip', 'once' and 'all'"
                f"{did_you_mean(str(self.misfire), get_args(Misfire))}"
            )
        given = cast("tuple[object, object]", (self.args, self.kwargs))
        # A str is a sequence too, of its letters.
        if isinstance(given[0], str) or not isinstance(given[0], Sequence) or not isinstance(given[1], Mapping):
            raise ScheduleError(
                f"schedule {self.name!r}: args={self.args!r} and kwargs={self.kwargs!r} are not a list and a dict;"
                " write args=['x'] and kwargs={'times': 2}"
            )
        try:
            self.task.shape.check(self.task.name, self.args, self.kwargs)
            # Else it is held to its hints, as what anybody sends, when the first slot is fired.
            if self.task.contract.readable:
                pack(self.message(self.timing.after(0)))
        except (UsageError, TypeError) as error:
            raise ScheduleError(
                f"schedule {self.name!r} cannot send its task: {error}; give args=(...) and kwargs={{...}} that fit"
            ) from error
        if self.task.identified:
            raise ScheduleError(
                f"schedule {self.name!r}: its task has a task_id, but each slot has an id of its own;"
                " leave it out of options()"
            )
        if self.task.postponed:
            raise ScheduleError(
                f"schedule {self.name!r}: its task has a delay or an eta, but the slot says when it is sent;"
                " leave it out of options()"
            )


@final
class Schedules(Mapping[str, Schedule]):
    """Schedules by name, in the order they were declared."""

    def __init__(self) -> None:
        self._known: dict[str, Schedule] = {}

    def add(self, schedule: Schedule) -> Schedule:
        """Add *schedule*; raises ScheduleError when it is wrong or its name is taken."""
        schedule.check()
        if schedule.name in self._known:
            raise ScheduleError(
                f"two schedules are named {schedule.name!r}, {self._known[schedule.name].timing} and"
                f" {schedule.timing}; give one of them another name="
            )
        self._known[schedule.name] = schedule
        return schedule

    def find(self, name: str) -> Schedule:
        """The schedule called *name*; raises ScheduleError with the nearest one."""
        if name not in self._known:
            raise ScheduleError(f"there is no schedule {name!r}{did_you_mean(name, self._known)}")
        return self._known[name]

    def __getitem__(self, name: str) -> Schedule:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def timing_of(cron: str | None, every: float | timedelta | None, tz: str) -> Timing:
    """The timing of a cron line in *tz*, or of an interval in seconds; ScheduleError unless it is one of the two."""
    if (cron is None) == (every is None):
        raise ScheduleError("give a schedule either cron='*/15 9-17 * * MON-FRI' or every=30")
    if cron is not None:
        return Cron(cron, tz)
    if tz != "UTC":
        raise ScheduleError("an interval knows no time zone; leave out tz=, or give a cron line")
    return Every(seconds_of(every))


def seconds_of(span: object) -> float:
    """*span*, a number of seconds or a timedelta, in seconds; else ScheduleError."""
    if isinstance(span, timedelta):
        return span.total_seconds()
    if isinstance(span, int | float) and not isinstance(span, bool):
        return cast("float", span)
    raise ScheduleError(f"an interval of {span!r} is not a number of seconds; write every=30 or a timedelta")
