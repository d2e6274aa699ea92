"""One seed, one whole cluster: members, disks, network, owner, clients and faults.

Two phases: safety under faults; then the faults stop and everything must converge.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from typing import NamedTuple

from distkv.core.options import ReplicaOptions
from distkv.member.messages import Founding
from distkv.member.options import MemberOptions
from distkv.simulation.clients import Client
from distkv.simulation.full_check import Checker
from distkv.simulation.history import Call
from distkv.simulation.member_host import Host
from distkv.simulation.network import Network

WALL_START_MS = 1_700_000_000_000


class Violation(Exception):
    """A promise was broken in this world."""


class Faults(NamedTuple):
    """Rates per message, or per second of virtual time; times in seconds."""

    loss: float
    late_max: float
    reset: float
    crash: float
    kill_leader: float
    partition: float
    one_way: float
    slow_disk: float
    full_disk: float
    rot: float
    clock: float
    wipe: float
    crash_at_flush: float
    transfer: float
    duration: float


def draw_faults(rng: random.Random) -> Faults:
    """Some worlds know few kinds of faults, most have several."""

    def rate(top: float, chance: float = 0.5) -> float:
        return rng.random() * top if rng.random() < chance else 0.0

    return Faults(
        loss=rate(0.1),
        late_max=rng.choice((0.02, 0.1, 0.6)),
        reset=rate(0.004, 0.4),
        crash=rate(0.8),
        kill_leader=rate(0.8, 0.4),
        partition=rate(0.8),
        one_way=rate(0.6, 0.3),
        slow_disk=rate(0.6, 0.3),
        full_disk=rate(0.3, 0.2),
        rot=rate(1.0, 0.3),
        clock=rate(0.5, 0.3),
        wipe=rate(0.4, 0.4),
        crash_at_flush=rate(0.02, 0.3),
        transfer=rate(0.5, 0.2),
        duration=rng.uniform(4.0, 8.0),
    )


CALM = Faults(*([0.0] * 14), 2.0)


def draw_geometry(rng: random.Random) -> tuple[int, int]:
    """(k, m); five nodes with 3+2 most often."""
    if rng.random() < 0.5:
        return 3, 2
    n = rng.randint(1, 9)
    k = rng.randint(1, n)
    return k, n - k


class World:
    """See the module. `run` raises Violation."""

    def __init__(
        self, seed: int, geometry: tuple[int, int] | None = None, faults: Faults | None = None
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        drawn = draw_geometry(self.rng)
        self.data_shards, self.parity_shards = geometry or drawn
        drawn_faults = draw_faults(self.rng)
        self.faults = faults or drawn_faults
        self.drawn = self.faults
        self.now = 0.0
        self.cluster = b"simulated-cluster"[:16]
        self.inline_max = self.rng.choice((0, 64, 4096))
        self.member_options = MemberOptions(
            replica=ReplicaOptions(
                tick=25,
                heartbeat=75,
                retain_slots=self.rng.choice((8, 64, 4096)),
                read_timeout=400,
            ),
            stripe_bytes=self.rng.choice((512, 4096, 65536)),
            value_max=1 << 20,
            memory_in_flight=8 << 20,
            stream_above=1 << 20,
            grace=self.rng.choice((11.0, 30.0)),
            grace_bytes=1 << 20,
            settle_every=self.rng.choice((0.3, 2.0)),
            truncate_every=0.3,
        )
        self.network = Network(self)
        self.hosts = [Host(self, o) for o in range(self.data_shards + self.parity_shards)]
        self.wiped: list[int] = []
        self.rotten: list[int] = []
        self.checker = Checker(self)
        self.calls: list[Call] = []
        self.clients: list[Client] = []
        self.trace: list[str] = []
        self.healing = False
        self._digest = hashlib.sha256()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    # -- time

    def after(self, delay: float, callback: Callable[[], None]) -> None:
        """Run `callback` in `delay` seconds."""
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + delay, self._sequence, callback))

    def wall_ms(self, host: Host) -> int:
        """That machine's clock."""
        return WALL_START_MS + int((self.now + host.skew) * 1000)

    def note(self, text: str) -> None:
        """One line of the trace."""
        line = f"{self.now:9.4f} {text}"
        self._digest.update(line.encode())
        self.trace.append(line)

    @property
    def digest(self) -> str:
        """Of the whole trace."""
        return self._digest.hexdigest()[:16]

    def run_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Let virtual time pass until the condition holds; False: it did not in time."""
        end = self.now + seconds
        steps = 0
        while self._heap:
            steps += 1
            if steps % 64 == 0 and condition():
                return True
            when, _, callback = heapq.heappop(self._heap)
            if when > end:
                heapq.heappush(self._heap, (when, 0, callback))
                self.now = end
                return condition()
            self.now = when
            callback()
        return condition()

    # -- the story

    def run(self) -> None:
        """Found, disturb, heal, check. Raises Violation."""
        from distkv.simulation.nemesis import Nemesis

        calm, self.faults = self.faults, CALM._replace(duration=self.faults.duration)
        for host in self.hosts:
            host.start()
        self.network.connect_loop()
        self._found()
        self.faults = calm
        for number in range(self.rng.randint(2, 5)):
            self.clients.append(Client(self, number))
        nemesis = Nemesis(self)
        nemesis.start()
        self.run_until(lambda: False, self.faults.duration)
        nemesis.stop()
        self._heal()
        self.checker.final()

    def _found(self) -> None:
        members = tuple((host.ordinal, host.incarnation) for host in self.hosts)
        founding = Founding(
            self.cluster,
            "owner",
            self.data_shards,
            self.parity_shards,
            members,
            self.inline_max,
        )
        first = self.hosts[0].member
        assert first is not None
        first.found(founding)
        self.hosts[0].wake()
        seated = lambda: all(h.member and h.member.seat for h in self.hosts)  # noqa: E731
        if not self.run_until(seated, 10.0):
            raise Violation("the founders never got their seats")
        asked = [0.0]

        def formed() -> bool:
            if self.now >= asked[0]:
                asked[0] = self.now + 0.5
                for host in self.hosts:
                    if host.member and host.member.seat and not host.member.seat.machine.formed:
                        host.member.seat.submit_formed(self.now + 5.0)
                        host.wake()
            return all(
                h.member and h.member.seat and h.member.seat.machine.formed and h.member.seat.booted
                for h in self.hosts
            )

        if not self.run_until(formed, 20.0):
            raise Violation("a calm cluster was not formed within 20 s")
        self.note("formed")

    def crash(self, host: Host) -> None:
        """Kill a process."""
        self.note(f"node {host.ordinal} crashes")
        host.crash()
        self.network.crashed(host)

    def _heal(self) -> None:
        self.note("faults stop")
        self.healing = True
        self.faults = CALM
        self.network.cut.clear()
        for client in self.clients:
            client.stop()
        for host in self.hosts:
            host.engine.full = False
            host.flush_time = (0.0005, 0.002)
            if not host.alive:
                host.start()
        if not self.run_until(self.checker.converged, 90.0):
            raise Violation(f"no convergence within 90 s: {self.checker.why_not()}")
        self.note("converged")


def run_seed(seed: int) -> World:
    """Run one world; raises Violation (with `world` set) when a promise is broken."""
    world = World(seed)
    try:
        world.run()
    except Violation:
        raise
    except AssertionError as error:
        raise Violation(f"an invariant failed: {error!r}") from error
    return world
