"""What Redis keeps of schedules: one hash, or in a cluster one for each queue, from which the forgotten go."""

import time

from chicory.ids import new_id
from chicory.schedules.entry import NOTED_EVERY, RETENTION, Entry
from tests.contract.harness import RedisHarness, message
from tests.servers import redis_server

__all__ = ["redis_server"]


async def test_a_schedule_that_nobody_has_named_for_a_month_leaves_nothing_behind(redis_server):
    harness = RedisHarness(redis_server)
    timetable, key = harness.broker.timetable(), f"{harness.prefix}:schedules"
    old, new = Entry("old", "default", "every 60 s"), Entry("new", "default", "every 60 s")
    look = await timetable.look([old, new])
    await timetable.fire(old, look.now - 60, message())
    await timetable.pause(old)

    with redis_server.client() as client:
        client.hset(key, "old#seen", time.time() - RETENTION - 1)
        await timetable.look([])
        await timetable.look([new], begin=False)
        assert client.hexists(key, "old")
        await timetable.look([new])
        assert client.hkeys(key) == [b"new", b"new#definition", b"new#seen"]

    await harness.broker.aclose()


async def test_a_look_that_changes_nothing_writes_nothing(redis_server):
    harness = RedisHarness(redis_server)
    timetable, key = harness.broker.timetable(), f"{harness.prefix}:schedules"
    entry = Entry("nightly", "default", "every 60 s")
    await timetable.look([entry])

    with redis_server.client() as client:
        seen = client.hget(key, "nightly#seen")
        await timetable.look([entry])
        assert client.hget(key, "nightly#seen") == seen
        client.hset(key, "nightly#seen", float(seen) - NOTED_EVERY)
        await timetable.look([entry])
        assert float(client.hget(key, "nightly#seen")) >= float(seen)

    await harness.broker.aclose()


async def test_in_a_cluster_the_marks_are_in_the_slot_of_their_queue(redis_server):
    harness = RedisHarness(redis_server, cluster=True, joined=False)
    timetable = harness.broker.timetable()
    entries = [Entry("one", "default", "every 60 s"), Entry("two", "other", "every 60 s")]

    look = await timetable.look(entries)

    assert set(look.known) == {"one", "two"}
    with redis_server.client() as client:
        assert client.hexists(f"{harness.prefix}:schedules:{{default}}", "one")
        assert client.hexists(f"{harness.prefix}:schedules:{{other}}", "two")
    await harness.broker.aclose()


async def test_a_server_without_the_scripts_is_given_them(redis_server):
    harness = RedisHarness(redis_server)
    timetable, entry = harness.broker.timetable(), Entry(f"s{new_id()}", "default", "every 60 s")
    look = await timetable.look([entry])

    with redis_server.client() as client:
        client.script_flush()

    await timetable.pause(entry)
    assert (await timetable.look([entry])).known[entry.name].mark <= look.now
    await harness.broker.aclose()
