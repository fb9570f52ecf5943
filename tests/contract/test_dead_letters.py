"""Dead letters: nothing changes by looking, a replay happens once, and nothing is kept as less than it was."""

import pytest
import trio
from msgspec.structs import replace

from chicory.outcome import Dead, Done, Failed
from chicory.retry import RetryPolicy
from chicory.types import TaskState, Undecodable
from tests.contract.harness import OOPS, books, bury, finish_all, message, receive, settle, worker

GARBAGE = [b"", b"\x80\x04pickle", b"{}", b'{"id":"x","name":"work","args":[NaN]}', b'{"id":1}', b"[" * 2000]


async def test_a_dead_letter_keeps_the_message_and_the_reason(broker):
    one = message("billing.charge", args=[7], retries=3, headers={"chicory-carried-tenant": "7"})

    await bury(broker, one)

    (letter,) = await broker.get_dlq_messages()
    assert letter.original_message == one
    assert letter.error == "ValueError: oops"
    assert letter.traceback == OOPS.traceback
    assert (letter.task_id, letter.task_name, letter.queue) == (one.id, "billing.charge", "default")
    assert letter.retry_count == 3
    assert letter.failed_at.tzinfo is not None
    assert await broker.get_dlq_count() == 1
    assert (await broker.get_queue_sizes()).dead == 1


async def test_a_failure_that_nobody_wants_to_keep_leaves_no_letter(broker):
    await broker.publish(message())

    async with worker(broker) as consumer:
        await settle(consumer, await receive(consumer, 1), Failed(OOPS))

    assert await broker.get_dlq_count() == 0
    assert (await books(broker))["failed"] == 1


async def test_looking_changes_nothing_and_goes_page_by_page(broker):
    sent = [message() for _ in range(7)]
    await bury(broker, *sent)

    first = await broker.get_dlq_messages(count=3)
    second = await broker.get_dlq_messages(count=3, start=first[-1].message_id)
    third = await broker.get_dlq_messages(count=3, start=second[-1].message_id)

    assert [letter.task_id for letter in (*first, *second, *third)] == [one.id for one in sent]
    assert await broker.get_dlq_messages(count=3, start=third[-1].message_id) == []
    assert await broker.get_dlq_messages() == [*first, *second, *third]


@pytest.mark.parametrize("raw", GARBAGE)
async def test_bytes_that_are_no_message_are_delivered_as_such_and_kept_whole(harness, raw):
    broker = harness.broker
    await broker.publish(message())
    await harness.inject("default", raw)
    await broker.publish(message())

    async with worker(broker) as consumer:
        before, bad, after = await receive(consumer, 3)
        assert isinstance(bad.message, Undecodable)
        assert bad.message.raw == raw
        assert await settle(consumer, [bad], Dead(OOPS)) == [True]
        assert await settle(consumer, [before, after], Done(None)) == [True, True]

    for _ in range(2):
        (letter,) = await broker.get_dlq_messages()
        assert isinstance(letter.original_message, Undecodable)
        assert letter.original_message.raw == raw
    assert await broker.get_dlq_count() == 1


async def test_a_malformed_letter_is_replayed_and_deleted_like_any_other(harness):
    broker = harness.broker
    for raw in (b"one", b"two"):
        await harness.inject("default", raw)
    async with worker(broker) as consumer:
        await settle(consumer, await receive(consumer, 2), Dead(OOPS))
    first, second = await broker.get_dlq_messages()

    assert await broker.delete_from_dlq(second.message_id)
    assert await broker.replay_from_dlq(first.message_id)

    async with worker(broker) as consumer:
        (again,) = await receive(consumer, 1)
        assert isinstance(again.message, Undecodable)
        assert again.message.raw == b"one"
        await settle(consumer, [again], Failed(OOPS))


async def test_ten_callers_replay_a_letter_once(broker):
    one = message()
    await bury(broker, one)
    (letter,) = await broker.get_dlq_messages()
    answers = []

    async def replay(by):
        answers.append(await broker.replay_from_dlq(by))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(replay, letter.message_id)
            nursery.start_soon(replay, one.id)

    assert sorted(answers) == [False] * 9 + [True]
    assert [found.message.id for found in await finish_all(broker, expected=1)] == [one.id]
    assert await broker.get_dlq_count() == 0
    totals = await books(broker)
    assert (totals["dead"], totals["replayed"], totals["done"]) == (1, 1, 1)


