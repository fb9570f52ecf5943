"""How long to wait before a dead child is started again.  Pure.

Each slot has its own count, so that one broken slot never holds up another.
"""

HEALTHY = 60.0  # seconds of work after which a death is the first one again
LONGEST = 60.0
JITTER = 0.2


def failures(before: int, lived: float) -> int:
    """How many deaths there were in a row, now that a child has died which was ready for *lived* seconds."""
    return 1 if lived >= HEALTHY else before + 1


def pause(count: int, draw: float) -> float:
    """Seconds to wait after death number *count* in a row (1-based): 0, 1, 2, 4 ... 60, each give or take a fifth.

    *draw* is uniform in [0, 1).  The first restart is immediate: most deaths come alone.
    """
    if count <= 1:
        return 0.0
    # 2**6 is beyond the longest pause already; larger powers would overflow after a thousand deaths.
    return min(2.0 ** min(count - 2, 6), LONGEST) * (1 + JITTER * (2 * draw - 1))
