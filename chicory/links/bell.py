"""Waiting for what another thread may do, whichever library either of the two runs."""

from contextlib import suppress

from chicory.links.executor import Turn, running


class Bell:
    """Rings once for all who attend.

    Whoever would wait looks first, under a lock that whoever rings has held before; a turn is taken under it too, so
    no ring is missed in between.
    """

    def __init__(self) -> None:
        self._turns: list[Turn] = []

    def turn(self) -> Turn:
        """One that is set by the next ring; to be waited for by `heard`."""
        turn = running().signal()
        self._turns.append(turn)
        return turn

    async def heard(self, turn: Turn) -> None:
        """Wait for *turn*."""
        try:
            await turn.wait()
        finally:
            # After a ring it is not there any more; adding and removing are single steps, so no lock is needed.
            with suppress(ValueError):
                self._turns.remove(turn)

    def ring(self) -> None:
        """Set all turns there are."""
        turns, self._turns = self._turns, []
        for turn in turns:
            turn.set()

    def __bool__(self) -> bool:
        return bool(self._turns)
