"""Back-off: never negative, never above the cap, growing, and shortened by chance alone; and what is retried at all."""

import asyncio
import math
import subprocess
import sys

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from chicory.errors import TaskTimeout, UsageError
from chicory.retry import Backoff, RetryPolicy, backoff, retryable
from tests.unit.messages import policies

draws = st.floats(0, 1, exclude_max=True)
attempts = st.integers(1, 100_000)


@given(policies(), attempts, draws)
def test_the_wait_lies_between_nothing_and_the_cap(policy, attempt, draw):
    wait = backoff(policy, attempt, draw)

    assert math.isfinite(wait)
    assert 0 <= wait <= policy.max_delay


@given(policies(), attempts, draws)
def test_jitter_only_ever_shortens_and_by_no_more_than_its_share(policy, attempt, draw):
    longest = backoff(policy, attempt, 0.0)
    wait = backoff(policy, attempt, draw)

    assert longest * (1 - policy.jitter) <= wait <= longest


@given(policies(), attempts, draws)
def test_the_wait_never_shrinks_from_one_attempt_to_the_next(policy, attempt, draw):
    assert backoff(policy, attempt, draw) <= backoff(policy, attempt + 1, draw)


@pytest.mark.parametrize(
    ("growth", "waits"),
    [(Backoff.FIXED, [2, 2, 2, 2, 2]), (Backoff.LINEAR, [2, 4, 6, 8, 10]), (Backoff.EXPONENTIAL, [2, 4, 8, 16, 20])],
)
def test_the_first_wait_is_the_delay_and_the_next_ones_grow_as_they_are_told(growth, waits):
    policy = RetryPolicy(retry_delay=2, backoff=growth, max_delay=20, jitter=0.5)

    assert [backoff(policy, attempt, 0.0) for attempt in (1, 2, 3, 4, 5)] == waits
    assert backoff(policy, 1, 0.5) == 1.5


