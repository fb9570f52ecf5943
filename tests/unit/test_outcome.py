"""`decide`: an answer for everything, and the promises that hang on it (M6, M11)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.errors import TaskTimeout
from chicory.outcome import (
    Abandoned,
    Cancelled,
    Dead,
    Done,
    Expired,
    Failed,
    Interrupted,
    Lost,
    Policy,
    Raised,
    Release,
    RetryIn,
    Returned,
    Snoozed,
    TimedOut,
    Unrunnable,
    afresh,
    decide,
    most_shared,
    runs_alone,
)
from chicory.retry import RetryPolicy
from chicory.types import DeliveryMode, Failure, TaskMessage, TaskState, Undecodable
from tests.unit.messages import failures, messages, policies, simple, texts, undecodables, values

NOW = 1_750_000_000.0
ONCE = DeliveryMode.AT_MOST_ONCE
OOPS = Failure("ValueError", "oops")

delays = st.floats(0, 1e6)
endings = (
    st.builds(Returned, values)
    | st.builds(Raised, failures, st.booleans())
    | st.builds(TimedOut, delays)
    | st.builds(Abandoned, delays, delays)
    | st.builds(Snoozed, delays)
    | st.builds(Interrupted, texts)
    | st.builds(Lost, texts)
    | st.builds(Expired, texts)
    | st.builds(Cancelled, texts)
    | st.builds(Unrunnable, failures)
)
rules = st.builds(
    Policy,
    retry=policies(),
    delivery_mode=st.sampled_from(DeliveryMode),
    max_deliveries=st.integers(1, 5),
    dead_letters=st.booleans(),
)
counts = st.integers(1, 10)
times = st.floats(0, 4e9)
draws = st.floats(0, 1, exclude_max=True)
anything = given(messages() | undecodables, rules, endings, counts, times, draws)


@anything
def test_everything_has_an_outcome(message, policy, ending, count, now, draw):
    outcome = decide(message, policy, ending, count=count, now=now, draw=draw)

    assert isinstance(outcome, Done | Failed | Dead | RetryIn | Release)


@anything
def test_only_what_returned_is_done(message, policy, ending, count, now, draw):
    outcome = decide(message, policy, ending, count=count, now=now, draw=draw)

    assert isinstance(outcome, Done) == isinstance(ending, Returned)


@anything
def test_m11_what_ran_at_most_once_never_runs_again(message, policy, ending, count, now, draw):
    outcome = decide(message, policy, ending, count=count, now=now, draw=draw)

    # Lost is the exception: what was acknowledged cannot be lost, so a lost delivery never began.
    if policy.delivery_mode is ONCE and not isinstance(ending, Lost):
        assert not isinstance(outcome, RetryIn | Release)


@anything
def test_a_retry_is_never_due_in_the_past(message, policy, ending, count, now, draw):
    outcome = decide(message, policy, ending, count=count, now=now, draw=draw)

    assert not isinstance(outcome, RetryIn) or outcome.delay >= 0


@anything
def test_a_retry_is_the_same_task_one_try_on_and_within_the_policy(message, policy, ending, count, now, draw):
    outcome = decide(message, policy, ending, count=count, now=now, draw=draw)

    if isinstance(outcome, RetryIn):
        again = outcome.message
        assert (again.id, again.name, again.args, again.kwargs) == (
            message.id,
            message.name,
            message.args,
            message.kwargs,
        )
        if outcome.failure is not None:
            assert again.retries == message.retries + 1 <= policy.retry.max_retries
            assert outcome.delay <= policy.retry.max_delay
            # The delay is what counts now; the time it was first meant for is over.
            assert again.eta is None


@anything
def test_no_retry_begins_after_the_time_budget(message, policy, ending, count, now, draw):
    outcome = decide(message, policy, ending, count=count, now=now, draw=draw)

    budget = policy.retry.time_budget
    if isinstance(outcome, RetryIn) and outcome.failure is not None and budget is not None:
        assert outcome.message.first_try is None or now + outcome.delay <= outcome.message.first_try + budget


@anything
def test_without_dead_letters_only_what_nobody_can_run_is_kept(message, policy, ending, count, now, draw):
    outcome = decide(message, policy, ending, count=count, now=now, draw=draw)

    if isinstance(outcome, Dead) and not policy.dead_letters:
        assert isinstance(ending, Unrunnable | Lost)


@given(st.integers(1, 10))
def test_m6_only_a_death_alone_brings_a_message_to_its_end(limit):
    charged = range(1, (most_shared(limit) or 99) + 1)

    if limit > 1:
        assert max(charged) <= limit
        assert [count for count in charged if runs_alone(count, limit)] == [limit]
    else:
        # There is no delivery between the first and the one too many.
        assert not any(runs_alone(count, limit) for count in charged)


@given(messages(), rules, texts, draws)
def test_m6_a_message_that_kills_its_workers_is_delivered_max_deliveries_times(message, policy, why, draw):
    counts = range(1, policy.max_deliveries + 1)
    outcomes = [decide(message, policy, Lost(why), count=count, now=NOW, draw=draw) for count in counts]

    assert outcomes[:-1] == [Release(why, charged=True)] * (policy.max_deliveries - 1)
    assert isinstance(outcomes[-1], Dead)
    assert outcomes[-1].failure.type == "WorkerLost"


@given(messages(), rules, texts, counts, draws)
def test_m6_being_interrupted_costs_nothing(message, policy, why, count, draw):
    outcome = decide(message, policy, Interrupted(why), count=count, now=NOW, draw=draw)

    assert policy.delivery_mode is ONCE or outcome == Release(why, charged=False)


@given(messages(), rules, failures, counts, draws)
def test_retries_end(message, policy, failure, count, draw):
    tries = 0
    outcome = decide(message, policy, Raised(failure), count=count, now=NOW, draw=draw)
    while isinstance(outcome, RetryIn):
        tries += 1
        outcome = decide(outcome.message, policy, Raised(failure), count=count, now=NOW, draw=draw)

    possible = max(0, policy.retry.max_retries - message.retries)
    assert tries <= (0 if policy.delivery_mode is ONCE else possible)
    if policy.delivery_mode is not ONCE and (policy.retry.time_budget is None or message.first_try is None):
        assert tries == possible
    assert outcome == (Dead(failure) if policy.dead_letters else Failed(failure))


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        (Returned(5), Done(5)),
        (Raised(OOPS), RetryIn(1.0, simple(retries=1), OOPS)),
        (Raised(OOPS, delay=7.0), RetryIn(7.0, simple(retries=1), OOPS)),
        (Raised(OOPS, final=True), Dead(OOPS)),
        (TimedOut(2.5), RetryIn(1.0, simple(retries=1), Failure("TaskTimeout", "took longer than 2.5 s"))),
        (
            TimedOut(2.5, Failure("ValueError", "no", "File x")),
            RetryIn(
                1.0,
                simple(retries=1),
                Failure("TaskTimeout", "took longer than 2.5 s, and then raised ValueError: no", "File x"),
            ),
        ),
        (
            Abandoned(2.5, 10.0),
            Dead(
                Failure(
                    "TaskTimeout",
                    "took longer than 2.5 s, and had not ended 10 s after; it was abandoned and went on",
                )
            ),
        ),
        (Snoozed(9.0), RetryIn(9.0, simple(), None)),
        (Interrupted("stopping"), Release("stopping")),
        (Lost("killed"), Release("killed", charged=True)),
        (Expired("too late"), Failed(Failure("TaskExpired", "too late"), TaskState.EXPIRED)),
        (Cancelled("on request"), Failed(Failure("TaskCancelled", "on request"), TaskState.CANCELLED)),
        (Unrunnable(OOPS), Dead(OOPS)),
    ],
)
def test_each_ending_of_a_fresh_task(ending, outcome):
    policy = Policy(retry=RetryPolicy(retry_delay=1, jitter=0))

    assert decide(simple(), policy, ending, count=1, now=NOW, draw=0.0) == outcome


@pytest.mark.parametrize(
    ("policy", "again"),
    [
        (RetryPolicy(ignore_on=TaskTimeout), False),
        (RetryPolicy(ignore_on="TimeoutError"), False),
        (RetryPolicy(retry_on=ValueError), False),
        (RetryPolicy(retry_on=(ValueError, TimeoutError)), True),
    ],
)
def test_a_timeout_is_an_exception_to_the_policy(policy, again):
    outcome = decide(simple(), Policy(retry=policy), TimedOut(1), count=1, now=NOW, draw=0.0)

    assert isinstance(outcome, RetryIn) == again


@pytest.mark.parametrize(("now", "again"), [(NOW, True), (NOW + 58, True), (NOW + 59, False)])
def test_a_retry_that_would_begin_after_the_time_budget_is_not_made(now, again):
    policy = Policy(retry=RetryPolicy(retry_delay=2, jitter=0, time_budget=60))

    outcome = decide(simple(first_try=NOW), policy, Raised(OOPS), count=1, now=now, draw=0.0)

    assert outcome == (RetryIn(2, simple(first_try=NOW, retries=1), OOPS) if again else Dead(OOPS))


def test_a_message_that_starts_afresh_has_neither_retries_nor_a_first_try():
    assert afresh(simple(retries=3, first_try=NOW)) == simple()


def test_a_snooze_is_no_retry():
    policy = Policy(retry=RetryPolicy(max_retries=0))

    assert decide(simple(), policy, Snoozed(1), count=1, now=NOW, draw=0.0) == RetryIn(1, simple(), None)


@given(undecodables, rules, endings, counts, times, draws)
def test_bytes_that_are_no_message_are_never_retried(message: Undecodable, policy, ending, count, now, draw):
    assert not isinstance(decide(message, policy, ending, count=count, now=now, draw=draw), RetryIn)


def test_a_lost_message_names_how_often_and_why():
    message: TaskMessage = simple()

    outcome = decide(message, Policy(max_deliveries=3), Lost("out of memory"), count=3, now=NOW, draw=0.0)

    assert outcome == Dead(Failure("WorkerLost", "delivered 3 times, and each time its worker died: out of memory"))
