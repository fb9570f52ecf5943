"""What the supervisor decides, against a made-up system: no process, no socket, no clock."""

from itertools import pairwise

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chicoryd.events import (
    Abandon,
    Abort,
    Asked,
    Exited,
    HaveRead,
    HungUp,
    Kill,
    Log,
    Notify,
    Quit,
    Read,
    Reopen,
    Reply,
    Role,
    Said,
    Start,
    Started,
    StartFailed,
    Tell,
    Terminate,
    Tick,
    Woke,
)
from chicoryd.fleet import step, wake
from chicoryd.plan import Plan
from chicoryd.respawn import pause
from chicoryd.roster import muster
from chicoryd.slot import State, cause
from chicoryd.status import health

READY = {"t": "ready"}
TOLERANCE = 1e-9


@attrs.define
class Child:
    """A process of the made-up kernel."""

    pid: int
    role: Role
    consumer: str
    template: int | None = None
    ready: bool = False
    killed: bool = False
    aborted: bool = False
    told: list = attrs.field(factory=list)

    @property
    def leaving(self):
        """Whether it was told to stop."""
        return any(message["t"] == "stop" for message in self.told)


def of_whom(slot):
    """Whose deaths count together.  One step may end a successor of one generation and begin one of another."""
    if slot.role is Role.TEMPLATE:
        return f"template of generation {slot.generation}"
    return slot.name if slot.name == slot.seat else f"{slot.name} of generation {slot.generation}"


class Kernel:
    """Carries actions out, as the loop and the system would, and holds the fleet to its promises while it does."""

    def __init__(self, plan):
        self.now = 100.0
        self.fleet = muster(plan, self.now)
        self.children = {}
        self.next_pid = 1000
        self.forks_fail = False
        self.forks_wait = False  # templates take their time, and are told to go on by answer()
        self.asked_for = {}  # consumer -> Start, of forks that wait
        self.settings = plan  # what the file says
        self.earliest = {}  # slot -> the first instant at which it may start again
        self.deaths = {}  # slot -> in a row
        self.consumers = set()
        self.notes = []
        self.logs = []
        self.replies = {}
        self.quits = []
        self.reads = []
        self.luck = 0.5
        self.post(Tick())

    def post(self, event):
        events = [event]
        while events:
            event = events.pop(0)
            news = event.pid if isinstance(event, Said) else None
            before = len([child for child in self.all_ready() if child.pid != news])
            # Fewer are wanted then, whichever they are.
            scaled = isinstance(event, Asked) and event.what in ("scale", "SIGTTOU")
            rolled = self.fleet.ready and not self.fleet.stopping and not scaled
            self.fleet, actions = step(self.fleet, event, self.now)
            assert not self.quits or not actions, "asked for more after Quit"
            names = [of_whom(slot) for slot in self.fleet.slots]
            self.earliest = {name: instant for name, instant in self.earliest.items() if name in names}
            self.deaths = {name: count for name, count in self.deaths.items() if name in names}
            told = [action for action in actions if isinstance(action, Tell) and action.message["t"] == "stop"]
            events += [answer for action in actions if (answer := self.perform(action)) is not None]
            workers = [self.children[t.pid] for t in told if self.children[t.pid].role is Role.WORKER]
            if rolled and not self.fleet.stopping and [c for c in workers if c.ready]:
                floor = min(self.fleet.plan.workers, before)
                staying = [c for c in self.all_ready() if not c.leaving]
                assert len(staying) >= floor, "too few workers while some are replaced"

    def all_ready(self):
        return [c for c in self.children.values() if c.role is Role.WORKER and c.ready and not c.leaving]

    def perform(self, action):
        match action:
            case Start():
                return self.start(action)
            case Abandon(consumer):
                start = self.asked_for.pop(consumer)
                self.fell(start.consumer, 0.0, 0.5)
                return StartFailed(consumer, "its template does not answer", 0.5)
            case Tell(pid, message):
                assert self.children[pid].role is not Role.CHECK, "it has no lifeline"
                self.children[pid].told.append(dict(message))
            case Terminate(pid):
                assert pid in self.children, "a signal to a reaped process"
            case Abort(pid):
                assert not self.children[pid].aborted, "aborted twice"
                self.children[pid].aborted = True
            case Kill(pid):
                assert not self.children[pid].killed, "killed twice"
                self.children[pid].killed = True
            case Read():
                self.reads.append(self.now)
                return HaveRead(self.settings, "" if self.settings is not None else "supervisor.workers = 0")
            case Notify(text):
                self.notes.append((self.now, text))
            case Reply(ticket, message):
                assert ticket not in self.replies, "answered twice"
                self.replies[ticket] = dict(message)
            case Log(text):
                self.logs.append(text)
            case Reopen():
                self.logs.append("reopened")
            case Quit(code):
                assert not self.children, "quit while children live"
                assert not self.asked_for, "quit while children are being born"
                self.quits.append(code)
        return None

    def start(self, action):
        slot = next(s for s in self.fleet.slots if s.consumer == action.consumer and s.state is State.STARTING)
        seat, role = slot.seat, action.role
        assert action.consumer not in self.consumers, "a consumer's name used twice"
        beside = [c for c in self.children.values() if c.role is Role.WORKER and self.slot(c).seat == seat]
        assert slot.name.endswith(".new") or all(self.slot(c).name != slot.name for c in beside), "two in one slot"
        assert len(beside) <= 2, "a crowd on one seat"
        assert self.now >= self.earliest.get(of_whom(slot), 0) - TOLERANCE, "started before its back-off was over"
        servers = [child for child in self.children.values() if child.role is Role.SERVER]
        if role in (Role.SCHEDULER, Role.WORKER) and self.fleet.plan.embedded:
            assert servers, "started without the server"
            assert servers[0].ready, "started before the server was ready"
        if role is Role.WORKER:
            booting = [c for c in self.children.values() if c.role is Role.WORKER and not c.ready and not c.killed]
            booting = [c for c in booting if not c.leaving]
            booting += [start for start in self.asked_for.values() if start.role is Role.WORKER]
            assert len(booting) < self.fleet.plan.parallel
        if action.template is not None:
            template = self.children[action.template]
            assert template.role is Role.TEMPLATE, "forked from something else"
            assert template.ready, "forked before the template was ready"
            assert not template.leaving, "forked from a template that leaves"
            assert self.slot(template).generation == slot.generation, "forked from another generation"
        self.consumers.add(action.consumer)
        if self.forks_fail:
            self.fell(action.consumer, 0.0, 0.5)
            return StartFailed(action.consumer, "out of processes", 0.5)
        self.asked_for[action.consumer] = action
        return None if self.forks_wait and action.template is not None else self.born(action.consumer)

    def born(self, consumer):
        action = self.asked_for.pop(consumer)
        self.next_pid += 1
        self.children[self.next_pid] = Child(self.next_pid, action.role, consumer, action.template)
        return Started(consumer, self.next_pid, self.luck)

    def slot(self, child):
        return next(slot for slot in self.fleet.slots if slot.consumer == child.consumer)

    def fell(self, consumer, lived, draw):
        slot = next(slot for slot in self.fleet.slots if slot.consumer == consumer)
        name = of_whom(slot)
        if slot.retired:
            return
        self.deaths[name] = 1 if lived >= 60 else self.deaths.get(name, 0) + 1
        self.earliest[name] = self.now + pause(self.deaths[name], draw)

    def say_ready(self, pid):
        slot = self.slot(self.children[pid])
        if slot.name != slot.seat and not slot.retired:  # who takes over a seat starts with a clean sheet
            self.earliest.pop(slot.seat, None)
            self.deaths.pop(slot.seat, None)
        self.children[pid].ready = self.now
        self.post(Said(pid, READY))

    def exit(self, pid, code, draw=0.5, *, starved=False):
        """The child ends, and with a template all that it was asked for and did not fork."""
        child = self.children[pid]
        code = -9 if child.killed else -6 if child.aborted else code
        slot = self.slot(child)
        if slot.retired:  # whoever comes to its seat next has no past
            self.deaths.pop(of_whom(slot), None)
            self.earliest.pop(of_whom(slot), None)
        elif not (child.leaving and code in (0, -15)):
            self.fell(child.consumer, self.now - child.ready if child.ready else 0.0, draw)
        del self.children[pid]
        self.post(Exited(pid, code, draw, starved))
        for start in [start for start in self.asked_for.values() if start.template == pid]:
            if start.consumer in self.asked_for:
                del self.asked_for[start.consumer]
                self.post(StartFailed(start.consumer, "its template did not fork it", draw))

    def pass_time(self, seconds):
        self.now += seconds
        self.post(Tick())

    def sleep(self):
        """Until the fleet wants to be woken; False when it does not."""
        instant = wake(self.fleet)
        if instant is None:
            return False
        self.now = max(self.now, instant)
        self.post(Tick())
        return True

    def names(self):
        return sorted(self.slot(child).name for child in self.children.values())

    def sleep_until(self, slot):
        """Until there is a child in *slot*."""
        while slot not in self.names():
            assert self.sleep(), "nobody will start it"

    def all(self, role=None):
        return [child for child in self.children.values() if role in (None, child.role)]

    def one(self, slot):
        return next(child for child in self.children.values() if self.slot(child).name == slot)

    def boot(self):
        """Everybody comes up."""
        while waiting := [c.pid for c in self.children.values() if not c.ready and c.role is not Role.CHECK]:
            self.say_ready(waiting[0])
        assert self.fleet.ready

    def settle(self):
        """Everybody does what he should, until nothing moves any more."""
        for _ in range(300):
            child = next((c for c in self.all() if c.leaving or c.killed or c.aborted or not c.ready), None)
            if self.asked_for:
                self.post(self.born(next(iter(self.asked_for))))
            elif child is None:
                waits = [s.due for s in self.fleet.slots if not s.up and s.due is not None and not self.fleet.stopping]
                if not waits:
                    return
                # Those that are due already wait for another that is not, such as the server.
                self.rest(min((due for due in waits if due > self.now), default=self.now) - self.now)
            elif child.leaving or child.killed or child.aborted or child.role is Role.CHECK:
                self.exit(child.pid, 0)
            else:
                self.say_ready(child.pid)
        raise AssertionError(f"it never comes to rest: {self.names()}")

    def rest(self, seconds):
        """Time passes, and everybody shows that he lives."""
        self.now += seconds
        for child in [child for child in self.all() if child.ready]:
            self.post(Said(child.pid, {"t": "beat"}))
        self.post(Tick())

    def generations(self):
        return [self.slot(child).generation for child in self.all(Role.WORKER)]

    def reload(self, **changes):
        """An operator changes the settings and wants them read; the ticket to look for in replies."""
        self.settings = attrs.evolve(self.fleet.plan, **changes)
        ticket = len(self.replies) + 1000
        self.post(Asked("reload", "", ticket))
        return ticket

    def stopped(self, child):
        return [message["grace"] for message in child.told if message["t"] == "stop" and "grace" in message]


