"""The state directory is on a disk that is full."""

import contextlib
import os
import subprocess

import pytest

from tests.faults.load import close_books, long, quick, send


@contextlib.contextmanager
def small_disk(path, options):
    """A file system at *path*, for as long as the block lasts."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("to mount a small disk needs root, and a system that allows it")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


async def test_on_a_full_disk_the_daemon_starts_works_reloads_and_stops(shared_tree, app):
    tree = shared_tree
    with small_disk(tree.state_dir, "size=64k"):
        filling = tree.state_dir / "filling"
        with filling.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        await tree.start().ready()
        await send(tree, app, long(12, 1.0) + quick(200))

        reloaded = tree.run("reload")

        assert (reloaded.returncode, reloaded.stderr) == (0, "")
        await close_books(tree, app)
        assert len(tree.ledger.runs()) == len(tree.ledger.sent)
        assert tree.run("stop").returncode == 0
        assert await tree.gone() == 0
        assert tree.left() == []
        (warning,) = [line for line in tree.log().splitlines() if " WARNING " in line]
        assert "cannot write the pid file" in warning
        assert "No space left on device" in warning
        assert sorted(path.name for path in tree.state_dir.iterdir()) == ["chicoryd.lock", "filling"]
    tree.state_dir.rmdir()
    tree.log_path.unlink()


def test_where_there_is_no_room_for_the_lock_the_daemon_ends_with_one_line(shared_tree):
    tree = shared_tree
    with small_disk(tree.state_dir, "nr_inodes=1"):
        ended = tree.run("start")

    assert ended.returncode == os.EX_CONFIG
    why = f"cannot use the state directory {tree.state_dir}: No space left on device"
    assert ended.stderr == f"chicoryd: {why}; set supervisor.state_dir to another\n"
