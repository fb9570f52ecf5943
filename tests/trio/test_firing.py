"""Schedules on the memory broker and a clock that jumps: each slot once, on time, however many schedulers there are."""

import logging
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
import trio

from chicory import TaskContext
from chicory.clock import unix_now
from chicory.errors import BrokerUnavailable
from chicory.scheduler.scheduler import Scheduler
from chicory.testing import running_worker

HOUR = 3600.0
ROME = ZoneInfo("Europe/Rome")


@pytest.fixture
def began():
    """When the run begins, in unix seconds: ten past a full hour."""
    return 1_800_000_010.0


@pytest.fixture(autouse=True)
def clock(monkeypatch, began):
    monkeypatch.setattr("chicory.clock.time", SimpleNamespace(time=lambda: began))


def noting(app, **settings):
    """A task that notes for which slot it ran, and when by the broker's clock."""
    ran = []

    @app.task(name="note", **settings)
    async def note(context: TaskContext) -> None:
        ran.append((context.slot.timestamp(), unix_now()))

    return note, ran


@asynccontextmanager
async def scheduling(app, count=1):
    """So many schedulers, which are killed at the end."""
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(Scheduler(app.broker, ["default"], app=app).run)
        yield
        nursery.cancel_scope.cancel()


async def rest(seconds):
    """Until so many seconds have passed, and a little more so that what is due then has been done."""
    await trio.sleep(seconds + 0.001)


def slots(ran):
    return [slot for slot, _ in ran]


