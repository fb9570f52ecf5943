"""What was sent, what ran and what was done to it, told by one clock, CLOCK_BOOTTIME."""

import bisect
import math
import threading
import time
from collections import defaultdict
from itertools import chain

import attrs

from chicory.testing.simulation.verdict import Fault, Run, judge
from tests.faults.figures import Figures

# An observed death is seen a little after it; a run is only certain to have gone on until this long before.
DEATH_SEEN_WITHIN = 0.25
# What each page of any ledger came to when it was closed last, by the ledger's path and where the page begins.
CLOSED = {}


def boottime():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Ledger:
    """The books of one test."""

    def __init__(self, path):
        self.path = path
        path.touch()
        self.sent = {}  # by id the unix second it is due, or 0
        self.acked = set()
        self.faults = []
        self._begun = 0
        self._deaths = {}
        self._lock = threading.Lock()

    def new_page(self):
        """Forget all but who is dead: the next test begins, with nothing in flight."""
        self.sent, self.acked, self.faults = {}, set(), []
        self._begun = self.path.stat().st_size

    # -- what is noted

    def send(self, task, due=0.0):
        self.sent[task] = due

    def ack(self, ids):
        self.acked.update(ids)

    def fault(self, what, pid=None, *, at=None, lasting=0.0):
        """Note a fault that begins now (or began *at*) and lasts so many seconds (math.inf: until it is over)."""
        at = boottime() if at is None else at
        found = Fault(what, at, at + lasting, pid)
        self.faults.append(found)
        return found

    def over(self, fault):
        """The fault ends now."""
        self.faults[self.faults.index(fault)] = ended = attrs.evolve(fault, until=boottime())
        return ended

    def died(self, pid):
        with self._lock:
            self._deaths[pid] = boottime()

    # -- what is known

    def died_at(self, pid):
        """When *pid* was seen to be dead, or None."""
        with self._lock:
            return self._deaths.get(pid)

    def runs(self):
        """All runs in the order of their starts."""
        with self.path.open("rb") as file:
            file.seek(self._begun)
            # A reader may see the line that is just being written without its end.
            text = file.read().rpartition(b"\n")[0].decode()
        # A message of which there are two may run twice at once, in one process and with one count.
        runs, open_runs = [], defaultdict(list)
        for line in text.splitlines():
            what, task, count, pid, boot, unix = line.split()
            key = task, int(count), int(pid)
            if what != "start" and not open_runs[key] and task not in self.sent:
                continue  # it began on the page of a test that failed
            if what == "start":
                run = Run(task, int(count), int(pid), float(boot), float(unix))
                open_runs[key].append(run)
                runs.append(run)
            else:
                run = open_runs[key].pop(0)
                run.end, run.how = float(boot), what
        killed = {fault.pid: fault.at for fault in self.faults if fault.pid and fault.what == "SIGKILL"}
        with self._lock:
            deaths = dict(self._deaths)
        for run in chain.from_iterable(open_runs.values()):
            if run.pid in killed:
                run.end = max(killed[run.pid], run.start)
            elif run.pid in deaths:
                run.end = max(deaths[run.pid] - DEATH_SEEN_WITHIN, run.start)
        return sorted(runs, key=lambda run: run.start)

    def ended(self):
        return {run.id for run in self.runs() if run.how == "end"}

    def running(self):
        """Runs that are alive now."""
        return [run for run in self.runs() if run.end == math.inf]

    def reruns_after(self, pid, instant, *, highest=math.inf):
        """For each run of *pid* that was alive at *instant*, the seconds until it was run again, or None.

        One that ended all the same, and for good, is left out: the process may have died a little later.
        highest: number of a delivery; with 1 those that were in flight at an earlier death are left out.
        """
        runs = self.runs()
        found = {}
        cuts = [run for run in runs if run.pid == pid and run.start <= instant <= run.end and run.count <= highest]
        for cut in cuts:
            again = [run.start for run in runs if run.id == cut.id and run.start > instant]
            if again or cut.how != "end":
                found[cut.id] = min(again) - instant if again else None
        return found

    def recoveries(self):
        """For each fault, seconds from its end until what it cut runs again, or, where it cut nothing, until something
        ends; those after which nothing does are left out.
        """
        runs = self.runs()
        ends = sorted(run.end for run in runs if run.how == "end")
        found = []
        for fault in self.faults:
            healed = fault.at if fault.until == math.inf else fault.until
            cut = [run for run in runs if run.how != "end" and run.start <= healed and fault.meets(run)]
            again = [
                min(starts)
                for one in cut
                if (starts := [run.start for run in runs if run.id == one.id and run.start > one.start])
            ]
            if not again:
                again = ends[bisect.bisect_right(ends, healed) :][:1]
            if again:
                found.append(max(0.0, max(again) - healed))
        return found

    def close(self, verdict):
        """Keep for the report what the page comes to, of which *verdict* was found."""
        runs = self.runs()
        CLOSED[self.path, self._begun] = Figures(
            tasks=len(self.sent),
            faults=len(self.faults),
            lost=len(verdict.lost),
            again=len(runs) - len({run.id for run in runs}),
            unexplained=len(verdict.repeated | verdict.interrupted),
            overlapping=len(verdict.overlapping),
            early=len(verdict.early),
            phantom=len(verdict.phantom),
            recoveries=tuple(self.recoveries()),
        )

    def judge(self, *, dead=(), queued=(), results=None, once=()):
        """The verdict, given the ids of dead letters, of what is still queued, and of stored successes.

        once: ids of what may be lost and may never run twice.
        """
        return judge(
            self.runs(),
            self.faults,
            sent=self.sent,
            acked=self.acked,
            dead=dead,
            queued=queued,
            results=results,
            once=once,
        )
