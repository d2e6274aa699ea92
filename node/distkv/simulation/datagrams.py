"""Datagrams between simulated machines: lost, doubled, late, damaged, held up, played again.

An address is (ordinal, number of its address): a machine that moves has a new number, and
what was sent to the old one is lost. Nothing here knows what a datagram means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random

    from distkv.simulation.full_world import World

Address = tuple[int, int]

BYTES_PER_SECOND = 200e6
KEPT = 400
"""Datagrams remembered, to be played again."""
CLOG_QUEUE = 48 * 1024
"""Bytes a clogged link holds before it drops."""


class Datagram(NamedTuple):
    """`number`: of the original, which copies share; -1: no copy of anything that was sent."""

    number: int
    source: Address
    target: Address
    body: bytes


class Datagrams:
    """See the module. `arrive(datagram)` is called for each one that reaches its machine."""

    def __init__(self, world: World, arrive: Callable[[Datagram], None]) -> None:
        self._world = world
        self._arrive = arrive
        self.addresses = [0] * (world.data_shards + world.parity_shards)
        """Number of each machine's present address."""
        self.cut: set[tuple[int, int]] = set()
        """Ordered pairs of ordinals over which nothing passes."""
        self.clogged: dict[tuple[int, int], float] = {}
        """Ordered pairs -> bytes per second that still pass."""
        self.largest = 65_507
        """Longer ones vanish on the way."""
        self._free: dict[tuple[int, int], float] = {}
        self._kept: list[Datagram] = []
        self._posted = 0

    @property
    def _rng(self) -> random.Random:
        return self._world.transport_rng

    def address(self, ordinal: int) -> Address:
        """Where that machine is now."""
        return ordinal, self.addresses[ordinal]

    def move(self, ordinal: int) -> None:
        """The machine has another address from now on."""
        self.addresses[ordinal] += 1

    def post(self, source: int, target: Address, body: bytes) -> int:
        """Send; returns the number of this datagram."""
        world, rng = self._world, self._rng
        self._posted = number = self._posted + 1
        datagram = Datagram(number, self.address(source), target, body)
        if target[0] < 0:
            return number
        self._keep(datagram)
        faults = world.faults
        if faults.replay and rng.random() < faults.replay:
            self._play_again(rng.choice(self._kept), 3.0)
        if (source, target[0]) in self.cut or len(body) > self.largest:
            return number
        if faults.loss and rng.random() < faults.loss:
            return number
        delay = self._delay(source, target[0], len(body))
        if delay < 0.0:
            return number
        if faults.reorder and rng.random() < faults.reorder:
            delay += rng.random() * faults.late_max
        if faults.corrupt and rng.random() < faults.corrupt:
            datagram = datagram._replace(number=-1, body=_damaged(body, rng))
        self._later(delay, datagram)
        if faults.duplicate and rng.random() < faults.duplicate:
            self._later(delay + rng.random() * faults.late_max, datagram)
        return number

    def _delay(self, source: int, target: int, size: int) -> float:
        """Seconds on the way; negative: the queue of a clogged link is full."""
        delay = 0.0001 + self._rng.random() * 0.0009 + size / BYTES_PER_SECOND
        if not self.clogged:
            return delay
        rate = self.clogged.get((source, target))
        if rate is None:
            return delay
        now = self._world.now
        start = max(self._free.get((source, target), 0.0), now)
        if (start - now) * rate > CLOG_QUEUE:
            return -1.0
        start += size / rate
        self._free[source, target] = start
        return delay + start - now

    def _later(self, delay: float, datagram: Datagram) -> None:
        self._world.after(delay, lambda: self._reach(datagram))

    def _reach(self, datagram: Datagram) -> None:
        ordinal, number = datagram.target
        if ordinal >= 0 and self.addresses[ordinal] == number:
            self._arrive(datagram)

    # -- somebody who listened

    def _keep(self, datagram: Datagram) -> None:
        kept = self._kept
        if len(kept) < KEPT:
            kept.append(datagram)
        else:
            kept[self._rng.randrange(KEPT)] = datagram

    def _play_again(self, datagram: Datagram, within: float) -> None:
        """From where it came, or from somewhere else; to where its target is then."""
        rng = self._rng
        if rng.random() < 0.3:
            datagram = datagram._replace(source=(-1, rng.randrange(4)))

        def arrive() -> None:
            self._arrive(datagram._replace(target=self.address(datagram.target[0])))

        self._world.after(rng.random() * within, arrive)

    def play_again_from(self, ordinal: int, seconds: float) -> None:
        """Whatever is remembered of one machine, several times, as if it were still there."""
        heard = [d for d in self._kept if d.source[0] == ordinal]
        if not heard:
            return
        for _ in range(int(seconds / 0.05)):
            self._play_again(self._rng.choice(heard), seconds)

    def noise(self, ordinal: int) -> None:
        """Bytes of somebody who knows nothing, but the first byte."""
        rng = self._rng
        kind = rng.choice((0x01, 0x02, 0x40, 0x41, rng.randrange(256)))
        body = bytes([kind]) + rng.randbytes(rng.randrange(1, 200))
        self._later(0.0, Datagram(-1, (-1, 0), self.address(ordinal), body))


def _damaged(body: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(body))
    kind = rng.random()
    if kind < 0.8:
        return body[:place] + bytes([body[place] ^ 1 << rng.randrange(8)]) + body[place + 1 :]
    return body[:place] if kind < 0.9 else body + rng.randbytes(rng.randrange(1, 30))
