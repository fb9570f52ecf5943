"""What an exception leaves behind: text, without the values of variables, and not too much of it.

The exception is the task's, and so may be its class: what is asked of it may lie, raise, or never come to an end.  All
but its text is asked of the interpreter's own types instead, and of everything there is so much and no more.
"""

import os
import stat
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, cast, final

import attrs
import outcome
import trio

from chicory import links
from chicory.groups import members
from chicory.naming import class_module, class_name, class_qualname, plain
from chicory.types import Failure

MAX_MESSAGE = 4096
MAX_TRACEBACK = 16 * 1024
MAX_NAME = 200

# Of the exceptions that belong to one: how many are told of at all, how deep inside or before it, and how many of a
# group; of each its last frames and its first notes.  A bottomless recursion is 1000 frames.
_MOST, _DEEPEST, _WIDEST = 50, 10, 15
_FRAMES, _FRAMES_OF_OTHERS = 1000, 20
_NOTES = 10
# Characters of a line of source, and bytes of a file that is looked into for one.
_LINE, _SOURCE = 500, 2**22

# Frames of these at the top of a traceback tell a user nothing about the task.
_OURS = tuple(os.path.dirname(file) + os.sep for file in (__file__, links.__file__, trio.__file__, outcome.__file__))

_base = vars(BaseException)
traceback_of: Callable[[BaseException], TracebackType | None] = _base["__traceback__"].__get__
_cause: Callable[[BaseException], BaseException | None] = _base["__cause__"].__get__
_context: Callable[[BaseException], BaseException | None] = _base["__context__"].__get__
_hides_context: Callable[[BaseException], bool] = _base["__suppress_context__"].__get__
_attributes: Callable[[BaseException], dict[str, Any]] = _base["__dict__"].__get__


def describe(error: BaseException) -> Failure:
    """*error* as a Failure, from the task's first line on."""
    kind = type(error)
    return Failure(
        _clean(class_name(kind), MAX_NAME), text_of(error), _traceback(error), _clean(_module(kind), MAX_NAME)
    )


def text_of(error: object) -> str:
    """What *error* says, as far as it is worth keeping."""
    try:
        text = plain(str(error))
    # Any: it is the task's own code, and a SystemExit that left here would take the worker down.
    except BaseException as second:
        text = f"<its text cannot be made: {class_name(type(second))}>"
    return _clean(text, MAX_MESSAGE)


def _module(kind: type) -> str:
    module = class_module(kind)
    return "" if module == "builtins" else module


def _traceback(error: BaseException) -> str:
    try:
        text = "".join(_Story(error, _Bounds()).format())
    except BaseException as second:  # as above: what finds the source of a frame may be the task's own
        return f"<no traceback: {class_name(type(second))}>"
    if len(text) > MAX_TRACEBACK:
        half = MAX_TRACEBACK // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
    return _clean(text, MAX_TRACEBACK + 100)


@final
@attrs.define
class _Bounds:
    """How much more may be told; *told* are the exceptions that were, and those that one can do without."""

    left: int = _MOST
    told: set[int] = attrs.field(factory=set[int])

    def take(self, error: BaseException, depth: int) -> bool:
        """Whether *error*, so deep inside another one or before it, is to be told of."""
        if depth > _DEEPEST or not self.left or id(error) in self.told:
            return False
        self.left -= 1
        self.told.add(id(error))
        return True


@final
class _Story(traceback.TracebackException):
    """An exception as the library formats it, made of no more than is told of it, and without asking it anything."""

    def __init__(self, error: BaseException, bounds: _Bounds, depth: int = 0) -> None:
        # Variables often hold secrets, so they stay out.
        super().__init__(
            Exception,
            Exception(),
            _beginning(traceback_of(error)),
            limit=-(_FRAMES_OF_OTHERS if depth else _FRAMES),
            lookup_lines=False,
            capture_locals=False,
            compact=True,
            max_group_width=_WIDEST,
            max_group_depth=_DEEPEST + 1,
        )
        self.stack = traceback.StackSummary.from_list([_bounded(frame) for frame in self.stack])
        bounds.told.add(id(error))
        self.__suppress_context__ = _hides_context(error)
        cause, context = _cause(error), None if self.__suppress_context__ else _context(error)
        if cause is not None and bounds.take(cause, depth + 1):
            self.__cause__ = _Story(cause, bounds, depth + 1)
        elif context is not None and bounds.take(context, depth + 1):
            self.__context__ = _Story(context, bounds, depth + 1)
        inside = members(error)
        shown: list[traceback.TracebackException] = [
            _Story(one, bounds, depth + 1) for one in inside[:_WIDEST] if bounds.take(one, depth + 1)
        ]
        self.exceptions = shown or None
        self._last = list(_last_lines(error, len(inside) - len(shown)))

    def format_exception_only(self, **_: Any) -> Generator[str]:
        """See TracebackException."""
        yield from self._last


def _beginning(trace: TracebackType | None) -> TracebackType | None:
    """*trace* from the task's first line on."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


def _last_lines(error: BaseException, hidden: int) -> Iterator[str]:
    kind = type(error)
    module, text = _module(kind), text_of(error)
    name = class_qualname(kind) if module in ("", "__main__") else f"{module}.{class_qualname(kind)}"
    yield f"{name}: {text}\n" if text else f"{name}\n"
    notes = _attributes(error).get("__notes__")
    if type(notes) is list or type(notes) is tuple:
        for note in cast("Sequence[object]", notes)[:_NOTES]:
            yield f"{text_of(note)}\n"
    if hidden:
        yield f"[{hidden} exceptions in it left out]\n"


def _bounded(frame: traceback.FrameSummary) -> traceback.FrameSummary:
    """*frame* with its line of source, unless that is too much of a line, or would have to be found in too much."""
    if not _readable(frame.filename):
        return traceback.FrameSummary(frame.filename, frame.lineno, frame.name, lookup_line=False, line="")
    line = frame.line or ""
    told = _clean(line, _LINE)
    if told == line:
        return frame
    return traceback.FrameSummary(frame.filename, frame.lineno, frame.name, lookup_line=False, line=told)


@lru_cache(256)
def _readable(filename: str) -> bool:
    """Whether the library may look for a line of source there, which it does by reading all of it."""
    try:
        found = os.stat(filename)
    # What is no file the library finds in memory, or not at all.
    except (OSError, ValueError):
        return True
    return stat.S_ISREG(found.st_mode) and found.st_size <= _SOURCE


def _clean(text: str, limit: int) -> str:
    """*text* as something UTF-8 can hold: a lone surrogate must not make a failure unstorable."""
    told = text[: limit + 1].encode("utf-8", "backslashreplace").decode()
    return told if len(told) <= limit else f"{told[: limit - 3]}..."