def plan(**changes):
    return Plan(**{"identity": "host:boot:sup", "workers": 2, "parallel": 2, "forks": False, **changes})


@settings(max_examples=150, stateful_step_count=60, deadline=None)
class AnySystem(RuleBasedStateMachine):
    """Whatever the system does and in whatever order, the promises in Kernel hold."""

    @initialize(
        workers=st.integers(1, 4),
        parallel=st.integers(1, 4),
        embedded=st.booleans(),
        forks=st.booleans(),
        limits=st.sampled_from([{}, {"max_tasks": 5}, {"max_age": 40.0}, {"memory_soft": 100, "watchdog": 15.0}]),
    )
    def begin(self, workers, parallel, embedded, forks, limits):
        self.tickets = 0
        self.kernel = Kernel(plan(workers=workers, embedded=embedded, parallel=parallel, forks=forks, **limits))

    def pick(self, data, children):
        return data.draw(st.sampled_from(sorted(child.pid for child in children)))

    def unready(self):
        return [c for c in self.kernel.all() if not c.ready and not c.killed and c.role is not Role.CHECK]

    @precondition(lambda self: self.unready())
    @rule(data=st.data())
    def becomes_ready(self, data):
        self.kernel.say_ready(self.pick(data, self.unready()))

    @precondition(lambda self: [c for c in self.unready() if c.role is Role.TEMPLATE])
    @rule()
    def a_template_finds_itself_unfit(self):
        (pid, *_) = [c.pid for c in self.unready() if c.role is Role.TEMPLATE]
        self.kernel.post(Said(pid, {"t": "unfit", "why": "1 more thread ran"}))
        self.kernel.exit(pid, 0)

    @precondition(lambda self: self.kernel.all())
    @rule(data=st.data(), code=st.sampled_from([0, 1, 69, -9, -11, -15]), draw=st.floats(0, 1, exclude_max=True))
    def exits(self, data, code, draw):
        self.kernel.exit(self.pick(data, self.kernel.all()), code, draw)

    @precondition(lambda self: self.kernel.all(Role.CHECK))
    @rule(code=st.sampled_from([0, 0, 0, 66]))
    def the_check_ends(self, code):
        self.kernel.exit(self.kernel.all(Role.CHECK)[0].pid, code)

    @rule()
    def all_come_up_and_those_who_should_leave(self):
        self.kernel.forks_fail = False
        for consumer in list(self.kernel.asked_for):
            self.kernel.post(self.kernel.born(consumer))
        for child in self.kernel.all():
            if child.leaving:
                self.kernel.exit(child.pid, 0)
            elif child.role is not Role.CHECK and not child.ready and not child.killed:
                self.kernel.say_ready(child.pid)

    @precondition(lambda self: self.kernel.all())
    @rule(
        data=st.data(),
        what=st.sampled_from(["beat", "bye", "ready", "news", "unfit", "said"]),
        facts=st.fixed_dictionaries(
            {},
            optional={
                "done": st.integers(0, 9),
                "rss": st.integers(0, 200),
                "ready": st.integers(0, 1),
                "fetched": st.integers(0, 1),
                "tasks": st.just([{"id": "1", "name": "a"}]),
            },
        ),
    )
    def talks(self, data, what, facts):
        child = self.kernel.children[self.pick(data, self.kernel.all())]
        if what not in ("ready", "unfit") or child.ready:
            self.kernel.post(Said(child.pid, {"t": what, "running": 1, "report": {"finished": 2}, **facts}))

    @precondition(lambda self: self.kernel.all())
    @rule(data=st.data())
    def hangs_up(self, data):
        self.kernel.post(HungUp(self.pick(data, self.kernel.all())))

    @rule(pid=st.integers(1, 900), code=st.integers(-15, 3))
    def a_foreign_child_exits(self, pid, code):
        before = self.kernel.fleet.slots
        self.kernel.post(Exited(pid, code, 0.5))
        assert self.kernel.fleet.slots == before

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 7.0, 30.0, 100.0]))
    def time_passes(self, seconds):
        self.kernel.pass_time(seconds)

    @rule(seconds=st.sampled_from([2.1, 600.0]))
    def it_stood_still(self, seconds):
        before = [child.pid for child in self.kernel.all() if child.killed or child.aborted]
        self.kernel.now += seconds
        self.kernel.post(Woke(seconds))
        watched = [c for c in self.kernel.all(Role.WORKER) if c.ready and self.kernel.slot(c).state is State.READY]
        self.kernel.post(Tick())
        assert not [c for c in watched if not self.kernel.slot(c).hung_up and (c.aborted or c.killed)]
        assert before == [p for p in before if p in self.kernel.children]

    @rule(broken=st.booleans())
    def forks_fail(self, broken):
        self.kernel.forks_fail = broken

    @rule(slow=st.booleans())
    def forks_wait(self, slow):
        self.kernel.forks_wait = slow

    @precondition(lambda self: self.kernel.asked_for)
    @rule(works=st.booleans())
    def a_template_answers(self, works):
        consumer = next(iter(self.kernel.asked_for))
        if works:
            self.kernel.post(self.kernel.born(consumer))
        else:
            del self.kernel.asked_for[consumer]
            self.kernel.post(StartFailed(consumer, "its template did not fork it", 0.5))

    @rule(workers=st.integers(1, 4), forks=st.booleans(), fine=st.sampled_from([True, True, False]))
    def the_file_changes(self, workers, forks, fine):
        self.kernel.settings = attrs.evolve(self.kernel.fleet.plan, workers=workers, forks=forks) if fine else None

    @precondition(lambda self: not self.kernel.quits)
    @rule(what=st.sampled_from(["reload", "quiet", "resume", "restart", "scale", "dump", "dance"]), data=st.data())
    def asked_over_the_socket(self, what, data):
        self.tickets += 1
        names = [slot.name for slot in self.kernel.fleet.slots] + ["1", "3", "nonsense"]
        name = data.draw(st.sampled_from(names))
        if what == "restart":
            self.kernel.earliest.pop(name, None)  # an operator need not wait
        self.kernel.post(Asked(what, name, self.tickets))
        assert what == "reload" or self.tickets in self.kernel.replies

    @precondition(lambda self: self.kernel.fleet.ready and not self.kernel.fleet.stopping)
    @precondition(lambda self: not any(slot.hung_up for slot in self.kernel.fleet.slots))
    @rule()
    def a_reload_goes_all_the_way(self):
        kernel = self.kernel
        kernel.forks_fail = False
        for _ in range(3):  # with a reload that was asked for before, and the pause after it
            kernel.settle()
            kernel.rest(1.1)
        begun, fine = kernel.fleet.numbered, kernel.settings is not None
        self.tickets += 1
        kernel.post(Asked("reload", "", self.tickets))
        kernel.settle()
        assert kernel.fleet.numbered == begun + 1
        assert kernel.replies[self.tickets].keys() == ({"done"} if fine else {"refused"})
        assert fine == (kernel.fleet.generation == begun + 1)
        assert set(kernel.generations()) == {kernel.fleet.generation}

    @rule(what=st.sampled_from(["SIGHUP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2"]))
    def signalled(self, what):
        self.kernel.post(Asked(what))

    @rule(what=st.sampled_from(["SIGTERM", "SIGINT", "SIGQUIT", "stop"]), sure=st.integers(0, 3))
    def asked_to_stop(self, what, sure):
        if sure == 3:
            self.kernel.post(Asked(what))
            assert self.kernel.fleet.stopping

    @invariant()
    def the_fleet_knows_exactly_the_children_there_are(self):
        known = {slot.pid: slot.consumer for slot in self.kernel.fleet.slots if slot.pid is not None}
        assert known == {child.pid: child.consumer for child in self.kernel.all()}
        names = [slot.name for slot in self.kernel.fleet.slots]
        assert len(names) == len(set(names))

    @invariant()
    def only_one_seat_at_a_time_gets_a_successor(self):
        assert len([s for s in self.kernel.fleet.slots if s.name.endswith(".new") and s.role is Role.WORKER]) <= 1

    @invariant()
    def it_never_spins(self):
        self.kernel.post(Tick())
        instant = wake(self.kernel.fleet)
        assert instant is None or instant > self.kernel.now

    @invariant()
    def nothing_is_asked_for_twice(self):
        for _ in range(2):
            same, actions = step(self.kernel.fleet, Tick(), self.kernel.now)
            assert (same, actions) == (self.kernel.fleet, [])

    @invariant()
    def who_died_is_told_to_the_scheduler_that_is_up(self):
        scheduler = next(slot for slot in self.kernel.fleet.slots if slot.role is Role.SCHEDULER)
        if scheduler.state is State.READY:
            assert all(death.told for death in self.kernel.fleet.deaths)
            told = [m for m in self.kernel.children[scheduler.pid].told if m["t"] == "alive"]
            living = [c.consumer for c in self.kernel.all(Role.WORKER)]
            assert sorted(told[-1]["consumers"]) == sorted(living)

    @invariant()
    def the_status_is_sent_at_most_once_a_second(self):
        times = [at for at, text in self.kernel.notes if text.startswith("STATUS=")]
        assert all(later - earlier >= 1 - TOLERANCE for earlier, later in pairwise(times))

    def teardown(self):
        """Whatever state it is in, even with children that obey nothing but SIGKILL, it stops, and in bounded time."""
        if not hasattr(self, "kernel"):
            return
        kernel = self.kernel
        kernel.forks_fail = False
        kernel.forks_wait = False
        for ticket in range(1, self.tickets + 1):
            assert ticket in kernel.replies or ticket in (*(kernel.fleet.wishes or ()), *self.rolling()), "forgotten"
        kernel.post(Asked("SIGTERM"))
        asked_at = kernel.now
        assert len(kernel.replies) == self.tickets
        for _ in range(500):
            for child in [c for c in kernel.all() if c.killed]:
                kernel.exit(child.pid, -9)
            if kernel.quits:
                break
            for child in [c for c in kernel.all(Role.SERVER) if not c.ready]:
                kernel.say_ready(child.pid)
            if not kernel.sleep():
                assert kernel.quits, "it waits for nothing and does not end"
        assert len(kernel.quits) == 1
        assert [text for _, text in kernel.notes].count("STOPPING=1") == 1
        the_plan = kernel.fleet.plan
        # A server or scheduler that was down or booting when the stop began may have to come up before it can leave.
        assert kernel.now - asked_at <= the_plan.shutdown_timeout + 25 + 10 + 2 * (the_plan.boot_timeout + 75)

    def rolling(self):
        roll = self.kernel.fleet.roll
        return roll.tickets if roll is not None else ()


