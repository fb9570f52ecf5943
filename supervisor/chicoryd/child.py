"""What a child runs first: `python -m chicoryd.child module:function [argument ...]`."""

import importlib
import os
import signal
import sys


def main() -> None:
    """Import the entry and call it; what it returns is the exit status."""
    if "CHICORYD_LIFELINE" in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # chicoryd alone decides what Ctrl-C means
    sys.argv = sys.argv[1:]
    module, _, function = sys.argv[0].partition(":")
    sys.exit(getattr(importlib.import_module(module), function)())


if __name__ == "__main__":
    main()
