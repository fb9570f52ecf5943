"""Schedules: each slot is fired once, by whoever asks first; a pause holds; what is remembered has an end."""

import pytest
import trio

from chicory.errors import QueueFull
from chicory.ids import slot_id
from chicory.outcome import Done
from chicory.schedules.entry import Entry
from chicory.types import QueueSizes, TaskState
from tests.contract.harness import finish_all, message, receive, settle, worker

ENTRY = Entry("nightly", "default", "every 60 s")


@pytest.fixture
def timetable(broker):
    return broker.timetable()


def sent(slot, **fields):
    return message("report", id=slot_id("nightly", slot), **fields)


async def begun(timetable, entry=ENTRY):
    """The broker's time once *entry* has begun: slots after it, and a little later in the past, may be fired."""
    return (await timetable.look([entry])).now


async def test_a_schedule_begins_when_it_is_first_named(timetable):
    look = await timetable.look([ENTRY])

    known = look.known["nightly"]
    assert known.definition == "every 60 s"
    assert known.mark == pytest.approx(look.now, abs=1e-5)
    assert known.fired is None
    assert not known.paused
    later = await timetable.look([ENTRY])
    assert later.known["nightly"] == known
    assert later.now >= look.now


async def test_who_only_looks_begins_nothing(timetable):
    look = await timetable.look([ENTRY], begin=False)

    assert look.now > 1_700_000_000
    assert look.known == {}
    assert (await timetable.look([], begin=True)).known == {}


async def test_a_slot_is_fired_once_and_its_mark_remembered(broker, timetable):
    slot = (await begun(timetable)) + 0.01
    await trio.sleep(0.02)

    assert await timetable.fire(ENTRY, slot, sent(slot)) is True
    assert await timetable.fire(ENTRY, slot, sent(slot)) is False

    known = (await timetable.look([ENTRY])).known["nightly"]
    assert known.mark == known.fired == pytest.approx(slot, abs=1e-6)
    (found,) = await finish_all(broker, expected=1)
    assert found.message.id == slot_id("nightly", slot)


async def test_an_older_slot_than_the_last_is_over(broker, timetable):
    start = await begun(timetable)
    await trio.sleep(0.02)
    assert await timetable.fire(ENTRY, start + 0.01, sent(start + 0.01))

    assert not await timetable.fire(ENTRY, start + 0.005, sent(start + 0.005))
    assert not await timetable.fire(ENTRY, start - 60, sent(start - 60))

    assert len(await finish_all(broker, expected=1)) == 1


async def test_a_slot_that_has_not_come_is_not_fired(broker, timetable):
    slot = (await begun(timetable)) + 60

    assert not await timetable.fire(ENTRY, slot, sent(slot))

    assert await broker.get_queue_sizes() == QueueSizes(ready=0, delayed=0, delivered=0, dead=0)
    assert (await timetable.look([ENTRY])).known["nightly"].fired is None


@pytest.mark.parametrize("joined", [True, False])
async def test_of_many_schedulers_one_fires_each_slot(make, joined):
    # Without a backend that knows the ids it is the mark alone that tells.
    broker = make(joined=joined).broker
    tables = [broker.timetable() for _ in range(4)]
    start = await begun(tables[0])
    slots = [start + 0.001 * number for number in range(1, 21)]
    await trio.sleep(0.03)
    won = []

    async def fire_all(timetable):
        won.extend([await timetable.fire(ENTRY, slot, sent(slot)) for slot in slots])

    async with trio.open_nursery() as nursery:
        for timetable in tables:
            nursery.start_soon(fire_all, timetable)

    assert sum(won) == len(slots)
    found = await finish_all(broker, expected=len(slots))
    assert [one.message.id for one in found] == [slot_id("nightly", slot) for slot in slots]


async def test_what_is_paused_fires_nothing_and_goes_on_after_the_pause(broker, timetable):
    start = await begun(timetable)
    await trio.sleep(0.02)

    assert await timetable.pause(ENTRY) is True
    assert await timetable.pause(ENTRY) is False
    assert not await timetable.fire(ENTRY, start + 0.01, sent(start + 0.01))
    assert (await timetable.look([ENTRY])).known["nightly"].paused
    assert await timetable.resume(ENTRY) is True
    assert await timetable.resume(ENTRY) is False

    known = (await timetable.look([ENTRY])).known["nightly"]
    assert not known.paused
    assert known.mark > start + 0.01
    assert not await timetable.fire(ENTRY, start + 0.01, sent(start + 0.01))
    await trio.sleep(0.02)
    assert await timetable.fire(ENTRY, known.mark + 0.01, sent(known.mark + 0.01))
    await finish_all(broker, expected=1)


