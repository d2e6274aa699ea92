"""Clock, network, processes and clients of a world of the core alone."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from distkv.core.configuration import Configuration
from distkv.core.messages import Accept, Message
from distkv.ids import Member
from distkv.simulation.core_check import Checker
from distkv.simulation.core_faults import draw_faults, draw_geometry, draw_options
from distkv.simulation.core_late import HeldBack
from distkv.simulation.core_process import Process

_MASK = (1 << 64) - 1


def _feeds(message: Message) -> bool:
    return isinstance(message, Accept) and bool(message.entries)


class Base:
    """What happens to whom, when; the seed decides everything."""

    wide_layouts = False
    """Whether layouts change to any other, or by one node."""

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
        self._wanted = (0, 0)
        """(k, m) of the layout that further nodes join for."""
        self._log = log
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._incarnations = 1000
        self._tokens = 0
        self._commands = 0
        self._blocked: dict[tuple[int, int], None] = {}
        self._cut: dict[tuple[Member, Member], None] = {}
        self._unfed: dict[Member, None] = {}
        """Accepts with entries do not reach these."""
        self._slow = -1
        self._half_cut: Process | None = None
        self.held_back: HeldBack | None = None
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
            if self.held_back is not None and self.held_back.takes(sender, ordinal, message):
                return
            if rng.random() < faults.loss:
                return
            if ordinal == self._slow:
                delay += 100 + rng.random() * 150
            if faults.late and rng.random() < faults.late:
                delay += rng.random() * faults.late_max
            if faults.duplicate and rng.random() < faults.duplicate:
                self.at(delay + rng.random() * 20, self.deliver, sender.member, ordinal, message)
        self.at(delay, self.deliver, sender.member, ordinal, message)

    def deliver(self, sender: Member, ordinal: int, message: Message) -> None:
        """A message reaches whoever runs at that seat now."""
        for process in self.seats.get(ordinal, ()):
            if not process.up or process.member == sender:
                continue
            if self._cut and (sender, process.member) in self._cut:
                continue
            if self._unfed and process.member in self._unfed and _feeds(message):
                continue
            if self.now < process.paused_until:
                self.at(process.paused_until - self.now, self.deliver, sender, ordinal, message)
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

    def leaders(self) -> list[Process]:
        """Whoever believes to lead."""
        return [p for p in self._running() if p.replica.leader == p.member]

    def crash(self, process: Process) -> None:
        """Power loss at `process`."""
        raise NotImplementedError

    def leader_lost(self, ordinal: int, leader: int) -> None:
        """Whoever runs at `ordinal` is told that the process at `leader` is gone."""
        raise NotImplementedError

    def seated(self, process: Process) -> None:
        """`process` learns that it is a member now."""
        raise NotImplementedError

    def fetch_snapshot(self, process: Process, ordinal: int) -> None:
        """Stream the state of a peer."""
        raise NotImplementedError
