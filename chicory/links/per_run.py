"""What belongs to one run and must not be used in another, such as connections."""

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar, cast

import attrs
from trio.lowlevel import current_trio_token

from chicory.links.executor import SYNC, TRIO, Executor, on_this_thread, running
from chicory.links.trio_thread import Closable, attend, serves

T = TypeVar("T", bound=Closable)


@attrs.frozen
class _Kept(Generic[T]):
    thing: T
    executor: Executor
    farewell: object


class PerRun(Generic[T]):
    """One *T* for each run: for trio's latest, for the process's own trio thread, for every asyncio loop, and for every
    sync call at a time.
    """

    def __init__(self, make: Callable[[Executor], T]) -> None:
        self._make = make
        self._trio_run: Any = None
        self._trio: T | None = None
        self._own_run: Any = None
        self._own: T | None = None
        self._others: dict[Any, _Kept[T]] = {}

    def current(self) -> T:
        """That of whoever calls; made when there is none yet.  Raises UsageError where nothing runs."""
        # This much is part of every publish, and each call in it would be felt.
        if on_this_thread.name == TRIO and self._trio_run is current_trio_token():
            return cast("T", self._trio)
        executor = running()
        run = executor.current_run()
        if executor.name == TRIO:
            if serves(run):
                return self._of_the_thread(executor, run)
            if self._trio is not None:
                self._trio.close()
            self._trio, self._trio_run = self._make(executor), run
            return self._trio
        kept = self._others.get(run)
        if kept is None:
            self._sweep()
            kept = _Kept(self._make(executor), executor, executor.attend(partial(self._end, run)))
            self._others[run] = kept
        return kept.thing

    def close(self) -> None:
        """Close that of whoever calls; a sync caller closes those of all sync callers, who must not be at it."""
        executor = running()
        if executor.name == SYNC:
            for kept in self._others.copy().values():
                if kept.executor is executor:
                    kept.thing.close()
            return
        if executor.name == TRIO:
            run = executor.current_run()
            there = self._own if run is self._own_run else None if serves(run) else self._trio
            if there is not None:
                there.close()
        elif (kept := self._others.get(executor.current_run())) is not None:
            kept.thing.close()

    def take(self) -> T | None:
        """That of the present run of trio, where there is one, the caller's own to close; forgotten here."""
        run, found = current_trio_token(), None
        if self._own_run is run:
            found, self._own, self._own_run = self._own, None, None
        elif self._trio_run is run:
            found, self._trio, self._trio_run = self._trio, None, None
        return found

    def _of_the_thread(self, executor: Executor, run: Any) -> T:
        if self._own is None or self._own_run is not run:
            # One that is there is that of the parent of this process, and nothing to say goodbye to.
            self._own, self._own_run = self._make(executor), run
            attend(self._own)
        return self._own

    def _end(self, run: Any) -> None:
        kept = self._others.pop(run, None)
        if kept is not None:
            kept.thing.close()

    def _sweep(self) -> None:
        """Forget what its run did not close, such as the parent's after a fork."""
        # A copy is one step; a walk would meet what other threads add.
        for run, kept in self._others.copy().items():
            if kept.executor.is_over(run):
                self._end(run)
