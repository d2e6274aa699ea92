"""Leaders that others have replaced, and that hear of it late."""

from __future__ import annotations

from collections.abc import Callable

from distkv.core.messages import Accepted, LearnRequest, Message
from distkv.ids import Member
from distkv.simulation.core_process import Process
from distkv.simulation.core_world import World

PER_SECOND = 4.0
ANSWERS = 8


class MinorityWorld(World):
    """Leaders stay with a minority, or with a change of layout under way. A question that one
    had asked as a follower may be answered now: the answer names values that a higher ballot
    chose in slots for which it has proposed others."""

    def __init__(self, seed: int, log: Callable[[str], None] | None = None) -> None:
        super().__init__(seed, log)
        self._late_for = -1

    def _schedule_faults(self) -> None:
        super()._schedule_faults()
        self._every(PER_SECOND, self._fault_minority)
        self._every(PER_SECOND, self._fault_late_change)

    def _fault_minority(self) -> None:
        leaders = self.leaders()
        if leaders:
            self._depose(self.rng.choice(leaders))

    def _depose(self, leader: Process) -> None:
        """Cut it off with fewer than can choose, and let the others elect another."""
        others = [o for o in sorted(self.seats) if o != leader.member.ordinal]
        self.rng.shuffle(others)
        here = [leader.member.ordinal, *others[: self.checker.configuration.phase_two - 2]]
        there = [o for o in others if o not in here]
        self._blocked = {}
        for a in here:
            for b in there:
                self._blocked[(a, b)] = self._blocked[(b, a)] = None
        self.say(f"BLOCKED {here} from {there}")
        for process in self._running():
            if process.member.ordinal in there:
                self._hint_down(process, leader.member.ordinal)
        for _ in range(8):
            self.at(self.rng.random() * 100, self._write_at, leader)
        for _ in range(ANSWERS):
            self.at(20 + self.rng.random() * 150, self._answer_late, leader)

    def _fault_late_change(self) -> None:
        """Answers to a leader that changes the layout are slow, and the others elect another."""
        now = self.checker.configuration
        k = (now.size + 1) // 2 if now.failures == 0 else now.size
        self._propose_change(k, now.size - k, now.members)  # f goes away, or comes back
        changing = [p for p in self.leaders() if p.replica.status().changing]
        if not changing:
            return
        leader = self.rng.choice(changing)
        self._late_for = leader.member.ordinal
        for process in self._running():
            if process is not leader:
                self.at(2 + self.rng.random() * 4, self._hint_down, process, self._late_for)
        for _ in range(20):
            self.at(30 + self.rng.random() * 150, self._read_at, leader)
        self.at(150, self._quick)

    def _quick(self) -> None:
        self._late_for = -1

    def deliver(self, sender: Member, ordinal: int, message: Message) -> None:
        """Answers wait a while for a leader whose change is under way, and all else longer."""
        if ordinal == self._late_for and self.faulty:
            delay = 40 + self.rng.random() * 60 if type(message) is Accepted else 140
            self.at(delay, super().deliver, sender, ordinal, message)
        else:
            super().deliver(sender, ordinal, message)

    def _answer_late(self, leader: Process) -> None:
        """Somebody gets to what `leader` had asked while it followed."""
        knowing = [p for p in self._running() if p.replica.chosen > leader.replica.chosen]
        if not knowing or leader not in self.leaders():
            return
        other = self.rng.choice(knowing)
        if self.rng.random() < 0.3:  # then only a snapshot tells
            other.replica.truncate(other.machine.applied)
            other.turn()
        blocked, self._blocked = self._blocked, {}
        other.receive(leader.member, LearnRequest(leader.replica.chosen + 1))
        self._blocked = blocked


class LateChangeWorld(MinorityWorld):
    """What the others choose is a smaller layout, in which the leader that they deposed has its
    seat, and perhaps a quorum on its side. It hears of that, and so do clients of both."""

    wide_layouts = True

    def __init__(self, seed: int, log: Callable[[str], None] | None = None) -> None:
        super().__init__(seed, log)
        self.faults = self.faults._replace(change=2.0, duration=2500.0, restore=0.0)

    def _depose(self, leader: Process) -> None:
        super()._depose(leader)
        for _ in range(3):
            self.at(10 + self.rng.random() * 120, self._change_without, leader)

    def _change_without(self, deposed: Process) -> None:
        others = [p for p in self.leaders() if p is not deposed]
        members = self.checker.configuration.members
        if not others or not self.faulty:
            return
        smallest = max(p.member.ordinal for p in (deposed, *others)) + 1
        if smallest > len(members):
            return
        size = self.rng.choice((smallest, self.rng.randint(smallest, len(members))))
        parity = self.rng.choice((0, self.rng.randint(0, size - 1)))
        self._propose_change(size - parity, parity, members[:size], others)
        for _ in range(4):
            self.at(3 + self.rng.random() * 40, self._told_of_it, deposed)

    def _told_of_it(self, deposed: Process) -> None:
        self._answer_late(deposed)
        for leader in self.leaders():
            if leader is deposed:
                self._write_at(leader)
            else:
                self.at(5 + self.rng.random() * 20, self._read_at, leader)
