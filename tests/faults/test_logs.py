"""Nobody reads the log, or the disk it is on is full: that costs lines, and no work."""

import contextlib
import json
import os
import random
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
import trio

from tests.faults.load import close_books, message, send
from tests.faults.tree import Tree, until

LINES = 20  # of each task
# Many tasks that sleep long, so that the machine is not what limits them.
PLENTY = {"concurrency": 40, "prefetch": 0}
DROPPED = re.compile(r"lines dropped before this one: (\d+) \((.*?)\)")


def chats(count, shortest=0.3, longest=0.9, lines=LINES):
    dice = random.Random(count)
    return [message("chat", round(dice.uniform(shortest, longest), 3), lines) for _ in range(count)]


async def throughput(tree, app, count):
    """Tasks a second, while there were more than enough; nothing is lost."""
    tree.ledger.new_page()
    await send(tree, app, chats(count))
    await close_books(tree, app)
    ends = sorted(run.end for run in tree.ledger.runs())
    assert len(ends) == count
    enough = ends[: count * 2 // 3]
    return len(enough) / (enough[-1] - tree.ledger.runs()[0].start)


async def all_speak(tree, app):
    """Every worker has something to log again."""
    pids = set(tree.pids())
    spoken = set()
    while spoken != pids:
        tree.ledger.new_page()
        await send(tree, app, chats(60, 0.0, 0.1, 1))
        await close_books(tree, app)
        spoken |= {run.pid for run in tree.ledger.runs()}


def fill(fd):
    """Write into *fd* until there is no more room, to the last byte."""
    for size in (1 << 16, 4096, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, b"\n" * size)


class Reader:
    """The other end of a tree's standard error."""

    def __init__(self):
        self.end, self.theirs = os.pipe()
        self.text = b""

    async def read(self, task_status=trio.TASK_STATUS_IGNORED):
        """Read on, until cancelled."""
        with trio.CancelScope() as scope:
            task_status.started(scope)
            while True:
                await trio.lowlevel.wait_readable(self.end)
                self.text += os.read(self.end, 1 << 20)

    def fill(self):
        own = os.open(f"/proc/self/fd/{self.theirs}", os.O_WRONLY | os.O_NONBLOCK)
        fill(own)
        os.close(own)

    def close(self):
        for end in (self.end, self.theirs):
            if end >= 0:
                os.close(end)
        self.end = self.theirs = -1


@pytest.fixture
def reader():
    made = Reader()
    yield made
    made.close()


@pytest.fixture
def own_tree(server):
    made = Tree(server.url, worker=PLENTY)
    yield made
    made.remove()


@pytest.mark.parametrize("count", [360, pytest.param(3600, marks=pytest.mark.long)])
async def test_a_reader_that_stops_and_then_goes_away_costs_lines_and_no_work(own_tree, reader, count):
    tree = own_tree
    async with tree.client() as app, trio.open_nursery() as nursery:
        reading = await nursery.start(reader.read)
        tree.start(stderr=reader.theirs)
        await tree.ready()
        undisturbed = await throughput(tree, app, count)
        await until(lambda: reader.text.count(b" says ") == count * LINES, "all was read")
        assert not DROPPED.search(reader.text.decode())

        reading.cancel()
        reader.fill()
        reader.text = b""
        assert await throughput(tree, app, count) >= 0.95 * undisturbed

        reading = await nursery.start(reader.read)
        await until(lambda: b"\n\n" in reader.text, "it is read again")
        await all_speak(tree, app)
        told = [(int(number), why) for number, why in DROPPED.findall(reader.text.decode())]
        assert sum(number for number, _ in told) >= count * LINES
        assert {why for _, why in told} == {"the reader does not keep up"}

        reading.cancel()
        reader.close()
        assert await throughput(tree, app, count) >= 0.95 * undisturbed
        assert await tree.stop() == 0


class Disk:
    """A small file system of its own."""

    def __init__(self, path):
        self.path = path

    def resize(self, size):
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True)

    def fill(self):
        with open(self.path / "ballast", "wb", buffering=0) as file:
            fill(file.fileno())


@pytest.fixture
def disk():
    # Not below pytest's own directory: a control socket will be on it.
    path = Path(tempfile.mkdtemp(prefix="chd-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        path.rmdir()
        pytest.skip(f"no small file system can be mounted: {mounted.stderr.strip()}")
    yield Disk(path)
    subprocess.run(["umount", path], check=True)
    path.rmdir()


@pytest.fixture
def tree_on_disk(server, disk):
    made = Tree(server.url)
    made.state_dir = disk.path / "state"
    made.configure(worker=PLENTY, log={"file": str(disk.path / "log"), "format": "json"})
    yield made
    made.remove()


@pytest.mark.parametrize("count", [360, pytest.param(3600, marks=pytest.mark.long)])
async def test_a_full_disk_for_logs_and_state_costs_lines_and_no_work(tree_on_disk, disk, count):
    tree, log = tree_on_disk, disk.path / "log"
    async with tree.client() as app:
        await tree.start().ready()
        undisturbed = await throughput(tree, app, count)
        assert log.read_text().count(" says ") == count * LINES

        os.truncate(log, 0)
        disk.resize("1m")
        disk.fill()
        assert await throughput(tree, app, count) >= 0.95 * undisturbed

        # And it starts like this too.
        assert await tree.stop() == 0
        os.truncate(log, 0)
        disk.fill()
        await tree.start().ready()
        assert await throughput(tree, app, count) >= 0.95 * undisturbed

        disk.resize("64m")
        await all_speak(tree, app)
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        told = [found for entry in entries if (found := DROPPED.match(entry["message"]))]
        assert sum(int(found[1]) for found in told) >= count * LINES
        assert {found[2] for found in told} == {"No space left on device"}
        assert await tree.stop() == 0
