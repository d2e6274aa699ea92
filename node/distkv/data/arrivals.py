"""How long asked-for pieces take, by how quickly pieces arrive at this node at all.

All reads share the link into the node. A source that seems slow to one of them may only stand
behind what the others asked for; asking another source as well would lengthen that line.
"""

from __future__ import annotations

from math import exp

from distkv.data.choose import SLOWEST_LINK

MEMORY_SECONDS = 5.0
"""Of time in which something was under way: what lies further back counts little."""
GAP_SECONDS = 1.0
"""Longer silence is somebody's, not the link's: no more of it counts."""
_SECONDS_PER_BYTE_UNKNOWN = 2e-6
"""Before anything arrived (4 Mbit/s): a slow link must not look like silence."""


class Arrivals:
    """Bytes under way, and the rate at which they come while some are."""

    def __init__(self) -> None:
        self.under_way = 0
        self._sizes: dict[int, int] = {}
        self._marked = 0.0
        self._bytes = 0.0
        self._seconds = 0.0

    def asked(self, now: float, request: int, size: int) -> None:
        """A member was asked for `size` bytes."""
        if not self._sizes:
            self._marked = now
        self._sizes[request] = size
        self.under_way += size

    def arrived(self, now: float, size: int) -> None:
        """Some of it came; also of what was asked for and is no longer wanted: it took its time
        on the link as well."""
        if not self._sizes:
            return
        elapsed, self._marked = min(GAP_SECONDS, now - self._marked), now
        if elapsed > 0:
            keep = exp(-elapsed / MEMORY_SECONDS)
            self._bytes *= keep
            self._seconds = self._seconds * keep + elapsed
        self._bytes += size

    def ended(self, request: int) -> None:
        """It is answered, no longer wanted, or not counted upon."""
        self.under_way -= self._sizes.pop(request, 0)

    def wait(self) -> float:
        """Seconds that what is under way takes, on average (Little 1961). Few bytes of a member
        that hangs do not make the link slower than the slowest."""
        if not self._bytes:
            return self.under_way * _SECONDS_PER_BYTE_UNKNOWN
        return self.under_way * min(self._seconds / self._bytes, 1 / SLOWEST_LINK)
