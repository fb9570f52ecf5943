"""What happened in a simulation, in order."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import blake2b
from typing import final

import trio


@final
class Trace:
    """Facts, with the virtual second of each and the process it happened to."""

    def __init__(self) -> None:
        self._facts: list[tuple[float, str, str]] = []
        self._closed = False

    def note(self, who: object, what: str) -> None:
        """*what* has happened to *who*, now."""
        if not self._closed:
            self._facts.append((trio.current_time(), str(who), what))

    def close(self) -> None:
        """Whatever happens from now on does not matter."""
        self._closed = True

    def digest(self) -> str:
        """The same for the same facts in the same order at the same times."""
        return blake2b(str(self).encode(), digest_size=8).hexdigest()

    def __str__(self) -> str:
        return "\n".join(f"{at:9.3f} {who:9} {what}" for at, who, what in self._facts)


@contextmanager
def silence() -> Generator[None]:
    """While the block lasts, nothing is logged: in a simulation something goes wrong all the time."""
    log = logging.getLogger("chicory")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)
