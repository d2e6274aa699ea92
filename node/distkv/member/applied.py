"""The applied state as the data plane asks for it (`data.ports.Applied`)."""

from __future__ import annotations

from collections.abc import Callable

from distkv.core.configuration import Configuration
from distkv.ids import Ballot, Member, ValueId
from distkv.machine.interface import Record
from distkv.machine.machine import Machine
from distkv.storage.base import CorruptRow

ROTTEN_KEY = b""


class AppliedState:
    """Always the machine's present state, also after a snapshot replaced it."""

    def __init__(self, machine: Machine, on_rot: Callable[[CorruptRow], None]) -> None:
        self._machine = machine
        self._on_rot = on_rot

    @property
    def applied(self) -> int:
        """Last applied slot."""
        return self._machine.applied

    @property
    def barrier(self) -> Ballot:
        """Highest applied leader barrier."""
        return self._machine.barrier

    @property
    def configuration(self) -> Configuration:
        """Members and layout."""
        return self._machine.configuration

    @property
    def members(self) -> tuple[Member, ...]:
        """Members of every layout that lives."""
        return self._machine.membership.everybody

    def layout(self, epoch: int) -> Configuration | None:
        """The layout of an epoch that is not retired."""
        return self._machine.membership.layouts.get(epoch)

    def due(self, member: Member) -> tuple[int, int]:
        """Shards a member should hold, and about how many bytes they have."""
        return self._machine.membership.due(member)

    def boot_of(self, incarnation: int) -> int:
        """Highest applied boot of the incarnation, 0 if none."""
        known = self._machine.membership.boots.get(incarnation)
        return 0 if known is None else known.boot

    def settled_of(self, incarnation: int, boot: int) -> int:
        """Value ids of that boot below this counter are decided; 0 if unknown."""
        known = self._machine.membership.boots.get(incarnation)
        return known.settled if known is not None and known.boot == boot else 0

    def key_of(self, value_id: ValueId) -> bytes | None:
        """The key whose record refers to this value.

        If the row that says so is rotten, the value is named all the same, and its shards must
        stay: the answer is then a key of which no record names it.
        """
        try:
            return self._machine.key_of(value_id)
        except CorruptRow as rot:
            self._on_rot(rot)
            return ROTTEN_KEY

    def record(self, key: bytes) -> Record | None:
        """The record of a key, also one whose time is over. Raises CorruptRow."""
        try:
            return self._machine.keyspace.records.get(key)
        except CorruptRow as rot:
            self._on_rot(rot)
            raise

    def values(self, start: bytes, limit: int) -> list[bytes]:
        """Packed value ids that records refer to; none further, if a walk does not get past there.

        Once that is mended, whoever passed them over is told (`DataPlane.rows_mended`, `load`).
        """
        try:
            return self._machine.keyspace.names.keys(start, None, limit)
        except CorruptRow as rot:
            self._on_rot(rot)
            return []