async def test_each_slot_runs_once_and_on_time_however_many_schedule(autojump_clock, app, books):
    note, ran = noting(app)
    app.schedule(note, every=30)

    async with running_worker(app), running_worker(app), scheduling(app, 3):
        start = unix_now()
        await rest(HOUR)

    first = (start // 30 + 1) * 30
    assert slots(ran) == [first + 30 * number for number in range(120)]
    assert all(0 <= at - slot < 0.02 for slot, at in ran)


@pytest.mark.parametrize(
    ("began", "expected"),
    [
        (datetime(2026, 3, 29, tzinfo=ROME).timestamp(), "29 03:00"),
        (datetime(2026, 10, 25, tzinfo=ROME).timestamp(), "25 02:30"),
    ],
)
async def test_a_night_in_which_the_clocks_change_has_one_run(autojump_clock, app, books, clock, began, expected):
    note, ran = noting(app)
    app.schedule(note, cron="30 2 * * *", tz="Europe/Rome", misfire="all")

    async with running_worker(app):
        await rest(5 * HOUR)

    (slot,) = slots(ran)
    assert datetime.fromtimestamp(slot, ROME).strftime("%d %H:%M") == expected


@pytest.mark.parametrize(("misfire", "count"), [("skip", 0), ("once", 1), ("all", 5)])
async def test_what_was_missed_while_nothing_ran_is_made_up_for_as_the_policy_says(
    autojump_clock, app, books, misfire, count
):
    note, ran = noting(app)
    app.schedule(note, every=HOUR, misfire=misfire)
    async with running_worker(app):
        await rest(HOUR + 110)
    assert len(ran) == 1

    await trio.sleep(5 * HOUR)
    async with running_worker(app):
        await rest(10)
        assert len(ran) == 1 + count
        assert slots(ran)[1:] == [ran[0][0] + HOUR * number for number in range(1, 6)][5 - count :]
        await rest(HOUR)

    assert len(ran) == 2 + count
    assert slots(ran) == sorted(set(slots(ran)))


async def test_schedulers_that_are_killed_again_and_again_neither_lose_nor_repeat(autojump_clock, app, books):
    note, ran = noting(app)
    app.schedule(note, every=1, misfire="all")

    async with running_worker(app, scheduler=False):
        start = unix_now()
        for number in range(200):
            async with scheduling(app, 1 + number % 3):
                await trio.sleep(0.7 * (number % 5))
            await trio.sleep(0.9 * (number % 4))
        async with scheduling(app):
            await rest(1)
        end = unix_now()

    first = int(start) + 1
    assert slots(ran) == [float(slot) for slot in range(first, int(end) + 1)]


async def test_a_new_schedule_begins_with_the_slots_after_now(autojump_clock, app, books):
    note, ran = noting(app)
    app.schedule(note, cron="0 0 1 1 *", misfire="all")

    async with running_worker(app):
        await rest(60)

    assert ran == []


async def test_a_line_that_was_changed_makes_up_for_nothing(autojump_clock, app, books):
    note, ran = noting(app)
    app.schedule(note, every=HOUR, name="often", misfire="all")
    async with running_worker(app):
        await rest(HOUR)
    assert len(ran) == 1
    await trio.sleep(HOUR)

    changed = type(app)(broker=app.broker, backend=app.backend)
    again, ran_again = noting(changed)
    changed.schedule(again, every=600, name="often", misfire="all")
    async with running_worker(changed):
        await rest(599)

    assert len(ran_again) == 1


async def test_what_is_paused_rests_and_goes_on_with_the_next_slot(autojump_clock, app, books):
    note, ran = noting(app)
    schedule = app.schedule(note, every=60, misfire="all")
    timetable = app.broker.timetable()

    async with running_worker(app):
        await rest(120)
        before = len(ran)
        await timetable.pause(schedule.entry)
        await rest(600)
        assert len(ran) == before
        await timetable.resume(schedule.entry)
        await rest(60)

    assert len(ran) == before + 1


async def test_a_pause_outlives_the_scheduler(autojump_clock, app, books):
    note, ran = noting(app)
    schedule = app.schedule(note, every=60)
    await app.broker.timetable().pause(schedule.entry)

    for _ in range(3):
        async with running_worker(app):
            await rest(200)

    assert ran == []


async def test_a_schedule_that_left_the_code_fires_no_more_and_is_forgotten_in_time(
    autojump_clock, app, books, monkeypatch
):
    monkeypatch.setattr("chicory.schedules.table.RETENTION", 2 * HOUR)
    note, ran = noting(app)
    app.schedule(note, every=60, name="old")
    async with running_worker(app):
        await rest(60)
    assert len(ran) == 1

    newer = type(app)(broker=app.broker, backend=app.backend)
    kept, _ = noting(newer)
    newer.schedule(kept, every=600, name="new")
    async with running_worker(newer):
        await rest(HOUR)
        assert set((await app.broker.timetable().look([])).known) == {"old", "new"}
        await rest(2 * HOUR)

    assert set((await app.broker.timetable().look([])).known) == {"new"}
    assert len(ran) == 1


async def test_the_schedules_of_a_queue_that_nobody_here_serves_are_fired_too(autojump_clock, app, books):
    note, _ = noting(app, queue="slow")
    app.schedule(note, every=60)

    async with running_worker(app):
        await rest(60)

    assert (await app.broker.get_queue_sizes("slow")).ready == 1


async def test_a_full_queue_is_said_once_and_costs_no_slot(autojump_clock, caplog):
    from chicory import Chicory
    from chicory.brokers.memory import MemoryBroker

    app = Chicory(MemoryBroker(max_stream_length=1))
    note, ran = noting(app)
    app.schedule(note, every=60, misfire="all")
    async with scheduling(app):
        await rest(200)

    assert (await app.broker.get_queue_sizes()).ready == 1
    assert [record.levelno for record in caplog.records if "waits" in record.message] == [logging.WARNING]
    async with running_worker(app):
        await rest(5)
    assert slots(ran) == [1_800_000_060 + 60 * number for number in range(3)]


async def test_an_outage_delays_a_slot_and_loses_none(autojump_clock, app, books, monkeypatch):
    note, ran = noting(app)
    app.schedule(note, every=1, misfire="all")
    timetable = type(app.broker.timetable())
    look, fire, calls = timetable.look, timetable.fire, []

    def sometimes(method):
        async def call(*words, **more):
            calls.append(method)
            if len(calls) % 3 == 0:
                raise BrokerUnavailable("cut")
            answer = await method(*words, **more)
            if len(calls) % 4 == 0:
                raise BrokerUnavailable("cut, and the answer with it")
            return answer

        return call

    monkeypatch.setattr(timetable, "look", sometimes(look))
    monkeypatch.setattr(timetable, "fire", sometimes(fire))
    async with running_worker(app):
        start = unix_now()
        await rest(200)
        end = unix_now()

    assert slots(ran) == [float(slot) for slot in range(int(start) + 1, int(start) + 1 + len(ran))]
    assert len(ran) >= int(end) - int(start) - 2


async def test_the_backend_that_is_no_part_of_the_broker_expects_the_result(autojump_clock, app, books):
    from chicory import Chicory, TaskState
    from chicory.backends.memory import MemoryBackend

    class Apart(MemoryBackend):
        def joins(self, broker):
            return False

    apart = Chicory(app.broker, backend=Apart())
    note, _ = noting(apart)
    schedule = apart.schedule(note, every=60)
    async with scheduling(apart):
        await rest(60)
        slot = unix_now() // 60 * 60

    result = apart.result(schedule.message(slot).id)
    assert await result.state() is TaskState.PENDING
    async with running_worker(apart, scheduler=False) as worker:
        await worker.settled(1)
    assert await result.state() is TaskState.SUCCESS


async def test_a_broker_that_keeps_no_marks_is_said_to_be_so(autojump_clock, app, caplog, monkeypatch):
    note, ran = noting(app)
    app.schedule(note, every=60)
    monkeypatch.setattr(app.broker, "timetable", lambda: None)

    async with running_worker(app) as worker:
        await note.options(headers={"chicory-slot": datetime.now(UTC).isoformat()}).options(delay=10).send()
        await worker.settled(1)
        await rest(200)

    assert len(ran) == 1
    assert "this broker cannot fire schedules (note)" in caplog.text


async def test_a_mark_far_ahead_of_the_clock_is_said_with_the_remedy(autojump_clock, app, books, caplog):
    note, ran = noting(app)
    schedule = app.schedule(note, every=60)
    await app.broker.timetable().look([schedule.entry])
    app.broker._schedules.rows["note"].mark += 10 * 366 * 24 * HOUR

    async with running_worker(app):
        await rest(200)
        assert ran == []
        assert caplog.text.count("chicory schedule resume note") == 1
        await app.broker.timetable().resume(schedule.entry)
        await rest(60)

    assert len(ran) == 1