async def test_a_pause_before_the_beginning_holds(timetable):
    assert await timetable.pause(ENTRY)

    look = await timetable.look([ENTRY], begin=False)
    assert look.known["nightly"].paused
    assert look.known["nightly"].definition == "every 60 s"
    assert await timetable.resume(ENTRY)
    assert not await timetable.resume(Entry("unheard-of", "default", ""))


async def test_going_on_leaves_what_runs_as_it_is(timetable):
    before = (await timetable.look([ENTRY])).known["nightly"]
    await trio.sleep(0.01)

    assert await timetable.resume(ENTRY) is False

    assert (await timetable.look([ENTRY])).known["nightly"] == before


async def test_the_definition_is_that_of_whoever_fired_last(broker, timetable):
    slot = (await begun(timetable)) + 0.01
    changed = Entry("nightly", "default", "every 90 s")
    await trio.sleep(0.02)

    assert (await timetable.look([changed])).known["nightly"].definition == "every 60 s"
    await timetable.fire(changed, slot, sent(slot))

    assert (await timetable.look([ENTRY])).known["nightly"].definition == "every 90 s"
    await finish_all(broker, expected=1)


@pytest.mark.needs("priorities")
async def test_a_slot_goes_to_the_queue_of_its_message_and_by_its_priority(make):
    broker = make(max_priority=2).broker
    timetable, entry = broker.timetable(), Entry("nightly", "other", "every 60 s")
    slot = (await begun(timetable, entry)) + 0.01
    await trio.sleep(0.02)

    await broker.publish(message("slow", priority=0), "other")
    assert await timetable.fire(entry, slot, sent(slot, queue="other", priority=2))

    found = await finish_all(broker, "other", expected=2)
    assert [one.message.name for one in found] == ["report", "slow"]


@pytest.mark.needs("an exact limit")
async def test_a_full_queue_takes_no_slot_and_the_slot_is_not_over(make):
    broker = make(max_stream_length=1).broker
    timetable = broker.timetable()
    slot = (await begun(timetable)) + 0.01
    await trio.sleep(0.02)
    await broker.publish(message())

    with pytest.raises(QueueFull):
        await timetable.fire(ENTRY, slot, sent(slot))

    await finish_all(broker, expected=1)
    assert await timetable.fire(ENTRY, slot, sent(slot))
    await finish_all(broker, expected=1)


@pytest.mark.needs("joining")
async def test_its_result_is_awaited_from_the_moment_it_is_fired(broker, backend, timetable):
    start = await begun(timetable)
    noted, unnoted = start + 0.001, start + 0.002
    await trio.sleep(0.02)
    await timetable.fire(ENTRY, noted, sent(noted))
    await timetable.fire(ENTRY, unnoted, sent(unnoted, ignore_result=True))

    assert (await backend.fetch(slot_id("nightly", noted))).state is TaskState.PENDING
    assert (await backend.fetch(slot_id("nightly", unnoted))).state is TaskState.UNKNOWN
    async with worker(broker) as consumer:
        await settle(consumer, await receive(consumer, 2), Done(7))
    assert (await backend.fetch(slot_id("nightly", noted))).value == 7


@pytest.mark.needs("deduplication")
async def test_a_slot_whose_result_is_known_is_not_fired_again_when_the_marks_are_lost(broker, timetable):
    slot = (await begun(timetable)) - 60
    await broker.publish(sent(slot))
    # Nothing is remembered of this one, so only the task's id can tell.
    fresh = Entry("other", "default", "every 60 s")

    assert not await timetable.fire(fresh, slot, sent(slot))

    assert len(await finish_all(broker, expected=1)) == 1


async def test_many_schedules_are_all_remembered(timetable):
    entries = [Entry(f"s{number}", "default" if number % 2 else "other", "every 60 s") for number in range(600)]

    look = await timetable.look(entries)

    assert set(look.known) == {entry.name for entry in entries}
