"""What is kept of an exception."""

import linecache
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.retry import RetryPolicy
from chicory.types import ResultRecord, TaskState
from chicory.wire import pack_record, unpack_record
from chicory.worker.ending import ending_of
from chicory.worker.failure import MAX_MESSAGE, MAX_NAME, MAX_TRACEBACK, describe

# It is asked of each exception whether it is one of these, or has one in it.
PICKY = RetryPolicy(retry_on=("ValueError", "odd.Kind"), ignore_on=(LookupError,))


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


def says(**attributes):
    """An exception of a class with these attributes, raised."""
    return raised(type("Odd", (Exception,), attributes)())


def fails(how):
    def answer(*_):
        raise how

    return property(answer)


class Text(str):
    """A text that is none."""

    def __len__(self):
        raise SystemExit

    __getitem__ = encode = __str__ = __format__ = __len__


class Shy(type):
    """A class that does not say its name."""

    def __getattribute__(cls, name):
        raise SystemExit(name)


class Renamed(type):
    __name__ = __module__ = __mro__ = property(lambda cls: 17)


def nested(depth, *beside):
    error = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("outer", [error, *beside])
    return raised(error)


def doubled(depth):
    """A group of two of one group, and so on: few objects, and no end of ways through them."""
    error = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("outer", [error, error])
    return raised(error)


def chained(length, attribute):
    error = ValueError("first")
    for number in range(length):
        following = ValueError(number)
        setattr(following, attribute, error)
        error = following
    return raised(error)


def circle():
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one
    return one


def noted(notes):
    error = ValueError("noted")
    error.__notes__ = notes
    return raised(error)


def in_source(file, text=None, line=1):
    """An exception of code that says it is from *line* of *file*, of which *text* is known."""
    if text is not None:
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    try:
        exec(compile("\n" * (line - 1) + "raise ValueError('placed')", file, "exec"))
    except ValueError as error:
        return error


ODD = {
    "lies about its class": lambda: says(__class__=property(lambda _: ExceptionGroup)),
    "has no class": lambda: says(__class__=fails(RuntimeError())),
    "exits when asked for its class": lambda: says(__class__=fails(SystemExit())),
    "has no attributes": lambda: says(__getattribute__=lambda _, name: sys.exit(name)),
    "has no traceback": lambda: says(__traceback__=fails(RuntimeError())),
    "has a traceback that is none": lambda: says(__traceback__="none"),
    "has no arguments": lambda: says(args=fails(RuntimeError())),
    "has no cause": lambda: says(__cause__=fails(SystemExit())),
    "has ever another cause": lambda: says(__cause__=property(lambda error: type(error)())),
    "has no repr": lambda: says(__repr__=fails(SystemExit())),
    "has a text that is none": lambda: says(__str__=lambda _: Text("text " * 10_000)),
    "has a number for a text": lambda: says(__str__=lambda _: 5),
    "has an endless text": lambda: says(__str__=lambda _: "x" * (50 * 2**20)),
    "has a text of surrogates": lambda: says(__str__=lambda _: "\udc80\0" * 10_000),
    "has a number for a module": lambda: says(__module__=7),
    "has a module that is no text": lambda: says(__module__=Text("odd")),
    "has a long name": lambda: raised(type("Odd" * 10_000, (Exception,), {"__module__": "odd" * 10_000})()),
    "has a shy class": lambda: raised(Shy("Odd", (Exception,), {})()),
    "has a renamed class": lambda: raised(Renamed("Odd", (Exception,), {})()),
    "is no group although it has members": lambda: says(exceptions=(ValueError(),)),
    "is a group that hides its members": lambda: raised(
        type("Odd", (ExceptionGroup,), {"exceptions": fails(SystemExit())})("hidden", [ValueError()])
    ),
    "is a deep group": lambda: nested(1000),
    "is a deep group of many": lambda: nested(1000, KeyError("beside")),
    "is a group of 10,000": lambda: raised(ExceptionGroup("many", [ValueError(number) for number in range(10_000)])),
    "is a group of groups of the same": lambda: doubled(100),
    "has a long row of causes": lambda: chained(10_000, "__cause__"),
    "has a long row of contexts": lambda: chained(10_000, "__context__"),
    "is its own context's context": circle,
    "has a number for notes": lambda: noted(5),
    "has a text for notes": lambda: noted("note" * 100_000),
    "has many notes": lambda: noted(["note"] * 100_000),
    "has notes that are none": lambda: noted([5, Text("text"), says(__str__=fails(SystemExit()))]),
    "has an endless line of source": lambda: in_source("/no/such/line", "x" * 2**22),
    "has a source of surrogates": lambda: in_source("/no/such/\udc80", "\udc80\0\x1b\n"),
    "is far down in its source": lambda: in_source("/no/such/lines", "x\n" * 100_000, 100_000),
    "has a source that never ends": lambda: in_source("/dev/zero"),
    "has a source that nobody could name": lambda: in_source("a\0b" if sys.version_info < (3, 12) else "ab"),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_whatever_a_task_raises_is_a_failure_of_bounded_size_after_bounded_work(odd):
    error = odd()
    calls = 0

    def count(_, event, __):
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        ending = ending_of(PICKY, error)
    finally:
        sys.setprofile(before)

    failure = ending.failure
    assert calls < 150_000
    assert failure.type.startswith(("Odd", "ValueError", "ExceptionGroup"))
    assert len(failure.type) <= MAX_NAME
    assert len(failure.module) <= MAX_NAME
    assert len(failure.message) <= MAX_MESSAGE
    assert failure.type in failure.traceback or len(failure.traceback) > MAX_TRACEBACK
    assert len(failure.traceback) <= MAX_TRACEBACK + 100
    assert unpack_record(pack_record(ResultRecord(TaskState.FAILURE, failure=failure))).failure == failure


def test_a_group_and_what_came_before_are_told_of_as_python_does():
    try:
        try:
            raise OSError("at first")
        except OSError as error:
            failed = ExceptionGroup("several", [raised(ValueError(1)), raised(KeyError(2))])
            failed.add_note("a note")
            raise failed from error
    except ExceptionGroup as error:
        told = describe(error).traceback

    for line in (
        *("OSError: at first", "The above exception was the direct cause of the following exception:"),
        *("ExceptionGroup: several (2 sub-exceptions)", "a note", "ValueError: 1", "KeyError: 2"),
    ):
        assert line in told
    assert "raise error" in told


def test_what_is_left_out_of_a_group_is_counted():
    many = ExceptionGroup("many", [ValueError(number) for number in range(10_000)])

    told = describe(raised(many)).traceback

    assert "ValueError: 14" in told
    assert "ValueError: 15" not in told
    assert "[9985 exceptions in it left out]" in told
