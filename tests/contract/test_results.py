"""Results: stored with the settling, pushed to who waits, and only ever moving forward (M12)."""

import random

import pytest
import trio
from msgspec.structs import replace

from chicory import Chicory, RetryPolicy, TaskDeadLettered
from chicory.backends.base import StoredRecord
from chicory.brokers.base import Settlement
from chicory.ids import new_id
from chicory.outcome import Done, Failed, RetryIn
from chicory.testing import running_worker
from chicory.types import Failure, Progress, ResultRecord, TaskState
from chicory.wire import pack_record
from tests.contract.harness import OOPS, message, receive, settle, worker


# Where results may be kept; databases are beside a broker, not in it.
@pytest.fixture(
    params=[
        *("memory", "redis", "embedded", "rabbitmq", pytest.param("quorum", marks=pytest.mark.long)),
        *("sqlite", "postgresql", "mariadb"),
    ]
)
def kind(request):
    return request.param


def stored(task_id, state, **fields):
    return StoredRecord(task_id, pack_record(ResultRecord(state, **fields)))


async def run(broker, outcome, **fields):
    """Publish one message and end it; returns its id."""
    one = message(**fields)
    await broker.publish(one)
    async with worker(broker) as consumer:
        assert await settle(consumer, await receive(consumer, 1), outcome) == [True]
    return one.id


@pytest.mark.needs("joining")
async def test_m12_unknown_pending_retrying_and_finished_are_different_answers(broker, backend):
    one = message()
    assert (await backend.fetch(one.id)).state is TaskState.UNKNOWN

    await broker.publish(one)
    assert (await backend.fetch(one.id)).state is TaskState.PENDING

    async with worker(broker) as consumer:
        again = RetryIn(0, replace(one, retries=1), OOPS)
        await settle(consumer, await receive(consumer, 1), again)
        retrying = await backend.fetch(one.id)
        assert (retrying.state, retrying.failure, retrying.retries) == (TaskState.RETRY, OOPS, 1)

        await settle(consumer, await receive(consumer, 1), Done({"answer": [42, b"raw"]}))

    done = await backend.fetch(one.id)
    assert (done.state, done.value) == (TaskState.SUCCESS, {"answer": [42, b"raw"]})


@pytest.mark.needs("joining")
async def test_m12_a_failure_is_kept_as_text(broker, backend):
    failure = Failure("SomeError", "it broke: é \x00", "Traceback\n  line")

    task_id = await run(broker, Failed(failure))

    kept = await backend.fetch(task_id)
    assert (kept.state, kept.failure) == (TaskState.FAILURE, failure)


@pytest.mark.needs("joining")
async def test_m12_a_result_expires_and_says_so(make):
    harness = make(result_ttl=1)
    task_id = await run(harness.broker, Done(1))
    assert (await harness.backend.fetch(task_id)).state is TaskState.SUCCESS

    with trio.fail_after(5):
        while (record := await harness.backend.fetch(task_id)).state is TaskState.SUCCESS:
            await trio.sleep(0.05)

    assert record.state is TaskState.EXPIRED
    assert (await harness.backend.wait(task_id)).state is TaskState.EXPIRED


@pytest.mark.needs("joining")
async def test_m10_what_is_unfinished_does_not_expire(make):
    harness = make(result_ttl=1)
    one = message()
    await harness.broker.publish(one)

    await trio.sleep(1.2)

    assert (await harness.backend.fetch(one.id)).state is TaskState.PENDING


async def test_m12_a_finished_record_is_never_overwritten(backend):
    task_id = new_id()
    await backend.store([stored(task_id, TaskState.SUCCESS, value=1)])

    # Twice, because what is refused must leave no mark either.
    for _ in range(2):
        await backend.store([stored(task_id, TaskState.FAILURE, failure=OOPS)])
        await backend.store([stored(task_id, TaskState.RETRY)])
        await backend.expect([task_id])

    assert await backend.fetch(task_id) == ResultRecord(TaskState.SUCCESS, value=1)


