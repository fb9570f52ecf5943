"""`chicoryd start -c FILE` with the children of `fakes` in the place of the real ones."""

import os
import sys
from pathlib import Path

from chicoryd import daemon
from chicoryd.spawn import Entries

if __name__ == "__main__":
    entries = Entries(check="fakes:check", server="fakes:child", scheduler="fakes:child", worker="fakes:child")
    sys.exit(daemon.start(Path(sys.argv[1]), os.environ, entries))
