"""Disks are lost, members replaced, layouts changed: the administrator's side included."""

from __future__ import annotations

from distkv.core.configuration import Configuration, check
from distkv.ids import Member
from distkv.simulation.core_faults import draw_change
from distkv.simulation.core_machine import pack_configuration
from distkv.simulation.core_mischief import Mischief
from distkv.simulation.core_process import Process


class Membership(Mischief):
    """Stays within what is promised: at most f disks lost and not yet replaced."""

    def _refilled(self) -> None:
        """A disk counts as refilled once slots above its replacement were chosen."""
        seats = self.checker.configuration.members
        if self.checker.values and self.checker.change_covered:
            self.lost = [m for m in self.lost if m in seats]

    def _fault_wipe(self) -> None:
        """A disk is lost, within what is promised: at most f of them unfilled."""
        self._refilled()
        configuration = self.checker.configuration
        if self._spent():
            return
        victims = [
            p
            for p in self.processes
            if configuration.is_voter(p.member)
            and p.member not in self.lost
            and not p.zombie
            and not p.restored
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

    def _spent(self) -> bool:
        """Whether as many disks are lost as may be at this moment."""
        configuration = self.checker.configuration
        budget = min(configuration.failures, self.checker.safe_failures)
        for epoch, failures in self._proposed.items():
            if epoch > configuration.epoch:
                budget = min(budget, failures)
        return len(self.lost) >= budget

    def _join(self, ordinal: int) -> None:
        self._incarnations += 1
        member = Member(ordinal, self._incarnations)
        self.joining[member] = None
        self._meet(self._add(member))

    def _fault_change(self) -> None:
        """Another layout; further nodes must join first, all of them."""
        if self.joining:
            return
        configuration = self.checker.configuration
        k, m = draw_change(self.rng, configuration, self.wide_layouts)
        if k + m > configuration.size:
            self._wanted = (k, m)
            for ordinal in range(configuration.size, k + m):
                self._join(ordinal)
        else:
            self._propose_change(k, m, configuration.members[: k + m])

    def _propose_change(
        self,
        k: int,
        m: int,
        members: tuple[Member, ...],
        leaders: list[Process] | None = None,
    ) -> None:
        configuration = Configuration(0, k, m, members)
        check(configuration)
        failures = configuration.failures
        if failures < len(self.lost):
            return  # no administrator gives up a failure budget that is spent
        for process in self.leaders() if leaders is None else leaders:
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

    def _lag(self, member: Member) -> None:
        """Nothing reaches a newcomer for a while, so it has much to learn afterwards."""
        if not self.faulty:
            return
        pairs = [(p.member, member) for p in self.processes if p.member != member]
        self._cut.update(dict.fromkeys(pairs))
        for _ in range(15):
            self.at(self.rng.random() * 100, self._write_anywhere)
        self.at(100 + self.rng.random() * 60, self._hear_again, pairs)

    def _hear_again(self, pairs: list[tuple[Member, Member]]) -> None:
        """It hears that there is more, but has to ask for it: no accept brings it."""
        for pair in pairs:
            self._cut.pop(pair, None)
            self._unfed[pair[1]] = None
            self.at(150.0, self._feed, pair[1])

    def _feed(self, member: Member) -> None:
        self._unfed.pop(member, None)

    def _write_anywhere(self) -> None:
        for leader in self.leaders():
            self._write_at(leader)

    def seated(self, process: Process) -> None:
        """Perhaps it crashes with that news, and whatever came along, not all on disk."""
        if self.faulty and self.rng.random() < self.faults.newcomer:
            self.at(0.0, self._crash_newcomer, process, process.life)

    def _crash_newcomer(self, process: Process, life: int) -> None:
        if process.up and process.life == life and self.faulty:
            self.crash(process)

    def _seated(self, member: Member) -> bool:
        return self.checker.configuration.is_voter(member)

    def _admit(self) -> None:
        """The administrator: whoever has caught up as a learner gets its seat; of several that
        join for one layout, all at once."""
        seats = self.checker.configuration.members
        k, m = self._wanted
        # Seated, or the layout became another one meanwhile: then they wait for nothing.
        further = sorted(j for j in self.joining if j.ordinal >= len(seats))
        given_up = [j.ordinal for j in further] != list(range(len(seats), k + m))
        if self.wide_layouts and not self.faulty:
            given_up = True  # nobody waits for a budget that only further writes would refill
        for member in list(self.joining):
            if member in seats or (member in further and given_up):
                del self.joining[member]
        self._refilled()
        if not self.joining:
            return
        lost = [j for j in self.joining if j.ordinal < len(seats)]
        if self.wide_layouts:
            group = lost[:1] or further
        else:
            group = [j for j in self.joining if j.ordinal <= len(seats)][:1]
        for process in self.leaders():
            for joiner in group:
                process.replica.add_learner(joiner)
            match = {peer.member: peer.match for peer in process.replica.status().peers}
            if all(match.get(j, -1) >= process.replica.chosen - 3 for j in group):
                self._seat(group)

    def _seat(self, joiners: list[Member]) -> None:
        for joiner in joiners:
            if self.faults.newcomer and self.rng.random() < 0.5:
                self._lag(joiner)
        c = self.checker.configuration
        if joiners[0].ordinal < c.size:
            members = list(c.members)
            members[joiners[0].ordinal] = joiners[0]
            self._propose_change(c.data_shards, c.parity_shards, tuple(members))
        elif self.wide_layouts:
            self._propose_change(*self._wanted, (*c.members, *joiners))
        else:
            parity = self.rng.randint(0, c.size)
            self._propose_change(c.size + 1 - parity, parity, (*c.members, *joiners))
