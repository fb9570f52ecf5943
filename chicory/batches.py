"""Many messages, a batch at a time: how they are cut, and what is said when it ends in the middle."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from chicory.errors import ChicoryError

T = TypeVar("T")

# Some round trips' worth, so that the cut costs nothing; and no more than a few megabytes of usual messages.
BATCH = 1024


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[Sequence[T]]:
    """*items* in order.  A sequence is one batch, since it is all there; of others, *size* are asked for at a time.

    There is always a first batch, if only an empty one.
    """
    if isinstance(items, Sequence):
        yield items
        return
    left = iter(items)
    batch = list(islice(left, size))
    yield batch
    while len(batch) == size and (batch := list(islice(left, size))):
        yield batch


def note_published(error: Exception, before: int) -> None:
    """Let *error*, which ended a batch, say how much is published: *before* it, and of it."""
    published = before
    if isinstance(error, ChicoryError):
        error.published = published = before + error.published
    if published:
        error.add_note(f"{published} messages before that are published; repeat those that came after them only")
