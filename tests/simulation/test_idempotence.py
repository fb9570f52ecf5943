"""`simulate` finds every await at which a task may not be cut, and nothing where it may."""

import logging
import threading

import pytest
import trio

from chicory import DeliveryMode, RetryPolicy, TaskContext
from chicory.errors import UsageError
from chicory.testing import NotIdempotent, Simulated, memory_app, simulate
from chicory.testing.simulation.cuts import Cut, cuts, singles


@pytest.fixture
def app():
    return memory_app(retry_policy=RetryPolicy(max_retries=2, retry_delay=60))


@pytest.fixture
def log():
    return []


@pytest.fixture
def tried(log):
    def tried(task, *args, **how):
        return simulate(task, args, fresh=log.clear, state=lambda: list(log), **how)

    return tried


def test_every_single_cut_is_a_seed_and_pairs_come_after_them():
    ways = [cuts(seed, 2) for seed in range(singles(2))]

    assert ways == [(Cut(at, killed),) for at in (1, 2) for killed in (True, False)] + [(Cut(3, killed=True),)]
    pairs = [cuts(seed, 2) for seed in range(singles(2), 500)]
    assert {len(pair) for pair in pairs} == {2}
    assert {cut for pair in pairs for cut in pair} == {cut for (cut,) in ways}


def test_what_does_its_work_by_a_key_may_be_cut_anywhere(app, log, tried):
    @app.task
    async def keyed(context: TaskContext, word: str) -> None:
        await trio.sleep(1)
        if context.idempotency_key not in log:
            log.append(context.idempotency_key)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)

    assert tried(keyed, "a") == Simulated(points=2, seeds=10)


def test_what_is_killed_after_its_work_does_it_twice(app, log, tried):
    @app.task(name="careless")
    async def careless(word: str) -> None:
        await trio.sleep(1)
        log.append(word)
        await trio.sleep(1)

    with pytest.raises(NotIdempotent) as raised:
        tried(careless, "a")

    told = str(raised.value).splitlines()
    assert told[0] == "careless('a') is not idempotent:"
    assert told[1].startswith("  run 1 was killed at await 2 of 2 (test_idempotence.py, line ")
    assert told[1].endswith(": await trio.sleep(1))")
    assert told[2] == "  and then it leaves ['a', 'a'], and one run ['a']"
    assert told[3] == "again: simulate(careless, ['a'], ..., seeds=[2])"
    with pytest.raises(NotIdempotent):
        tried(careless, "a", seeds=[raised.value.seed])
    assert tried(careless, "a", seeds=[0, 1]).seeds == 2


def test_a_clean_up_helps_against_a_stop_and_not_against_a_kill(app, log, tried):
    @app.task
    async def tidy(word: str) -> None:
        log.append(word)
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            log.remove(word)
            raise

    assert tried(tidy, "a", seeds=[1]).seeds == 1
    with pytest.raises(NotIdempotent, match="killed at await 1 of 1"):
        tried(tidy, "a")


def test_what_is_wrong_only_where_two_runs_are_cut_is_found_too(app, log, tried):
    @app.task
    async def third_time_wrong(context: TaskContext) -> None:
        log.append(context.deliveries)
        await trio.sleep(1)
        log[:] = [] if context.deliveries < 3 else ["worn out"]

    with pytest.raises(NotIdempotent, match=r"run 2 was killed"):
        tried(third_time_wrong)


def test_a_synchronous_task_may_be_killed_after_its_end(app, log, tried):
    @app.task
    def append(word: str) -> None:
        assert threading.current_thread() is not threading.main_thread()
        log.append(word)

    @app.task
    def assign(word: str) -> None:
        log[:] = [word]

    with pytest.raises(NotIdempotent, match="killed after its end, before the broker had heard of it"):
        tried(append, "a")
    assert tried(assign, "a") == Simulated(points=0, seeds=2)


def test_what_a_task_sends_is_run_too(app, log, tried):
    @app.task
    async def child(word: str) -> None:
        log.append(word)

    @app.task
    async def parent(word: str) -> None:
        await child.send(word)

    with pytest.raises(NotIdempotent, match=r"leaves \['a', 'a'\]"):
        tried(parent, "a")


def test_a_retry_is_waited_for(app, log, tried):
    @app.task
    async def flaky(context: TaskContext) -> None:
        await trio.sleep(1)
        if context.retries == 0:
            raise ConnectionError
        log[:] = ["done"]

    assert tried(flaky).points == 1


def test_a_check_may_judge_instead_of_a_comparison(app, log):
    @app.task
    async def once(word: str) -> None:
        log.append(word)
        await trio.sleep(1)

    def check():
        assert log == ["a"], f"there is {log}"

    with pytest.raises(NotIdempotent, match=r"fails the check: there is \['a', 'a'\]"):
        simulate(once, ["a"], fresh=log.clear, check=check)
    with pytest.raises(NotIdempotent, match="is not what the check asks for"):
        simulate(once, ["a"], fresh=log.clear, check=lambda: len(log) == 1)


def test_a_task_that_fails_when_nobody_disturbs_it_is_told_as_such(app, tried):
    @app.task(name="broken")
    async def broken() -> None:
        raise ValueError("no")

    with pytest.raises(NotIdempotent, match=r"^broken\(\), run once and left alone, ends as .*ValueError: no"):
        tried(broken)


def test_what_cannot_be_tried_is_refused_in_a_line(app, log, tried):
    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def once() -> None: ...

    @app.task(flavor="asyncio")
    async def foreign() -> None: ...

    for task, why in ((once, "at most once"), (foreign, "asyncio")):
        with pytest.raises(UsageError, match=why):
            tried(task)
    with pytest.raises(UsageError, match="state= or check="):
        simulate(once, fresh=log.clear)


async def test_an_async_test_is_told_to_be_another_one(app, tried):
    @app.task
    async def task() -> None: ...

    with pytest.raises(UsageError, match="not async"):
        tried(task)


def test_the_app_is_as_before_and_nothing_is_logged(app, log, tried, caplog):
    @app.task
    async def quiet() -> None:
        await trio.sleep(1)

    with caplog.at_level(logging.DEBUG):
        before = app.broker
        tried(quiet)

    assert app.broker is before
    assert not [record for record in caplog.records if record.name.startswith("chicory")]
