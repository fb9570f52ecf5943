"""Nine answers, and in which order they may be given (M12)."""

import trio
from hypothesis import given
from hypothesis import strategies as st

from chicory.backends.base import StoredRecord
from chicory.backends.memory import MemoryBackend
from chicory.types import LAST_STEP, ResultRecord, TaskState
from chicory.wire import pack_record

records = st.builds(
    ResultRecord,
    st.sampled_from([state for state in TaskState if state is not TaskState.UNKNOWN]),
    retries=st.integers(0, 3),
    worker=st.sampled_from(["", "host:1", "host:2"]),
)


def test_a_state_is_awaited_final_or_unknown():
    for state in TaskState:
        assert state.awaited + state.finished + (state is TaskState.UNKNOWN) == 1
    assert len(TaskState) == 9


@given(st.integers(0, 2**31))
def test_each_attempt_is_a_step_on_and_an_end_the_last(retries):
    started = ResultRecord(TaskState.STARTED, retries=retries)
    again = ResultRecord(TaskState.RETRY, retries=retries + 1)

    assert ResultRecord(TaskState.PENDING).step == 0
    assert 0 < started.step <= again.step <= ResultRecord(TaskState.STARTED, retries=retries + 1).step < LAST_STEP
    assert started.step < again.step or retries > LAST_STEP // 2 - 2
    assert ResultRecord(TaskState.DEAD_LETTERED, retries=retries).step == LAST_STEP


@given(st.lists(st.tuples(records, st.booleans()), max_size=12))
def test_m12_in_whatever_order_news_arrives_a_task_moves_forward(news):
    async def tell():
        backend = MemoryBackend()
        await backend.expect(["a"])
        for record, note in news:
            before = await backend.fetch("a")
            await (backend.note if note else backend.store)([StoredRecord("a", pack_record(record))])
            after = await backend.fetch("a")
            assert after.step >= before.step
            assert not before.state.finished or after == before

    trio.run(tell)
