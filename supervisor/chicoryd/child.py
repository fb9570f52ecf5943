"""What a child runs first: `python -m chicoryd.child module:function [argument ...]`."""

import contextlib
import faulthandler
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Generator
from pathlib import Path


def main() -> None:
    """Import the entry and call it; what it returns is the exit status."""
    sys.argv = sys.argv[1:]
    with last_words():
        live(sys.argv[0])


def live(entry: str) -> None:
    """Be the child that *entry*, `module:function`, makes of this process; does not return."""
    if "CHICORYD_LIFELINE" in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # chicoryd alone decides what Ctrl-C means
        faulthandler.enable()  # chicoryd sends SIGABRT to a child that hangs, to learn where
    module, _, function = entry.partition(":")
    sys.exit(getattr(importlib.import_module(module), function)())


@contextlib.contextmanager
def last_words() -> Generator[None]:
    """Keep the traceback of a child that fails before the daemon ever worked: it is the last thing chicoryd prints."""
    path = os.environ.pop("CHICORYD_LAST_WORDS", "")
    try:
        yield
    except Exception:
        if path:
            with contextlib.suppress(OSError):
                Path(path).write_text(traceback.format_exc())
        raise


if __name__ == "__main__":
    main()
