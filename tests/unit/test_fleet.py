"""What the supervisor decides, against a made-up system: no process, no socket, no clock."""

from itertools import pairwise

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chicoryd.events import (
    Asked,
    Exited,
    HungUp,
    Kill,
    Log,
    Notify,
    Quit,
    Role,
    Said,
    Start,
    Started,
    StartFailed,
    Tell,
    Terminate,
    Tick,
)
from chicoryd.fleet import step, wake
from chicoryd.respawn import pause
from chicoryd.roster import Plan, muster
from chicoryd.slot import State, cause

READY = {"t": "ready"}
TOLERANCE = 1e-9


@attrs.define
class Child:
    """A process of the made-up kernel."""

    pid: int
    slot: str
    role: Role
    consumer: str
    ready: bool = False
    killed: bool = False
    told: list = attrs.field(factory=list)


class Kernel:
    """Carries actions out, as the loop and the system would, and holds the fleet to its promises while it does."""

    def __init__(self, plan):
        self.now = 100.0
        self.fleet = muster(plan, self.now)
        self.children = {}
        self.next_pid = 1000
        self.forks_fail = False
        self.earliest = {}  # slot -> the first instant at which it may start again
        self.deaths = {}  # slot -> in a row
        self.consumers = set()
        self.notes = []
        self.logs = []
        self.quits = []
        self.post(Tick())

    def post(self, event):
        events = [event]
        while events:
            self.fleet, actions = step(self.fleet, events.pop(0), self.now)
            assert not self.quits or not actions, "asked for more after Quit"
            events += [answer for action in actions if (answer := self.perform(action)) is not None]

    def perform(self, action):
        match action:
            case Start(slot, role, consumer):
                return self.start(slot, role, consumer)
            case Tell(pid, message):
                self.children[pid].told.append(dict(message))
            case Terminate(pid):
                assert pid in self.children, "a signal to a reaped process"
            case Kill(pid):
                assert not self.children[pid].killed, "killed twice"
                self.children[pid].killed = True
            case Notify(text):
                self.notes.append((self.now, text))
            case Log(text):
                self.logs.append(text)
            case Quit(code):
                assert not self.children, "quit while children live"
                self.quits.append(code)
        return None

    def start(self, slot, role, consumer):
        assert slot not in [child.slot for child in self.children.values()], "two children in one slot"
        assert consumer not in self.consumers, "a consumer's name used twice"
        assert self.now >= self.earliest.get(slot, 0) - TOLERANCE, "started before its back-off was over"
        servers = [child for child in self.children.values() if child.role is Role.SERVER]
        if role is not Role.SERVER and self.fleet.plan.embedded:
            assert servers, "started without the server"
            assert servers[0].ready, "started before the server was ready"
        if role is Role.WORKER:
            booting = [c for c in self.children.values() if c.role is Role.WORKER and not c.ready and not c.killed]
            assert len([c for c in booting if {"t": "stop"} not in c.told]) < self.fleet.plan.parallel
        self.consumers.add(consumer)
        if self.forks_fail:
            self.fell(slot, 0.0, 0.5)
            return StartFailed(slot, "out of processes", 0.5)
        self.next_pid += 1
        self.children[self.next_pid] = Child(self.next_pid, slot, role, consumer)
        return Started(slot, self.next_pid)

    def fell(self, slot, lived, draw):
        self.deaths[slot] = 1 if lived >= 60 else self.deaths.get(slot, 0) + 1
        self.earliest[slot] = self.now + pause(self.deaths[slot], draw)

    def say_ready(self, pid):
        self.children[pid].ready = self.now
        self.post(Said(pid, READY))

    def exit(self, pid, code, draw=0.5):
        child = self.children.pop(pid)
        self.fell(child.slot, self.now - child.ready if child.ready else 0.0, draw)
        self.post(Exited(pid, -9 if child.killed else code, draw))

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

    def sleep_until(self, slot):
        """Until there is a child in *slot*."""
        while slot not in [child.slot for child in self.children.values()]:
            assert self.sleep(), "nobody will start it"

    def all(self, role=None):
        return [child for child in self.children.values() if role in (None, child.role)]

    def one(self, slot):
        return next(child for child in self.children.values() if child.slot == slot)

    def boot(self):
        """Everybody comes up."""
        while waiting := [child.pid for child in self.children.values() if not child.ready]:
            self.say_ready(waiting[0])
        assert self.fleet.ready

    def stopped(self, child):
        return [message["grace"] for message in child.told if message["t"] == "stop" and "grace" in message]


