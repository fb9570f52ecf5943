"""Who was killed for want of memory, by the counters of the kernel."""

from chicoryd.memory import MemoryKiller


def counter(path, count):
    path.write_text(f"low 0\noom 7\noom_kill {count}\noom_group_kill 0\n")
    return path


def test_each_strike_since_it_began_is_told_once(tmp_path):
    events = counter(tmp_path / "memory.events", 5)
    killer = MemoryKiller([tmp_path / "missing", events, counter(tmp_path / "vmstat", 9)])

    assert not killer.struck()
    counter(events, 7)

    assert [killer.struck(), killer.struck(), killer.struck()] == [True, True, False]


def test_where_nothing_is_counted_nobody_is_accused(tmp_path):
    empty = tmp_path / "memory.events"
    empty.write_text("low 0\n")

    assert not MemoryKiller([empty, tmp_path / "missing"]).struck()


def test_this_system_can_be_asked():
    assert MemoryKiller().struck() is False