TestAnySystem = AnySystem.TestCase


@pytest.mark.long
def test_whatever_the_system_does_for_longer():
    run_state_machine_as_test(AnySystem, settings=settings(max_examples=2000, stateful_step_count=80, deadline=None))


def test_the_server_comes_first_then_the_scheduler_and_the_workers():
    kernel = Kernel(plan(workers=3, parallel=2))

    assert kernel.names() == ["server"]
    kernel.say_ready(kernel.one("server").pid)
    assert kernel.names() == ["scheduler", "server", "worker-1", "worker-2"]
    kernel.say_ready(kernel.one("worker-2").pid)
    assert kernel.names() == ["scheduler", "server", "worker-1", "worker-2", "worker-3"]


def test_without_the_embedded_broker_there_is_no_server():
    kernel = Kernel(plan(embedded=False))

    assert kernel.names() == ["scheduler", "worker-1", "worker-2"]


def test_it_is_ready_when_one_of_each_kind_is_and_says_so_once():
    kernel = Kernel(plan())
    kernel.say_ready(kernel.one("server").pid)
    kernel.say_ready(kernel.one("worker-1").pid)
    assert "READY=1" not in [text for _, text in kernel.notes]

    kernel.say_ready(kernel.one("scheduler").pid)
    kernel.say_ready(kernel.one("worker-2").pid)
    kernel.exit(kernel.one("worker-2").pid, 1)
    kernel.boot()

    assert [text for _, text in kernel.notes].count("READY=1") == 1


