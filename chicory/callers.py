"""Who may call: a broker or a backend serves trio, and says so when it serves asyncio and sync callers too.

All of Chicory's own do.  One of a user's own may be for trio alone, where `links.trio_thread` does not help it.
"""

from chicory.errors import UsageError
from chicory.links.executor import SYNC, TRIO, running


def check_caller(end: object) -> None:
    """Raise UsageError unless *end*, a broker or a backend, serves whoever calls.

    It names those it serves as `callers`; one that names none serves trio alone.
    """
    caller = running().name
    if caller in getattr(end, "callers", (TRIO,)):
        return
    kind = "sync" if caller == SYNC else caller
    raise UsageError(
        f"{type(end).__name__} has no way for {kind} callers; call from trio, or give the app"
        " one of Chicory's own brokers and backends, which all have"
    )
