"""The books of one simulation: what was sent, what ran, what was done to whom, and what is wrong with that.

Each attempt of a task is a thing of its own here, `id#retries`: the broker has it from when the last one was settled.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, assert_never, final

from chicory.brokers.base import Settlement
from chicory.outcome import Dead, Done, Failed, Release, RetryIn
from chicory.testing.simulation.verdict import Fault, Run, judge
from chicory.types import Failure, ResultRecord, TaskMessage, TaskState

# What may cost a worker its lease, or a run its worker.
HARM = ("crash", "vanish", "die before", "die after", "poison", "leave", "stop", "pause", "cut", "deafen")


_CANCELLED = Failed(Failure("TaskCancelled", "somebody cancelled it"), TaskState.CANCELLED)


@final
class Books:
    """Every method is told the virtual unix time *now*."""

    def __init__(self, concurrency: int) -> None:
        self.runs: list[Run] = []
        self.faults: list[Fault] = []
        self.wrongs: list[str] = []
        self._concurrency = concurrency
        self._sent: dict[str, float] = {}
        self._acked: set[str] = set()
        self._once: set[str] = set()
        self._dead: dict[str, str] = {}
        self._finals: defaultdict[str, list[Done | Failed | Dead]] = defaultdict(list)
        self._alive: Counter[int] = Counter()
        self._cancelled: set[str] = set()

    def send(self, message: TaskMessage, due: float, *, once: bool) -> None:
        """*message* is about to be published, to be due then."""
        self._sent[attempt(message)] = due
        if once:
            self._once.add(attempt(message))

    def ack(self, message: TaskMessage) -> None:
        """The broker surely has it."""
        self._acked.add(attempt(message))

    def cancel(self, task: str) -> None:
        """The broker has taken note that it is cancelled, or was finished before."""
        self._cancelled.add(task)

    def begin(self, message: TaskMessage, count: int, pid: int, now: float) -> Run:
        """A run starts."""
        run = Run(attempt(message), count, pid, now, now, settled=math.inf)
        self.runs.append(run)
        if message.id in self._cancelled:
            self.wrongs.append(f"{run.id}: started although it is cancelled")
        self._alive[pid] += 1
        if self._alive[pid] > self._concurrency:
            self.wrongs.append(f"{run.id}: process {pid} runs {self._alive[pid]} tasks at once")
        return run

    def end(self, run: Run, how: str, now: float) -> None:
        """A run ends by itself; one whose process was killed has ended already."""
        if run.how or run.end <= now:
            return
        run.end, run.how = now, how
        self._alive[run.pid] -= 1

    def killed(self, pid: int, now: float) -> None:
        """Whatever it runs ends now."""
        for run in self.runs:
            if run.pid == pid and not run.how and run.end > now:
                run.end = now
        self._alive[pid] = 0

    def fault(self, what: str, at: float, until: float, pid: int | None, *, blind: bool = False) -> None:
        """Something is done to *pid*, or to all."""
        self.faults.append(Fault(what, at, until, pid, blind))

    def harmed(self, pid: int, now: float, *, alone: bool) -> bool:
        """Whether anything was done to *pid* until now that may cost it its lease; *alone*: and not to all."""
        return any(
            fault.what in HARM and fault.at <= now and fault.pid in ((pid,) if alone else (pid, None))
            for fault in self.faults
        )

    def settled(self, settlement: Settlement, now: float, *, cancelled: bool) -> None:
        """The broker has carried *settlement* out; *cancelled*: and this was the end of a cancelled task."""
        message, outcome = settlement.delivery.message, settlement.outcome
        if cancelled and not isinstance(outcome, Release):
            outcome = _CANCELLED
        assert isinstance(message, TaskMessage)
        for run in self.runs:
            if run.id == attempt(message) and run.count == settlement.delivery.count:
                run.settled = now
        match outcome:
            case RetryIn(delay, again, _):
                self._sent[attempt(again)] = now + delay
                self._acked.add(attempt(again))
            case Release():
                pass
            case Done() | Failed() | Dead():
                self._finals[message.id].append(outcome)
                if not isinstance(outcome, Done):
                    self._dead[attempt(message)] = str(outcome.failure)
            case _:
                assert_never(outcome)

    @property
    def busy(self) -> bool:
        """Whether anything runs."""
        return any(self._alive.values())

    def unheard(self) -> int:
        """How many tasks are over without a word: at most once, and their worker died."""
        return sum(1 for one in self._once if one in self._acked and not self._finals[task_of(one)])

    def _ended(self, task: str, value: object) -> bool:
        """Whether a run of the task has returned *value*: each returns its number."""
        return isinstance(value, int) and any(
            number == value and run.how == "end" and task_of(run.id) == task for number, run in enumerate(self.runs, 1)
        )

    def _excused(self, one: str) -> bool:
        """Whether the worker of its last run, in which it is alone, died of something else than a task."""
        last = [run for run in self.runs if run.id == one][-1]
        return any(fault.what in HARM and fault.what != "poison" and fault.meets(last) for fault in self.faults)

    def judge(self, results: Mapping[str, ResultRecord], poison: Collection[str], *, fenced: bool) -> None:
        """Find what is wrong, when all is done.  fenced: of several ends of a task, only what was settled is stored."""
        harms = sum(fault.what in HARM for fault in self.faults)
        succeeded = {
            one
            for one in self._sent
            if (record := results.get(task_of(one))) is not None and record.state is TaskState.SUCCESS
        }
        verdict = judge(
            self.runs,
            self.faults,
            sent=self._sent,
            acked=self._acked,
            dead=self._dead,
            results=[*succeeded, *(one for one in self._sent if _retried(one, self._sent))],
            once=self._once,
        )
        self.wrongs += verdict.wrongs()
        ran = {run.id for run in self.runs}
        if not harms:
            self.wrongs += [f"{one}: lost for no reason" for one in sorted(self._acked - ran - set(self._dead))]
        for one, why in self._dead.items():
            if "WorkerLost" in why and task_of(one) not in poison and not self._excused(one):
                self.wrongs.append(f"{one}: buried for what others did ({why})")
        for task, finals in self._finals.items():
            if len(finals) > 1:
                self.wrongs.append(f"{task}: finished {len(finals)} times")
            found = results.get(task)
            if fenced or found is None or not self._ended(task, found.value):
                self.wrongs += _false_results(task, finals[-1], found)


def attempt(message: TaskMessage) -> str:
    """What one attempt of a task is called in the books."""
    return f"{message.id}#{message.retries}"


def task_of(one: str) -> str:
    """The id of the task that *one* is an attempt of."""
    return one.partition("#")[0]


def _retried(one: str, sent: Collection[str]) -> bool:
    task, _, retries = one.partition("#")
    return f"{task}#{int(retries) + 1}" in sent


def _false_results(task: str, final: Done | Failed | Dead, record: ResultRecord | None) -> Sequence[str]:
    expected: tuple[TaskState, Any]
    match final:
        case Done(value):
            expected = TaskState.SUCCESS, value
        case Failed(_, state):
            expected = state, None
        case Dead():
            expected = TaskState.DEAD_LETTERED, None
    found = None if record is None else (record.state, record.value)
    return [] if found == expected else [f"{task}: its result is {found} and not {expected}"]
