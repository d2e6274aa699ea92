"""What goes wrong, when: drawn from the world's rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from distkv.simulation import rotting
from distkv.simulation.hubs import HubNetwork
from distkv.simulation.member_host import FLUSH_TIME, Host
from distkv.simulation.wires import Wires
from distkv.storage.base import Table

if TYPE_CHECKING:
    from distkv.simulation.full_world import World

STEP = 0.1


class Nemesis:
    """Every STEP seconds each kind of fault has its chance."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._running = False
        f = world.faults
        self._kinds: tuple[tuple[float, Callable[[], None]], ...] = (
            (f.crash, self._crash_any),
            (f.kill_leader, self._kill_leader),
            (f.partition, self._partition),
            (f.one_way, self._one_way),
            (f.slow_disk, self._slow_disk),
            (f.full_disk, self._full_disk),
            (f.rot, self._rot),
            (f.clock, self._clock),
            (f.wipe, self._wipe),
            (f.transfer, self._transfer),
        )
        if isinstance(world.network, HubNetwork):
            wires = Wires(world, world.network)
            self._kinds += (
                (f.clog, wires.clog),
                (f.listener, lambda: self._listener(wires)),
                (f.noise, wires.noise),
                (f.move, wires.move),
            )

    def start(self) -> None:
        """Begin."""
        self._running = True
        self._world.after(STEP, self._step)

    def stop(self) -> None:
        """End; damage stays."""
        self._running = False

    def _step(self) -> None:
        if not self._running:
            return
        for rate, strike in self._kinds:
            if rate and self._world.rng.random() < rate * STEP:
                strike()
        self._world.after(STEP, self._step)

    def _alive(self) -> list[Host]:
        return [host for host in self._world.hosts if host.alive]

    def _any(self) -> Host | None:
        alive = self._alive()
        return self._world.rng.choice(alive) if alive else None

    def _leader(self) -> Host | None:
        for host in self._alive():
            if host.member and host.member.seat and host.member.seat.replica.is_leader:
                return host
        return None

    def _crash(self, host: Host | None) -> None:
        world = self._world
        if host is None:
            return
        world.crash(host)
        self._restart_later(host, world.rng.choice((0.05, 0.5, 2.0)))

    def _restart_later(self, host: Host, delay: float) -> None:
        def restart() -> None:
            if not host.alive and not host.gone and not self._world.healing:
                self._world.note(f"node {host.ordinal} starts")
                host.start()
                self._perhaps_again(host)

        self._world.after(delay, restart)

    def _perhaps_again(self, host: Host) -> None:
        """A machine that just came up, with a busy disk, goes down once more."""
        world = self._world
        if not world.drawn.crash or world.rng.random() < 0.7:
            return
        host.flush_time = (0.05, 0.4)
        generation = host.generation

        def again() -> None:
            host.flush_time = FLUSH_TIME
            if host.alive and host.generation == generation and self._running:
                self._crash(host)

        world.after(world.rng.uniform(0.02, 0.5), again)

    def _crash_any(self) -> None:
        self._crash(self._any())

    def _kill_leader(self) -> None:
        self._crash(self._leader())

    def _partition(self) -> None:
        world = self._world
        ordinals = [host.ordinal for host in world.hosts]
        side = [o for o in ordinals if world.rng.random() < 0.4]
        pairs = [(a, b) for a in side for b in ordinals if b not in side]
        cut = [pair for a, b in pairs for pair in ((a, b), (b, a))]
        self._cut(cut, f"partition {side}")

    def _one_way(self) -> None:
        world = self._world
        ordinals = [host.ordinal for host in world.hosts]
        if len(ordinals) > 1:
            a, b = world.rng.sample(ordinals, 2)
            self._cut([(a, b)], f"one way cut {a} -> {b}")

    def _cut(self, cut: list[tuple[int, int]], text: str) -> None:
        world = self._world
        if not cut:
            return
        world.note(text)
        world.network.cut.update(cut)

        def heal() -> None:
            world.network.cut.difference_update(cut)

        world.after(world.rng.choice((0.2, 1.0, 3.0)), heal)

    def _slow_disk(self) -> None:
        """One disk, or several: a write waits for more than one of them then."""
        world = self._world
        alive = self._alive()
        if not alive:
            return
        hosts = world.rng.sample(alive, min(len(alive), world.rng.choice((1, 1, 2, 3))))
        slow = (0.01, world.rng.choice((0.05, 0.4)))
        world.note(f"slow disks at {[host.ordinal for host in hosts]}")
        for host in hosts:
            host.flush_time = slow

        def heal() -> None:
            for host in hosts:
                host.flush_time = FLUSH_TIME

        world.after(world.rng.choice((0.5, 2.0)), heal)

    def _full_disk(self) -> None:
        host, world = self._any(), self._world
        if host is None:
            return
        lasts = world.rng.uniform(0.2, 1.5)
        kind = int(world.now * 1000) % 3
        if kind:
            self._scarce([host] if kind == 1 else world.hosts, lasts)
            return
        world.note(f"full disk at {host.ordinal}")
        host.engine.full = True

        def heal() -> None:
            host.engine.full = False

        world.after(lasts, heal)

    def _scarce(self, hosts: list[Host], lasts: float) -> None:
        """Nothing but the reserve is left on these disks, perhaps on all."""

        def change(scarce: bool) -> None:
            for host in hosts:
                if host.alive:
                    host.scarce = scarce
                    host.wake()

        self._world.note(f"only the reserve is left at {[host.ordinal for host in hosts]}")
        change(True)
        self._world.after(lasts, lambda: change(False))

    def _listener(self, wires: Wires) -> None:
        """A node goes down, and somebody plays again what it sent."""
        host = self._any()
        if host is not None:
            self._crash(host)
            wires.play_again(host.ordinal)

    def _rot(self) -> None:
        """Within the promise: at most f disks have rotten shards or are lost, ever."""
        world = self._world
        host = self._any()
        if host is not None and world.rng.random() < 0.4:
            rotting.strike(world, host)
            return
        # Once a layout with a smaller f is wanted, not even those that are victims already.
        if host is None or len({*world.victims, host.ordinal}) > world.bearable:
            return
        keys = host.engine.keys(Table.SHARD, b"", b"\xff", 1 << 30)
        if not keys or host.ordinal in world.wiped:
            return
        key = world.rng.choice(keys)
        world.rotten.append(host.ordinal)
        world.note(f"rot at {host.ordinal}")
        host.engine.rot(Table.SHARD, key)

    def _clock(self) -> None:
        host = self._any()
        if host is not None:
            host.skew += self._world.rng.choice((-5.0, -0.2, 0.2, 5.0, 4000.0))
            self._world.note(f"clock of {host.ordinal} jumps to {host.skew:+.1f} s")

    def _wipe(self) -> None:
        """A disk is lost, within what the promise allows."""
        world = self._world
        victims = world.victims
        host = self._any()
        if host is None or len(victims) >= world.bearable or host.ordinal in victims:
            return
        world.note(f"node {host.ordinal} crashes and loses its disk")
        world.lose_disk(host)
        self._restart_later(host, 0.5)

    def _transfer(self) -> None:
        leader, other = self._leader(), self._any()
        if leader is not None and other is not None and leader is not other:
            assert leader.member is not None
            assert leader.member.seat is not None
            leader.member.seat.replica.transfer(other.ordinal)
            leader.wake()
