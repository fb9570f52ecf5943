"""What an exception leaves behind: text, without the values of variables, and not too much of it."""

import os
import traceback
from types import TracebackType

import outcome
import trio

from chicory import links
from chicory.types import Failure

MAX_MESSAGE = 4096
MAX_TRACEBACK = 16 * 1024


# Frames of these at the top of a traceback tell a user nothing about the task.
_OURS = tuple(os.path.dirname(file) + os.sep for file in (__file__, links.__file__, trio.__file__, outcome.__file__))


def describe(error: BaseException) -> Failure:
    """*error* as a Failure, from the task's first line on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else _clean(str(kind.__module__), 200)
    return Failure(_clean(kind.__name__, 200), _clean(_message(error), MAX_MESSAGE), _traceback(error, trace), module)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    # Any: it is the task's own code, and a SystemExit that left here would take the worker down.
    except BaseException as second:
        return f"<its text cannot be made: {type(second).__name__}>"


def _traceback(error: BaseException, trace: TracebackType | None) -> str:
    try:
        # Variables often hold secrets, so they stay out.
        told = traceback.TracebackException(type(error), error, trace, capture_locals=False, compact=True)
        text = "".join(told.format())
    except BaseException as second:  # as above
        return f"<no traceback: {type(second).__name__}>"
    if len(text) > MAX_TRACEBACK:
        half = MAX_TRACEBACK // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
    return _clean(text, MAX_TRACEBACK + 100)


def _clean(text: str, limit: int) -> str:
    """*text* as something UTF-8 can hold: a lone surrogate must not make a failure unstorable."""
    if len(text) > limit:
        text = f"{text[: limit - 3]}..."
    return text.encode("utf-8", "backslashreplace").decode()
