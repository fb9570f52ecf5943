"""What the fleet should be, as a value."""

import attrs


@attrs.frozen(kw_only=True)
class Plan:
    """All that a reload may change, and what it must not.  Times are seconds.

    identity: `host:boot:supervisor`, the part of a consumer's name that makes it unlike that of any other daemon.
    settings: the file that children read them from.
    fixed: settings that cannot change while the daemon runs, as (name, value).
    embedded: whether the broker is the daemon's own server.
    forks: whether workers are forked from a template, and not started one by one.
    grace: for running tasks when the fleet stops; `margin` comes on top, to cancel and to give back.
    shutdown_timeout: a worker has to leave in, all told.
    boot_timeout: without a word, after which a child that starts is killed.
    hang_timeout: without a beat, after which a child that was ready is.
    parallel: how many workers may boot at once.
    max_tasks, max_age, memory_soft: after so many tasks, seconds or bytes a worker makes way for a fresh one.
    jitter: the part by which these differ from worker to worker, so that not all are due at once.
    watchdog: between two signs of life for the service manager; None when it wants none.
    """

    identity: str
    settings: str = ""
    fixed: tuple[tuple[str, str], ...] = ()
    workers: int = 2
    embedded: bool = True
    forks: bool = True
    grace: float = 30.0
    margin: float = 10.0
    shutdown_timeout: float = 40.0
    boot_timeout: float = 60.0
    hang_timeout: float = 60.0
    parallel: int = 2
    max_tasks: int | None = None
    max_age: float | None = None
    memory_soft: int | None = None
    jitter: float = 0.1
    watchdog: float | None = None
