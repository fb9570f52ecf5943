"""The simulation sees what it is there to see: each promise broken on purpose is told."""

import attrs
import pytest
import trio
from msgspec.structs import replace

from chicory.backends.base import StoredRecord
from chicory.brokers.memory.places import Places
from chicory.brokers.memory.store import Store
from chicory.outcome import Dead, Done, Failed
from chicory.scheduler.scheduler import Scheduler
from chicory.testing.simulation import fleet, world
from chicory.testing.simulation.__main__ import told
from chicory.testing.simulation.plan import ALL, Job, Mishap, Plan
from chicory.testing.simulation.world import perform
from chicory.types import DeliveryMode
from chicory.worker import lease, session
from chicory.worker.fetch import Fetcher
from chicory.worker.lease import Fence, LeaseKeeper
from chicory.worker.plan import Plan as TaskPlan
from chicory.worker.settle import Settler

promote, put_back, renew_once = Places.promote, Places.put_back, LeaseKeeper._renew_once


def settle_without_a_fence(store, lease, settlement):
    entry = None if settlement.delivery.acked else store._let_go(lease, settlement.delivery)
    if entry is not None or isinstance(settlement.outcome, Done | Failed | Dead):
        store._carry_out(settlement, entry)
    return True


async def trust_a_lease_that_nobody_renewed(keeper):
    await renew_once(keeper)
    keeper._renewed = keeper._clock()
    return True


async def settle_before_storing(settler, batch):
    held = await settler._consumer.settle([replace(one, record=None) for one in batch])
    await settler._backend.store([StoredRecord(one.delivery.message.id, one.record) for one in batch])
    return held


def put_back_uncharged(places, entry, road, *, charged, cause):
    put_back(places, entry, road, charged=False, cause=cause)


def some(count, **how):
    return tuple(Job(at=number * 0.3, **how) for number in range(count))


CRASH = Mishap("crash", 0, 5.0, 1.0)
LONG = Mishap("cut", 0, 5.0, 45.0)

PLANTED = {
    "settling is not fenced": (
        (Store, "settle", settle_without_a_fence),
        Plan(seed=0, jobs=some(6, steps=(20.0,)), mishaps=(Mishap("pause", 0, 5.0, 45.0),)),
        "finished 2 times",
    ),
    "acknowledged before it has run": (
        (TaskPlan, "mode_of", lambda plan, message: DeliveryMode.AT_MOST_ONCE),
        Plan(seed=0, jobs=some(6, steps=(20.0,)), mishaps=(CRASH,)),
        "lost",
    ),
    "acknowledged before its result is stored": (
        (Settler, "_write", settle_before_storing),
        Plan(seed=0, joined=False, jobs=some(3), mishaps=(Mishap("die before", 0, 0.0, command="store"),)),
        "its result is",
    ),
    "promoted early": (
        (Places, "promote", lambda places, now, limit: promote(places, now + 1.0, limit)),
        Plan(seed=0, jobs=some(3, delay=5.0)),
        "early",
    ),
    "replies that got lost are not looked for": (
        (Fetcher, "reconcile", lambda fetcher: trio.sleep_forever()),
        Plan(seed=0, jobs=some(3), mishaps=(Mishap("lose the reply", 0, 0.0, command="receive"),)),
        "not done",
    ),
    "a lease is trusted that was not renewed": (
        (LeaseKeeper, "_renew_once", trust_a_lease_that_nobody_renewed),
        Plan(seed=0, concurrency=4, jobs=some(4, steps=(90.0,)), mishaps=(LONG,)),
        "overlapping",
    ),
    "a worker goes on when its lease is in doubt": (
        (lease, "fence", lambda silent, lease: Fence.OPEN),
        Plan(seed=0, concurrency=4, jobs=some(4, steps=(90.0,)), mishaps=(LONG,)),
        "overlapping",
    ),
    "an outage is forgotten by who is to judge": (
        (Scheduler, "_keep_on", Scheduler._keep),
        Plan(seed=0, workers=3, mishaps=(Mishap("cut", ALL, 5.0, 45.0),)),
        "its lease was taken for no reason",
    ),
    "deaths are not counted": (
        (Places, "put_back", put_back_uncharged),
        Plan(seed=0, supervised=True, jobs=(Job(at=0.0, poison=True),)),
        "not done",
    ),
    "a suspect has company": (
        (session, "runs_alone", lambda count, most: False),
        Plan(seed=0, supervised=True, concurrency=4, jobs=(*some(4, steps=(9.0,)), Job(at=1.0, poison=True))),
        "not done",
    ),
}


def reports(plan):
    return (perform(attrs.evolve(plan, seed=seed)) for seed in range(8))


@pytest.mark.parametrize("planted", PLANTED)
def test_a_promise_that_is_broken_is_told(planted, monkeypatch):
    change, plan, wrong = PLANTED[planted]
    monkeypatch.setattr(world, "DONE_WITHIN", 200.0)
    # Some go on dying until the time is over.
    monkeypatch.setattr(fleet, "REPLACED_AFTER", 5.0)
    assert not any(report.wrongs for report in reports(plan))

    monkeypatch.setattr(*change)

    assert any(wrong in line for report in reports(plan) for line in report.wrongs)


def test_what_is_told_names_the_seed_and_is_small(monkeypatch):
    change, plan, _ = PLANTED["promoted early"]
    monkeypatch.setattr(*change)

    text = told(perform(plan))

    assert text.startswith("seed 0 is wrong:\n")
    assert "\n  j0#0: early\n" in text
    assert "delay=5.0, steps=(), failures=0, once=False" in text
    assert text.count("Job(") == 1
    assert text.endswith("again: python -m chicory.testing.simulation --seed 0")
