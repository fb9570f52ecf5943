"""Which unique keys are held, by which task, and until when.  Pure."""

import attrs

# How many holds there may be before those that are over are looked for.
_FEW = 1024


@attrs.define
class Hold:
    """The task that holds a key, and the end of its window; *done*: only the window keeps it."""

    task_id: str
    ends: float
    done: bool = False


class Uniques:
    """The unique keys of all queues."""

    def __init__(self) -> None:
        self._holds: dict[tuple[str, str], Hold] = {}
        self._enough = _FEW

    def holder(self, queue: str, key: str, now: float) -> str | None:
        """The id of the task that holds *key*; None when it is free."""
        hold = self._holds.get((queue, key))
        if hold is None or (hold.done and hold.ends <= now):
            return None
        return hold.task_id

    def hold(self, queue: str, key: str, task_id: str, now: float, window: float = 0.0) -> None:
        """Let the task hold *key*, which is free, until it is finished, and for as long as *window* lasts."""
        self._holds[queue, key] = Hold(task_id, now + window)
        if len(self._holds) > self._enough:
            self._holds = {key: hold for key, hold in self._holds.items() if not hold.done or hold.ends > now}
            self._enough = max(_FEW, 2 * len(self._holds))

    def release(self, queue: str, key: str, task_id: str, *, failed: bool) -> None:
        """The task is finished; its window counts no more when it has *failed*."""
        hold = self._holds.get((queue, key))
        if hold is None or hold.task_id != task_id:
            return
        hold.done = True
        if failed:
            del self._holds[queue, key]
