"""How many bytes of values may be in memory at once, over all requests of this node."""

from __future__ import annotations

from distkv.errors import Busy


class MemoryBudget:
    """A plain count; taking more than is left is refused, never waited for."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.peak = 0

    def take(self, count: int) -> None:
        """Account `count` bytes. Raises Busy, naming the limit of the configuration."""
        if self.used + count > self.limit:
            raise Busy(
                f"values_in_flight_max is {self.limit} bytes, {self.used} are in use: "
                f"{count} more do not fit; try again, or raise values_in_flight_max"
            )
        self.used += count
        self.peak = max(self.peak, self.used)

    def give_back(self, count: int) -> None:
        """Bytes that were taken are free again."""
        self.used -= count
        assert self.used >= 0, "more memory given back than was taken"

    @property
    def tight(self) -> bool:
        """More than half is in use: let go of what is only nice to have."""
        return self.used * 2 > self.limit