async def test_m12_expecting_never_moves_a_task_backwards(backend):
    task_id = new_id()

    await backend.expect([task_id])
    assert (await backend.fetch(task_id)).state is TaskState.PENDING

    await backend.store([stored(task_id, TaskState.RETRY, retries=1)])
    await backend.expect([task_id])
    assert (await backend.fetch(task_id)).state is TaskState.RETRY


STATES = [state for state in TaskState if state is not TaskState.UNKNOWN]


async def test_m12_whatever_is_stored_and_noted_a_task_only_moves_forward(backend):
    """In whatever order news of its attempts arrives: a few orders of each, drawn anew every time."""
    orders = random.Random(12)
    for _ in range(5):
        task_id = new_id()
        await backend.expect([task_id])
        known = await backend.fetch(task_id)
        for _ in range(12):
            state, retries = orders.choice(STATES), orders.randrange(3)
            news = stored(task_id, state, retries=retries)
            await (backend.note if orders.random() < 0.5 else backend.store)([news])
            before, known = known, await backend.fetch(task_id)
            assert known.step >= before.step
            if before.state.finished:
                assert known == before


async def test_m12_a_note_makes_nothing_of_what_is_unknown(backend):
    task_id, waiting = new_id(), new_id()
    await backend.expect([waiting])
    started = ResultRecord(TaskState.STARTED, started_at=17.5, worker="host:1", progress=Progress(1, 2, "half"))
    records = [StoredRecord(one, pack_record(started)) for one in (task_id, waiting)]

    await backend.note(records)
    assert (await backend.fetch(task_id)).state is TaskState.UNKNOWN
    assert await backend.fetch(waiting) == started

    await backend.store([stored(waiting, TaskState.SUCCESS, value=1)])
    await backend.note(records)
    assert (await backend.fetch(waiting)).value == 1
    assert {one: record.state for one, record in (await backend.fetch_many([task_id, waiting])).items()} == {
        task_id: TaskState.UNKNOWN,
        waiting: TaskState.SUCCESS,
    }


async def test_a_note_does_not_make_a_record_live_longer_or_shorter(make):
    harness = make(result_ttl=1)
    task_id = new_id()
    await harness.backend.expect([task_id])
    await harness.backend.note([stored(task_id, TaskState.STARTED)])

    await trio.sleep(1.2)

    assert (await harness.backend.fetch(task_id)).state is TaskState.STARTED


async def test_many_are_waited_for_at_once(backend):
    ids = [new_id() for _ in range(20)]
    await backend.expect(ids)
    got = []

    async def wait(count):
        got.append(await backend.wait_many(ids, count))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, 20)
            for start in (0, 5):
                # At least one: all that are finished by then.
                nursery.start_soon(wait, start + 1)
                await backend.store([stored(one, TaskState.SUCCESS, value=one) for one in ids[start : start + 5]])
                while len(got) < start // 5 + 1:
                    await trio.sleep(0.01)
            await backend.store([stored(one, TaskState.SUCCESS, value=one) for one in ids[10:]])

    assert [record.value for record in got[-1].values()] != []
    assert {one: record.value for one, record in got[-1].items()} == {one: one for one in ids}


@pytest.mark.needs("joining")
async def test_a_waiter_is_told_at_once(broker, backend):
    one = message()
    await broker.publish(one)
    got = []

    async def wait():
        got.append(await backend.wait(one.id))

    async with worker(broker) as consumer, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
        deliveries = await receive(consumer, 1)
        await trio.sleep(0.05)
        assert got == []
        began = trio.current_time()
        await settle(consumer, deliveries, Done("here"))
        with trio.fail_after(5):
            while len(got) < 3:
                await trio.sleep(0.005)
        # By push: a poll would take its period.
        assert trio.current_time() - began < 1

    assert [record.value for record in got] == ["here"] * 3


