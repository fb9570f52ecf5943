"""From a plan that fails to a small one that fails too.  Pure, but for whoever says that it fails."""

from collections.abc import Callable, Iterator

import attrs

from chicory.testing.simulation.plan import Job, Plan

# As a rule what is left then is small, and a seed is not worth more minutes.
TRIES: int = 400


def shrink(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """What is left of *plan*, which fails, when as much as possible is taken out of it.

    *fails* is asked TRIES times at most.
    """
    tries = 0
    found = True
    while found:
        found = False
        for smaller in _smaller(plan):
            if tries == TRIES:
                return plan
            tries += 1
            if fails(smaller):
                plan, found = smaller, True
                break
    return plan


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with a little less, those that have much less first."""
    mishaps, jobs = plan.mishaps, plan.jobs
    for size in (len(jobs) // 2, len(jobs) // 4, 1):
        if size:
            for start in range(0, len(jobs), size):
                yield attrs.evolve(plan, jobs=jobs[:start] + jobs[start + size :])
    for number in range(len(mishaps)):
        yield attrs.evolve(plan, mishaps=mishaps[:number] + mishaps[number + 1 :])
    for simpler in ({"supervised": False}, {"joined": True}, {"noted": False}, {"prefetch": 0}, {"concurrency": 1}):
        if (other := attrs.evolve(plan, **simpler)) != plan:
            yield other
    for number, job in enumerate(jobs):
        for simple in _simpler(job):
            yield attrs.evolve(plan, jobs=(*jobs[:number], simple, *jobs[number + 1 :]))
    for number, mishap in enumerate(mishaps):
        rounded = attrs.evolve(mishap, at=round(mishap.at, 1), lasting=round(mishap.lasting, 1))
        if rounded != mishap:
            yield attrs.evolve(plan, mishaps=(*mishaps[:number], rounded, *mishaps[number + 1 :]))


def _simpler(job: Job) -> Iterator[Job]:
    plain = {
        "delay": 0.0,
        "steps": job.steps[-1:],
        "failures": 0,
        "once": False,
        "stubborn": False,
        "poison": False,
        "cancelled": None,
    }
    for name, value in plain.items():
        if getattr(job, name) != value:
            yield attrs.evolve(job, **{name: value})
    rounded = attrs.evolve(
        job, at=round(job.at, 1), delay=round(job.delay, 1), steps=tuple(round(one, 1) for one in job.steps)
    )
    if rounded != job:
        yield rounded
