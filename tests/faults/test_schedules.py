"""Three daemons fire the same schedules, and their schedulers are killed again and again: each slot runs once."""

import itertools
from collections import Counter

import pytest

from chicory.ids import slot_id
from tests.faults.load import close_books
from tests.faults.schedules import app as declared
from tests.faults.tree import Tree, until

ENTRIES = [schedule.entry for schedule in declared.schedules.values()]


@pytest.fixture
async def daemons(server):
    def tree(beside=None):
        return Tree(server.url, "tests.faults.schedules:app", beside=beside, supervisor={"workers": 1})

    first = tree()
    trees = [first, tree(first), tree(first)]
    async with first.client() as app:
        # Begun here, so that it is known from which slot on each has to be fired.
        begun = (await app.broker.timetable().look(ENTRIES)).known
        for one in trees:
            one.start()
        for one in trees:
            await one.ready()
        yield trees, app, begun
    for one in reversed(trees):
        one.remove()


def scheduler(tree):
    """The pid of the scheduler when it is ready, else None."""
    slots = (tree.status() or {"slots": []})["slots"]
    return next((slot["pid"] for slot in slots if slot["slot"] == "scheduler" and slot["state"] == "ready"), None)


async def end(app):
    """Pause all, so that nothing more is fired; returns the last slot of each."""
    timetable = app.broker.timetable()
    for entry in ENTRIES:
        await timetable.pause(entry)
    return {name: known.fired for name, known in (await timetable.look(ENTRIES)).known.items()}


@pytest.mark.parametrize("kills", [6, pytest.param(60, marks=pytest.mark.long)])
async def test_each_slot_is_fired_once_whoever_is_killed(daemons, measured, kills):
    trees, app, begun = daemons
    ledger, killed = trees[0].ledger, []

    for number, tree in zip(range(kills), itertools.cycle(trees), strict=False):
        # Every third time all of them at once, so that slots are missed and not only taken over.
        for victim in trees if number % 3 == 2 else [tree]:
            pid = await until(lambda victim=victim: scheduler(victim), "the scheduler is ready")
            victim.kill(pid)
            killed.append(pid)
        ran = len(ledger.ended())
        await until(lambda ran=ran: len(ledger.ended()) >= ran + 2, "slots are fired again")
    await until(lambda: all(map(scheduler, trees)), "all schedulers are ready")
    ran = len(ledger.ended())
    await until(lambda: len(ledger.ended()) >= ran + 4, "the last missed slots are made up for")
    last = await end(app)

    slots = {name: range(int(known.mark) + 1, int(last[name]) + 1) for name, known in begun.items()}
    ids = {name: {slot_id(name, slot): slot for slot in of} for name, of in slots.items()}
    for of in ids.values():
        for one, slot in of.items():
            ledger.send(one, slot)
    ledger.ack(ids["each"])
    # The newest stands for those before it, so not all of these are sent; what was sent has to run.
    await until(lambda: set(ids["each"]) <= ledger.ended(), "each slot has run")
    ledger.ack(ids["newest"].keys() & {run.id for run in ledger.runs()})
    await close_books(trees[0], app)

    assert len(set(killed)) == len(killed) > kills
    assert set(Counter(run.id for run in ledger.runs()).values()) == {1}
    assert slot_id("newest", int(last["newest"])) in ledger.ended()
    waits = [run.unix - ledger.sent[run.id] for run in ledger.runs()]
    # Where nobody was left to fire, until one of the schedulers was there again.
    assert measured("from a slot to its task's first line", waits) <= 5.0
    for tree in trees:
        assert await tree.stop() == 0
