"""What Linux says of processes: their children, their CPU time, their own memory."""

from pathlib import Path

_PROC = Path("/proc")


def family(pid: int) -> list[int]:
    """*pid* and all that descend from it."""
    pids = [pid]
    for one in pids:
        for thread in (_PROC / str(one) / "task").iterdir():
            pids += [int(child) for child in (thread / "children").read_text().split()]
    return pids


def cpu_seconds(pid: int) -> float:
    """Seconds on a core so far, all threads; to the nanosecond, where `times` counts hundredths."""
    threads = (_PROC / str(pid) / "task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def private_bytes(pid: int) -> int:
    """Memory that is this process's alone: what would be free again if it ended."""
    return private_of(_smaps(pid))


def resident_bytes(pid: int) -> int:
    """Memory that this process has at hand, shared pages included."""
    return resident_of(_smaps(pid))


def private_of(smaps: str) -> int:
    """The private bytes in the text of a smaps_rollup.  Pure."""
    return _sum(smaps, "Private_Clean:", "Private_Dirty:")


def resident_of(smaps: str) -> int:
    """The resident bytes in the text of a smaps_rollup.  Pure."""
    return _sum(smaps, "Rss:")


def _smaps(pid: int) -> str:
    return (_PROC / str(pid) / "smaps_rollup").read_text()


def _sum(smaps: str, *names: str) -> int:
    fields = (line.split() for line in smaps.splitlines()[1:])
    return 1024 * sum(int(words[1]) for words in fields if words[0] in names)
