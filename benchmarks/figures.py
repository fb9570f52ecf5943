"""What was measured, and what follows from it.  Pure."""

import math
from collections.abc import Callable, Sequence
from statistics import median

import attrs


@attrs.frozen
class Target:
    """What a figure is held to: *limit* times the bare figure, or *limit* itself where *absolute*."""

    limit: float
    at_most: bool = False
    absolute: bool = False

    def met(self, value: float) -> bool:
        """Whether *value*, a ratio or a figure, is good enough."""
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}{'' if self.absolute else ' ×'}"


@attrs.frozen(kw_only=True)
class Figure:
    """One line of the table: a value a round, ours and the bare loop's (none where nothing bare compares).

    digits: how many to show behind the point.
    """

    group: str
    name: str
    unit: str
    ours: Sequence[float]
    bare: Sequence[float] = ()
    target: Target | None = None
    digits: int = 0

    @property
    def our_median(self) -> float:
        """The middle one of our rounds."""
        return median(self.ours)

    @property
    def bare_median(self) -> float | None:
        """The middle one of the bare loop's rounds."""
        return median(self.bare) if self.bare else None

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' own ratios: what slows the machine for a while slows both halves of a round."""
        return median(ours / bare for ours, bare in zip(self.ours, self.bare, strict=True)) if self.bare else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        if self.target.absolute:
            return self.target.met(self.our_median)
        assert self.ratio is not None, f"{self.name}: a target that is a ratio needs a bare figure"
        return self.target.met(self.ratio)

    def as_json(self) -> dict[str, object]:
        """All of it, every round included."""
        return {
            "group": self.group,
            "name": self.name,
            "unit": self.unit,
            "ours": self.our_median,
            "bare": self.bare_median,
            "ratio": self.ratio,
            "target": None if self.target is None else str(self.target),
            "met": self.met,
            "rounds": {"ours": list(self.ours), "bare": list(self.bare)},
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of *values* that at least *share* (0 to 1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def interleaved(rounds: int, *runs: Callable[[], float]) -> list[list[float]]:
    """What each of *runs* returned in each round, the runs of one round one after another."""
    values = [[run() for run in runs] for _ in range(rounds)]
    return [list(column) for column in zip(*values, strict=True)]
