"""The settings as they were read, for children that start later: the file may have changed since, or be half done."""

import os
from pathlib import Path


class Snapshots:
    """Copies of the file *config* in memory, which children reach through this process as long as it lives.

    There they need no room on a disk, leave nothing behind, and a password in them is only where it was before.  There
    are two, one in force and one that may come to be.  Without Linux there are none, and children read the file.
    """

    def __init__(self, config: Path) -> None:
        self._config = config
        self._copies: dict[Path, int] = {}
        if hasattr(os, "memfd_create"):
            for number in (1, 2):
                fd = os.memfd_create(f"chicory-settings-{number}")
                self._copies[Path(f"/proc/{os.getpid()}/fd/{fd}")] = fd

    def take(self, kept: Path | None = None) -> Path:
        """Where the file stands as it is now; what stands at *kept* stays.  OSError when it cannot be read."""
        text = self._config.read_bytes()
        for path, fd in self._copies.items():
            if path != kept:
                os.ftruncate(fd, 0)
                os.pwrite(fd, text, 0)
                return path
        return self._config