def plan(**changes):
    return Plan(**{"identity": "host:boot:sup", "workers": 2, "parallel": 2, **changes})


@settings(max_examples=150, stateful_step_count=60, deadline=None)
class AnySystem(RuleBasedStateMachine):
    """Whatever the system does and in whatever order, the promises in Kernel hold."""

    @initialize(workers=st.integers(1, 4), embedded=st.booleans(), parallel=st.integers(1, 4))
    def begin(self, workers, embedded, parallel):
        self.kernel = Kernel(plan(workers=workers, embedded=embedded, parallel=parallel))

    def pick(self, data, children):
        return data.draw(st.sampled_from(sorted(child.pid for child in children)))

    @precondition(lambda self: [c for c in self.kernel.all() if not c.ready and not c.killed])
    @rule(data=st.data())
    def becomes_ready(self, data):
        self.kernel.say_ready(self.pick(data, [c for c in self.kernel.all() if not c.ready and not c.killed]))

    @precondition(lambda self: self.kernel.all())
    @rule(data=st.data(), code=st.sampled_from([0, 1, 69, -9, -11, -15]), draw=st.floats(0, 1, exclude_max=True))
    def exits(self, data, code, draw):
        self.kernel.exit(self.pick(data, self.kernel.all()), code, draw)

    @precondition(lambda self: self.kernel.all())
    @rule(data=st.data(), what=st.sampled_from(["beat", "bye", "ready", "news"]))
    def talks(self, data, what):
        child = self.kernel.children[self.pick(data, self.kernel.all())]
        if what != "ready" or child.ready:
            self.kernel.post(Said(child.pid, {"t": what, "running": 1, "report": {"finished": 2}}))

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

    @rule(broken=st.booleans())
    def forks_fail(self, broken):
        self.kernel.forks_fail = broken

    @rule(what=st.sampled_from(["SIGTERM", "SIGINT", "SIGQUIT", "stop"]))
    def asked_to_stop(self, what):
        self.kernel.post(Asked(what))
        assert self.kernel.fleet.stopping

    @invariant()
    def the_fleet_knows_exactly_the_children_there_are(self):
        known = {slot.pid: slot.name for slot in self.kernel.fleet.slots if slot.pid is not None}
        assert known == {child.pid: child.slot for child in self.kernel.all()}

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
        kernel.post(Asked("SIGTERM"))
        asked_at = kernel.now
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


TestAnySystem = AnySystem.TestCase


def test_the_server_comes_first_then_the_scheduler_and_the_workers():
    kernel = Kernel(plan(workers=3, parallel=2))

    assert [child.slot for child in kernel.all()] == ["server"]
    kernel.say_ready(kernel.one("server").pid)
    assert [child.slot for child in kernel.all()] == ["server", "scheduler", "worker-1", "worker-2"]
    kernel.say_ready(kernel.one("worker-2").pid)
    assert [child.slot for child in kernel.all()] == ["server", "scheduler", "worker-1", "worker-2", "worker-3"]


def test_without_the_embedded_broker_there_is_no_server():
    kernel = Kernel(plan(embedded=False))

    assert [child.slot for child in kernel.all()] == ["scheduler", "worker-1", "worker-2"]


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
        order.append(sorted(child.slot for child in leaving))
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

    assert sorted(child.slot for child in kernel.all()) == ["scheduler", "server", "worker-2"]


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


@pytest.mark.parametrize("asks", [["SIGTERM", "SIGINT"], ["SIGINT", "SIGINT"], ["SIGQUIT"], ["stop", "SIGQUIT"]])
def test_a_second_interrupt_or_a_quit_hurries(asks):
    kernel = Kernel(plan())
    kernel.boot()

    for what in asks:
        kernel.post(Asked(what))
    worker = kernel.one("worker-1")

    assert kernel.stopped(worker)[-1] == 0
    kernel.pass_time(kernel.fleet.plan.margin)
    assert worker.killed


def test_a_second_sigterm_changes_nothing():
    kernel = Kernel(plan())
    kernel.boot()
    kernel.post(Asked("SIGTERM"))
    before = kernel.fleet

    kernel.post(Asked("SIGTERM"))

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


def test_it_sleeps_for_ever_when_all_is_well():
    kernel = Kernel(plan())
    kernel.boot()
    kernel.pass_time(1)  # the last status

    assert wake(kernel.fleet) is None


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "exited with status 0"), (3, "exited with status 3"), (-9, "killed by SIGKILL"), (-50, "killed by signal 50")],
)
def test_causes_in_words(code, text):
    assert cause(code) == text
