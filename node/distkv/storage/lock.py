"""One process per data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from distkv.storage.base import StorageError


class DirectoryLock:
    """An flock on the file `lock` in the directory; the kernel drops it with the process."""

    def __init__(self, directory: Path) -> None:
        """Take it. Raises StorageError naming the directory and the process that holds it."""
        self._fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise StorageError(
                f"{directory} is in use by process {holder}: stop it first"
            ) from None
        # Best effort: on a full disk the lock holds all the same, only without the number.
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError:
            pass

    def release(self) -> None:
        """Give it back; twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
