"""Messages between simulated members: connections that break, lose, delay and split.

This is the contract of the transport, without its datagrams: within one connection a
message arrives once and in the order of its (lane, stream); a broken connection loses what
was under way, and both sides hear of it at times of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from distkv.simulation.echo import echo
from distkv.simulation.member_host import Host
from distkv.transport.base import Identity, Lane
from distkv.wire.codec import encode

if TYPE_CHECKING:
    from distkv.simulation.full_world import World

RECONNECT = 0.05
BYTES_PER_SECOND = 200e6
ROOM = 4 << 20


class Network:
    """`cut`: ordered pairs (from, to) over which nothing passes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cut: set[tuple[int, int]] = set()
        self._connections: dict[tuple[int, int], int] = {}
        """(a, b) with a < b -> epoch of their connection; absent: none."""
        self._epoch = 0
        self._arrival: dict[tuple[int, int, int, int], tuple[int, float]] = {}
        self.sent = 0
        self.delivered = 0
        """By the production transport, which is not here."""
        self.bytes = 0

    @staticmethod
    def _pair(a: int, b: int) -> tuple[int, int]:
        return (a, b) if a < b else (b, a)

    def _passes(self, a: int, b: int) -> bool:
        return (a, b) not in self.cut

    def connect_loop(self) -> None:
        """Pairs that can hear each other connect after a while; runs for ever."""
        hosts = self._world.hosts
        for a in range(len(hosts)):
            for b in range(a + 1, len(hosts)):
                up = hosts[a].alive and hosts[b].alive
                both = self._passes(a, b) and self._passes(b, a)
                if up and both and (a, b) not in self._connections:
                    self._establish(hosts[a], hosts[b])
                elif (a, b) in self._connections and not (up and both):
                    self.break_connection(a, b, "silence")
        self._world.after(RECONNECT, self.connect_loop)

    def _establish(self, a: Host, b: Host) -> None:
        self._epoch += 1
        self._connections[(a.ordinal, b.ordinal)] = self._epoch
        for host, other in ((a, b), (b, a)):
            assert host.member is not None
            host.member.peer_up(other.name)
            host.wake()

    def break_connection(self, a: int, b: int, reason: str) -> None:
        """What is under way is lost; each side hears of it in its own time."""
        if self._connections.pop(self._pair(a, b), None) is None:
            return
        world = self._world
        for host, other in ((world.hosts[a], world.hosts[b]), (world.hosts[b], world.hosts[a])):
            world.after(world.rng.uniform(0.0, 0.3), self._downed(host, other.name))

    def _downed(self, host: Host, other: Identity) -> Callable[[], None]:
        generation = host.generation

        def tell() -> None:
            if host.alive and host.generation == generation and host.member is not None:
                pair = self._pair(host.ordinal, other.ordinal)
                if pair not in self._connections:
                    host.member.peer_down(other)
                    host.wake()

        return tell

    def heal(self) -> None:
        """Everything passes again."""
        self.cut.clear()

    def add(self, ordinal: int) -> None:
        """One more machine: `connect_loop` will see it."""

    def started(self, host: Host) -> None:
        """A process starts: `connect_loop` will see it."""

    def turn_ended(self, host: Host) -> None:
        """Messages are on their way already."""

    def room(self, ordinal: int, to: int, lane: Lane) -> int:
        """Bytes the queue of that lane still takes: always the same here."""
        return ROOM

    def crashed(self, host: Host) -> None:
        """A process died: its peers notice the silence."""
        for other in range(len(self._world.hosts)):
            if other != host.ordinal:
                self.break_connection(host.ordinal, other, "silence")

    def send(
        self, source: Host, ordinal: int, lane: Lane, stream: int, batch: list[object]
    ) -> None:
        """Encode, delay, deliver; loss shows as delay, or as a broken connection."""
        world = self._world
        pair = self._pair(source.ordinal, ordinal)
        epoch = self._connections.get(pair)
        if epoch is None:
            return
        payload = encode(batch)
        self.sent += 1
        self.bytes += len(payload)
        rng, faults = world.rng, world.faults
        if rng.random() < faults.reset:
            self.break_connection(source.ordinal, ordinal, "reset")
            return
        if echo(world, source, batch, payload):
            return
        delay = rng.uniform(0.0001, 0.001) + len(payload) / BYTES_PER_SECOND
        if lane is Lane.BEAT:
            # Nobody repeats it, nor brings it in order.
            if rng.random() >= faults.loss:
                late = rng.random() * faults.late_max if rng.random() < faults.loss else 0.0
                arrival = world.now + delay + late
                self._deliver(arrival, source, world.hosts[ordinal], epoch, payload)
            return
        if rng.random() < faults.loss:
            delay += rng.uniform(0.005, faults.late_max)
        key = (source.ordinal, ordinal, lane, stream)
        before, at = self._arrival.get(key, (0, 0.0))
        arrival = max(world.now + delay, at + 1e-7 if before == epoch else 0.0)
        self._arrival[key] = (epoch, arrival)
        self._deliver(arrival, source, world.hosts[ordinal], epoch, payload)

    def _deliver(
        self, arrival: float, source: Host, target: Host, epoch: int, payload: bytes
    ) -> None:
        sender, generation = source.name, target.generation
        pair = self._pair(source.ordinal, target.ordinal)

        def arrive() -> None:
            alive = target.alive and target.generation == generation
            connected = self._connections.get(pair) == epoch
            if alive and connected and self._passes(source.ordinal, target.ordinal):
                target.receive(sender, payload)

        self._world.after(arrival - self._world.now, arrive)