def test_a_dead_worker_starts_again_at_once_under_a_new_name_and_the_scheduler_is_told():
    kernel = Kernel(plan())
    kernel.boot()
    dead = kernel.one("worker-1")

    kernel.exit(dead.pid, -11)

    assert dead.consumer == "host:boot:sup:worker-1:1"
    assert kernel.one("worker-1").consumer == "host:boot:sup:worker-1:2"
    news = [message for message in kernel.one("scheduler").told if message["t"] == "dead"]
    assert news == [{"t": "dead", "consumer": dead.consumer, "why": "killed by SIGSEGV"}]


def test_a_death_waits_for_a_scheduler_and_is_told_again_to_the_next_one():
    kernel = Kernel(plan())
    kernel.boot()
    dead = kernel.one("worker-1").consumer
    kernel.exit(kernel.one("scheduler").pid, 1)
    kernel.exit(kernel.one("worker-1").pid, -9)

    told = []
    for _ in range(2):
        kernel.say_ready(kernel.one("scheduler").pid)
        told.append([m["consumer"] for m in kernel.one("scheduler").told if m["t"] == "dead"])
        kernel.exit(kernel.one("scheduler").pid, 1)
        kernel.sleep_until("scheduler")
    kernel.pass_time(61)
    kernel.boot()

    assert told == [[dead], [dead]]
    assert [m for m in kernel.one("scheduler").told if m["t"] == "dead"] == [], "after a minute it is old news"


def test_a_crash_loop_backs_off_in_its_own_slot_and_never_ends_a_fleet_that_was_ready():
    kernel = Kernel(plan())
    kernel.boot()
    started = []

    for _ in range(12):
        kernel.sleep_until("worker-1")
        started.append(kernel.now)
        kernel.exit(kernel.one("worker-1").pid, 1)

    gaps = [later - earlier for earlier, later in pairwise(started)]
    assert gaps == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert not kernel.fleet.stopping
    assert kernel.one("worker-2").ready


def test_even_when_every_worker_crashes_at_boot_a_fleet_that_was_ready_goes_on():
    kernel = Kernel(plan())
    kernel.boot()

    for _ in range(5):
        for slot in ("worker-1", "worker-2"):
            kernel.sleep_until(slot)
            kernel.exit(kernel.one(slot).pid, 78)

    assert not kernel.fleet.stopping


def test_boots_that_failed_before_a_good_one_are_forgotten():
    kernel = Kernel(plan(workers=1))
    kernel.say_ready(kernel.one("server").pid)

    for good in (False, False, True, False, False):
        kernel.sleep_until("worker-1")
        if good:
            kernel.say_ready(kernel.one("worker-1").pid)
        kernel.exit(kernel.one("worker-1").pid, 1)

    assert not kernel.fleet.ready
    assert not kernel.fleet.stopping


def test_a_minute_of_healthy_life_resets_the_back_off():
    kernel = Kernel(plan())
    kernel.boot()
    for _ in range(3):
        kernel.sleep_until("worker-1")
        kernel.say_ready(kernel.one("worker-1").pid)
        kernel.pass_time(60)
        kernel.exit(kernel.one("worker-1").pid, 1)
        assert kernel.one("worker-1")


@pytest.mark.parametrize(("code", "expected"), [(1, 70), (69, 69), (78, 78), (-9, 70)])
def test_when_no_worker_comes_up_in_three_tries_at_first_start_it_gives_up(code, expected):
    kernel = Kernel(plan())
    kernel.say_ready(kernel.one("server").pid)
    kernel.say_ready(kernel.one("scheduler").pid)

    for _ in range(6):
        while not kernel.all(Role.WORKER):
            assert kernel.sleep()
        kernel.exit(kernel.all(Role.WORKER)[0].pid, code)
    for slot in ("scheduler", "server"):
        kernel.exit(kernel.one(slot).pid, 0)

    assert kernel.quits == [expected]


def test_one_worker_that_comes_up_is_enough_to_go_on():
    kernel = Kernel(plan())
    kernel.say_ready(kernel.one("server").pid)
    kernel.say_ready(kernel.one("worker-2").pid)

    for _ in range(5):
        kernel.sleep_until("worker-1")
        kernel.exit(kernel.one("worker-1").pid, 1)

    assert not kernel.fleet.stopping


def test_it_stops_workers_first_then_the_scheduler_and_the_server_last():
    kernel = Kernel(plan())
    kernel.boot()

    order = []
    kernel.post(Asked("SIGTERM"))
    while kernel.all():
        leaving = [child for child in kernel.all() if any(m["t"] == "stop" for m in child.told)]
        order.append(sorted(kernel.slot(child).name for child in leaving))
        for child in leaving:
            kernel.exit(child.pid, 0)

    assert order == [["worker-1", "worker-2"], ["scheduler"], ["server"]]
    assert kernel.quits == [0]


def test_while_workers_drain_the_server_they_need_is_kept_up():
    kernel = Kernel(plan())
    kernel.boot()
    kernel.post(Asked("SIGTERM"))

    kernel.exit(kernel.one("server").pid, -9)
    kernel.exit(kernel.one("worker-1").pid, 0)

    assert kernel.names() == ["scheduler", "server", "worker-2"]


def test_a_worker_that_does_not_leave_in_time_is_killed_and_the_exit_code_says_so():
    kernel = Kernel(plan(grace=30, shutdown_timeout=40))
    kernel.boot()
    kernel.post(Asked("SIGTERM"))
    kernel.exit(kernel.one("worker-1").pid, 0)
    stuck = kernel.one("worker-2")
    assert kernel.stopped(stuck) == [30]

    kernel.pass_time(39.9)
    assert not stuck.killed
    kernel.pass_time(0.1)
    assert stuck.killed

    for slot in ("worker-2", "scheduler", "server"):
        kernel.exit(kernel.one(slot).pid, 0)
    assert kernel.quits == [70]


