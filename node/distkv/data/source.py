"""A value on its way in: cut into stripes as it arrives, kept until nobody needs it again."""

from __future__ import annotations

from distkv.coding.checksum import extend
from distkv.data.memory import MemoryBudget
from distkv.errors import TooLarge


class Source:
    """Stripes 0 .. n-1 of a value, each `stripe_bytes` long but the last.

    A full stripe is cut only once more bytes follow (or none will), so whoever sends
    stripe s knows whether it is the last one. `flowing`: stripes are let go of once all were
    sent them, so only what is held counts against the budget; such a value cannot be begun
    again.
    """

    def __init__(
        self,
        budget: MemoryBudget,
        stripe_bytes: int,
        value_max: int,
        length: int | None,
        flowing: bool = False,
    ) -> None:
        """Raises Busy when `length` (if known) does not fit the budget, or TooLarge."""
        self._budget = budget
        self._value_max = value_max
        self.stripe_bytes = stripe_bytes
        self.expected = length
        self.stripes: list[bytes] = []
        self.length = 0
        self.checksum = 0
        """CRC-32C of all stripes cut so far."""
        self.finished = False
        self._parts: list[bytes] = []
        self._part_bytes = 0
        self._taken = 0
        self.flowing = flowing
        self.released = 0
        """Stripes below are gone."""
        self._released_bytes = 0
        if length is not None:
            self._check(length)
        if length is not None and not flowing:
            budget.take(length)
            self._taken = length

    def _check(self, length: int) -> None:
        if length > self._value_max:
            raise TooLarge(f"value_bytes_max is {self._value_max} bytes; this value is larger")

    def write(self, piece: bytes) -> None:
        """Take the next bytes. Raises Busy or TooLarge (then the value is given up)."""
        assert not self.finished, "bytes after the end of a value"
        self._check(self.length + len(piece))
        more = self.length - self._released_bytes + len(piece) - self._taken
        if more > 0:
            self._budget.take(more)
            self._taken += more
        self.length += len(piece)
        self._parts.append(piece)
        self._part_bytes += len(piece)
        if self._part_bytes > self.stripe_bytes:
            self._cut()

    def _cut(self) -> None:
        """Cut stripes off what is buffered, but for the last full one."""
        whole = b"".join(self._parts) if len(self._parts) > 1 else self._parts[0]
        start = 0
        while len(whole) - start > self.stripe_bytes:
            self._append(whole[start : start + self.stripe_bytes])
            start += self.stripe_bytes
        self._parts = [whole[start:]]
        self._part_bytes = len(whole) - start

    def _append(self, stripe: bytes) -> None:
        self.stripes.append(stripe)
        self.checksum = extend(self.checksum, stripe)

    def finish(self) -> None:
        """The last stripe. An empty value has one, empty."""
        if not self.finished:
            self.finished = True
            self._append(b"".join(self._parts) if len(self._parts) != 1 else self._parts[0])
            self._parts = []

    def release(self, below: int) -> None:
        """Of a flowing value: nobody needs these stripes again."""
        while self.flowing and self.released < min(below, len(self.stripes)):
            size = len(self.stripes[self.released])
            self.stripes[self.released] = b""
            self.released += 1
            self._released_bytes += size
            self._taken -= size
            self._budget.give_back(size)

    def whole(self) -> bytes:
        """All of a finished value."""
        return self.stripes[0] if len(self.stripes) == 1 else b"".join(self.stripes)

    def close(self) -> None:
        """Let go of all memory; idempotent."""
        self.stripes = []
        self._parts = []
        taken, self._taken = self._taken, 0
        self._budget.give_back(taken)
