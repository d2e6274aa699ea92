"""What malloc does with large blocks that were freed: kept while busy, given back at rest.

By default glibc maps and unmaps every shard buffer anew, which makes coding a stripe three
times as expensive; so freed memory is kept. After a burst of large values that would leave a
process with hundreds of megabytes nobody uses, so it is given back once nothing is in flight.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
WORTH_BYTES = 32 << 20
"""Less in flight than this is not worth the milliseconds of giving it back."""
REST_ROUNDS = 3
"""Looks in a row that must find nothing in flight."""


def keep_freed_memory() -> None:
    """Let malloc reuse large blocks (glibc; elsewhere without effect)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)


class Trimmer:
    """Call `look` regularly with the bytes of values in flight."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        self._trim = libc.malloc_trim if hasattr(libc, "malloc_trim") else None
        self._most = 0
        self._rest = 0

    def look(self, in_flight: int) -> bool:
        """True: what a burst left behind was given back now."""
        if in_flight:
            self._most = max(self._most, in_flight)
            self._rest = 0
            return False
        self._rest += 1
        if self._trim is None or self._most < WORTH_BYTES or self._rest < REST_ROUNDS:
            return False
        self._most = 0
        self._trim(0)
        return True
