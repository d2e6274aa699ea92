"""What must hold in every world of the core, checked apart from the code that is checked.

The checker sees only what reaches a disk, a peer or a state machine, never the replica's own
variables.
"""

from __future__ import annotations

import zlib

import msgpack

from distkv.core import entries
from distkv.core.configuration import Configuration
from distkv.core.log import Log
from distkv.ids import Ballot, Member
from distkv.simulation.core_machine import ChainState, unpack_configuration


class Violation(Exception):
    """A promise of the protocol was broken; the message says which."""


class Checker:
    """`top`: highest slot applied by anybody, which is what a client may have been told."""

    def __init__(self, genesis: Configuration) -> None:
        self.configuration = genesis
        self.top = 0
        self.values: dict[int, bytes] = {}
        self.chains: dict[int, int] = {0: 0}
        self.safe_failures = genesis.failures
        self.change_covered = True
        """Slots above the last change of configuration were chosen."""
        self.commands: dict[bytes, int] = {}
        self._votes: dict[int, dict[bytes, dict[Member, None]]] = {}
        self._proposed: dict[tuple[int, bytes], bytes] = {}
        self._answered: dict[Member, Ballot] = {}
        self._held: dict[Member, tuple[Ballot, int]] = {}

    # -- disks

    def accepted(self, member: Member, slot: int, ballot: bytes, entry: bytes) -> None:
        """This entry is durable at `member`, accepted in `ballot` (packed)."""
        known = self._proposed.setdefault((slot, ballot), entry)
        if known != entry:
            raise Violation(f"two values in slot {slot} under one ballot")
        self._votes.setdefault(slot, {}).setdefault(ballot, {})[member] = None

    # -- state machines

    def applied(self, member: Member, slot: int, entry: bytes) -> None:
        """`member` applies `entry`."""
        known = self.values.get(slot)
        if known is not None:
            if known != entry:
                raise Violation(f"slot {slot}: {member} applies another value than was chosen")
            return
        if slot != self.top + 1:
            raise Violation(f"{member} applies slot {slot}, but only {self.top} were chosen")
        self._check_chosen(slot, entry)
        self._check_once(slot, entry)
        self.values[slot] = entry
        self.top = slot
        self.chains[slot] = zlib.crc32(entry, self.chains[slot - 1])
        self.safe_failures = self.configuration.failures
        self.change_covered = True
        if entries.is_configuration(entry):
            new = unpack_configuration(entry[entries.HEADER_BYTES :])
            if new.epoch == self.configuration.epoch + 1:
                self.configuration = new
                self.safe_failures = min(self.safe_failures, new.failures)
                self.change_covered = False

    def _check_chosen(self, slot: int, entry: bytes) -> None:
        configuration = self.configuration
        for ballot, votes in self._votes.get(slot, {}).items():
            if self._proposed[(slot, ballot)] != entry:
                continue
            count = sum(1 for member in configuration.members if member in votes)
            if count >= configuration.phase_two:
                return
        raise Violation(f"slot {slot} was applied without {configuration.phase_two} durable votes")

    def _check_once(self, slot: int, entry: bytes) -> None:
        if entry[0] != entries.BATCH:
            return
        for command in msgpack.unpackb(entry[entries.HEADER_BYTES :]):
            if command in self.commands:
                raise Violation(f"command {command!r} was chosen twice")
            self.commands[command] = slot

    def installed(self, member: Member, state: ChainState) -> None:
        """A snapshot was taken over."""
        if self.chains.get(state.applied) != state.chain:
            raise Violation(f"{member} took a snapshot that is no prefix of the log")

    # -- promises

    def promised(self, member: Member, ballot: Ballot) -> None:
        """`member` told somebody that it will not go below `ballot`."""
        before = self._answered.get(member)
        if before is None or before < ballot:
            self._answered[member] = ballot

    def acknowledged(self, member: Member, ballot: Ballot, upto: int) -> None:
        """`member` told a leader that it durably holds all slots up to `upto`."""
        before = self._held.get(member)
        if before is None or before < (ballot, upto):
            self._held[member] = (ballot, upto)

    def restarted(self, member: Member, promised: Ballot, log: Log) -> None:
        """`member` came back after a crash with this hard state."""
        if promised < self._answered.get(member, promised):
            raise Violation(f"{member} forgot its promise: now {promised}")
        ballot, upto = self._held.get(member, (promised, 0))
        for slot in range(log.chosen + 1, upto + 1):
            found = log.entries.get(slot)
            if found is None or found[0] < ballot:
                raise Violation(f"{member} forgot slot {slot}, which it had acknowledged")
