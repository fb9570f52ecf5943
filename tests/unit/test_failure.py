"""What is kept of an exception."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.types import ResultRecord, TaskState
from chicory.wire import pack_record, unpack_record
from chicory.worker.failure import MAX_MESSAGE, MAX_TRACEBACK, describe


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_of_an_exception_can_be_stored(text):
    failure = describe(raised(ValueError(text)))

    stored = unpack_record(pack_record(ResultRecord(TaskState.FAILURE, failure=failure)))

    assert stored.failure == failure


def test_a_failure_is_no_larger_than_it_may_be():
    failure = describe(raised(ValueError("x" * 1_000_000)))

    assert len(failure.message) <= MAX_MESSAGE
    assert len(failure.traceback) <= MAX_TRACEBACK + 100


def test_an_exception_whose_text_fails_is_described_all_the_same():
    class Nasty(Exception):
        def __str__(self):
            raise RuntimeError

    failure = describe(raised(Nasty()))

    assert failure.type == "Nasty"
    assert "RuntimeError" in failure.message


@pytest.mark.parametrize("second", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_not_even_an_exit_leaves_the_text_of_an_exception(second):
    class Nasty(Exception):
        def __str__(self):
            raise second

    failure = describe(raised(Nasty()))

    assert failure.type == "Nasty"
    assert second.__name__ in failure.message


def test_the_values_of_variables_stay_out():
    def login():
        password = "hunter" + "2"
        raise ValueError(len(password))

    try:
        login()
    except ValueError as error:
        failure = describe(error)

    assert "in login" in failure.traceback
    assert "hunter2" not in failure.traceback


def test_a_bottomless_recursion_is_described():
    def dive():
        dive()

    try:
        dive()
    except RecursionError as error:
        failure = describe(error)

    assert failure.type == "RecursionError"
    assert len(failure.traceback) <= MAX_TRACEBACK + 100
