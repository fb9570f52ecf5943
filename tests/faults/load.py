"""Work for a tree under test, and the closing of the books when it is done."""

import random
import re
from datetime import UTC, datetime

import trio
from msgspec.structs import replace

from chicory import TaskMessage
from chicory.errors import BrokerError
from tests.faults.tree import PATIENCE, until

_ID = re.compile(rb'^{"id":"([^"]*)"')


def message(name="work", *args, **conditions):
    return TaskMessage(name=name, args=list(args), **conditions)


def quick(count, longest=0.02, seed=1):
    """The common load: many tasks of 0 to *longest* seconds."""
    dice = random.Random(seed)
    return [message("work", round(dice.random() * longest, 4)) for _ in range(count)]


def long(count, seconds):
    return [message("work", seconds) for _ in range(count)]


async def send(tree, app, messages, *, batch=50, pause=0.0, stubborn=False):
    """Publish *messages*, noting each before and after.  *stubborn*: again, with the same ids, until it succeeds."""
    ledger = tree.ledger
    for start in range(0, len(messages), batch):
        chunk = messages[start : start + batch]
        for each in chunk:
            ledger.send(each.id, each.due or 0.0)
        while True:
            try:
                await app.publish_many(chunk)
            except BrokerError:
                if not stubborn:
                    raise
                await trio.sleep(0.05)
            else:
                break
        ledger.ack([each.id for each in chunk])
        if pause:
            await trio.sleep(pause)


async def send_delayed(tree, app, messages, due):
    """Publish *messages* to be run at *due*, a unix time by the one clock of this machine."""
    for each in messages:
        tree.ledger.send(each.id, due)
    await app.publish_many([replace(each, eta=datetime.fromtimestamp(due, UTC)) for each in messages])
    tree.ledger.ack([each.id for each in messages])


async def probe(tree, app, within):
    """A task completes *within* so many seconds from now."""
    one = message("work", 0.0)
    begun = trio.current_time()
    with trio.move_on_after(within):
        await send(tree, app, [one], stubborn=True)
        while one.id not in tree.ledger.ended():
            await trio.sleep(0.01)
        return trio.current_time() - begun
    raise AssertionError(f"no task completed within {within:g} s")


async def empty(tree, app, patience=PATIENCE):
    """Wait until nothing is queued, delayed or held by a worker."""

    async def nothing_left():
        try:
            sizes = await app.broker.get_queue_sizes()
        except BrokerError:
            return False
        return not (sizes.ready or sizes.delayed or sizes.delivered)

    await until(nothing_left, "the queue is empty", patience)


async def close_books(tree, app, *, patience=PATIENCE, books=True, dead=(), once=()):
    """Wait until all is done, and check the common bar; the dead letters are the ids *dead* and no others.

    books: whether the broker's counters survived.
    once: ids of at-most-once tasks.  They may be lost by a fault that met their run, and may not run twice.
    """
    await empty(tree, app, patience)
    await until(lambda: not tree.ledger.running(), "everything has ended")
    letters = []
    while more := await app.broker.get_dlq_messages(start=letters[-1].message_id if letters else ""):
        letters += more
    buried = {letter.task_id for letter in letters} & set(tree.ledger.sent)
    stored = await successes(tree, app)
    verdict = tree.ledger.judge(dead=buried, queued=await queued(tree, app), results=stored, once=once)
    tree.ledger.close(verdict)
    assert verdict.clean(), f"{verdict}\nfaults: {tree.ledger.faults}\n{tree.log()[-4000:]}"
    assert buried == set(dead), letters
    # The broker never hears the end of those that went down with their worker.
    tree.forgiven += len(set(once) - stored)
    if books:
        await check_counters(tree, app)


async def check_counters(tree, app):
    """published + replayed = done + failed + dead + purged + ready + delayed + delivered + lost."""
    told, sizes = await app.broker.counters(), await app.broker.get_queue_sizes()
    into = told["published"] + told["replayed"]
    out = told["done"] + told["failed"] + told["dead"] + told["purged"] + told["lost"]
    assert into == out + sizes.ready + sizes.delayed + sizes.delivered + tree.forgiven, (told, sizes)


async def queued(tree, app):
    """The ids of what is ready, held or delayed."""
    pool = app.broker._pool
    found = set()
    for _, fields in await pool.call("XRANGE", f"{tree.prefix}:stream:default", "-", "+"):
        found.add(dict(zip(fields[::2], fields[1::2], strict=True))[b"task_id"].decode())
    for data in await pool.call("ZRANGE", f"{tree.prefix}:delayed:default", 0, -1):
        found.add(_ID.match(data)[1].decode())
    return found


async def successes(tree, app):
    """The ids whose stored result is a success."""
    ids = sorted(tree.ledger.acked)
    found = set()
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        records = await app.broker._pool.call("MGET", *(f"{tree.prefix}:result:{one}" for one in part))
        found |= {one for one, record in zip(part, records, strict=True) if record and b'"success"' in record}
    return found
