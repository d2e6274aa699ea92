"""One seed, one whole cluster: members, disks, network, owner, clients and faults.

Two phases: safety under faults; then the faults stop and everything must converge.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from distkv.core.options import ReplicaOptions
from distkv.member.messages import Founding
from distkv.member.options import MemberOptions
from distkv.simulation import settled
from distkv.simulation.clients import Client
from distkv.simulation.full_check import Checker
from distkv.simulation.history import Call
from distkv.simulation.member_host import FLUSH_TIME, Host
from distkv.simulation.network import Network
from distkv.simulation.owner import Owner

WALL_START_MS = 1_700_000_000_000


class Violation(Exception):
    """A promise was broken in this world."""


CONVERGE_SECONDS = 90.0
NUDGE_AFTER = 30.0
"""When a calm world keeps garbage this long, its leader is started anew once: values whose
outcome nobody learnt are ruled out by the next barrier."""


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
    echo: float
    """Chance that commands on their way to a leader reach whoever leads a while later, again."""
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
        slow_disk=rate(1.5, 0.4),
        full_disk=rate(0.3, 0.2),
        rot=rate(1.0, 0.3),
        clock=rate(0.5, 0.3),
        wipe=rate(0.4, 0.4),
        crash_at_flush=rate(0.02, 0.3),
        transfer=rate(0.5, 0.2),
        echo=rate(0.3, 0.4),
        duration=rng.uniform(4.0, 8.0),
    )


CALM = Faults(**dict.fromkeys(Faults._fields, 0.0))


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
        tick = self.rng.choice((25, 50))
        self.member_options = MemberOptions(
            replica=ReplicaOptions(
                tick=tick,
                heartbeat=75 if tick == 25 else 100,
                election_min=300 if tick == 25 else 400,
                election_max=600 if tick == 25 else 800,
                retain_slots=self.rng.choice((8, 64, 4096)),
                read_timeout=400,
            ),
            tick=tick / 1000,
            stripe_bytes=self.rng.choice((512, 4096, 65536)),
            value_max=1 << 20,
            memory_in_flight=8 << 20,
            stream_above=self.rng.choice((1 << 20, 1000)),
            grace=self.rng.choice((2.0, 5.0)),
            grace_bytes=1 << 20,
            repair_pass_every=2.0,
            settle_every=self.rng.choice((0.3, 2.0)),
            restripe_after=1.0 if seed % 2 else 0.0,
            truncate_every=0.3,
        )
        stripe = self.member_options.stripe_bytes
        self.lengths = [n for n in (20, 90, 700, 5000, 30000) if n <= 8 * stripe]
        self.expiring = self.rng.choice((0.0, 0.0, 0.15))
        """Chance that a put expires."""
        self.think = self.rng.choice((0.05, 0.15, 0.4))
        """Mean pause of a client between two requests, seconds."""
        self.nudged = False
        self.client_count: int | None = None
        self.owner_replaces = self.rng.random() < 0.6
        self.network = Network(self)
        self.hosts = [Host(self, o) for o in range(self.data_shards + self.parity_shards)]
        self.wiped: list[int] = []
        self.rotten: list[int] = []
        self.checker = Checker(self)
        self.calls: list[Call] = []
        self.clients: list[Client] = []
        self.trace: list[str] = []
        self.too_hard = 0
        self.events = 0
        self._error: BaseException | None = None
        self.healing = False
        self._digest = hashlib.sha256()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    @property
    def victims(self) -> list[int]:
        """Ordinals whose disk was lost or rotten once."""
        return sorted({*self.wiped, *self.rotten})

    def violation(self, text: str) -> NoReturn:
        """End this world."""
        error = Violation(text)
        self._error = self._error or error
        raise error

    def broken(self, error: BaseException) -> None:
        """A part of the simulation, or of a node, failed: the world ends."""
        self._error = self._error or error

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
            if self._error is not None:
                raise self._error
            when, _, callback = heapq.heappop(self._heap)
            if when > end:
                heapq.heappush(self._heap, (when, 0, callback))
                self.now = end
                return condition()
            self.now = when
            self.events += 1
            callback()
        return condition()

    # -- the story

    def run(self) -> None:
        """Found, disturb, heal, check. Raises Violation."""
        from distkv.simulation.nemesis import Nemesis

        self.begin()
        drawn = self.rng.randint(2, 4)
        for number in range(drawn if self.client_count is None else self.client_count):
            self.clients.append(Client(self, number))
        nemesis = Nemesis(self)
        nemesis.start()
        Owner(self).start()
        self.run_until(lambda: False, self.faults.duration)
        nemesis.stop()
        self.heal()
        settled.final(self)
        if self._error is not None:
            raise self._error
        calls = sorted(self.calls, key=lambda c: (c.invoked, c.client, c.key))
        self.note(f"end: {self.checker.digest():08x} {len(calls)} calls {self.events} events")

    def begin(self) -> None:
        """Start all nodes and found the cluster, without faults."""
        faults, self.faults = self.faults, CALM._replace(duration=self.faults.duration)
        for host in self.hosts:
            host.start()
        self.network.connect_loop()
        self._found()
        self.faults = faults

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

    def halted(self, host: Host, why: str, pause: float = 1.0) -> None:
        """The process ended by itself; something starts it again."""
        self.note(f"node {host.ordinal} halts: {why}")
        host.crash()
        self.network.crashed(host)

        def restart() -> None:
            if not host.alive:
                host.start()

        self.after(pause, restart)

    def heal(self) -> None:
        """End all faults and wait until everything is at rest. Raises Violation."""
        self.note("faults stop")
        self.healing = True
        self.faults = CALM
        self.network.cut.clear()
        for client in self.clients:
            client.stop()
        for host in self.hosts:
            host.engine.full = False
            host.flush_time = FLUSH_TIME
            if not host.alive:
                host.start()
        rest = settled.Settlement(self)
        if not self.run_until(rest.reached, NUDGE_AFTER):
            self._nudge(rest.why)
            if not self.run_until(rest.reached, CONVERGE_SECONDS - NUDGE_AFTER):
                self.violation(f"no convergence within {CONVERGE_SECONDS:.0f} s: {rest.why}")
        self.note("converged")

    def _nudge(self, why: str) -> None:
        undecided = any(host.undecided for host in self.hosts)
        # The values of a lost disk that nobody replaces are ruled out by a barrier only.
        left = any(not host.votes for host in self.hosts)
        if not (undecided or left) or ("garbage" not in why and "undecided" not in why):
            return
        for host in self.hosts:
            if host.leads:
                self.note(f"node {host.ordinal}, the leader, is started anew: {why}")
                self.nudged = True
                host.crash()
                self.network.crashed(host)
                host.start()
                return
