"""A volume is restored from a snapshot: its process starts as the same member, and has forgotten.

It counts as a lost disk, so what is promised holds with up to f of them; but it still answers,
and would vote a second time if anybody counted it.
"""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable

from distkv.ids import Member
from distkv.simulation.core_members import Membership
from distkv.simulation.core_process import Process
from distkv.simulation.disk import Disk
from distkv.storage.base import Table
from distkv.storage.memory import MemoryEngine

SHARE = 0.15
"""Of the worlds, in which this happens."""
GREET_EVERY = 50.0
"""ms between two times of telling everybody how many flushes are durable."""
_PEER = struct.Struct(">BiQQQ?")


class Restored(Membership):
    """`run` raises AssertionError if a promise is broken."""

    def __init__(self, seed: int, log: Callable[[str], None] | None = None) -> None:
        super().__init__(seed, log)
        # Drawn apart, so that all other worlds stay what their seeds say.
        drawn = random.Random(f"restored {seed}")
        if drawn.random() < SHARE:
            self.faults = self.faults._replace(restore=3.0 * drawn.random(), duration=2500.0)

    def _greet_all(self) -> None:
        """What greetings do once a second: everybody's count reaches whom it can reach."""
        for process in self._running():
            for peer in self._running():
                if peer is not process and self._reaches(process, peer):
                    peer.replica.records.heard(process.member, process.replica.hard.durable_batches)

    def _reaches(self, sender: Process, receiver: Process) -> bool:
        pair = (sender.member.ordinal, receiver.member.ordinal)
        return pair not in self._blocked and (sender.member, receiver.member) not in self._cut

    def _fault_restore(self) -> None:
        """Take the snapshot of a voter now, and go back to it later."""
        configuration = self.checker.configuration
        voters = [p for p in self._running() if configuration.is_voter(p.member)]
        if not voters:
            return
        process = self.rng.choice(voters)
        if not process.zombie and not process.restored:
            image = copy.deepcopy(process.engine).crash(self.rng)
            self.at(100 + self.rng.random() * 1500, self._go_back, process, image)

    def _go_back(self, process: Process, image: MemoryEngine) -> None:
        """Within what is promised, and if all others have it on disk that there was more. Its
        disk may have been lost meanwhile, and another directory be waiting for its seat."""
        if not self.faulty or process.zombie or process.restored:
            return
        self._refilled()
        if not self.checker.configuration.is_voter(process.member):
            return
        wiped = process not in self.processes
        if wiped != (process.member in self.lost) or (not wiped and self._spent()):
            return
        counted = Disk(image, surely=False).batches
        others = [p for p in self.processes if p is not process]
        if any(self._remembers(other, process.member) <= counted for other in others):
            return
        self.say(f"RESTORE {process.member} to {counted} flushes")
        if wiped:
            self.seats[process.member.ordinal].append(process)
            self.processes.append(process)
        else:
            self.lost.append(process.member)
            if process.up:
                process.crash()
        process.engine = image
        process.restored = True
        process.boot()
        self._meet(process)
        if not wiped:
            self._join(process.member.ordinal)

    @staticmethod
    def _remembers(process: Process, member: Member) -> int:
        raw = Disk(process.engine).get(Table.META, b"core.peer.%d.%d" % member)
        return -1 if raw is None else int(_PEER.unpack(raw)[4])
