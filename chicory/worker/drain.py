"""What became of each task that ran when its worker was told to stop."""

from collections.abc import Collection, Iterable
from typing import Any

from chicory.brokers.base import Delivery
from chicory.outcome import Outcome, Release
from chicory.types import TaskMessage

# More are only counted: the report has to fit into one line to chicoryd.
MOST = 200


class Drain:
    """Filled while a worker stops; before `begin` nothing is noted.

    Each task is `finished`, however that went, `returned` to its queue uncharged, or `killed`: its process ends before
    it does, or before the broker has heard of its end, and its lease decides.
    """

    def __init__(self) -> None:
        self.begun = False
        self._tasks: dict[Any, Delivery] = {}
        self._ends: dict[Any, str] = {}

    def begin(self, running: Iterable[Delivery]) -> None:
        """The stop begins, and these run.  A second stop changes nothing."""
        if not self.begun:
            self.begun = True
            self._tasks = {delivery.receipt: delivery for delivery in running}

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        """The run of *delivery* has ended."""
        if delivery.receipt in self._tasks:
            self._ends[delivery.receipt] = "returned" if isinstance(outcome, Release) else "finished"

    def unsettled(self, receipts: Collection[Any]) -> None:
        """The broker never heard how these ended."""
        for receipt in receipts:
            self._ends.pop(receipt, None)

    def report(self) -> list[dict[str, str]]:
        """Id, name and end of each task that ran, at most MOST of them."""
        return [
            {**identity(delivery), "end": self._ends.get(receipt, "killed")}
            for receipt, delivery in list(self._tasks.items())[:MOST]
        ]


def identity(delivery: Delivery) -> dict[str, str]:
    """Id and name of the task in *delivery*."""
    message = delivery.message
    return {"id": message.id, "name": message.name} if isinstance(message, TaskMessage) else {"id": "", "name": ""}
