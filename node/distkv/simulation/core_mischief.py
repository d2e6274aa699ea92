"""Faults: crashes, partitions, pauses, deposed leaders, clocks that jump."""

from __future__ import annotations

from distkv.ids import Member
from distkv.simulation.core_base import Base
from distkv.simulation.core_late import HeldBack
from distkv.simulation.core_process import Process


class Mischief(Base):
    """Each `_fault_*` does one thing wrong now."""

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
            peer.greeted_by(process)
            peer.turn()
        self._meet(process)

    def _meet(self, process: Process) -> None:
        """It reaches whoever is not cut off from it."""
        own = process.member.ordinal
        for peer in self._running():
            other = peer.member.ordinal
            if other != own and not {(own, other), (other, own)} & self._blocked.keys():
                process.replica.peer_up(peer.member)
                process.greeted_by(peer)
        process.turn()

    def _hint_down(self, process: Process, ordinal: int) -> None:
        if process.up and self.now >= process.paused_until:
            process.replica.peer_down(ordinal)
            process.turn()

    def leader_lost(self, ordinal: int, leader: int) -> None:
        """Whoever runs at `ordinal` is told that the process at `leader` is gone."""
        for process in self.seats.get(ordinal, ()):
            self._hint_down(process, leader)

    def _fault_crash(self) -> None:
        running = self._running()
        if running:
            self.crash(self.rng.choice(running))

    def _fault_kill_leader(self) -> None:
        leaders = self.leaders()
        if not leaders:
            return
        leader = self.rng.choice(leaders)
        if self.rng.random() < 0.5:
            self.crash(leader)
            return
        # It comes back at once and may lead again while old answers are still on their way.
        self._slow = leader.member.ordinal
        for _ in range(4):
            self.at(self.rng.random() * 25, self._write_at, leader)
        self.at(30, self._bounce, leader)

    def _bounce(self, process: Process, noticed: bool = True) -> None:
        self._slow = -1
        if not process.up or not self.faulty:
            return
        self.say(f"BOUNCE {process.member}")
        process.crash()
        self.at(1, self._restart, process)
        if noticed:
            for peer in self._running():
                self._hint_down(peer, process.member.ordinal)

    def _fault_stale(self) -> None:
        """See core_late."""
        leaders = self.leaders()
        if not leaders or self.held_back is not None:
            return
        leader = self.rng.choice(leaders)
        self.say(f"ANSWERS to {leader.member} are held back")
        self.held_back = HeldBack(self, leader)
        for _ in range(4):
            self.at(self.rng.random() * 20, self._write_at, leader)
        self.at(20 + self.rng.random() * 40, self._bounce, leader, False)

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

    def _isolate(self, leader: Process, noticed: bool = True) -> None:
        if not self.faulty:
            return
        alone = leader.member.ordinal
        self._slow = -1
        self._blocked = {}
        for ordinal in sorted(self.seats):
            if ordinal != alone:
                self._blocked[(alone, ordinal)] = self._blocked[(ordinal, alone)] = None
        if noticed:
            for process in self._running():
                if process.member.ordinal != alone:
                    self._hint_down(process, alone)
        for _ in range(5):
            self.at(self.rng.random() * 200, self._read_at, leader)
        for _ in range(15):
            self.at(self.rng.random() * 50, self._write_at, leader)
        if self.rng.random() < 0.6:
            # Several leaders in a row, each leaving entries that only it holds.
            self.at(100 + self.rng.random() * 250, self._isolate_newest)

    def _isolate_newest(self) -> None:
        leaders = self.leaders()
        if leaders:
            # What it writes now may reach the others, but not the news that it was chosen.
            newest = max(leaders, key=lambda p: p.replica.ballot)
            self._write_at(newest)
            self.at(self.rng.random() * 4, self._isolate, newest, self.rng.random() < 0.4)

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
