"""What a user writes of schedules, and what is said of what he writes wrong: at import, in one line."""

import math
from datetime import UTC, datetime, timedelta
from uuid import UUID

import attrs
import pytest

from chicory import TaskContext, ValidationMode
from chicory.errors import AppImportError, ScheduleError, UsageError, ValidationError
from chicory.ids import born
from chicory.loading import import_app
from chicory.schedules.timing import Cron, Every
from chicory.task import SyncTask, Task
from chicory.testing import memory_app

SLOT = datetime(2026, 11, 24, 10, 45, tzinfo=UTC)


@pytest.fixture
def app():
    return memory_app()


@pytest.fixture
def task(app):
    @app.task(name="report", queue="slow")
    async def report(kind: str, *, days: int = 1) -> None: ...

    return report


def refused(call):
    with pytest.raises(ScheduleError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_decorator_leaves_the_task_as_it_is(app):
    @app.cron("*/15 9-17 * * MON-FRI", tz="Europe/Rome")
    @app.every(seconds=30, name="often", misfire="skip")
    @app.task(name="beat")
    def beat() -> int:
        return 1

    assert isinstance(beat, SyncTask)
    assert beat() == 1
    assert list(app.schedules) == ["often", "beat"]
    assert app.schedules["beat"].timing == Cron("*/15 9-17 * * MON-FRI", "Europe/Rome")
    assert app.schedules["beat"].misfire == "once"
    assert app.schedules["often"].timing == Every(30)


def test_a_decorator_alone_makes_a_task_of_a_function(app):
    @app.every(minutes=1, seconds=30)
    async def beat() -> None: ...

    assert app.tasks[beat.name] is beat
    assert app.schedules[beat.name].timing == Every(90)


def test_a_message_says_which_slot_of_which_schedule_it_is(app, task):
    bound = task.options(headers={"tenant": "a"}, priority=3)
    schedule = app.schedule(bound, every=timedelta(minutes=15), name="weekly", args=["week"], kwargs={"days": 7})

    message = schedule.message(SLOT.timestamp())

    assert (message.name, message.queue, message.priority) == ("report", "slow", 3)
    assert (message.args, message.kwargs) == (["week"], {"days": 7})
    context = TaskContext(message)
    assert (context.schedule, context.slot) == ("weekly", SLOT)
    assert context.headers["tenant"] == "a"


def test_the_id_of_a_message_depends_on_its_schedule_and_its_slot_alone(app, task):
    one, other = (app.schedule(task, every=60, name=name, args=["week"]) for name in ("one", "other"))
    first = one.message(SLOT.timestamp())

    assert one.message(SLOT.timestamp()).id == first.id
    assert len({first.id, one.message(SLOT.timestamp() + 60).id, other.message(SLOT.timestamp()).id}) == 3
    assert UUID(first.id).version == 7
    assert born(first.id) == SLOT.timestamp()


def test_a_task_that_somebody_sent_has_no_slot(task):
    context = TaskContext(task.message("week"))

    assert context.schedule is None
    assert context.slot is None


def test_a_slot_that_is_no_instant_is_none(task):
    message = task.options(headers={"chicory-slot": "soon"}).message("week")

    assert TaskContext(message).slot is None


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"cron": "61 * * * *"}, "cron line '61 * * * *' has a bad minute; write *, 0-59"),
        ({"cron": "* * * * *", "tz": "Europe/Rom"}, "did you mean 'Europe/Rome'?"),
        ({"every": 0}, "an interval of 0 s is out of range; give one from 1 s"),
        ({"every": "30"}, "an interval of '30' is not a number of seconds; write every=30"),
        ({"every": True}, "is not a number of seconds"),
        ({"every": math.nan}, "out of range"),
        ({"every": timedelta(days=-1)}, "out of range"),
        ({"every": 30, "tz": "Europe/Rome"}, "leave out tz="),
        ({}, "give a schedule either cron='*/15 9-17 * * MON-FRI' or every=30"),
        ({"cron": "* * * * *", "every": 30}, "give a schedule either"),
        ({"every": 30, "misfire": "al"}, "none of 'skip', 'once' and 'all'; did you mean 'all'?"),
        ({"every": 30, "misfire": None}, "none of 'skip', 'once' and 'all'"),
        ({"every": 30, "name": "every night"}, "schedule name 'every night' must be letters"),
        ({"every": 30, "name": 5}, "schedule name 5 must be letters"),
        ({"every": 30, "name": "x" * 201}, "at most 200; give it another name="),
        ({"every": 30, "args": ()}, "missing a required argument: 'kind'; give args=(...) and kwargs={...} that fit"),
        ({"every": 30, "args": ("a", "b")}, "too many positional arguments"),
        ({"every": 30, "kwargs": {"kind": "a", "weeks": 1}}, "unexpected keyword argument 'weeks'"),
        ({"every": 30, "args": "week"}, "are not a list and a dict; write args=['x']"),
        ({"every": 30, "args": {"week"}}, "are not a list and a dict"),
        ({"every": 30, "kwargs": [("kind", "a")]}, "are not a list and a dict"),
        ({"every": 30, "args": [object()]}, "args[0]: a object is not JSON"),
        ({"every": 30, "kwargs": {3: "a"}}, "cannot send its task"),
    ],
)
def test_a_wrong_schedule_is_refused_with_what_to_write(app, task, said, why):
    said = {"args": ["week"], **said} if "kwargs" not in said else said

    assert why in refused(lambda: app.schedule(task, **said))
    assert not app.schedules


