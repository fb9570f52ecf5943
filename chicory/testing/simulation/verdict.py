"""The verdict over what was sent, what ran and what was done to it.  Pure.

Runs and faults are told by one clock, so that "it was in flight at the fault" is computed and not judged.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations

import attrs

# Seconds from the end of a run until its acknowledgement has surely reached a broker that answers.
SETTLED_WITHIN = 1.0


@attrs.define
class Run:
    """Delivery number *count* of task *id*, as process *pid* ran it.

    unix: its start by the clock that due times are told by.  how: "end", "cut", or "" when its process died or it still
    runs.  settled: when the broker heard of its end, where that is known.
    """

    id: str
    count: int
    pid: int
    start: float
    unix: float
    end: float = math.inf
    how: str = ""
    settled: float | None = None


@attrs.frozen
class Fault:
    """What was done from *at* until *until* to process *pid*, or to all of them when that is None.

    blind: who is met cannot tell that time passes, so for a moment his runs may go on beside those that replace them.
    """

    what: str
    at: float
    until: float
    pid: int | None = None
    blind: bool = False

    def meets(self, run: Run) -> bool:
        """Whether *run* was in flight at the fault: started, and perhaps not yet settled."""
        concerned = self.pid is None or self.pid == run.pid
        over = run.end + SETTLED_WITHIN if run.settled is None else run.settled
        return concerned and run.start <= self.until and over >= self.at


@attrs.frozen
class Verdict:
    """Ids of tasks, by what went wrong with them.

    repeated: ended and run again, by no fault that would explain it.  interrupted: cut or killed by no fault.
    """

    lost: set[str]
    phantom: set[str]
    early: set[str]
    overlapping: set[str]
    repeated: set[str]
    interrupted: set[str]
    unsettled: set[str]
    unknown_results: set[str]

    def clean(self) -> bool:
        """Whether nothing went wrong."""
        return not self.wrongs()

    def wrongs(self) -> list[str]:
        """A line for each thing that went wrong."""
        return [
            f"{task}: {what}" for what, tasks in attrs.asdict(self, recurse=False).items() for task in sorted(tasks)
        ]


def judge(
    runs: Sequence[Run],
    faults: Collection[Fault],
    *,
    sent: Mapping[str, float],
    acked: Collection[str],
    dead: Iterable[str] = (),
    queued: Iterable[str] = (),
    results: Iterable[str] | None = None,
    once: Collection[str] = (),
) -> Verdict:
    """The verdict over *runs*, in the order of their starts.

    sent: by id the unix second at which it is due, or 0.  acked: ids of what the broker surely has.
    dead: ids of dead letters.  queued: of what is still there.  results: of stored successes; None is not known.
    once: ids of what may be lost and may never run twice.
    """
    dead, queued, once = set(dead), set(queued), set(once)
    by_id: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_id[run.id].append(run)
    ended = {run.id for run in runs if run.how == "end"}
    finished = ended | dead

    def unexplained(run: Run, how: str) -> bool:
        return run.how == how and run.end < math.inf and not any(fault.meets(run) for fault in faults)

    def overlap(earlier: Run, later: Run) -> bool:
        if not (earlier.start < later.end and later.start < earlier.end):
            return False
        return not any(fault.blind and (fault.meets(earlier) or fault.meets(later)) for fault in faults)

    return Verdict(
        lost=set(acked) - finished - queued - once,
        phantom=set(by_id) - set(sent),
        # A millisecond for the rounding of the due time on its way.
        early={run.id for run in runs if run.unix < sent.get(run.id, 0.0) - 0.001},
        overlapping={task for task, of in by_id.items() if any(overlap(a, b) for a, b in combinations(of, 2))},
        repeated={
            task for task, of in by_id.items() if any(task in once or unexplained(run, "end") for run in of[:-1])
        },
        interrupted={
            run.id for run in runs if run.id not in dead and (unexplained(run, "cut") or unexplained(run, ""))
        },
        unsettled=finished & queued,
        unknown_results=set() if results is None else (ended & set(acked)) - dead - set(results) - once,
    )
