"""The fleet as a value: all slots, and what was said to whom.  Pure."""

import attrs

from chicoryd.events import Action, Log, Notify, Role
from chicoryd.slot import Slot, State

MEMORY = 60.0  # seconds for which a scheduler that comes back is told again who died: the last one may not have acted


@attrs.frozen(kw_only=True)
class Plan:
    """What the fleet should be.

    identity: `host:boot:supervisor`, the part of a consumer's name that makes it unlike that of any other daemon.
    grace: seconds for running tasks when the fleet stops; `margin` comes on top, to cancel and to give back.
    shutdown_timeout: seconds a worker has to leave in, all told.
    parallel: how many workers may boot at once.
    """

    identity: str
    workers: int = 2
    embedded: bool = True
    grace: float = 30.0
    margin: float = 10.0
    shutdown_timeout: float = 40.0
    boot_timeout: float = 60.0
    parallel: int = 2


@attrs.frozen
class Death:
    """A worker died, and whether the scheduler that is up now was told."""

    consumer: str
    why: str
    at: float
    told: bool = False


@attrs.frozen(kw_only=True)
class Fleet:
    """All slots, in the order in which they are started, and what was said to whom.

    ready: whether the fleet was once complete.  After that no crash ends the daemon.
    alive_told: the workers the present scheduler believes to be alive; None when it was told nothing yet.
    """

    plan: Plan
    slots: tuple[Slot, ...]
    born: float
    ready: bool = False
    stopping: bool = False
    hurried: bool = False
    over: bool = False
    code: int = 0
    deaths: tuple[Death, ...] = ()
    alive_told: tuple[str, ...] | None = None
    status_told: str = ""
    status_at: float = float("-inf")

    def put(self, slot: Slot) -> "Fleet":
        """This fleet with *slot* in the place of the one of its name."""
        return attrs.evolve(self, slots=tuple(slot if old.name == slot.name else old for old in self.slots))

    def of(self, role: Role) -> tuple[Slot, ...]:
        """The slots of *role*."""
        return tuple(slot for slot in self.slots if slot.role is role)

    def consumer(self, slot: Slot) -> str:
        """The name of the child in *slot* among all workers of all hosts, used once and never again."""
        return f"{self.plan.identity}:{slot.name}:{slot.incarnation}"


Step = tuple[Fleet, list[Action]]


def muster(plan: Plan, now: float) -> Fleet:
    """The fleet that *plan* asks for, with nobody in it."""
    server = [Slot(name="server", role=Role.SERVER)] if plan.embedded else []
    scheduler = Slot(name="scheduler", role=Role.SCHEDULER)
    workers = [Slot(name=f"worker-{number}", role=Role.WORKER) for number in range(1, plan.workers + 1)]
    return Fleet(plan=plan, born=now, slots=(*server, scheduler, *workers))


def summary(fleet: Fleet) -> str:
    """The fleet in a few words: `2/2 workers ready, 5 tasks running`."""
    workers = fleet.of(Role.WORKER)
    if fleet.stopping:
        return f"stopping, {sum(slot.up for slot in workers)} workers left"
    ready = [slot for slot in workers if slot.state is State.READY]
    running = [count for slot in ready if isinstance(count := slot.beat.get("running"), int)]
    tasks = f", {sum(running)} tasks running" if running else ""
    return f"{'' if fleet.ready else 'starting, '}{len(ready)}/{len(workers)} workers ready{tasks}"


def wanted(fleet: Fleet, slot: Slot) -> bool:
    """Whether *slot* should have a child.  On the way down each role stays for those that were started after it."""
    order = list(Role)
    return not fleet.stopping or any(
        other.up and order.index(other.role) > order.index(slot.role) for other in fleet.slots
    )


def may_start(fleet: Fleet, slot: Slot) -> bool:
    """Nobody starts without the server, and only a few workers boot at once."""
    if not wanted(fleet, slot):
        return False
    if slot.role is not Role.SERVER and any(server.state is not State.READY for server in fleet.of(Role.SERVER)):
        return False
    booting = [other for other in fleet.of(Role.WORKER) if other.state in (State.STARTING, State.BOOTING)]
    return slot.role is not Role.WORKER or len(booting) < fleet.plan.parallel


def begin_to_stop(fleet: Fleet, text: str, code: int = 0) -> Step:
    """The fleet on its way down, where nobody is told so yet; *code* is what the daemon will end with."""
    told: list[Action] = [Log(text, "error" if code else "info"), Notify("STOPPING=1")]
    return attrs.evolve(fleet, stopping=True, code=code), told
