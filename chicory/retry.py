"""How long to wait before a failed task is tried again.  Pure."""

from chicory.types import RetryPolicy


def backoff(policy: RetryPolicy, attempt: int, draw: float) -> float:
    """Seconds to wait after attempt number *attempt* (1-based) has failed.

    *draw* is uniform in [0, 1); it is an argument so that tests choose it.  The result lies in
    [0, policy.max_delay]: jitter only ever shortens the wait, so the cap stays true.
    Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """
    try:
        grown = policy.delay * policy.multiplier ** (attempt - 1)
    except OverflowError:
        grown = policy.max_delay
    return min(grown, policy.max_delay) * (1 - policy.jitter * draw)
