"""When the scheduler has to look next.  Pure."""

# A dead worker's deliveries are looked for this often; its lease must have lapsed, or chicoryd reports it at once.
RECLAIM_EVERY = 5.0
# The part of a lease after which those of living workers are renewed: five renewals may fail.
RENEW_EVERY = 1 / 6
# Whether a schedule has a slot sooner than was thought, because the broker's clock was set, is asked this often.
LOOK_EVERY = 30.0
# Whether there is work that nobody fetches, somebody should know within half a minute.
COUNT_EVERY = 10.0


def next_wake(due: float | None, look: float, *, more: bool = False) -> float:
    """Seconds to sleep.

    due: seconds until the next delayed message is due; None when none waits.
    look: seconds until dead workers are to be looked for, or leases to be renewed.
    more: there was more to reclaim than was taken.
    The result lies in [0, RECLAIM_EVERY], so that a due time that was heard wrong costs seconds and not hours.
    """
    if more:
        return 0.0
    # In this order max() and min() answer with the bound when a broker answers NaN.
    wait = min(RECLAIM_EVERY, max(0.0, look))
    return wait if due is None else min(wait, max(0.0, due))


def next_look(slot: float) -> float:
    """Seconds to sleep until the schedules are to be looked at: *slot* is the seconds until the next one is due.

    The result lies in [0, LOOK_EVERY].
    """
    return min(LOOK_EVERY, max(0.0, slot))
