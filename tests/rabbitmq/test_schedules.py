"""Which slots are over is remembered in one message, whoever dies, and at whatever moment."""

import json
import sys

import msgspec
import pytest
import trio
from click.testing import CliRunner

from chicory.brokers.rabbitmq.register import Page
from chicory.cli import chicory
from chicory.errors import BrokerBlocked, BrokerError, BrokerRefused, BrokerUnavailable
from chicory.ids import new_id, slot_id
from chicory.links import amqp_methods
from chicory.links.amqp_frames import Outgoing
from chicory.outcome import Done
from chicory.schedules.entry import Entry
from chicory.schedules.table import Table
from tests.contract.harness import finish_all, message, receive, settle, worker
from tests.rabbit import running_node

QUEUE = "chicory.schedules"
TASKS = """
from chicory import BrokerType, Chicory

app = Chicory(broker=BrokerType.RABBITMQ)


@app.every(hours=1)
@app.task(name="report")
async def report() -> None: ...
"""
ENTRY = Entry("nightly", "default", "every 60 s")


def sent(slot, **fields):
    return message("report", id=slot_id("nightly", slot), **fields)


async def begun(broker):
    """A slot that has just come."""
    slot = (await broker.timetable().look([ENTRY])).now + 0.001
    await trio.sleep(0.002)
    return slot


async def tables(broker):
    """How many there are, of which one counts."""
    async with broker._current_register().taken() as page:
        return len(page._old)


async def length(broker):
    """How many messages its queue has when nobody consumes from it."""
    async with broker._channel() as channel:
        with trio.fail_after(5):
            while True:
                found = await channel.call(amqp_methods.inspect(QUEUE), timeout=5)
                if not found.consumer_count:
                    return found.message_count
                await trio.sleep(0.005)


async def put(broker, body, version):
    """Leave a message behind, as somebody does who died."""
    headers = None if version is None else {"chicory-version": version}
    async with broker._channel() as channel:
        await channel.call(amqp_methods.confirm(), timeout=5)
        await channel.publish([Outgoing("", QUEUE, "", body, headers)]).done.wait()


async def test_many_who_begin_at_once_make_one_table(brokers):
    several = [brokers() for _ in range(4)]
    entries = [Entry(f"s{number}", "default", "every 60 s") for number in range(len(several))]

    async with trio.open_nursery() as nursery:
        for broker, entry in zip(several, entries, strict=True):
            nursery.start_soon(broker.timetable().look, [entry])

    assert await tables(several[0]) == 1
    assert set((await several[0].timetable().look([], begin=False)).known) == {entry.name for entry in entries}


@pytest.mark.parametrize("closings", [0, 3])
async def test_of_many_connections_one_at_a_time_fires_and_none_fires_what_is_over(brokers, rabbit_node, closings):
    several = [brokers() for _ in range(4)]
    start = await begun(several[0])
    slots = [start + number / 1e6 for number in range(20)]
    won, failed = [], []

    async def fire_all(broker):
        for slot in slots:
            while True:
                try:
                    won.extend([slot] * await broker.timetable().fire(ENTRY, slot, sent(slot)))
                except BrokerError as error:
                    failed.append(error)
                    await trio.sleep(0.01)
                else:
                    break

    async with trio.open_nursery() as nursery:
        for broker in several:
            nursery.start_soon(fire_all, broker)
        for number in range(closings):
            while len(won) < (number + 1) * len(slots) // (closings + 1):
                await trio.sleep(0.001)
            await trio.to_thread.run_sync(rabbit_node.close_all_connections)

    sizes = await several[0].get_queue_sizes()
    assert won == (slots if not failed else sorted(set(won)))
    assert len(slots) <= sizes.ready <= len(slots) + len(failed)
    assert (await several[0].timetable().look([], begin=False)).known["nightly"].mark == slots[-1]
    assert bool(failed) == bool(closings)
    async with worker(several[0]) as consumer:
        found = await receive(consumer, sizes.ready)
        assert {one.message.id for one in found} == {slot_id("nightly", slot) for slot in slots}
        await settle(consumer, found, Done(None))


async def test_who_dies_between_the_slot_and_its_note_repeats_it_under_the_same_id(brokers, monkeypatch):
    broker, other = brokers(), brokers()
    slot = await begun(broker)

    async def die(page, body):
        page._turn.connection.close()
        raise BrokerUnavailable("killed")

    with monkeypatch.context() as patch, pytest.raises(BrokerUnavailable):
        patch.setattr(Page, "write", die)
        await broker.timetable().fire(ENTRY, slot, sent(slot))

    assert await other.timetable().fire(ENTRY, slot, sent(slot)) is True
    assert await broker.timetable().fire(ENTRY, slot, sent(slot)) is False
    other._books.note("default", "published")  # by whoever died
    found = await finish_all(other, expected=2)
    assert [one.message.id for one in found] == [slot_id("nightly", slot)] * 2


async def test_of_two_tables_the_newer_counts_and_the_older_goes(broker):
    slot = await begun(broker)
    await put(broker, msgspec.json.encode(Table()), 0)
    await broker.timetable().fire(ENTRY, slot, sent(slot))
    older = msgspec.json.encode(Table())

    await put(broker, older, 1)

    assert await tables(broker) == 2
    assert (await broker.timetable().look([], begin=False)).known["nightly"].fired == slot
    assert await broker.timetable().fire(ENTRY, slot, sent(slot)) is False
    await broker.timetable().pause(ENTRY)
    assert await tables(broker) == 1
    await finish_all(broker, expected=1)