@pytest.mark.parametrize("asks", [["SIGTERM", "SIGINT"], ["SIGINT", "SIGTERM"], ["stop", "SIGTERM"], ["SIGQUIT"]])
def test_a_second_signal_or_a_quit_hurries(asks):
    kernel = Kernel(plan())
    kernel.boot()

    for what in asks:
        kernel.pass_time(1.5)
        kernel.post(Asked(what))
    worker = kernel.one("worker-1")

    assert kernel.stopped(worker)[-1] == 0
    kernel.pass_time(kernel.fleet.plan.margin)
    assert worker.killed


@pytest.mark.parametrize(("seconds", "what"), [(1.4, "SIGTERM"), (1.4, "SIGINT"), (5, "stop")])
def test_the_echo_of_a_signal_and_a_second_command_change_nothing(seconds, what):
    kernel = Kernel(plan())
    kernel.boot()
    kernel.post(Asked("SIGINT"))
    kernel.pass_time(seconds)
    before = kernel.fleet

    kernel.post(Asked(what))

    assert kernel.fleet == before


def test_hurrying_twice_is_hurrying_once():
    kernel = Kernel(plan())
    kernel.boot()
    kernel.post(Asked("SIGQUIT"))
    before = kernel.fleet

    kernel.post(Asked("SIGQUIT"))

    assert kernel.fleet == before
    assert kernel.stopped(kernel.one("worker-1")) == [0]


def test_what_still_boots_at_a_stop_gets_a_signal_and_leaves_cleanly_by_it():
    kernel = Kernel(plan(workers=1))
    asked = []
    kernel.perform = lambda action, perform=kernel.perform: asked.append(action) or perform(action)
    server = kernel.one("server").pid

    kernel.post(Asked("SIGINT"))
    assert Terminate(server) in asked
    kernel.exit(server, -15)

    assert kernel.quits == [0]


def test_what_does_not_boot_in_time_is_killed_unless_it_shows_signs_of_life():
    kernel = Kernel(plan(boot_timeout=60))
    server = kernel.one("server")

    for _ in range(10):
        kernel.pass_time(50)
        kernel.post(Said(server.pid, {"t": "beat", "loading": True}))
    assert not server.killed
    kernel.pass_time(60)

    assert server.killed


def test_a_word_that_is_still_in_the_pipe_when_patience_ends_counts():
    kernel = Kernel(plan(boot_timeout=60))
    kernel.say_ready(kernel.one("server").pid)
    booting = kernel.all(Role.WORKER)
    kernel.now += 3600  # the supervisor itself was stopped

    for child in booting:
        kernel.say_ready(child.pid)

    assert not any(child.killed for child in booting)


def test_a_child_that_hung_up_is_killed_when_it_does_not_end():
    kernel = Kernel(plan())
    kernel.boot()
    worker = kernel.one("worker-1")

    kernel.post(HungUp(worker.pid))
    kernel.pass_time(9)
    assert not worker.killed
    kernel.pass_time(1)

    assert worker.killed


def test_when_all_is_well_it_sleeps_until_a_beat_is_overdue():
    kernel = Kernel(plan(hang_timeout=60))
    kernel.boot()
    kernel.pass_time(1)  # the last status
    for child in kernel.all():
        kernel.post(Said(child.pid, {"t": "beat"}))

    assert wake(kernel.fleet) == kernel.now + 60


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "exited with status 0"), (3, "exited with status 3"), (-9, "killed by SIGKILL"), (-50, "killed by signal 50")],
)
def test_causes_in_words(code, text):
    assert cause(code) == text


def forking(**changes):
    kernel = Kernel(plan(forks=True, **changes))
    kernel.boot()
    return kernel


def test_workers_and_the_scheduler_are_forked_from_the_template_when_it_is_ready():
    kernel = Kernel(plan(forks=True))
    assert kernel.names() == ["server", "template"]

    kernel.say_ready(kernel.one("server").pid)
    assert kernel.names() == ["server", "template"]
    template = kernel.one("template").pid
    kernel.say_ready(template)

    assert kernel.names() == ["scheduler", "server", "template", "worker-1", "worker-2"]
    assert {child.template for child in kernel.all() if child.role in (Role.WORKER, Role.SCHEDULER)} == {template}


def test_a_scheduler_that_dies_waits_for_no_template_once_the_fleet_has_worked():
    kernel = forking()
    template = kernel.one("template").pid
    kernel.exit(kernel.one("scheduler").pid, -9)
    assert kernel.one("scheduler").template == template
    kernel.say_ready(kernel.one("scheduler").pid)

    kernel.exit(template, -9)
    kernel.rest(60)
    kernel.exit(kernel.one("scheduler").pid, -9)

    assert kernel.one("scheduler").template is None
    kernel.settle()
    assert kernel.fleet.find("scheduler").generation == kernel.fleet.generation


def test_a_reload_forks_the_scheduler_from_the_new_template_and_a_stop_needs_none():
    kernel = forking()
    kernel.reload()
    kernel.settle()
    assert kernel.one("scheduler").template == kernel.one("template").pid
    assert kernel.fleet.find("scheduler").generation == 2

    kernel.post(Asked("SIGTERM"))
    kernel.exit(kernel.one("template").pid, 0)
    kernel.exit(kernel.one("scheduler").pid, -9)

    assert kernel.one("scheduler").template is None


def test_an_unfit_template_is_one_warning_and_workers_start_without_it():
    kernel = Kernel(plan(forks=True))
    kernel.say_ready(kernel.one("server").pid)
    template = kernel.one("template").pid

    kernel.post(Said(template, {"t": "unfit", "why": "1 more thread ran: 'beat' (started in tasks.py, line 3)"}))
    kernel.exit(template, 0)
    kernel.boot()
    kernel.exit(kernel.one("worker-1").pid, 1)

    assert {child.template for child in kernel.all(Role.WORKER)} == {None}
    assert len([text for text in kernel.logs if "tasks.py, line 3" in text]) == 1
    assert kernel.fleet.find("template") is None


def test_a_template_that_dies_is_replaced_and_workers_wait_for_it():
    kernel = forking()
    kernel.exit(kernel.one("template").pid, -9)
    kernel.exit(kernel.one("worker-1").pid, -9)
    assert "worker-1" not in kernel.names()

    kernel.say_ready(kernel.one("template").pid)

    assert kernel.one("worker-1").template == kernel.one("template").pid


def test_a_template_that_does_not_answer_is_not_waited_for_for_ever():
    kernel = forking(boot_timeout=60)
    kernel.forks_wait = True
    kernel.exit(kernel.one("worker-1").pid, -9)
    assert "worker-1" not in kernel.names()

    kernel.pass_time(60)

    assert any("worker-1 cannot be started: its template does not answer" in text for text in kernel.logs)


def test_a_stop_waits_for_a_child_that_is_just_being_forked():
    kernel = forking()
    kernel.forks_wait = True
    kernel.exit(kernel.one("worker-1").pid, -9)
    kernel.post(Asked("SIGTERM"))

    kernel.post(kernel.born(next(iter(kernel.asked_for))))

    assert kernel.one("worker-1").leaving
    for _ in range(9):
        for child in kernel.all():
            if child.leaving:
                kernel.exit(child.pid, 0)
    assert kernel.quits == [0]


