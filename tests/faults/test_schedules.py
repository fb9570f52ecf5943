"""Three daemons fire the same schedules, and their schedulers are killed again and again: each slot runs once.

On RabbitMQ twice, when the kill came between the slot and its note.
"""

import itertools
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from chicory.ids import slot_id
from tests.faults import load, rabbit_tree
from tests.faults.schedules import app as declared
from tests.faults.tree import Tree, until

ENTRIES = [schedule.entry for schedule in declared.schedules.values()]


@pytest.fixture(params=["redis", "rabbitmq"])
def kind(request):
    return request.param


@pytest.fixture
def tree(kind, request):
    """Makes a tree with one worker, alone or beside another."""
    server = request.getfixturevalue("server" if kind == "redis" else "rabbit_node")

    def make(beside=None):
        said = {"app": "tests.faults.schedules:app", "beside": beside, "supervisor": {"workers": 1}}
        return Tree(server.url, **said) if kind == "redis" else rabbit_tree.RabbitTree(server, **said)

    return make


@asynccontextmanager
async def daemons(tree):
    """Three of them, and what is remembered of the schedules when nothing has been fired yet."""
    first = tree()
    trees = [first, tree(first), tree(first)]
    try:
        async with first.client() as app:
            begun = (await app.broker.timetable().look(ENTRIES)).known
            for one in trees:
                one.start()
            for one in trees:
                await one.ready()
            yield trees, app, begun
    finally:
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


# New daemons for each round, because one whose children die again and again waits longer each time.
@pytest.mark.parametrize(("rounds", "kills"), [(1, 3), pytest.param(10, 6, marks=pytest.mark.long)])
async def test_each_slot_is_fired_once_whoever_is_killed(tree, kind, measured, rounds, kills):
    for _ in range(rounds):
        async with daemons(tree) as (trees, app, begun):
            await check_a_round(trees, app, begun, kind, measured, kills)


async def check_a_round(trees, app, begun, kind, measured, kills):
    ledger, killed = trees[0].ledger, []

    for number, one in zip(range(kills), itertools.cycle(trees), strict=False):
        # Every third time all of them at once, so that slots are missed and not only taken over.
        for victim in trees if number % 3 == 2 else [one]:
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
        for task, slot in of.items():
            ledger.send(task, slot)
    ledger.ack(ids["each"])
    # The newest stands for those before it, so not all of these are sent; what was sent has to run.
    await until(lambda: set(ids["each"]) <= ledger.ended(), "each slot has run")
    ledger.ack(ids["newest"].keys() & {run.id for run in ledger.runs()})
    if kind == "redis":
        await load.close_books(trees[0], app)
    else:
        await rabbit_tree.close_books(trees[0], app, twice=True)

    assert len(set(killed)) == len(killed) > kills
    again = [task for task, count in Counter(run.id for run in ledger.runs()).items() if count > 1]
    assert len(again) <= (0 if kind == "redis" else len(killed))
    assert slot_id("newest", int(last["newest"])) in ledger.ended()
    waits = [run.unix - ledger.sent[run.id] for run in ledger.runs()]
    # Where nobody was left to fire, until one of the schedulers was there again.
    assert measured("from a slot to its task's first line", waits) <= 5.0
    for one in trees:
        assert await one.stop() == 0
