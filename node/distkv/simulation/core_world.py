"""A world of the consensus core alone: processes, a network and a clock, from one seed.

Two phases: faults and load, then everything heals and must converge.
"""

from __future__ import annotations

from collections.abc import Callable

from distkv.simulation.core_check import Violation
from distkv.simulation.core_process import Process
from distkv.simulation.core_restored import GREET_EVERY, Restored

HEAL_LIMIT = 15_000.0
"""ms of virtual time within which a healed world must have converged."""


class World(Restored):
    """`run` raises AssertionError (of which Violation is one) if something does not hold."""

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
        self._nobody_suspected()

    def _nobody_suspected(self) -> None:
        """Only whose disk went back in time may be left out for that."""
        forgot = [process.member for process in self.processes if process.restored]
        for process in self.processes:
            suspects = [m for m in process.replica.status().suspicions if m not in forgot]
            if suspects:
                raise Violation(f"{process.member} counts {suspects} no more, who lost nothing")

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

    def _schedule_faults(self) -> None:
        f = self.faults
        for rate, callback in (
            (f.crash, self._fault_crash),
            (f.kill_leader, self._fault_kill_leader),
            (f.partition, self._fault_partition),
            (f.pause, self._fault_pause),
            (f.clock, self._fault_clock),
            (f.isolate, self._fault_isolate),
            (f.stale, self._fault_stale),
            (f.hint, self._fault_hint),
            (f.transfer, self._fault_transfer),
            (f.truncate, self._fault_truncate),
            (f.wipe, self._fault_wipe),
            (f.change, self._fault_change),
            (f.restore, self._fault_restore),
            (1000.0 / GREET_EVERY if f.restore else 0.0, self._greet_all),
            (20.0 if f.wipe or f.change or f.restore else 0.0, self._admit),
        ):
            self._every(rate, callback)

    # -- convergence

    def _heal(self) -> None:
        self.say("HEAL")
        self.faulty = False
        self._slow = -1
        self._blocked, self._cut, self._unfed, self.held_back = {}, {}, {}, None
        for process in self.processes:
            process.paused_until = min(process.paused_until, self.now)
        for process in list(self.processes):
            if not process.up:
                self._restart(process)
        for member in self.joining:
            for process in self.processes:
                if process.member == member:
                    self._meet(process)
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
            if process.restored or (process.member in unfilled and not process.zombie):
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


class LayoutWorld(World):
    """Layouts change to any other, often: n, k and f go up and down by several."""

    wide_layouts = True

    def __init__(self, seed: int, log: Callable[[str], None] | None = None) -> None:
        super().__init__(seed, log)
        self.faults = self.faults._replace(change=4.0, duration=2500.0)


class RestoringWorld(World):
    """Volumes go back to snapshots, often."""

    def __init__(self, seed: int, log: Callable[[str], None] | None = None) -> None:
        super().__init__(seed, log)
        self.faults = self.faults._replace(restore=8.0, wipe=0.5, duration=2500.0)
