"""The fleet as a value: all slots, and what was said to whom.  Pure."""

from collections.abc import Mapping
from enum import StrEnum

import attrs

from chicoryd.events import Action, Log, Notify, Reply, Role
from chicoryd.plan import Plan
from chicoryd.slot import Slot, State

# What is started before what; on the way down each stays for those after it.
_ORDER = (Role.SERVER, Role.SCHEDULER, Role.WORKER)
_LAG = 0.1  # seconds that an event loop may be late without a word about it


@attrs.frozen
class Death:
    """A worker died, and whether the scheduler that is up now was told."""

    consumer: str
    why: str
    at: float
    told: bool = False


class Phase(StrEnum):
    """How far a reload is."""

    READING = "reading"
    CHECKING = "checking"
    ROLLING = "rolling"


@attrs.frozen(kw_only=True)
class Roll:
    """A reload under way: from the present generation to generation *number*, which has *plan*.

    proven: whether a worker of the new generation is ready; until then all others are of the old one.
    tickets: of those who wait to hear how it ended.
    """

    number: int
    plan: Plan
    forks: bool
    tickets: tuple[int, ...] = ()
    phase: Phase = Phase.READING
    proven: bool = False


@attrs.frozen(kw_only=True)
class Fleet:
    """All slots, in the order in which they are started, and what was said to whom.

    generation: that children belong to unless a roll says otherwise; `numbered` is the last one there was.
    forks: whether workers of this generation are forked from its template, which may have turned out to be unfit.
    wishes: tickets of those who want a reload that has not begun; None when nobody does.
    reload_at: before this instant no reload begins.
    incarnations: the last one of each seat, also of seats that are no more: a name must not come back.
    ready: whether the fleet was once complete.  After that no crash ends the daemon.
    outcome: what is to be said of the last reload, empty when it went well.
    crashes: when the last few children died that should not have.
    alive_told: the workers the present scheduler believes to be alive; None when it was told nothing yet.
    drained: what each worker said as it left, once the fleet stops.
    """

    plan: Plan
    slots: tuple[Slot, ...]
    born: float
    forks: bool = False
    generation: int = 1
    numbered: int = 1
    roll: Roll | None = None
    wishes: tuple[int, ...] | None = None
    reload_at: float = float("-inf")
    outcome: str = ""
    incarnations: Mapping[str, int] = attrs.field(factory=dict[str, int])
    quiet: bool = False
    ready: bool = False
    stopping: bool = False
    stopping_since: float = 0.0
    hurried: bool = False
    over: bool = False
    code: int = 0
    deaths: tuple[Death, ...] = ()
    crashes: tuple[float, ...] = ()
    alive_told: tuple[str, ...] | None = None
    drained: tuple[Mapping[str, object], ...] = ()
    status_told: str = ""
    status_at: float = float("-inf")
    watchdog_at: float = float("-inf")
    extend_at: float = 0.0

    def put(self, slot: Slot, name: str = "") -> "Fleet":
        """This fleet with *slot* in the place of the one called *name*, or of its own name."""
        name = name or slot.name
        return attrs.evolve(self, slots=tuple(slot if old.name == name else old for old in self.slots))

    def add(self, *slots: Slot) -> "Fleet":
        """This fleet with *slots* too."""
        return attrs.evolve(self, slots=(*self.slots, *slots))

    def drop(self, name: str) -> "Fleet":
        """This fleet without the slot called *name*."""
        return attrs.evolve(self, slots=tuple(slot for slot in self.slots if slot.name != name))

    def find(self, name: str) -> Slot | None:
        """The slot called *name*."""
        return next((slot for slot in self.slots if slot.name == name), None)

    def of(self, role: Role) -> tuple[Slot, ...]:
        """The slots of *role*."""
        return tuple(slot for slot in self.slots if slot.role is role)

    @property
    def seats(self) -> tuple[Slot, ...]:
        """The slots of workers, without those that come or go."""
        return tuple(slot for slot in self.of(Role.WORKER) if slot.name == slot.seat)

    @property
    def aim(self) -> tuple[int, bool]:
        """Generation and method for a worker that is started now in a seat of its own."""
        if self.roll is not None and self.roll.proven:
            return self.roll.number, self.roll.forks
        return self.generation, self.forks


Step = tuple[Fleet, list[Action]]