def test_an_attempt_too_far_to_compute_waits_the_cap():
    assert backoff(RetryPolicy(max_delay=60, jitter=0), 10_000, 0.0) == 60


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"max_retries": -1}, "max_retries must be a whole number from 0, not -1"),
        ({"max_retries": 2.5}, "max_retries must be a whole number from 0, not 2.5"),
        ({"max_retries": True}, "max_retries must be a whole number from 0, not True"),
        ({"retry_delay": -1}, "retry_delay must be a number of seconds from 0, not -1"),
        ({"retry_delay": "soon"}, "retry_delay must be a number of seconds from 0, not 'soon'"),
        ({"max_delay": math.nan}, "max_delay must be a number of seconds from 0, not nan"),
        ({"max_delay": math.inf}, "max_delay must be a number of seconds from 0, not inf"),
        ({"retry_delay": 7200}, "retry_delay=7200 exceeds max_delay=3600; raise max_delay"),
        ({"backoff": "fibonacci"}, "backoff must be one of Backoff.FIXED, Backoff.LINEAR, Backoff.EXPONENTIAL"),
        ({"backoff": 2}, "backoff must be one of"),
        ({"retry_delay": 10**400}, "retry_delay must be a number of seconds from 0, not 1000"),
        ({"time_budget": 10**400}, "time_budget must be a positive number of seconds, not 1000"),
        ({"jitter": 1.5}, "jitter must be a number from 0 to 1, not 1.5"),
        ({"time_budget": 0}, "time_budget must be a positive number of seconds, not 0"),
        ({"retry_on": 5}, "retry_on must be exceptions, or names of them like 'TimeoutError' or 'httpx.ReadTimeout'"),
        ({"retry_on": (ValueError, int)}, "retry_on must be exceptions, or names"),
        ({"ignore_on": ["not a name"]}, "ignore_on must be exceptions, or names"),
        ({"ignore_on": ValueError("an instance")}, "ignore_on must be exceptions, or names"),
        ({"retry_on": ()}, "retry_on names nothing; leave it out to retry after any exception, or set max_retries=0"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_in_one_line(wrong, told):
    with pytest.raises(UsageError) as caught:
        RetryPolicy(**wrong)

    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_written_plainly_is_understood():
    policy = RetryPolicy(backoff="linear", jitter=True, retry_on=OSError, ignore_on="orders.Refused")

    assert policy.backoff is Backoff.LINEAR
    assert policy.jitter == 1.0
    assert (policy.retry_on, policy.ignore_on) == (("builtins.OSError",), ("orders.Refused",))


@given(policies())
def test_a_policy_can_travel(policy):
    assert msgspec.json.decode(msgspec.json.encode(policy), type=RetryPolicy) == policy


class Refused(ValueError):
    pass


def group(*errors):
    return ExceptionGroup("several", errors)


@pytest.mark.parametrize(
    ("policy", "again", "never"),
    [
        (RetryPolicy(), [ValueError(), SystemExit(), group(ValueError(), OSError())], []),
        (
            RetryPolicy(retry_on=OSError),
            [OSError(), ConnectionResetError(), TaskTimeout(), group(OSError(), group(ConnectionError()))],
            [ValueError(), Exception(), group(OSError(), ValueError()), BaseExceptionGroup("", [KeyboardInterrupt()])],
        ),
        (
            RetryPolicy(retry_on="OSError", ignore_on=("FileNotFoundError", f"{__name__}.Refused")),
            [OSError(), PermissionError()],
            [FileNotFoundError(), Refused(), group(OSError(), FileNotFoundError())],
        ),
        (
            RetryPolicy(ignore_on=ValueError),
            [OSError()],
            [Refused(), UnicodeError(), group(OSError(), group(Refused()))],
        ),
        (RetryPolicy(retry_on=ExceptionGroup), [group(ValueError())], [ValueError()]),
        (RetryPolicy(ignore_on=BaseExceptionGroup), [ValueError()], [group(ValueError())]),
        (RetryPolicy(retry_on=(trio.BusyResourceError, "CancelledError")), [asyncio.CancelledError()], [OSError()]),
        # Another one of the same name is meant by its name alone, and not by its full one.
        (RetryPolicy(ignore_on="orders.Refused"), [Refused()], []),
        (RetryPolicy(ignore_on="Refused"), [], [Refused()]),
    ],
)
def test_what_is_retried(policy, again, never):
    assert [error for error in again if not retryable(policy, error)] == []
    assert [error for error in never if retryable(policy, error)] == []


@given(st.lists(st.sampled_from([ValueError, OSError, Refused, TimeoutError]), min_size=1), policies())
def test_a_group_is_retried_when_all_in_it_are(kinds, policy):
    errors = [kind() for kind in kinds]

    assert retryable(policy, group(*errors)) == all(retryable(policy, error) for error in errors)


def trees():
    leaves = st.sampled_from([ValueError, OSError, Refused, TimeoutError]).map(lambda kind: kind())
    return st.recursive(leaves, lambda inside: st.lists(inside, min_size=1, max_size=3).map(lambda made: group(*made)))


@given(trees(), policies())
def test_it_does_not_matter_how_deep_in_groups_something_is(error, policy):
    def named(one, kinds):
        return any(kind.__name__ in kinds for kind in type(one).__mro__)

    def ignored(one):
        return named(one, policy.ignore_on) or any(map(ignored, getattr(one, "exceptions", ())))

    def wanted(one):
        inside = getattr(one, "exceptions", ())
        return policy.retry_on is None or named(one, policy.retry_on) or (bool(inside) and all(map(wanted, inside)))

    assert retryable(policy, error) == (wanted(error) and not ignored(error))


def test_a_class_of_a_script_is_called_as_a_worker_imports_it(tmp_path):
    script = tmp_path / "orders.py"
    script.write_text(
        "from chicory import RetryPolicy\n"
        "class Refused(Exception): pass\n"
        "print(RetryPolicy(ignore_on=Refused).ignore_on)\n"
    )

    said = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)

    assert said.stdout == "('orders.Refused',)\n"