@pytest.mark.parametrize(("reset", "retries"), [(True, 0), (False, 2)])
async def test_a_replay_starts_anew_unless_told_otherwise(broker, reset, retries):
    policy = RetryPolicy(max_retries=9, retry_on=OSError, time_budget=60)
    one = message(retries=2, first_try=1.75e9, retry_policy=policy)
    await bury(broker, one)

    assert await broker.replay_from_dlq(one.id, reset_retries=reset)

    (again,) = await finish_all(broker, expected=1)
    assert again.message == replace(one, retries=retries, first_try=None if reset else one.first_try)
    assert again.count == 1


@pytest.mark.needs("joining")
async def test_a_replayed_task_gets_its_new_result(broker, backend):
    one = message()
    await bury(broker, one)
    assert (await backend.fetch(one.id)).state is TaskState.DEAD_LETTERED

    await broker.replay_from_dlq(one.id)

    assert (await backend.fetch(one.id)).state is TaskState.PENDING
    async with worker(broker) as consumer:
        await settle(consumer, await receive(consumer, 1), Done("at last"))
    assert (await backend.fetch(one.id)).value == "at last"


async def test_a_replay_may_die_again(broker):
    one = message()
    await bury(broker, one)

    await broker.replay_from_dlq(one.id)
    async with worker(broker) as consumer:
        await settle(consumer, await receive(consumer, 1), Dead(OOPS))

    assert [letter.task_id for letter in await broker.get_dlq_messages()] == [one.id]


@pytest.mark.parametrize("by", ["message_id", "task_id"])
async def test_a_letter_is_deleted_by_its_id_or_its_tasks(broker, by):
    await bury(broker, message(), message(), message())
    letters = await broker.get_dlq_messages()
    one = letters[1]

    assert await broker.delete_from_dlq(getattr(one, by)) is True
    assert await broker.delete_from_dlq(getattr(one, by)) is False

    assert await broker.get_dlq_messages() == [letters[0], letters[2]]
    assert (await books(broker))["deleted"] == 1


@pytest.mark.parametrize("unknown", ["", "0-1", "12345678901234567890", "99-99999999999999999999", "no such id", "é"])
async def test_an_unknown_letter_is_not_there(broker, unknown):
    await bury(broker, message())

    assert await broker.replay_from_dlq(unknown) is False
    assert await broker.delete_from_dlq(unknown) is False

    assert await broker.get_dlq_count() == 1


async def test_purging_forgets_the_dead_letters_of_one_queue(broker):
    await bury(broker, message(), message(), queue="default")
    await bury(broker, message(), queue="other")

    assert await broker.purge_dlq() == 2

    assert await broker.get_dlq_count() == 0
    assert await broker.get_dlq_count("other") == 1
    assert await broker.purge_dlq() == 0


async def test_only_a_limit_that_was_asked_for_forgets_the_oldest(make):
    broker = make(dlq_max_length=2).broker
    sent = [message() for _ in range(4)]

    await bury(broker, *sent)

    assert [letter.task_id for letter in await broker.get_dlq_messages()] == [sent[2].id, sent[3].id]
    assert (await broker.counters())["trimmed"] == 2


async def test_replaying_purging_and_deleting_at_once_account_for_every_letter(broker):
    await bury(broker, *(message() for _ in range(30)))
    letters = await broker.get_dlq_messages()
    replayed, deleted, purged = [], [], []

    async def replay(letter):
        replayed.append(await broker.replay_from_dlq(letter.message_id))

    async def delete(letter):
        deleted.append(await broker.delete_from_dlq(letter.message_id))

    async def purge():
        purged.append(await broker.purge_dlq())

    async with trio.open_nursery() as nursery:
        for number, letter in enumerate(letters):
            nursery.start_soon(replay, letter)
            nursery.start_soon(delete, letter)
            if number == 20:
                nursery.start_soon(purge)

    assert sum(replayed) + sum(deleted) + sum(purged) == 30
    assert (await broker.get_queue_sizes()).ready == sum(replayed)