def test_a_reload_tries_one_worker_then_replaces_the_others_one_by_one_and_then_the_scheduler():
    kernel = forking(workers=3, parallel=4)
    old = kernel.one("template")
    ticket = kernel.reload(grace=7.0)

    assert "check" in kernel.names()
    assert kernel.replies == {}
    kernel.exit(kernel.one("check").pid, 0)
    kernel.say_ready(kernel.one("template.new").pid)
    for number in (1, 2, 3):
        assert [name for name in kernel.names() if "." in name] == ["template.new", f"worker-{number}.new"]
        assert not [child for child in kernel.all() if child.leaving]
        kernel.say_ready(kernel.one(f"worker-{number}.new").pid)
        assert [kernel.slot(c).name for c in kernel.all() if c.leaving] == [f"worker-{number}.old"]
        assert not old.leaving
        kernel.exit(kernel.one(f"worker-{number}.old").pid, 0)

    assert kernel.replies == {ticket: {"done": "generation 2 has taken over"}}
    assert old.leaving
    assert kernel.one("scheduler").leaving
    assert kernel.generations() == [2, 2, 2]
    assert kernel.fleet.plan.grace == 7
    scheduler = kernel.one("scheduler").consumer
    kernel.settle()
    assert kernel.one("scheduler").consumer != scheduler
    assert kernel.fleet.find("template").generation == 2


def test_the_service_manager_hears_of_a_reload_in_one_datagram_and_of_its_end():
    kernel = forking()
    kernel.notes.clear()

    kernel.reload()
    begun = int(kernel.now * 1e6)
    kernel.settle()

    told = [text for _, text in kernel.notes if not text.startswith("STATUS=")]
    assert told == [f"RELOADING=1\nMONOTONIC_USEC={begun}", "READY=1"]


@pytest.mark.parametrize("how", ["unread", "fixed", "check", "template", "boot", "slow", "fork", "trial"])
def test_whatever_goes_wrong_in_a_reload_the_old_generation_stays_or_comes_back(how):
    kernel = forking(workers=2, fixed=(("supervisor.state_dir", "/here"),))
    kernel.notes.clear()
    ticket = kernel.reload(**({"fixed": (("supervisor.state_dir", "/there"),)} if how == "fixed" else {}))
    if how == "unread":
        kernel.settle()
        kernel.pass_time(1)
        kernel.settings = None
        kernel.post(Asked("reload", "", ticket := 1))
    elif how == "check":
        check = kernel.one("check").pid
        kernel.post(Said(check, {"t": "said", "text": "chicory check: app is not set"}))
        kernel.exit(check, 78)
    elif how != "fixed":
        kernel.exit(kernel.one("check").pid, 0)
        new = kernel.one("template.new")
        if how == "template":
            kernel.exit(new.pid, 66)
        else:
            kernel.forks_fail = how == "fork"
            kernel.say_ready(new.pid)
            kernel.forks_fail = False
        if how == "boot":
            kernel.exit(kernel.one("worker-1.new").pid, 1)
        elif how == "slow":
            kernel.pass_time(60)
            kernel.exit(kernel.one("worker-1.new").pid, -9)
        elif how == "trial":
            kernel.say_ready(kernel.one("worker-1.new").pid)
            kernel.exit(kernel.one("worker-1.old").pid, 0)
            kernel.pass_time(29)
            kernel.exit(kernel.one("worker-1").pid, -11)

    why = kernel.replies[ticket]["refused"]
    assert {
        "unread": "supervisor.workers = 0",
        "fixed": "supervisor.state_dir cannot change while the daemon runs",
        "check": "chicory check: app is not set",
        "template": "template.new of generation 2 exited with status 66",
        "boot": "worker-1.new of generation 2 exited with status 1",
        "slow": "worker-1.new of generation 2 killed by SIGKILL, because it is not ready",
        "fork": "worker-1.new of generation 2 cannot be started: out of processes",
        "trial": "worker-1 of generation 2 killed by SIGSEGV",
    }[how] in why
    kernel.settle()
    assert set(kernel.generations()) == {kernel.fleet.generation} == {2 if how == "unread" else 1}
    assert kernel.names() == ["scheduler", "server", "template", "worker-1", "worker-2"]
    kernel.pass_time(1)
    assert why in [text for _, text in kernel.notes if text.startswith("STATUS=")][-1]
    assert [text for _, text in kernel.notes if "READY=1" in text][-1] == "READY=1"


def test_a_template_that_is_still_leaving_after_a_refusal_is_not_taken_for_the_next_one():
    kernel = Kernel(plan(workers=2, forks=True))
    kernel.boot()
    kernel.reload()
    kernel.exit(kernel.one("check").pid, 0)
    refused = kernel.one("template.new").pid
    kernel.say_ready(refused)
    kernel.exit(kernel.one("worker-1.new").pid, 1)
    kernel.reload()
    kernel.pass_time(1)

    kernel.exit(kernel.one("check").pid, 0)

    assert kernel.names() == [
        "scheduler",
        "server",
        "template",
        "template.new",
        "template.old-2",
        "worker-1",
        "worker-2",
    ]
    kernel.exit(refused, 0)
    kernel.settle()
    assert kernel.generations() == [3, 3]


def test_a_successor_that_cannot_be_started_makes_room_for_another_of_the_old_generation():
    kernel = Kernel(plan(workers=1, max_age=40.0))
    kernel.boot()
    kernel.reload()
    kernel.forks_fail = True
    kernel.now += 600
    kernel.post(Woke(600))

    kernel.exit(kernel.one("check").pid, 0)
    kernel.forks_fail = False
    kernel.settle()

    assert kernel.generations() == [1]
    assert "cannot be started: out of processes" in kernel.fleet.outcome


def test_a_new_worker_that_dies_after_its_trial_does_not_undo_a_reload():
    kernel = forking(workers=2, hang_timeout=100)
    kernel.reload()
    kernel.exit(kernel.one("check").pid, 0)
    kernel.say_ready(kernel.one("template.new").pid)
    kernel.say_ready(kernel.one("worker-1.new").pid)
    kernel.pass_time(31)

    kernel.exit(kernel.one("worker-1").pid, -11)
    kernel.settle()

    assert kernel.generations() == [2, 2]


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)])
def test_a_reload_changes_the_number_of_workers(before, after):
    kernel = forking(workers=before)

    kernel.reload(workers=after)
    kernel.settle()

    assert kernel.generations() == [2] * after


@pytest.mark.parametrize("forks", [True, False])
def test_a_reload_changes_how_workers_are_started(forks):
    kernel = Kernel(plan(forks=not forks))
    kernel.boot()

    kernel.reload(forks=forks)
    kernel.settle()

    assert [child.template is not None for child in kernel.all(Role.WORKER)] == [forks, forks]
    assert ("template" in kernel.names()) == forks


def test_a_hundred_hangups_in_a_second_are_at_most_two_reloads():
    kernel = forking()

    for _ in range(100):
        kernel.post(Asked("SIGHUP"))
        kernel.settle()
        kernel.pass_time(0.0099)
    kernel.pass_time(1)
    kernel.settle()

    assert len(kernel.reads) == 2