def test_a_delay_has_no_place_in_a_schedule(app, task):
    for late in (task.options(delay=5), task.options(eta=SLOT)):
        assert "leave it out of options()" in refused(lambda late=late: app.schedule(late, every=5, args=["week"]))


def test_an_id_has_no_place_in_a_schedule(app, task):
    told = refused(lambda: app.schedule(task.options(task_id="mine"), every=5, args=["week"]))

    assert "each slot has an id of its own; leave it out of options()" in told


def test_arguments_that_are_not_what_the_hints_say_are_refused():
    app = memory_app(validation_mode=ValidationMode.INPUTS)

    @app.task(name="remind")
    async def remind(days: int, *, by: timedelta = timedelta()) -> None: ...

    told = refused(lambda: app.schedule(remind, every=30, args=["three"], kwargs={"by": "noon"}))

    assert told.startswith("schedule 'remind' cannot send its task: ")
    assert "days" in told
    assert "by" in told
    schedule = app.schedule(remind, every=30, args=[3], kwargs={"by": timedelta(hours=1)})
    assert schedule.message(SLOT.timestamp()).args == [3]


def test_hints_of_what_is_defined_further_down_are_not_read_too_early(caplog):
    app = memory_app(validation_mode=ValidationMode.INPUTS)
    further_down = {}
    source = "async def ship(parcel: 'Parcel', days: int) -> None: ..."
    exec(source, further_down)
    ship = app.task(name="ship")(further_down["ship"])

    assert "missing a required argument: 'days'" in refused(lambda: app.schedule(ship, every=30, args=[{"weight": 1}]))
    schedule = app.schedule(ship, every=30, args=[{"weight": "heavy"}, 2])
    further_down["Parcel"] = attrs.make_class("Parcel", {"weight": attrs.field(type=int)})

    assert not caplog.records
    with pytest.raises(ValidationError, match="parcel must be Parcel"):
        schedule.message(SLOT.timestamp())


def test_two_schedules_of_one_name_are_refused(app, task):
    app.schedule(task, every=30, args=["week"])

    told = refused(lambda: app.schedule(task, cron="0 3 * * *", args=["day"]))

    assert told == (
        "two schedules are named 'report', every 30 s and cron 0 3 * * * UTC; give one of them another name="
    )


def test_what_is_no_task_of_the_app_is_refused(app, task):
    assert "make it one with @app.task" in refused(lambda: app.schedule(len, every=5))
    assert "of its own app" in refused(lambda: memory_app().schedule(task, every=5, args=["week"]))


def test_a_decorator_in_the_wrong_place_is_refused(app):
    with pytest.raises(UsageError, match=r"put @app.cron and @app.every above @app.task"):

        @app.task
        @app.every(seconds=5)
        async def beat() -> None: ...


def test_a_wrong_decorator_is_refused_where_it_stands(app):
    assert "bad hour" in refused(lambda: app.cron("0 25 * * *"))
    assert "out of range" in refused(lambda: app.every())
    assert "'5' is not a number of seconds" in refused(lambda: app.every(minutes="5"))


def test_an_unknown_schedule_is_told_with_the_nearest(app, task):
    app.schedule(task, every=30, args=["week"])

    assert refused(lambda: app.schedules.find("reprot")) == "there is no schedule 'reprot'; did you mean 'report'?"


def test_the_import_fails_in_one_line_that_names_the_users_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    source = "from chicory import Chicory\napp = Chicory()\n\n@app.cron('0 25 * * *')\ndef late(): ...\n"
    (tmp_path / "late_tasks.py").write_text(source)

    with pytest.raises(AppImportError) as caught:
        import_app("late_tasks:app")

    assert "cron line '0 25 * * *' has a bad hour; write *, 0-23" in str(caught.value)
    assert str(caught.value).endswith(f"({tmp_path / 'late_tasks.py'}, line 4)")


def test_a_task_of_options_is_sent_as_they_say(app, task):
    assert isinstance(task.options(queue="other"), Task)
    schedule = app.schedule(task.options(queue="other", ignore_result=True, expires=60), every=5, args=["week"])

    message = schedule.message(SLOT.timestamp())

    assert message.queue == "other"
    assert message.ignore_result
    assert message.expires is not None
