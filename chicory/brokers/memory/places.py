"""One queue in memory: the places a message can be in, the moves between them, and the books of the moves.  Pure."""

import heapq
from collections import Counter
from collections.abc import Iterator

import attrs

from chicory.brokers.base import ROADS
from chicory.types import Failure, QueueSizes


@attrs.define(eq=False, kw_only=True)
class Entry:
    """A message as the queue sees it: bytes, and what decides its turn.

    task_id: "" when the bytes are no message.  turn: grows with each entry; the lower goes first among equals.
    unique: its key among those of the queue, if any.
    """

    task_id: str
    raw: bytes
    turn: int
    priority: int = 0
    count: int = 1
    cause: str = ""
    unique: str | None = None


@attrs.frozen
class Letter:
    """A dead letter: the message, why it died, and when in unix seconds."""

    raw: bytes
    task_id: str
    failure: Failure
    failed_at: float


class Places:
    """Where the messages of one queue are.

    Every method is one move, done whole.  A delivery ends with `let_go` and one of finish, retry, put_back and bury.
    """

    def __init__(self) -> None:
        self.delivered: dict[int, Entry] = {}
        self.dead: dict[str, Letter] = {}
        self.books: Counter[str] = Counter(dict.fromkeys(ROADS, 0))
        # How often another message became the first one due: what a keeper that sleeps until then has to hear of.
        self.reschedules = 0
        self._ready: list[tuple[int, int, Entry]] = []
        self._delayed: list[tuple[float, int, Entry]] = []

    @property
    def sizes(self) -> QueueSizes:
        return QueueSizes(
            ready=len(self._ready),
            delayed=len(self._delayed),
            delivered=len(self.delivered),
            dead=len(self.dead),
        )

    @property
    def length(self) -> int:
        """How many messages are ready or delivered: what a limit of the queue counts."""
        return len(self._ready) + len(self.delivered)

    @property
    def next_turn(self) -> tuple[int, int] | None:
        """What the head of the ready messages is to be compared by with other queues' heads: the lower goes first."""
        return self._ready[0][:2] if self._ready else None

    @property
    def next_due(self) -> float | None:
        """When the first delayed message is due."""
        return self._delayed[0][0] if self._delayed else None

    @property
    def waiting(self) -> list[tuple[Entry, float | None]]:
        """What is ready, in its turn, then what is delayed, with when it is due."""
        ready = [(entry, None) for _, _, entry in sorted(self._ready, key=_turn)]
        return [*ready, *((entry, due) for due, _, entry in sorted(self._delayed, key=_turn))]

    def publish(self, entry: Entry, due: float | None) -> None:
        """Take *entry* in: ready, or delayed until *due*."""
        self.books["published"] += 1
        self._enter(entry, due)

    def promote(self, now: float, limit: int) -> int:
        """Make at most *limit* messages that are due ready; returns how many."""
        moved = 0
        while moved < limit and self._delayed and self._delayed[0][0] <= now:
            self._enter(heapq.heappop(self._delayed)[2], None)
            moved += 1
        return moved

    def take(self, receipt: int) -> Entry:
        """Deliver the head of the ready messages against *receipt*."""
        entry = heapq.heappop(self._ready)[2]
        self.delivered[receipt] = entry
        return entry

    def pick(self, receipt: int, task_id: str) -> Entry | None:
        """Deliver the first ready message of this task against *receipt*, past all others; None when there is none."""
        found = min((item for item in self._ready if item[2].task_id == task_id), key=_turn, default=None)
        if found is None:
            return None
        self._ready.remove(found)
        heapq.heapify(self._ready)
        self.delivered[receipt] = found[2]
        return found[2]

    def let_go(self, receipt: int) -> Entry:
        """End a delivery; where its message goes is said by what is called next."""
        return self.delivered.pop(receipt)

    def finish(self, road: str) -> None:
        """A message that was let go is finished, by the road `done` or `failed`."""
        self.books[road] += 1

    def retry(self, successor: Entry, due: float | None) -> None:
        """A message that was let go comes again as *successor*, ready or due later."""
        self.books["retried"] += 1
        self._enter(successor, due)

    def put_back(self, entry: Entry, road: str, *, charged: bool, cause: str) -> None:
        """*entry*, which was let go, takes its old turn, by the road `released` or `reclaimed`."""
        self.books[road] += 1
        if charged:
            entry.count += 1
            entry.cause = cause
        self._enter(entry, None)

    def bury(self, letter_id: str, letter: Letter, *, limit: int | None) -> None:
        """A message that was let go is dead; beyond *limit* the oldest letter is forgotten, and counted."""
        self.books["dead"] += 1
        self.dead[letter_id] = letter
        while limit is not None and len(self.dead) > limit:
            del self.dead[next(iter(self.dead))]
            self.books["trimmed"] += 1

    def find(self, letter_or_task: str) -> str | None:
        """The letter of this id, else the oldest one of this task."""
        if letter_or_task in self.dead:
            return letter_or_task
        return next((id_ for id_, letter in self.dead.items() if letter.task_id == letter_or_task != ""), None)

    def task_of(self, letter_or_task: str) -> str:
        """The id of the task whose letter `find` finds; "" when there is none."""
        letter_id = self.find(letter_or_task)
        return "" if letter_id is None else self.dead[letter_id].task_id

    def letters(self, after: str) -> Iterator[tuple[str, Letter]]:
        """The dead letters whose id sorts after *after*, oldest first."""
        return ((letter_id, letter) for letter_id, letter in self.dead.items() if letter_id > after)

    def replay(self, letter_id: str, successor: Entry) -> None:
        """Replace a dead letter by *successor*, ready."""
        del self.dead[letter_id]
        self.books["replayed"] += 1
        self._enter(successor, None)

    def delete(self, letter_id: str) -> None:
        """Forget a dead letter."""
        del self.dead[letter_id]
        self.books["deleted"] += 1

    def purge(self, *, delayed: bool = True) -> list[Entry]:
        """Forget what is ready, or *delayed* too, and return it."""
        entries = [item[2] for item in self._ready]
        self._ready.clear()
        if delayed:
            entries += [item[2] for item in self._delayed]
            self._delayed.clear()
        self.books["purged"] += len(entries)
        return entries

    def _enter(self, entry: Entry, due: float | None) -> None:
        if due is None:
            heapq.heappush(self._ready, (-entry.priority, entry.turn, entry))
        else:
            self.reschedules += not self._delayed or due < self._delayed[0][0]
            heapq.heappush(self._delayed, (due, entry.turn, entry))


def _turn(item: tuple[float, int, Entry]) -> tuple[float, int]:
    return item[:2]
