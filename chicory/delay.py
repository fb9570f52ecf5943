"""How long a message may be asked to wait.  Pure."""

from chicory.errors import DelayError

# A century: enough for every plan, and an instant that every broker's clock can still hold.
MAX_DELAY = 100 * 365.25 * 86400


def check_delay(delay: float) -> float:
    """*delay* in seconds, when a broker can keep it; else DelayError."""
    try:
        # Written so that NaN, which compares false with everything, is refused too.
        if 0 <= delay <= MAX_DELAY:
            return float(delay)
    except TypeError:
        raise DelayError(f"a delay is a number of seconds or a timedelta, not {delay!r:.80}") from None
    raise DelayError(
        f"a delay of {delay!s:.80} s is out of range; it must be a number from 0 to {MAX_DELAY:.0f} seconds"
    )


def bounded(delay: float) -> float:
    """*delay* brought into range: a retry that is already decided must not fail for its delay."""
    # In this order max() answers 0 for NaN.
    return min(max(0.0, delay), MAX_DELAY)
