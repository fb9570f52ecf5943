"""What is told of runs that go on: that they have started, and how far they say they are.

It is written in batches, twice a second, of those runs alone that are older than that: a short task costs no write.
"""

import logging

import trio

from chicory.backends.base import Notable, StoredRecord
from chicory.brokers.base import Consumer
from chicory.errors import BrokerError
from chicory.types import Progress, ResultRecord, TaskState
from chicory.wire import pack_record
from chicory.worker.runner import Ongoing

log = logging.getLogger("chicory.worker")

# Seconds from one look at what runs to the next, and the age at which a run is noted.
TICK = 0.5


class Notes:
    """Of the runs of one lease.  backend: None where nobody can be told."""

    def __init__(self, consumer: Consumer, backend: Notable | None, ongoing: dict[object, Ongoing]) -> None:
        self._consumer = consumer
        self._backend = backend
        self._ongoing = ongoing
        # By task, what it said last; written from threads too, so each use of it is one step.
        self._said: dict[str, Progress] = {}
        # By receipt, what has been noted of a run.
        self._noted: dict[object, Progress | None] = {}
        self._failing = False

    def progress(self, task_id: str, progress: Progress) -> None:
        """The task says that it is so far; any thread may call."""
        self._said[task_id] = progress

    def last_said(self, task_id: str) -> Progress | None:
        """How far the task, whose run has ended, said that it was."""
        return self._said.pop(task_id, None) if self._said else None

    async def run(self) -> None:
        """Note what goes on, until cancelled."""
        while self._backend is not None:
            await trio.sleep(TICK)
            if self._ongoing or self._noted:
                await self._look(self._backend)

    async def _look(self, backend: Notable) -> None:
        now = self._consumer.now()
        news: dict[object, Progress | None] = {}
        records: list[StoredRecord] = []
        for receipt, run in self._ongoing.items():
            message = run.message
            if message.ignore_result:
                continue
            said = self._said.get(message.id)
            known = receipt in self._noted
            if (said is None and (known or now - run.started_at < TICK)) or (known and self._noted[receipt] == said):
                continue
            started = ResultRecord(
                TaskState.STARTED,
                retries=message.retries,
                started_at=run.started_at,
                worker=self._consumer.name,
                progress=said,
            )
            records.append(StoredRecord(message.id, pack_record(started)))
            news[receipt] = said
        self._forget()
        if not records:
            return
        try:
            await backend.note(records)
        except BrokerError as error:
            # Noted with the next look instead; the work itself goes on.
            if not self._failing:
                log.warning("cannot note which tasks run, trying on: %s", error)
            self._failing = True
            return
        self._failing = False
        self._noted |= news

    def _forget(self) -> None:
        """Of runs that have ended, and of what somebody said after the end of his run."""
        self._noted = {receipt: said for receipt, said in self._noted.items() if receipt in self._ongoing}
        if self._said:
            running = {run.message.id for run in self._ongoing.values()}
            for task_id in list(self._said):
                if task_id not in running:
                    self._said.pop(task_id, None)
