"""Leaders that stay with a minority, and hear late what the others chose meanwhile."""

from __future__ import annotations

from distkv.core.messages import LearnRequest
from distkv.simulation.core_process import Process
from distkv.simulation.core_world import World

PER_SECOND = 4.0
ANSWERS = 8


class MinorityWorld(World):
    """Questions of a follower that became a leader may be answered while it leads: the answer
    names values that a higher ballot chose in slots for which it has proposed others."""

    def _schedule_faults(self) -> None:
        super()._schedule_faults()
        self._every(PER_SECOND, self._fault_minority)

    def _fault_minority(self) -> None:
        """Cut a leader off with fewer than can choose, and let the others elect another."""
        leaders = self.leaders()
        if not leaders:
            return
        leader = self.rng.choice(leaders)
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
