"""At which of its awaits the runs of a task are cut.  Pure."""

from random import Random

import attrs


@attrs.frozen
class Cut:
    """Where one run is cut: when it waits for the *at*-th time, counted from 1; one more is after its end.

    killed: it is gone, as with its process, and nothing of it is cleaned up.  Else it is cancelled, as by a worker that
    stops or loses its lease, and may clean up.
    """

    at: int
    killed: bool

    def told(self, points: int, where: str) -> str:
        """As a sentence has it; *where* is the line that waited."""
        how = "killed" if self.killed else "cancelled"
        if self.at > points:
            return f"{how} after its end, before the broker had heard of it"
        return f"{how} at await {self.at} of {points}{where}"


def cuts(seed: int, points: int) -> tuple[Cut, ...]:
    """How the first runs are cut, one after another, of a task that waits *points* times when nobody cuts it.

    The first seeds are `singles`: each cut there is.  Those after them cut the first two runs, anywhere.
    """
    ways = _ways(points)
    if seed < len(ways):
        return (ways[seed],)
    dice = Random(seed)
    return dice.choice(ways), dice.choice(ways)


def singles(points: int) -> int:
    """How many seeds cut one run."""
    return len(_ways(points))


def _ways(points: int) -> list[Cut]:
    within = [Cut(at, killed) for at in range(1, points + 1) for killed in (True, False)]
    # There is nothing to be cancelled after the end.
    return [*within, Cut(points + 1, killed=True)]
