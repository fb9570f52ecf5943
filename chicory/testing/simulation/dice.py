"""One seed for whatever is decided by chance: the order in which trio's tasks have their turns, and `random`."""

import importlib
import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def rolled(seed: int) -> Generator[None]:
    """While the block lasts, a trio run in this thread goes the same way each time; afterwards all is as before."""
    # There is no public way to it; hypothesis and pytest-trio go the same one.
    run: Any = importlib.import_module("trio._core._run")
    before = random.getstate()
    turns, ordered = run._r.getstate(), run._ALLOW_DETERMINISTIC_SCHEDULING
    random.seed(seed)
    run._r.seed(seed)
    # Else a batch of tasks would be shuffled as sets order them, which is by address.
    run._ALLOW_DETERMINISTIC_SCHEDULING = True
    try:
        yield
    finally:
        random.setstate(before)
        run._r.setstate(turns)
        run._ALLOW_DETERMINISTIC_SCHEDULING = ordered
