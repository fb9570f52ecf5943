"""The tasks of this trio run as a tree, with the line that each is waiting at."""

from collections.abc import Iterator
from types import FrameType
from typing import Any

from trio.lowlevel import Task, current_root_task

from chicory.types import TaskMessage
from chicory.worker import runner

# Not imported, for few workers have one.
_ASYNCIO_LOOP = "chicory.links.asyncio_loop"


def task_tree() -> str:
    """One line a task, indented below its parent."""
    root = current_root_task()
    return "" if root is None else "\n".join(_lines(root, 0))


def _lines(task: Task, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{task.name}{_place(task)}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _lines(child, depth + 1)


def _place(task: Task) -> str:
    """The message that is run, and the deepest line outside of trio, where somebody can look for a reason."""
    whose, place = "", ""
    for frame in _frames(task.coro):
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(("trio.", "asyncio.")):
            place = f", {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        if module.startswith("chicory.worker.") and isinstance(message := frame.f_locals.get("message"), TaskMessage):
            whose = f", {message.name} ({message.id})"
    return whose + place


def _frames(waiting: Any) -> Iterator[FrameType]:
    """The frames of a suspended coroutine and of all that it awaits, from the outermost to the innermost."""
    beside: Any = None
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is None:
            return
        yield frame
        module = frame.f_globals.get("__name__")
        if module == _ASYNCIO_LOOP and (call := frame.f_locals.get("call")) is not None:
            # What goes on there begins where this coroutine ends.
            beside = call.coroutine
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
        if waiting is None and module == runner.__name__:
            # A runner drives its run by hand, so there is no await between the two.
            waiting = frame.f_locals.get("run")
        if waiting is None:
            waiting, beside = beside, None