def muster(plan: Plan, now: float) -> Fleet:
    """The fleet that *plan* asks for, with nobody in it."""
    server = [Slot(name="server", role=Role.SERVER)] if plan.embedded else []
    template = [Slot(name="template", role=Role.TEMPLATE)] if plan.forks else []
    scheduler = Slot(name="scheduler", role=Role.SCHEDULER)
    workers = [seat(number, 1, 0.0) for number in range(1, plan.workers + 1)]
    slots = (*server, *template, scheduler, *workers)
    return Fleet(plan=plan, forks=plan.forks, born=now, slots=slots)


def seat(number: int, generation: int, now: float) -> Slot:
    """A new seat for a worker."""
    return Slot(name=f"worker-{number}", role=Role.WORKER, generation=generation, due=now)


def summary(fleet: Fleet) -> str:
    """The fleet in a few words: `generation 1, 2/2 workers ready, 5 tasks running, broker ok`."""
    workers = fleet.of(Role.WORKER)
    if fleet.stopping:
        return f"stopping, {sum(slot.up for slot in workers)} workers left"
    ready = [slot for slot in workers if slot.state is State.READY]
    running = [count for slot in ready if isinstance(count := slot.beat.get("running"), int)]
    tasks = f", {sum(running)} tasks running" if running else ""
    lags = [lag for slot in ready if isinstance(lag := slot.beat.get("lag"), int | float)]
    lag = f", lag {max(lags):.1f} s" if lags and max(lags) >= _LAG else ""
    states = [state for slot in workers if slot.up and (state := slot.beat.get("state"))]
    broker = f", broker {'away' if 'away' in states else 'ok'}" if states else ""
    phase = "reloading, " if fleet.roll is not None else "" if fleet.ready else "starting, "
    quiet = ", quiet" if fleet.quiet else ""
    outcome = f"; {fleet.outcome}" if fleet.outcome else ""
    count = f"generation {fleet.generation}, {len(ready)}/{fleet.plan.workers} workers ready"
    return f"{phase}{count}{tasks}{lag}{broker}{quiet}{outcome}"


def wanted(fleet: Fleet, slot: Slot) -> bool:
    """Whether *slot* should have a child."""
    if slot.retired or not fleet.stopping:
        return not slot.retired
    if slot.role not in _ORDER:
        return False
    later = _ORDER[_ORDER.index(slot.role) + 1 :]
    return any(other.up and other.role in later for other in fleet.slots)


def method(fleet: Fleet, slot: Slot) -> tuple[int, bool]:
    """Generation, and whether it is forked, of the child that *slot* would get now."""
    if slot.role is Role.SCHEDULER:
        # From the template it gets the code that its workers have, whatever is on the disk by now.  But it is missed by
        # all of them: once the fleet has worked it waits for no template that died, or left as the fleet stops.
        at_hand = not fleet.ready or template(fleet, fleet.generation) is not None
        return fleet.generation, fleet.forks and not fleet.stopping and at_hand
    if slot.role is Role.WORKER and slot.name == slot.seat:
        return fleet.aim
    if fleet.roll is not None and slot.generation == fleet.roll.number:
        return slot.generation, slot.role is Role.WORKER and fleet.roll.forks
    return slot.generation, slot.role is Role.WORKER and fleet.forks


def template(fleet: Fleet, generation: int) -> Slot | None:
    """The template of *generation*, when it can fork."""
    return next(
        (s for s in fleet.of(Role.TEMPLATE) if s.generation == generation and s.state is State.READY and not s.hung_up),
        None,
    )


def may_start(fleet: Fleet, slot: Slot) -> bool:
    """Nobody who needs the server or a template starts without it, and only a few workers boot at once."""
    if not wanted(fleet, slot):
        return False
    alone = slot.role in (Role.SERVER, Role.TEMPLATE, Role.CHECK)
    if not alone and any(server.state is not State.READY for server in fleet.of(Role.SERVER)):
        return False
    generation, forked = method(fleet, slot)
    if forked and template(fleet, generation) is None:
        return False
    booting = [other for other in fleet.of(Role.WORKER) if other.state in (State.STARTING, State.BOOTING)]
    return slot.role is not Role.WORKER or len(booting) < fleet.plan.parallel


def begin_to_stop(fleet: Fleet, text: str, now: float, code: int = 0) -> Step:
    """The fleet on its way down, where nobody is told so yet; *code* is what the daemon will end with."""
    told: list[Action] = [Log(text, "error" if code else "info"), Notify("STOPPING=1")]
    waiting = (*(fleet.roll.tickets if fleet.roll is not None else ()), *(fleet.wishes or ()))
    told += [Reply(ticket, {"refused": "the daemon is stopping"}) for ticket in waiting]
    return attrs.evolve(
        fleet, stopping=True, stopping_since=now, extend_at=now, code=code, roll=None, wishes=None
    ), told