def test_a_hangup_while_it_boots_waits_until_it_is_ready():
    kernel = Kernel(plan())
    kernel.post(Asked("SIGHUP"))
    assert kernel.reads == []

    kernel.boot()

    assert len(kernel.reads) == 1


def test_a_hangup_while_it_stops_is_ignored_and_a_stop_ends_a_reload():
    kernel = forking()
    ticket = kernel.reload()
    kernel.post(Asked("SIGTERM"))
    kernel.post(Asked("SIGHUP"))

    assert kernel.replies[ticket] == {"refused": "the daemon is stopping"}
    assert len(kernel.reads) == 1
    kernel.settle()
    assert kernel.quits == [0]


@pytest.mark.parametrize(
    ("limit", "beat", "why"),
    [
        ({"max_tasks": 100}, {"done": 105}, "it has run 105 tasks"),
        ({"memory_soft": 2**29}, {"pss": 2**29, "rss": 1}, "it uses 512 MiB"),
        ({"memory_soft": 2**29}, {"rss": 2**30}, "it uses 1024 MiB"),
        ({}, {"worn": "10 runs that it has abandoned go on"}, "10 runs that it has abandoned go on"),
        ({"max_age": 60.0}, {}, "it is 70 s old"),
    ],
)
def test_workers_that_have_done_enough_are_replaced_one_after_the_other(limit, beat, why):
    kernel = Kernel(plan(jitter=0.1, **limit))
    kernel.luck = 0.75  # five hundredths above the limit
    kernel.boot()
    kernel.pass_time(50)
    for child in kernel.all(Role.WORKER):
        kernel.post(Said(child.pid, {"t": "beat", "done": 104, "rss": 2**20}))
    assert kernel.names() == ["scheduler", "server", "worker-1", "worker-2"]

    kernel.pass_time(20)
    for child in kernel.all(Role.WORKER):
        kernel.post(Said(child.pid, {"t": "beat", **beat}))
    kernel.pass_time(0)

    assert kernel.names() == ["scheduler", "server", "worker-1", "worker-1.new", "worker-2"]
    assert f"worker-1 is being replaced: {why}" in kernel.logs
    kernel.say_ready(kernel.one("worker-1.new").pid)
    assert kernel.names() == ["scheduler", "server", "worker-1", "worker-1.old", "worker-2"]
    kernel.exit(kernel.one("worker-1.old").pid, 0)
    assert kernel.names() == ["scheduler", "server", "worker-1", "worker-2", "worker-2.new"]


def test_a_drained_worker_that_lingers_is_killed():
    kernel = Kernel(plan(max_tasks=1, shutdown_timeout=40))
    kernel.boot()
    kernel.post(Said(kernel.one("worker-1").pid, {"t": "beat", "done": 5}))
    kernel.say_ready(kernel.one("worker-1.new").pid)

    kernel.pass_time(40)

    assert kernel.one("worker-1.old").killed


def test_a_silent_worker_is_aborted_then_killed_and_its_tasks_are_named():
    kernel = Kernel(plan(hang_timeout=60))
    kernel.boot()
    silent, *others = [kernel.one(name) for name in ("worker-1", "worker-2", "scheduler")]
    kernel.post(Said(silent.pid, {"t": "beat", "tasks": [{"id": "abc", "name": "dig"}]}))

    for _ in range(2):
        kernel.pass_time(30)
        for child in others:
            kernel.post(Said(child.pid, {"t": "beat"}))
    kernel.pass_time(0)
    assert silent.aborted
    assert not silent.killed
    kernel.pass_time(5)

    assert silent.killed
    named = [text for text in kernel.logs if "dig (abc)" in text]
    assert ["aborting it" in named[0], "killing it" in named[1]] == [True, True]
    assert not any(child.aborted for child in others)
    kernel.exit(silent.pid, -6)
    dead = [m for m in kernel.one("scheduler").told if m["t"] == "dead"]
    assert dead[0]["why"] == "killed by SIGKILL, because it has not beaten for 60 s"


def test_a_kill_by_the_kernel_for_want_of_memory_is_told_and_one_of_our_own_is_not_taken_for_it():
    kernel = Kernel(plan())
    kernel.boot()
    starved, late = kernel.one("worker-1"), kernel.one("worker-2")
    kernel.exit(starved.pid, -9, starved=True)
    kernel.say_ready(kernel.one("worker-1").pid)
    kernel.pass_time(60)
    kernel.pass_time(5)
    assert late.killed
    kernel.exit(late.pid, -9, starved=True)

    first, second = [death.why for death in kernel.fleet.deaths]

    assert first == "killed by SIGKILL, out of memory"
    assert second.startswith("killed by SIGKILL, because it has not beaten")


