"""The runs of a comparison: which there are to be, and what came of those that were."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import cattrs

from benchmarks.peers.roster import OURS


@attrs.frozen
class Slot:
    """One run that is to be: *beside* is the queue that one of ours is compared with; "" where that is all."""

    workload: str
    peer: str
    round: int
    beside: str = ""


@attrs.frozen
class Run:
    """What came of a slot: figures, or why there are none."""

    slot: Slot
    figures: dict[str, float | None] = attrs.field(factory=dict)
    failure: str = ""


@attrs.define
class Book:
    """All of it, as it is kept in a file that is whole after each run."""

    about: dict[str, str]
    absent: dict[str, str] = attrs.field(factory=dict)
    runs: list[Run] = attrs.field(factory=list)

    @property
    def done(self) -> set[Slot]:
        """The slots that have been."""
        return {run.slot for run in self.runs}

    def save(self, path: Path) -> None:
        """Write it down, in one step."""
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(cattrs.unstructure(self), indent=1) + "\n")
        draft.replace(path)


def load(path: Path) -> Book:
    """The book in that file."""
    raw: Mapping[str, Any] = json.loads(path.read_text())
    return cattrs.structure(raw, Book)


def slots(
    workloads: Sequence[tuple[str, bool]], peers: Mapping[str, Sequence[str]], rounds: int, start: int = 0
) -> Iterator[Slot]:
    """All runs in order, ours in turn with the others'.

    workloads: their keys, and whether one run of ours is beside all others.  peers: those that take part in each,
    without ours.  start: the first round.
    """
    for number in range(start, start + rounds):
        for workload, shared in workloads:
            if shared or not peers[workload]:
                yield Slot(workload, OURS, number)
            for peer in peers[workload]:
                if not shared:
                    yield Slot(workload, OURS, number, peer)
                yield Slot(workload, peer, number)
