"""What malloc does with large blocks that were freed: kept while busy, given back at rest.
And huge pages for what a process always needs.

By default glibc maps and unmaps every shard buffer anew, which makes coding a stripe three
times as expensive; so freed memory is kept. After a burst of large values that would leave a
process with hundreds of megabytes nobody uses, so it is given back once nothing is in flight.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25
_HUGE = 2 << 20
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


def use_huge_pages() -> int:
    """Bytes of this process's own memory that are in huge pages from now on; best effort.

    A node wakes for a fraction of a millisecond and touches what is spread over all of its heap;
    with small pages the processor then looks up more addresses than it can remember. For memory
    that lasts: to be called once everything is loaded. Nothing happens where the kernel's
    transparent_hugepage/enabled is `never`, or before Linux 6.1.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "madvise"):
        return 0
    total = 0
    for start, end in _own_mappings():
        first, size = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
        size -= first
        if size <= 0:
            continue
        place, length = ctypes.c_void_p(first), ctypes.c_size_t(size)
        if libc.madvise(place, length, _MADV_HUGEPAGE) == 0:
            total += size if libc.madvise(place, length, _MADV_COLLAPSE) == 0 else 0
    return total


def _own_mappings() -> list[tuple[int, int]]:
    """The heap and what else is anonymous and may be written: (first byte, end)."""
    found = []
    try:
        lines = Path("/proc/self/maps").read_text("utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        span, permissions, _, _, _, *name = line.split(maxsplit=5)
        if permissions == "rw-p" and (not name or name[0] == "[heap]"):
            start, end = span.split("-")
            found.append((int(start, 16), int(end, 16)))
    return found


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
