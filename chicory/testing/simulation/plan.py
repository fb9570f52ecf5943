"""What happens in one simulation: the load and the mishaps, drawn from a seed.  Pure, and data that can be taken from.

The seed of a plan also decides in which order its processes have their turns.
"""

from random import Random

import attrs

# Who publishes, as a process; and every process.
PUBLISHER = -1
ALL = -2

# What hits one command of a process: the first of this name after its time.
COMMANDS = (
    "join",
    "receive",
    "settle",
    "acknowledge",
    "renew",
    "reconcile",
    "isolate",
    "promote",
    "reclaim",
    "store",
    "note",
)
HITS = ("lose the request", "lose the reply", "delay the reply", "send twice", "die before", "die after")
# What happens to a process at an instant.
STRIKES = ("crash", "vanish", "stop", "pause", "cut", "deafen", "skew")
# Of those, what may last for longer than a lease.
LASTING = ("pause", "pause", "cut", "deafen")

# Seconds in which jobs are sent and mishaps happen.
LOAD_LASTS = 10.0
MISHAPS_LAST = 20.0


@attrs.frozen
class Job:
    """One message, and what its runs do.

    at: when it is published.  delay: seconds from then until it is due.  steps: seconds it sleeps for, one after
    another.  failures: how many runs raise before one returns.  once: at most once.
    stubborn: it is not impressed by a cancellation.  poison: it kills its process.
    cancelled: seconds from *at* until it is cancelled; None is never.
    """

    at: float
    delay: float = 0.0
    steps: tuple[float, ...] = ()
    failures: int = 0
    once: bool = False
    stubborn: bool = False
    poison: bool = False
    cancelled: float | None = None


@attrs.frozen
class Mishap:
    """One of STRIKES at an instant, or one of HITS for the first *command* after it.

    process: by its place; workers come first, then schedulers.  ALL: the broker is away.  lasting: seconds until it is
    over; of a skew, seconds that the clock is set forward.
    """

    what: str
    process: int
    at: float
    lasting: float = 0.0
    command: str = ""


@attrs.frozen(kw_only=True)
class Plan:
    """One simulation.

    schedulers: processes of their own; with none each worker has one in it.
    supervised: a supervisor tells schedulers at once who is dead, and who lives.
    joined: results are stored by the broker, with the settling.  Where they are not, it knows an id no longer when its
    task is finished, so nothing happens to the publisher.
    noted: runs that go on are noted in the backend, for which workers have to look twice a second.
    """

    seed: int
    workers: int = 2
    schedulers: int = 1
    concurrency: int = 2
    prefetch: int = 0
    supervised: bool = False
    joined: bool = True
    noted: bool = False
    jobs: tuple[Job, ...] = ()
    mishaps: tuple[Mishap, ...] = ()


def plan(seed: int) -> Plan:
    """The plan of *seed*."""
    dice = Random(seed)
    workers, schedulers = dice.choice((2, 2, 3)), dice.choice((0, 1, 1, 2))
    # Long tasks, and mishaps that last for longer than a lease: what goes wrong then takes time, so they are few.
    siege = dice.random() < 0.15
    joined = dice.random() < 0.8
    places = range(PUBLISHER if joined else 0, workers + schedulers)
    return Plan(
        seed=seed,
        workers=workers,
        schedulers=schedulers,
        concurrency=dice.randint(1, 4),
        prefetch=dice.randint(0, 2),
        supervised=dice.random() < 0.5,
        jobs=tuple(_job(dice, siege=siege) for _ in range(dice.randint(5, 14))),
        mishaps=tuple(_mishap(dice, places, siege=siege) for _ in range(dice.randint(1, 5))),
        joined=joined,
        noted=dice.random() < 0.1,
    )


def _mishap(dice: Random, places: range, *, siege: bool) -> Mishap:
    place, at = dice.choice(places), dice.uniform(0.0, MISHAPS_LAST)
    if not siege and (place == PUBLISHER or dice.random() < 0.5):
        what = dice.choice(HITS[:4] if place == PUBLISHER else HITS)
        lasting = dice.uniform(0.0, 9.0) if what == "delay the reply" else dice.uniform(0.2, 3.0)
        command = "publish" if place == PUBLISHER else dice.choice(COMMANDS)
        return Mishap(what, place, at, lasting, command)
    if siege:
        what = dice.choice(LASTING)
        place = ALL if what == "cut" and dice.random() < 0.3 else dice.randrange(places.stop)
        return Mishap(what, place, at, dice.uniform(15.0, 45.0))
    return Mishap(dice.choice(STRIKES), dice.randrange(places.stop), at, dice.uniform(0.1, 8.0))


def _job(dice: Random, *, siege: bool) -> Job:
    kind = dice.random()
    poison = 0.3 <= kind < 0.32
    steps = [dice.choice((0.0, 0.05, 0.5, 2.0)) * dice.random() for _ in range(dice.randint(0, 4))]
    if siege and not poison:
        steps.append(dice.uniform(5.0, 60.0))
    return Job(
        at=dice.uniform(0.0, LOAD_LASTS),
        delay=dice.uniform(0.1, 15.0) if dice.random() < 0.25 else 0.0,
        steps=tuple(steps),
        failures=dice.randint(1, 2) if dice.random() < 0.15 else 0,
        once=kind < 0.15,
        stubborn=0.15 <= kind < 0.3,
        poison=poison,
        cancelled=dice.uniform(0.0, 15.0) if dice.random() < 0.07 else None,
    )