async def test_what_a_reader_left_behind_who_died_goes_with_the_next(broker):
    await broker.timetable().look([ENTRY])
    await put(broker, b"", None)
    assert await length(broker) == 2

    assert set((await broker.timetable().look([], begin=False)).known) == {"nightly"}

    assert await length(broker) == 1


@pytest.mark.aio_pika
async def test_the_table_comes_back_from_whoever_loses_his_connection(brokers, rabbit_node):
    broker, other = brokers(), brokers()
    known = (await broker.timetable().look([ENTRY])).known

    async with broker._current_register().taken() as page:
        assert page.body is not None
        rabbit_node.close_all_connections()
        with pytest.raises(BrokerError):
            await page.write(msgspec.json.encode(Table()))

    assert (await other.timetable().look([], begin=False)).known == known
    assert await tables(other) == 1


async def test_who_waits_for_long_is_told_why_and_goes_on_afterwards(brokers):
    broker, other = brokers(), brokers(publish_timeout=0.1)
    await broker.timetable().look([ENTRY])

    async with broker._current_register().taken():
        with pytest.raises(BrokerUnavailable, match="somebody else has it and does not give it back"):
            await other.timetable().pause(ENTRY)

    assert await other.timetable().pause(ENTRY)


async def test_a_slot_that_is_under_way_is_fired_and_noted_although_its_scheduler_stops(broker, monkeypatch):
    slot = await begun(broker)
    write = Page.write

    async def stop(page, body):
        stopping.cancel()
        await write(page, body)

    with monkeypatch.context() as patch, trio.CancelScope() as stopping:
        patch.setattr(Page, "write", stop)
        await broker.timetable().fire(ENTRY, slot, sent(slot))

    assert stopping.cancel_called
    assert await broker.timetable().fire(ENTRY, slot, sent(slot)) is False
    await finish_all(broker, expected=1)


async def test_a_queue_that_is_deleted_is_declared_again_for_a_slot(broker, rabbit_node, vhost):
    first = await begun(broker)
    await broker.timetable().fire(ENTRY, first, sent(first))
    rabbit_node.delete_queue(vhost, "chicory.queue.default")
    second = first + 0.001

    assert await broker.timetable().fire(ENTRY, second, sent(second))

    (found,) = await finish_all(broker, expected=1)
    assert found.message.id == slot_id("nightly", second)


async def test_a_table_that_is_deleted_begins_anew(broker, rabbit_node, vhost):
    before = (await broker.timetable().look([ENTRY])).known["nightly"].mark
    rabbit_node.delete_queue(vhost, QUEUE)

    assert (await broker.timetable().look([ENTRY])).known["nightly"].mark > before


async def test_what_cannot_be_read_is_refused_with_the_remedy(broker):
    await broker.timetable().look([])
    await put(broker, b"[", 7)

    with pytest.raises(BrokerRefused, match=f"what is in {QUEUE} cannot be read .*; delete that queue"):
        await broker.timetable().look([ENTRY])


async def test_an_alarm_puts_a_slot_off(brokers, rabbit_node):
    broker = brokers(publish_timeout=0.5)
    slot = await begun(broker)
    rabbit_node.set_memory_limit(0)
    try:
        for _ in range(2):
            with pytest.raises(BrokerBlocked, match="takes no messages"):
                await broker.timetable().fire(ENTRY, slot, sent(slot))
    finally:
        rabbit_node.set_memory_limit(0.4)

    with trio.fail_after(10):
        while True:
            try:
                assert await broker.timetable().fire(ENTRY, slot, sent(slot)) is True
            except BrokerError:
                await trio.sleep(0.02)
            else:
                break
    await finish_all(broker, expected=1)


@pytest.mark.long
async def test_marks_pauses_and_what_is_cancelled_outlive_the_server():
    from chicory.brokers.rabbitmq import RabbitMQBroker
    from chicory.config import RabbitMQBrokerConfig

    with running_node() as node:
        broker = RabbitMQBroker(RabbitMQBrokerConfig(url=node.url(node.vhost())))
        slot = await begun(broker)
        await broker.timetable().fire(ENTRY, slot, sent(slot))
        await broker.timetable().pause(ENTRY)
        await broker.cancel("x")

        await trio.to_thread.run_sync(node.restart)

        with trio.fail_after(20):
            while True:
                try:
                    known = (await broker.timetable().look([], begin=False)).known["nightly"]
                except BrokerError:
                    await trio.sleep(0.05)
                else:
                    break
        assert known.paused
        assert known.fired == slot
        await finish_all(broker, expected=1)
        async with worker(broker) as consumer:
            assert set(consumer.cancelled) == {"x"}
        await broker.aclose()


def test_the_command_line_sees_and_pauses_what_rabbitmq_remembers(rabbit_node, vhost, tmp_path, monkeypatch):
    name = f"tasks_{new_id()}"
    (tmp_path / f"{name}.py").write_text(TASKS)
    (tmp_path / "chicory.toml").write_text(f'app = "{name}:app"\n[broker.rabbitmq]\nurl = "{rabbit_node.url(vhost)}"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("CHICORY_CONFIG", str(tmp_path / "chicory.toml"))

    def run(*words):
        # A process imports its app once; here one process plays many.
        sys.modules.pop(name, None)
        told = CliRunner().invoke(chicory, ["schedule", *words])
        assert told.exit_code == 0, told.output
        return told

    assert "report is paused." in run("pause", "report").stderr
    (row,) = json.loads(run("ls", "--json").stdout)["schedules"]
    assert (row["name"], row["state"], row["last"]) == ("report", "paused", None)
    assert "report goes on." in run("resume", "report").stderr
    sys.modules.pop(name)