def test_a_worker_whose_broker_is_away_boots_for_as_long_as_it_beats_but_not_in_a_reload():
    kernel = Kernel(plan(workers=1, boot_timeout=60))

    def wait(slot, seconds):
        for _ in range(seconds // 10):
            kernel.rest(10)
            for name in (slot, "scheduler"):
                if name in kernel.names():
                    kernel.post(Said(kernel.one(name).pid, {"t": "beat", "state": "away"}))

    for name in ("server", "scheduler"):
        kernel.say_ready(kernel.one(name).pid)
    wait("worker-1", 600)
    assert not kernel.one("worker-1").killed
    assert "worker-1 does not reach the broker" in health(kernel.fleet, kernel.now)["reasons"]
    kernel.boot()
    kernel.reload()
    kernel.exit(kernel.one("check").pid, 0)
    wait("worker-1.new", 60)

    assert kernel.one("worker-1.new").killed
    kernel.exit(kernel.one("worker-1.new").pid, -9)
    assert "is not ready but away" in kernel.fleet.outcome
    assert kernel.fleet.generation == 1


def test_after_a_standstill_of_its_own_it_gives_everyone_a_new_hang_timeout():
    kernel = Kernel(plan(hang_timeout=60))
    kernel.boot()
    kernel.now += 3600

    kernel.post(Woke(3600))
    kernel.pass_time(59)

    assert not any(child.aborted for child in kernel.all())
    kernel.pass_time(1)
    assert kernel.one("worker-1").aborted


def test_a_worker_that_fetches_nothing_although_there_is_work_connects_anew_and_is_replaced():
    kernel = Kernel(plan())
    kernel.boot()
    stuck, fine = kernel.one("worker-1"), kernel.one("worker-2")

    def beats(seconds, ready=3, free=2):
        for _ in range(seconds):
            kernel.pass_time(1)
            kernel.post(Said(kernel.one("scheduler").pid, {"t": "beat", "ready": ready}))
            kernel.post(Said(stuck.pid, {"t": "beat", "fetched": 7, "free": free}))
            kernel.post(Said(fine.pid, {"t": "beat", "fetched": 7, "free": 0}))

    beats(100, ready=0)
    beats(100, free=0)
    beats(29)
    assert {"t": "reconnect"} not in stuck.told
    beats(60)
    assert stuck.told.count({"t": "reconnect"}) == 1
    assert "worker-1.new" not in kernel.names()
    beats(2)
    assert "worker-1.new" in kernel.names()
    assert {"t": "reconnect"} not in fine.told


def test_quiet_reaches_all_workers_also_those_that_come_later_until_resume():
    kernel = Kernel(plan())
    kernel.boot()

    kernel.post(Asked("SIGTSTP"))
    kernel.exit(kernel.one("worker-1").pid, 1)
    kernel.boot()
    assert [child.told[-1]["t"] for child in kernel.all(Role.WORKER)] == ["quiet", "quiet"]
    kernel.post(Asked("resume", "", 1))

    assert [child.told[-1]["t"] for child in kernel.all(Role.WORKER)] == ["resume", "resume"]
    assert "done" in kernel.replies[1]


def test_workers_are_added_and_taken_away_and_names_never_come_back():
    kernel = Kernel(plan(workers=1))
    kernel.boot()

    seen = []
    for what in ("SIGTTIN", "SIGTTOU", "SIGTTIN"):
        kernel.post(Asked(what))
        kernel.settle()
        seen.append([child.consumer for child in kernel.all(Role.WORKER)][1:])

    assert seen == [["host:boot:sup:worker-2:1"], [], ["host:boot:sup:worker-2:2"]]
    kernel.post(Asked("scale", "3", 1))
    kernel.settle()
    assert len(kernel.all(Role.WORKER)) == 3
    for wrong in ("0", "many", "-1", "5000"):
        kernel.post(Asked("scale", wrong, ticket := len(kernel.replies) + 1))
        assert kernel.replies[ticket] == {"refused": "there can be 1 to 1024 workers"}


@pytest.mark.parametrize("stopping", [False, True])
def test_a_rotation_of_the_log_reaches_all_who_write_into_it_even_in_a_long_stop(stopping):
    kernel = forking(workers=2)
    if stopping:
        kernel.post(Asked("SIGTERM"))

    kernel.post(Asked("SIGUSR1"))

    assert "reopened" in kernel.logs
    told = [child.role for child in kernel.all() if {"t": "reopen"} in child.told]
    assert sorted(told) == [Role.SCHEDULER, Role.WORKER, Role.WORKER]


def test_restart_replaces_a_worker_new_first_and_the_scheduler_in_place():
    kernel = Kernel(plan())
    kernel.boot()

    kernel.post(Asked("restart", "worker-2", 1))
    kernel.post(Asked("restart", "scheduler", 2))
    assert "worker-2.new" in kernel.names()
    assert kernel.one("scheduler").leaving
    kernel.settle()

    assert [child.consumer[-1] for child in kernel.all(Role.WORKER)] == ["1", "2"]
    assert kernel.one("scheduler").consumer.endswith(":2")
    kernel.post(Asked("restart", "worker-9", 3))
    assert "there are server, scheduler, worker-1, worker-2" in kernel.replies[3]["refused"]


def test_the_watchdog_is_fed_as_long_as_a_hung_scheduler_can_be_got_rid_of():
    kernel = Kernel(plan(watchdog=15.0, hang_timeout=60))
    kernel.boot()
    kernel.notes.clear()
    for _ in range(10):
        kernel.sleep()

    fed = [at for at, text in kernel.notes if text == "WATCHDOG=1"]

    # It was aborted after 60 s, killed after 65, and must be gone after 70.
    assert fed
    assert all(later - earlier == 15 for earlier, later in pairwise(fed))
    assert kernel.one("scheduler").killed
    for _ in range(10):
        kernel.sleep()
    assert fed == [at for at, text in kernel.notes if text == "WATCHDOG=1"][: len(fed)]
    assert max(at for at, text in kernel.notes if text == "WATCHDOG=1") <= 100 + 75


def test_more_time_is_asked_for_while_workers_drain_and_no_longer():
    kernel = Kernel(plan(shutdown_timeout=12))
    kernel.boot()
    kernel.post(Asked("SIGTERM"))
    begun = kernel.now
    kernel.post(Tick())

    for _ in range(20):
        kernel.sleep()

    asked = [at - begun for at, text in kernel.notes if text.startswith("EXTEND_TIMEOUT_USEC")]
    assert asked == [0, 5, 10]


def test_the_drain_report_says_what_became_of_every_task():
    kernel = Kernel(plan(shutdown_timeout=40))
    kernel.boot()
    talks, silent = kernel.one("worker-1"), kernel.one("worker-2")
    kernel.post(Said(silent.pid, {"t": "beat", "tasks": [{"id": "c", "name": "dig", "age": 3.0}]}))
    kernel.post(Asked("stop"))

    ends = [{"id": "a", "name": "add", "end": "finished"}, {"id": "b", "name": "add", "end": "returned"}]
    kernel.post(Said(talks.pid, {"t": "bye", "report": {"done": 7, "tasks": ends}}))
    kernel.exit(talks.pid, 0)
    kernel.pass_time(40)
    kernel.exit(silent.pid, 0)

    first, second = kernel.fleet.drained
    assert (first["worker"], first["end"], first["counts"]) == ("worker-1", "exited with status 0", {"done": 7})
    assert first["tasks"] == ends
    assert second["tasks"] == [{"id": "c", "name": "dig", "end": "killed"}]
    assert second["end"] == "killed by SIGKILL, because it has not left"


def test_a_child_that_says_why_it_ends_is_quoted():
    kernel = Kernel(plan())
    kernel.boot()
    worker = kernel.one("worker-1")

    kernel.post(
        Said(worker.pid, {"t": "bye", "report": {"done": 7, "why": "the lifespan failed: OSError: no database"}})
    )
    kernel.exit(worker.pid, 70)

    (slot,) = [slot for slot in kernel.fleet.slots if slot.name == "worker-1"]
    assert slot.ended == "exited with status 70: the lifespan failed: OSError: no database"


def test_ten_crashes_in_a_minute_are_degraded_health():
    kernel = Kernel(plan())
    kernel.boot()
    assert health(kernel.fleet, kernel.now) == {"live": True, "ready": True, "degraded": False, "reasons": []}

    for _ in range(10):
        kernel.exit(kernel.one("worker-1").pid, -9, 0.5)
        kernel.sleep_until("worker-1") if "worker-1" not in kernel.names() else None
        kernel.say_ready(kernel.one("worker-1").pid)
        kernel.fleet = attrs.evolve(kernel.fleet, slots=tuple(attrs.evolve(s, failures=0) for s in kernel.fleet.slots))
        kernel.deaths.clear()

    assert health(kernel.fleet, kernel.now)["reasons"] == ["10 or more crashes within a minute"]
    kernel.exit(kernel.one("scheduler").pid, 1)
    assert not health(kernel.fleet, kernel.now)["ready"]
    assert not health(kernel.fleet, kernel.now + 61)["reasons"][1:]


def test_a_fleet_that_lives_for_long_and_sees_many_come_and_go_does_not_grow():
    kernel = Kernel(plan(workers=1))
    kernel.boot()

    def live(replacements):
        for _ in range(replacements):
            kernel.post(Asked("restart", "worker-1"))
            kernel.settle()
            kernel.exit(kernel.one("worker-1").pid, -9)
            kernel.settle()
            kernel.rest(61.0)
        return len(repr(kernel.fleet))

    young, old = live(20), live(500)

    assert kernel.one("worker-1").consumer.endswith(":1041")
    # Some numbers have more digits now.
    assert old <= young + 100