@pytest.mark.needs("joining")
async def test_waiting_for_what_is_finished_or_unknown_returns_at_once(broker, backend):
    task_id = await run(broker, Done(5))

    with trio.fail_after(5):
        assert (await backend.wait(task_id)).value == 5
        assert (await backend.wait(new_id())).state is TaskState.UNKNOWN


@pytest.mark.needs("joining")
async def test_a_waiter_that_gave_up_disturbs_nobody(broker, backend):
    one = message()
    await broker.publish(one)

    with trio.move_on_after(0.05):
        await backend.wait(one.id)
    got = []
    async with worker(broker) as consumer, trio.open_nursery() as nursery:

        async def wait():
            got.append(await backend.wait(one.id))

        nursery.start_soon(wait)
        with trio.move_on_after(0.05):
            await backend.wait(one.id)
        await settle(consumer, await receive(consumer, 1), Done(1))

    assert [record.value for record in got] == [1]


@pytest.mark.needs("joining")
async def test_waiting_for_a_result_that_comes_between_looking_and_listening(broker, backend):
    """However the two interleave: the result of each is found."""
    async with worker(broker) as consumer, trio.open_nursery() as nursery:
        for _ in range(30):
            one = message()
            await broker.publish(one)
            nursery.start_soon(backend.wait, one.id)
            await settle(consumer, await receive(consumer, 1), Done(None))
        with trio.fail_after(5):
            while nursery.child_tasks:
                await trio.sleep(0.005)


@pytest.mark.needs("joining")
async def test_a_task_whose_result_nobody_wants_leaves_no_trace(broker, backend):
    one = message(ignore_result=True)
    await broker.publish(one)
    assert (await backend.fetch(one.id)).state is TaskState.UNKNOWN

    async with worker(broker) as consumer:
        (delivery,) = await receive(consumer, 1)
        assert delivery.message.ignore_result
        assert await consumer.settle([Settlement(delivery, Done(None))]) == [True]
    assert (await backend.fetch(one.id)).state is TaskState.UNKNOWN


@pytest.mark.parametrize("value", [None, 0, False, "", [], {"$tag": 1}, {"$bytes": "x"}, 2**63 - 1, "é\x00"])
@pytest.mark.needs("joining")
async def test_a_value_comes_back_as_it_was(broker, backend, value):
    task_id = await run(broker, Done(value))

    assert (await backend.fetch(task_id)).value == value


async def test_a_backend_of_its_own_stores_what_the_worker_gives_it(make):
    harness = make(joined=False)
    one = message()
    await harness.backend.expect([one.id])
    await harness.broker.publish(one)

    async with worker(harness.broker) as consumer:
        deliveries = await receive(consumer, 1)
        await harness.backend.store([stored(one.id, TaskState.SUCCESS, value=3)])
        await settle(consumer, deliveries, Done(3))

    assert (await harness.backend.wait(one.id)).value == 3


async def test_a_replayed_dead_letter_is_pending_again_wherever_its_result_is(make):
    harness = make(joined=False)
    harness.backend.joins = lambda broker: False
    app = Chicory(harness.broker, harness.backend)
    broken = [True]

    @app.task(name="mend", retry_policy=RetryPolicy(max_retries=0))
    async def mend() -> str:
        if broken:
            raise ValueError("not yet")
        return "mended"

    with trio.fail_after(20):
        async with running_worker(app):
            result = await mend.delay()
            with pytest.raises(TaskDeadLettered):
                await result.get()
            # The result is there before its letter is.
            while not await app.broker.get_dlq_count():
                await trio.sleep(0.01)
        broken.clear()
        assert await app.broker.replay_from_dlq(result.id)
        assert await result.state() is TaskState.PENDING
        async with running_worker(app):
            assert await result.get() == "mended"

    # Nobody replays what is not there, and what is finished stays so.
    assert not await app.broker.replay_from_dlq(result.id)
    await harness.backend.reopen(result.id)
    assert await result.state() is TaskState.SUCCESS
