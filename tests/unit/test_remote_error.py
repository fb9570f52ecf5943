"""Failures of tasks, raised where their results are awaited."""

import builtins

import pytest

from chicory.errors import RemoteTaskError, ResultError, TaskDeadLettered, remote_error
from chicory.types import Failure
from chicory.worker.failure import describe

OWN = sorted(name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception))
NEVER = {"StopIteration", "StopAsyncIteration", "ExceptionGroup"}


@pytest.mark.parametrize("name", OWN)
def test_pythons_own_exceptions_come_back_as_themselves(name):
    error = remote_error("an-id", Failure(name, "it broke", "Traceback: ..."))

    assert isinstance(error, RemoteTaskError)
    assert isinstance(error, getattr(builtins, name)) != (name in NEVER)
    assert str(error) == ("task an-id failed: " + f"{name}: it broke" if name in NEVER else "it broke")
    assert (error.task_id, error.type_name, error.message, error.traceback) == (
        "an-id",
        name,
        "it broke",
        "Traceback: ...",
    )
    with pytest.raises(ResultError):
        raise error


@pytest.mark.parametrize("name", ["KeyboardInterrupt", "SystemExit", "GeneratorExit", "object", "eval", "NoSuchError"])
def test_no_other_name_means_anything(name):
    assert type(remote_error("an-id", Failure(name, ""))) is RemoteTaskError


def test_another_modules_exception_is_not_taken_for_pythons_own():
    mine = type("ConnectionError", (Exception,), {"__module__": __name__})

    failure = describe(mine("of mine"))

    assert failure.module == __name__
    assert type(remote_error("an-id", failure)) is RemoteTaskError
    assert str(remote_error("an-id", failure)) == "task an-id failed: ConnectionError: of mine"


def test_a_dead_letter_is_told_from_a_failure():
    error = remote_error("an-id", Failure("ValueError", "oops"), dead=True)

    assert isinstance(error, TaskDeadLettered)
    assert isinstance(error, ValueError)


def test_where_it_was_raised_is_told_with_it():
    (note,) = remote_error("an-id", Failure("ValueError", "oops", "Traceback: line 7")).__notes__

    assert "an-id" in note
    assert "line 7" in note
