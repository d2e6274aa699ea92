"""One seed, one whole cluster: members, disks, network, owner, clients and faults.

Two phases: safety under faults; then the faults stop and everything must converge.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

from distkv.member.messages import Founding
from distkv.member.options import MemberOptions
from distkv.simulation import settled
from distkv.simulation.budget import BudgetCheck
from distkv.simulation.clients import Client
from distkv.simulation.full_check import Checker
from distkv.simulation.full_faults import (
    CALM,
    OF_DATAGRAMS,
    Faults,
    draw_faults,
    draw_geometry,
    draw_options,
    draw_relayout,
)
from distkv.simulation.history import Call
from distkv.simulation.hubs import HubNetwork
from distkv.simulation.layout_owner import LayoutOwner
from distkv.simulation.member_host import FLUSH_TIME, Host
from distkv.simulation.network import Network
from distkv.simulation.owner import Owner
from distkv.simulation.restoring import Restoring
from distkv.storage.memory import MemoryEngine

WALL_START_MS = 1_700_000_000_000


class Violation(Exception):
    """A promise was broken in this world."""


REAL_TRANSPORT = 0.3
"""Share of the worlds in which messages travel through the production transport."""
LISTS = 0.1
"""Share of the worlds in which clients mostly append to a list, coded from two pieces on, and
delete it; disks are slow and commands come twice soon, so that a write of two steps meets its
own copies between them."""
CONVERGE_SECONDS = 90.0
NUDGE_AFTER = 30.0
"""When a calm world keeps garbage this long, its leader is started anew once: values whose
outcome nobody learnt are ruled out by the next barrier."""


class World:
    """See the module. `run` raises Violation."""

    disk_lost_at = float("-inf")

    def __init__(
        self,
        seed: int,
        geometry: tuple[int, int] | None = None,
        faults: Faults | None = None,
        transport: bool | None = None,
        layouts: bool | None = None,
        restores: bool | None = None,
    ) -> None:
        """`transport`: True: the production transport carries all messages; None: drawn.
        `layouts`: whether the owner wants other layouts; None: drawn. `restores`: whether disks
        go back to snapshots; None: drawn, unless all `faults` are given."""
        self.seed = seed
        self.rng = random.Random(seed)
        drawn = draw_geometry(self.rng)
        self.data_shards, self.parity_shards = geometry or drawn
        self.layout_rng = random.Random(f"layouts {seed}")
        """Draws for changes of the layout: worlds without are what they would be anyway."""
        relayout = draw_relayout(self.layout_rng, layouts)
        drawn_faults = draw_faults(self.rng, seed)._replace(relayout=relayout)
        self.now = 0.0
        self.cluster = b"simulated-cluster"[:16]
        self.inline_max = self.rng.choice((0, 64, 4096))
        drawn_transport = self.rng.random() < REAL_TRANSPORT
        self.real_transport = drawn_transport if transport is None else transport
        if not self.real_transport:
            drawn_faults = drawn_faults._replace(**dict.fromkeys(OF_DATAGRAMS, 0.0))
        self.lists = faults is None and random.Random(f"lists of {seed}").random() < LISTS
        if self.lists:
            self.inline_max = 64
            drawn_faults = drawn_faults._replace(
                echo=max(0.5, drawn_faults.echo), slow_disk=max(0.7, drawn_faults.slow_disk)
            )
        self.faults = self.drawn = faults or drawn_faults
        self.member_options = draw_options(self.rng, self.real_transport)
        stripe = self.member_options.stripe_bytes
        self.lengths = [n for n in (20, 90, 700, 5000, 30000) if n <= 8 * stripe]
        self.expiring = self.rng.choice((0.0, 0.0, 0.15))
        """Chance that a put expires."""
        self.think = 0.05 if self.lists else self.rng.choice((0.05, 0.15, 0.4))
        """Mean pause of a client between two requests, seconds."""
        self.wake = self.rng.choice((0.0001, 0.0005, 0.002))
        """Seconds from an event to the turn that handles it, and what arrived meanwhile."""
        self.nudged = False
        self.client_count: int | None = None
        self.owner_replaces = self.rng.random() < 0.6
        self.transport_rng = random.Random(self.rng.getrandbits(64))
        """Draws for datagrams: what they suffer does not change what else is drawn."""
        self.network: Network | HubNetwork = (HubNetwork if self.real_transport else Network)(self)
        self.hosts = [Host(self, o) for o in range(self.data_shards + self.parity_shards)]
        for host in self.hosts if self.drawn.clock else ():
            host.pace = self.rng.uniform(0.97, 1.03)
        self.wiped: list[int] = []
        self.refilled = 0
        """Disks that were lost, and whose successors hold everything again."""
        self.rotten: list[int] = []
        self.checker = Checker(self)
        self.budget = BudgetCheck(self)
        self.layouts = LayoutOwner(self)
        self.restoring = Restoring(self, restores, faults is None)
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

    def victims_in(self, size: int) -> int:
        """Of the first `size` ordinals."""
        return sum(ordinal < size for ordinal in self.victims)

    @property
    def bearable(self) -> int:
        """Victims there may be at once: f, and while the layout changes the least of all
        that live and are wanted."""
        k, m = self.layouts.last
        return min(self.checker.layouts.bearable(), m, (k + m - 1) // 2)

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
        if self.drawn.relayout:
            self.owner_replaces = True
        drawn = self.rng.randint(2, 4)
        for number in range(drawn if self.client_count is None else self.client_count):
            self.clients.append(Client(self, number))
        nemesis = Nemesis(self)
        nemesis.start()
        Owner(self).start()
        self.budget.start()
        if self.drawn.relayout:
            self.layouts.start()
            self.checker.layouts.start()
        self.restoring.start()
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
        if self.drawn.slow_repair:
            self._repair_at(int(self.drawn.slow_repair))
        faults, self.faults = self.faults, CALM._replace(duration=self.faults.duration)
        for host in self.hosts:
            host.start()
        self.network.connect_loop()
        self._found()
        self.faults = faults

    def _repair_at(self, rate: int) -> None:
        """The owner sets how many bytes per second background work may move."""
        self.member_options = replace(self.member_options, repair_bytes_per_second=rate)
        for host in self.hosts:
            if host.member is not None:
                host.member.set_repair_rate(rate)

    def _found(self) -> None:
        members = tuple((host.ordinal, host.incarnation) for host in self.hosts)
        self.checker.layouts.founded(self.data_shards, self.parity_shards, members)
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
                        host.member.seat.submit_formed(host.clock + 5.0)
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

    def lose_disk(self, host: Host) -> None:
        """Kill a process and take its disk away."""
        self.wiped.append(host.ordinal)
        self.disk_lost_at = self.now
        host.crash()
        host.engine.wipe()
        self.checker.disk_lost(host)
        self.network.crashed(host)

    def restore_disk(self, host: Host, image: MemoryEngine) -> None:
        """Kill a process and put a snapshot of its disk in the place of that."""
        self.wiped.append(host.ordinal)
        self.disk_lost_at = self.now
        if host.alive:
            host.crash()
            self.network.crashed(host)
        host.engine = image
        self.checker.disk_restored(host)

    def wipe_restored(self, host: Host) -> None:
        """Its owner takes that disk away, too."""
        if host.alive:
            host.crash()
            self.network.crashed(host)
        host.engine.wipe()

    def add_host(self) -> None:
        """One more machine, with an empty disk."""
        host = Host(self, len(self.hosts))
        if self.drawn.clock:
            host.pace = self.layout_rng.uniform(0.97, 1.03)
        self.note(f"node {host.ordinal} is there, with an empty disk")
        self.network.add(host.ordinal)
        self.hosts.append(host)
        host.start()

    def remove_host(self, ordinal: int) -> None:
        """Its owner takes away the last machine, and its disk."""
        host = self.hosts[-1]
        assert host.ordinal == ordinal, "only the last is removed"
        self.note(f"node {ordinal} is removed")
        if self.checker.layouts.seats((ordinal, host.incarnation)):
            self.violation(f"node {ordinal} is removed, but a layout that lives has it")
        if host.alive:
            host.crash()
            self.network.crashed(host)
        host.gone = True
        self.hosts.pop()
        self.wiped = [o for o in self.wiped if o != ordinal]
        self.rotten = [o for o in self.rotten if o != ordinal]
        self.restoring.removed(host)

    def halted(self, host: Host, why: str, pause: float = 1.0) -> None:
        """The process ended by itself; something starts it again."""
        self.note(f"node {host.ordinal} halts: {why}")
        host.crash()
        self.network.crashed(host)

        def restart() -> None:
            if not host.alive and not host.gone:
                host.start()

        self.after(pause, restart)

    def heal(self) -> None:
        """End all faults and wait until everything is at rest. Raises Violation."""
        self.note("faults stop")
        self.healing = True
        self.faults = CALM
        if self.drawn.slow_repair:
            self._repair_at(MemberOptions().repair_bytes_per_second)
        self.network.heal()
        for client in self.clients:
            client.stop()
        for host in self.hosts:
            host.engine.full = host.scarce = False
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
