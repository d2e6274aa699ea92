"""A world of the consensus core alone: processes, a network and a clock, from one seed.

Two phases: faults and load, then everything heals and must converge.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from distkv.core.configuration import Configuration
from distkv.core.messages import Message
from distkv.ids import Member
from distkv.simulation.core_check import Checker, Violation
from distkv.simulation.core_faults import draw_change, draw_faults, draw_geometry, draw_options
from distkv.simulation.core_machine import pack_configuration
from distkv.simulation.core_process import Process

HEAL_LIMIT = 15_000.0
"""ms of virtual time within which a healed world must have converged."""

_MASK = (1 << 64) - 1


class World:
    """`run` raises AssertionError (of which Violation is one) if something does not hold."""

    def __init__(self, seed: int, log: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.faults = draw_faults(self.rng)
        self.options = draw_options(self.rng)
        k, m = draw_geometry(self.rng)
        members = tuple(Member(i, 100 + i) for i in range(k + m))
        self.genesis = Configuration(1, k, m, members)
        self.checker = Checker(self.genesis)
        self.now = 0.0
        self.digest = seed & _MASK
        self.events = 0
        self.reads_served = 0
        self.faulty = True
        self.lost: list[Member] = []
        """Disks lost and not yet replaced by a member that caught up."""
        self.joining: dict[Member, None] = {}
        self._log = log
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._incarnations = 1000
        self._tokens = 0
        self._commands = 0
        self._blocked: dict[tuple[int, int], None] = {}
        self._cut: dict[tuple[Member, Member], None] = {}
        self._slow = -1
        self._half_cut: Process | None = None
        self._proposed: dict[int, int] = {}
        """f of the changes under way, by epoch."""
        self.seats: dict[int, list[Process]] = {}
        self.processes: list[Process] = []
        for member in members:
            self._add(member)

    def _add(self, member: Member) -> Process:
        process = Process(self, member)
        self.processes.append(process)
        self.seats.setdefault(member.ordinal, []).append(process)
        return process

    # -- time

    def at(self, delay: float, callback: Callable[..., None], *arguments: Any) -> None:
        """Call back after `delay` ms."""
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + delay, self._sequence, callback, arguments))

    def trace(self, value: int) -> None:
        """Mix into the digest: equal seeds must do equal things."""
        self.digest = ((self.digest ^ value) * 1099511628211 + int(self.now * 1000)) & _MASK

    def say(self, text: str) -> None:
        """A line of the readable trace."""
        if self._log is not None:
            self._log(f"{self.now:9.2f} {text}")

    def _step(self) -> None:
        when, number, callback, arguments = heapq.heappop(self._heap)
        self.now = when
        self.events += 1
        self.trace(number)
        callback(*arguments)

    def run(self) -> None:
        """Both phases."""
        self.say(f"{self.genesis} {self.faults} {self.options}")
        self._schedule_faults()
        self._every(self.faults.proposals, self._client_write)
        self._every(self.faults.reads, self._client_read)
        while self.now < self.faults.duration:
            self._step()
        self._heal()
        if self._half_cut is not None:
            self._converge()
            self._blocked, self._half_cut = {}, None
        self._converge()

    def _converge(self) -> None:
        deadline = self.now + HEAL_LIMIT
        check_at = self.now
        while not (self.now >= check_at and self._converged()):
            if self.now > deadline:
                raise Violation(f"no convergence after healing: {self._picture()}")
            if self.now >= check_at:
                self._admit()
                check_at = self.now + 50.0
            self._step()

    # -- network

    def send(self, sender: Process, ordinal: int, message: Message) -> None:
        """Lose, duplicate, delay and reorder."""
        rng, faults = self.rng, self.faults
        if self._log is not None:
            self.say(f"{sender.member} -> {ordinal} {message}")
        delay = 0.1 + rng.random()
        if self._blocked and (sender.member.ordinal, ordinal) in self._blocked:
            return
        if self.faulty:
            if rng.random() < faults.loss:
                return
            if ordinal == self._slow:
                delay += 100 + rng.random() * 150
            if faults.late and rng.random() < faults.late:
                delay += rng.random() * faults.late_max
            if faults.duplicate and rng.random() < faults.duplicate:
                self.at(delay + rng.random() * 20, self._deliver, sender.member, ordinal, message)
        self.at(delay, self._deliver, sender.member, ordinal, message)

    def _deliver(self, sender: Member, ordinal: int, message: Message) -> None:
        for process in self.seats.get(ordinal, ()):
            if not process.up or process.member == sender:
                continue
            if self._cut and (sender, process.member) in self._cut:
                continue
            if self.now < process.paused_until:
                self.at(process.paused_until - self.now, self._deliver, sender, ordinal, message)
            else:
                process.receive(sender, message)

    def flush_time(self) -> float:
        """How long this flush takes."""
        return 0.05 + self.rng.random() * (self.faults.flush_max if self.faulty else 1.0)

    # -- clients

    def _every(self, rate: float, callback: Callable[[], None]) -> None:
        if rate > 0:
            self.at(self.rng.expovariate(rate) * 1000, self._again, rate, callback)

    def _again(self, rate: float, callback: Callable[[], None]) -> None:
        if self.faulty:
            callback()
            self._every(rate, callback)

    def _running(self) -> list[Process]:
        return [p for p in self.processes if p.up and self.now >= p.paused_until]

    def _client_write(self) -> None:
        running = self._running()
        if not running:
            return
        process = self.rng.choice(running)
        self._commands += 1
        command = b"%d." % self._commands + b"." * self.rng.choice((0, 10, 100))
        leader = process.replica.leader
        if leader is None:
            return
        if leader == process.member:
            process.propose(command, None)
        else:
            self.at(self.rng.random(), self._forwarded, leader, command, process.member.ordinal)

    def _forwarded(self, leader: Member, command: bytes, origin: int) -> None:
        for process in self.seats.get(leader.ordinal, ()):
            if process.up and self.now >= process.paused_until and process.member == leader:
                process.propose(command, origin)

    def _client_read(self) -> None:
        running = self._running()
        if running:
            self._tokens += 1
            self.rng.choice(running).read(self._tokens)

    def _read_at(self, process: Process) -> None:
        if process.up and self.now >= process.paused_until:
            self._tokens += 1
            process.read(self._tokens)

    def _write_at(self, process: Process) -> None:
        if process.up and self.now >= process.paused_until:
            self._commands += 1
            process.propose(b"%d!" % self._commands, None)

    # -- faults

    def _schedule_faults(self) -> None:
        f = self.faults
        for rate, callback in (
            (f.crash, self._fault_crash),
            (f.kill_leader, self._fault_kill_leader),
            (f.partition, self._fault_partition),
            (f.pause, self._fault_pause),
            (f.clock, self._fault_clock),
            (f.isolate, self._fault_isolate),
            (f.hint, self._fault_hint),
            (f.transfer, self._fault_transfer),
            (f.truncate, self._fault_truncate),
            (f.wipe, self._fault_wipe),
            (f.change, self._fault_change),
            (20.0 if f.wipe or f.change else 0.0, self._admit),
        ):
            self._every(rate, callback)

    def crash(self, process: Process) -> None:
        """Power loss; it restarts after a while. Peers may notice."""
        self.say(f"CRASH {process.member}")
        process.crash()
        self.at(self.rng.choice((5.0, 60.0, 600.0)) * self.rng.random(), self._restart, process)
        if self.rng.random() < 0.5:
            for peer in self._running():
                self.at(self.rng.random() * 30, self._hint_down, peer, process.member.ordinal)

    def _restart(self, process: Process) -> None:
        if process.up or process.member in self.lost:
            return
        self.say(f"START {process.member}")
        process.boot()
        for peer in self._running():
            peer.replica.peer_up(process.member)
            peer.turn()

    def _hint_down(self, process: Process, ordinal: int) -> None:
        if process.up and self.now >= process.paused_until:
            process.replica.peer_down(ordinal)
            process.turn()

    def _fault_crash(self) -> None:
        running = self._running()
        if running:
            self.crash(self.rng.choice(running))

    def leaders(self) -> list[Process]:
        """Whoever believes to lead."""
        return [p for p in self._running() if p.replica.leader == p.member]

    def _fault_kill_leader(self) -> None:
        leaders = self.leaders()
        if leaders:
            self.crash(self.rng.choice(leaders))

    def _fault_partition(self) -> None:
        rng = self.rng
        self._blocked = {}
        kind = rng.random()
        ordinals = sorted(self.seats)
        if kind < 0.3:
            return
        if kind < 0.65:
            side = {o: rng.random() < 0.5 for o in ordinals}
            one_way = rng.random() < 0.3
            for a in ordinals:
                for b in ordinals:
                    if side[a] != side[b] and not (one_way and side[a]):
                        self._blocked[(a, b)] = None
        else:
            share = rng.random() * 0.7
            for a in ordinals:
                for b in ordinals:
                    if a != b and rng.random() < share:
                        self._blocked[(a, b)] = None
        self.say(f"BLOCKED {list(self._blocked)}")

    def _fault_pause(self) -> None:
        running = self.leaders() if self.rng.random() < 0.5 else self._running()
        if running:
            process = self.rng.choice(running)
            length = self.rng.random() * 700
            process.paused_until = self.now + length
            self.at(length + self.rng.random(), self._read_at, process)
            process.reads = {
                t: (floor, process.paused_until + 3.0 * self.options.read_timeout)
                for t, (floor, _) in process.reads.items()
            }

    def _fault_isolate(self) -> None:
        """Cut a leader off, let the others notice at once, and read from the old one."""
        leaders = self.leaders()
        if not leaders:
            return
        leader = self.rng.choice(leaders)
        if self.rng.random() < 0.5:
            # First its mail is slow, so that old answers arrive after a successor was elected.
            self._slow = leader.member.ordinal
            self.at(40 + self.rng.random() * 60, self._isolate, leader)
        else:
            self._isolate(leader)

    def _isolate(self, leader: Process) -> None:
        if not self.faulty:
            return
        alone = leader.member.ordinal
        self._slow = -1
        self._blocked = {}
        for ordinal in sorted(self.seats):
            if ordinal != alone:
                self._blocked[(alone, ordinal)] = self._blocked[(ordinal, alone)] = None
        for process in self._running():
            if process.member.ordinal != alone:
                self._hint_down(process, alone)
        for _ in range(5):
            self.at(self.rng.random() * 200, self._read_at, leader)
            self.at(self.rng.random() * 100, self._write_at, leader)
        if self.rng.random() < 0.6:
            # Several leaders in a row, each leaving entries that only it holds.
            self.at(100 + self.rng.random() * 250, self._isolate_newest)

    def _isolate_newest(self) -> None:
        leaders = self.leaders()
        if leaders:
            self._isolate(max(leaders, key=lambda p: p.replica.ballot))

    def _split_change(self, leader: Process, joiners: list[Member]) -> None:
        """While a change is in flight, its leader keeps only the newcomers, and the others
        elect somebody who may know of the change or not."""
        if not self.faulty or not leader.up:
            return
        self._cut = {}
        for process in self.processes:
            if process is not leader and process.member not in joiners:
                self._cut[(leader.member, process.member)] = None
                self._cut[(process.member, leader.member)] = None
                self._hint_down(process, leader.member.ordinal)
        for _ in range(5):
            self.at(self.rng.random() * 150, self._write_at, leader)
        self.at(100 + self.rng.random() * 300, self._uncut)

    def _uncut(self) -> None:
        self._cut = {}

    def _fault_clock(self) -> None:
        self.rng.choice(self.processes).wall_offset += self.rng.randint(-5000, 5000)

    def _fault_hint(self) -> None:
        running = self._running()
        if running:
            self._hint_down(self.rng.choice(running), self.rng.choice(sorted(self.seats)))

    def _fault_transfer(self) -> None:
        for process in self.leaders():
            process.replica.transfer(self.rng.choice(sorted(self.seats)))
            process.turn()

    def _fault_truncate(self) -> None:
        running = self._running()
        if running:
            process = self.rng.choice(running)
            process.replica.truncate(process.machine.applied)
            process.turn()

    def fetch_snapshot(self, process: Process, ordinal: int) -> None:
        """Stream the state of a peer; it arrives later, or not at all."""
        sources = [p for p in self.seats.get(ordinal, ()) if p.up and p is not process]
        state = self.rng.choice(sources).machine.snapshot() if sources else None
        self.say(f"SNAPSHOT for {process.member} from {ordinal}: {state}")
        self.at(5 + self.rng.random() * 40, process.snapshot_arrives, process.life, state)

    # -- members come and go

    def _refilled(self) -> None:
        """A disk counts as refilled once slots above its replacement were chosen."""
        seats = self.checker.configuration.members
        if self.checker.values and self.checker.change_covered:
            self.lost = [m for m in self.lost if m in seats]

    def _fault_wipe(self) -> None:
        """A disk is lost, within what is promised: at most f of them unfilled."""
        self._refilled()
        configuration = self.checker.configuration
        budget = min(configuration.failures, self.checker.safe_failures)
        for epoch, failures in self._proposed.items():
            if epoch > configuration.epoch:
                budget = min(budget, failures)
        if len(self.lost) >= budget:
            return
        victims = [
            p
            for p in self.processes
            if configuration.is_voter(p.member) and p.member not in self.lost and not p.zombie
        ]
        if not victims:
            return
        victim = self.rng.choice(victims)
        self.say(f"WIPE {victim.member}")
        self.lost.append(victim.member)
        if self.rng.random() < 0.3:
            victim.zombie = True  # given up by its owner, but still running
        else:
            if victim.up:
                victim.crash()
            self.seats[victim.member.ordinal].remove(victim)
            self.processes.remove(victim)
        self._join(victim.member.ordinal)

    def _join(self, ordinal: int) -> None:
        self._incarnations += 1
        member = Member(ordinal, self._incarnations)
        self.joining[member] = None
        self._add(member)

    def _fault_change(self) -> None:
        """Another layout: n, k or m differ by a little."""
        if self.joining:
            return
        configuration = self.checker.configuration
        k, m = draw_change(self.rng, configuration)
        if k + m > configuration.size:
            self._join(configuration.size)
        else:
            self._propose_change(k, m, configuration.members[: k + m])

    def _propose_change(self, k: int, m: int, members: tuple[Member, ...]) -> None:
        failures = Configuration(0, k, m, members).failures
        if failures < len(self.lost):
            return  # no administrator gives up a failure budget that is spent
        for process in self.leaders():
            epoch = process.machine.configuration.epoch + 1
            if process.machine.configuration.epoch == self.checker.configuration.epoch:
                body = pack_configuration(Configuration(epoch, k, m, members))
                if process.replica.propose_configuration(body):
                    known = self._proposed.setdefault(epoch, failures)
                    self._proposed[epoch] = min(known, failures)
                    self.say(f"CHANGE {k}+{m} {members} by {process.member}")
                    if self.rng.random() < 0.5:
                        joiners = [m for m in members if not self._seated(m)]
                        delay = self.rng.choice((3.0, 10.0, 60.0)) * self.rng.random()
                        self.at(delay, self._split_change, process, joiners)
            process.turn()

    def _seated(self, member: Member) -> bool:
        return self.checker.configuration.is_voter(member)

    def _admit(self) -> None:
        """The administrator: whoever has caught up as a learner gets its seat."""
        seats = self.checker.configuration.members
        for member in list(self.joining):
            if member in seats or member.ordinal > len(seats):
                del self.joining[member]  # seated, or the layout shrank meanwhile
        self._refilled()
        if not self.joining:
            return
        joiner = next(iter(self.joining))
        for process in self.leaders():
            process.replica.add_learner(joiner)
            for peer in process.replica.status().peers:
                if peer.member == joiner and peer.match >= process.replica.chosen - 3:
                    self._seat(joiner)

    def _seat(self, joiner: Member) -> None:
        c = self.checker.configuration
        if joiner.ordinal < c.size:
            members = list(c.members)
            members[joiner.ordinal] = joiner
            self._propose_change(c.data_shards, c.parity_shards, tuple(members))
        elif joiner.ordinal == c.size < 9:
            parity = self.rng.randint(0, c.size)
            self._propose_change(c.size + 1 - parity, parity, (*c.members, joiner))

    # -- convergence

    def _heal(self) -> None:
        self.say("HEAL")
        self.faulty = False
        self._slow = -1
        self._blocked, self._cut = {}, {}
        for process in self.processes:
            process.paused_until = min(process.paused_until, self.now)
        for process in list(self.processes):
            if not process.up:
                self._restart(process)
        c = self.checker.configuration
        changing = any(epoch > c.epoch for epoch in self._proposed)
        apart = 1 < c.phase_two < c.phase_one and not changing
        if apart and not self.lost and not self.joining and self.rng.random() < 0.5:
            self._cut_half()

    def _cut_half(self) -> None:
        """One voter, the leader if there is one, reaches only as many as make q2 with it:
        it is one of the f that may fail, so the others must elect somebody else."""
        configuration = self.checker.configuration
        voters = [p for p in self._voters() if p.up]
        leading = [p for p in voters if p.replica.leader == p.member] or voters
        alone = self._half_cut = self.rng.choice(leading)
        others = [o for o in range(configuration.size) if o != alone.member.ordinal]
        for ordinal in others[configuration.phase_two - 1 :]:
            self._blocked[(ordinal, alone.member.ordinal)] = None
            self._blocked[(alone.member.ordinal, ordinal)] = None

    def _voters(self) -> list[Process]:
        configuration = self.checker.configuration
        return [p for p in self.processes if configuration.is_voter(p.member)]

    def _converged(self) -> bool:
        """One settled leader, nobody joining, all voters equal and nothing in flight."""
        voters = [p for p in self._voters() if p is not self._half_cut]
        top = self.checker.top
        leaders = [p for p in voters if p.up and p.replica.is_leader]
        if self.joining or len(leaders) != 1:
            return False
        leader = leaders[0].replica.status()
        if leader.queued or leader.window or leader.changing:
            return False
        unfilled = [m for m in self.lost if m in self.checker.configuration.members]
        for process in voters:
            if process.member in unfilled and not process.zombie:
                continue
            if not process.up or process.machine.applied != top or process.reads:
                return False
            if process.replica.leader != leaders[0].member:
                return False
        chains = [p.machine.chain for p in voters if p.up]
        if any(c != self.checker.chains[top] for c in chains):
            raise Violation("voters with equal logs have different states")
        return True

    def _picture(self) -> str:
        lines = [f"top {self.checker.top} joining {list(self.joining)} lost {self.lost}"]
        lines += [f"{p.member} up={p.up} {p.replica.status()}" for p in self.processes]
        return "\n  ".join(lines)
