"""Who belongs to the cluster: found state, members, layout epochs, boots, settled marks.

Rows in STATE:
    b"c"                     -> found state, members and layouts
    b"e"                     -> records per epoch
    b"b" + incarnation (8)   -> (format, ordinal, boot, settled counter, start)
    b"r" + incarnation (8)   -> (format, ordinal, slot): removed, never admitted again
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgpack

from distkv.core.configuration import Configuration, check
from distkv.ids import Member, ValueId
from distkv.machine.commands import LAYOUT, OWNER, REPLACE, RETIRE, UnknownEntry
from distkv.machine.rows import Rows

FORMAT = 1
CONFIGURATION_ROW = b"c"
_COUNTS_ROW = b"e"
_BOOT = b"b"
_REMOVED = b"r"
_NUMBER = struct.Struct(">Q")
_pack = msgpack.Packer().pack


class Options(NamedTuple):
    """Limits that must be equal on every node: part of the found state."""

    inline_max: int = 4096
    session_idle_ms: int = 3_600_000
    once_life_ms: int = 86_400_000


class Boot(NamedTuple):
    """The current boot of a member; value counters below `settled` are decided. `start`: the random
    number of its process."""

    ordinal: int
    boot: int
    settled: int
    start: int


class Refused(Exception):
    """A configuration change that does not apply; the message is the reason."""


class Membership:
    """Replicated state of section 2 (boots, settled) and sections 5 to 7 of the protocol."""

    def __init__(self, rows: Rows[bytes]) -> None:
        self._rows = rows
        self.cluster = b""
        self.owner = ""
        self.formed = False
        self.options = Options()
        self.layouts: dict[int, Configuration] = {}
        """Every epoch not retired yet; the newest is the write epoch."""
        self.epoch = 0
        self.everybody: tuple[Member, ...] = ()
        """Members of every layout, by ordinal: layouts that live agree on each ordinal."""
        self.boots: dict[int, Boot] = {}
        self.records: dict[int, int] = {}
        """Records with a dispersed value named under each epoch."""
        self.bytes: dict[int, int] = {}
        """And the bytes of their values."""
        self._changed = self._counted = False

    @property
    def configuration(self) -> Configuration:
        """The newest: who votes, and how new values are coded."""
        return self.layouts[self.epoch]

    # -- rows ----------------------------------------------------------------------------

    def found(
        self, cluster: bytes, owner: str, configuration: Configuration, options: Options
    ) -> None:
        """The state at slot 0. Raises ValueError for a configuration that promises nothing."""
        check(configuration)
        self.cluster, self.owner, self.options = cluster, owner, options
        self.epoch = configuration.epoch
        self.layouts = {self.epoch: configuration}
        self.records, self.bytes = {self.epoch: 0}, {self.epoch: 0}
        self._changed = self._counted = True
        self._gather()

    def _gather(self) -> None:
        self.everybody = max((c.members for c in self.layouts.values()), key=len)

    def load(self) -> None:
        """Read all rows. Raises UnknownEntry for those of a newer version."""
        raw = self._rows.get(CONFIGURATION_ROW)
        assert raw is not None, "the directory was never founded"
        self.cluster, self.owner, self.formed, options, layouts = _unpacked(raw)
        self.options = Options(*options)
        for epoch, k, m, members in layouts:
            self.layouts[epoch] = Configuration(epoch, k, m, tuple(Member(*x) for x in members))
            self.epoch = epoch
        self._gather()
        counts = self._rows.get(_COUNTS_ROW)
        assert counts is not None, "counts are written with the configuration"
        for epoch, records, size in _unpacked(counts):
            self.records[epoch], self.bytes[epoch] = records, size
        start = _BOOT
        while rows := self._rows.scan(start, b"c", 1000):
            for key, raw in rows:
                self.boots[_NUMBER.unpack_from(key, 1)[0]] = Boot(*_unpacked(raw))
            start = rows[-1][0] + b"\0"

    def end_turn(self) -> None:
        """Write what changed."""
        if self._changed:
            layouts = tuple(tuple(self.layouts[epoch]) for epoch in sorted(self.layouts))
            head = (FORMAT, self.cluster, self.owner, self.formed, self.options, layouts)
            self._rows.put(CONFIGURATION_ROW, _pack(head))
            self._changed = False
        if self._counted:
            counts = [(epoch, n, self.bytes[epoch]) for epoch, n in sorted(self.records.items())]
            self._rows.put(_COUNTS_ROW, _pack((FORMAT, *counts)))
            self._counted = False

    # -- boots and values ----------------------------------------------------------------

    def seat_of(self, incarnation: int) -> int | None:
        """The ordinal of a voter."""
        for member in self.configuration.members:
            if member.incarnation == incarnation:
                return member.ordinal
        return None

    def was_removed(self, incarnation: int) -> bool:
        """Whether it left: it is never admitted again."""
        return self._rows.get(_REMOVED + _NUMBER.pack(incarnation)) is not None

    def set_boot(self, incarnation: int, boot: Boot) -> None:
        """A new boot, or a new settled mark of the current one."""
        self.boots[incarnation] = boot
        self._rows.put(_BOOT + _NUMBER.pack(incarnation), _pack((FORMAT, *boot)))

    def refusal(self, value_id: ValueId, k: int, epoch: int, holders: tuple[int, ...]) -> str:
        """Why a dispersed value may not be named now; "" if it may (protocol section 2).

        The barrier is checked by the caller. `holders`: ordinal, incarnation, ordinal, ...
        """
        known = self.boots.get(value_id.incarnation)
        if known is None or self.seat_of(value_id.incarnation) is None:
            return "coordinator"
        if known.boot != value_id.boot:
            return "boot"
        if value_id.counter < known.settled:
            return "settled"
        if epoch != self.epoch:
            return "epoch"
        configuration = self.configuration
        members = configuration.members
        pairs = zip(holders[::2], holders[1::2], strict=True)
        held = len({o for o, i in pairs if o < len(members) and members[o].incarnation == i})
        return "" if held >= k + configuration.failures else "holders"

    def count(self, epoch: int, records: int, size: int) -> None:
        """Records named under `epoch`, and their bytes, became more or fewer."""
        self.records[epoch] = self.records.get(epoch, 0) + records
        self.bytes[epoch] = self.bytes.get(epoch, 0) + size
        self._counted = True

    def due(self, member: Member) -> tuple[int, int]:
        """How many shards a member should hold: one of every coded record of its layouts. And
        about how many bytes they have: some are coded with fewer data shards, and so larger."""
        shards = size = 0
        for epoch, layout in self.layouts.items():
            if member in layout.members:
                shards += self.records.get(epoch, 0)
                size += self.bytes.get(epoch, 0) // layout.data_shards
        return shards, size

    # -- formation and changes -----------------------------------------------------------

    def form(self, cluster: bytes, owner: str) -> bool:
        """True if this very cluster of this owner became formed."""
        if self.formed or (cluster, owner) != (self.cluster, self.owner):
            return False
        self.formed = self._changed = True
        return True

    def read_ahead(self, change: tuple[Any, ...]) -> None:
        """Read what `change` would. Raises CorruptRow."""
        kind, _, *rest = change
        for incarnation in rest[2:3] if kind == REPLACE else rest[3] if kind == LAYOUT else ():
            self.was_removed(incarnation)

    def change(self, slot: int, change: tuple[Any, ...]) -> tuple[Member, ...]:
        """Apply a parsed configuration change; the members that left. Raises Refused."""
        kind, owner, *rest = change
        if owner != self.owner:
            raise Refused(f"the cluster is owned by {self.owner!r}, not by {owner!r}")
        self._changed = True
        removed: tuple[Member, ...] = ()
        if kind == REPLACE:
            removed = self._replace(slot, *rest)
        elif kind == LAYOUT:
            self._layout(*rest)
        elif kind == RETIRE:
            removed = self._retire(slot, *rest)
        else:
            assert kind == OWNER, "the parser knows no other change"
            self.owner = rest[0]
        self._gather()
        return removed

    def _replace(self, slot: int, ordinal: int, old: int, new: int) -> tuple[Member, ...]:
        leaving, joining = Member(ordinal, old), Member(ordinal, new)
        if not any(leaving in layout.members for layout in self.layouts.values()):
            raise Refused(f"incarnation {old} does not hold ordinal {ordinal}")
        self._may_join(new)
        for epoch, layout in self.layouts.items():
            members = tuple(joining if x == leaving else x for x in layout.members)
            self.layouts[epoch] = layout._replace(members=members)
        self._remove(slot, leaving)
        return (leaving,)

    def _layout(self, epoch: int, k: int, m: int, incarnations: tuple[int, ...]) -> None:
        if epoch != self.epoch + 1:
            raise Refused(f"the next epoch is {self.epoch + 1}, not {epoch}")
        members = tuple(Member(i, incarnation) for i, incarnation in enumerate(incarnations))
        configuration = Configuration(epoch, k, m, members)
        try:
            check(configuration)
        except ValueError as error:
            raise Refused(str(error)) from error
        if len(set(incarnations)) != len(incarnations):
            raise Refused("one incarnation holds two ordinals")
        for layout in self.layouts.values():
            for now, then in zip(layout.members, members, strict=False):
                if now != then:
                    raise Refused(f"ordinal {now.ordinal} changes hands: replace it first")
        known = {member for layout in self.layouts.values() for member in layout.members}
        for member in members:
            if member not in known:
                self._may_join(member.incarnation)
        self.layouts[epoch] = configuration
        self.epoch = epoch
        self.records[epoch] = self.bytes[epoch] = 0
        self._counted = True

    def _retire(self, slot: int, epoch: int) -> tuple[Member, ...]:
        if epoch not in self.layouts or epoch == self.epoch:
            raise Refused(f"epoch {epoch} is not an old one")
        if self.records.get(epoch, 0):
            raise Refused(f"{self.records[epoch]} records still name epoch {epoch}")
        retired = self.layouts.pop(epoch)
        del self.records[epoch], self.bytes[epoch]
        self._counted = True
        kept = {member for layout in self.layouts.values() for member in layout.members}
        removed = tuple(member for member in retired.members if member not in kept)
        for member in removed:
            self._remove(slot, member)
        return removed

    def _may_join(self, incarnation: int) -> None:
        if self.was_removed(incarnation):
            raise Refused(f"incarnation {incarnation} was removed and is never admitted again")
        if any(m.incarnation == incarnation for c in self.layouts.values() for m in c.members):
            raise Refused(f"incarnation {incarnation} is a member already")

    def _remove(self, slot: int, member: Member) -> None:
        key = _NUMBER.pack(member.incarnation)
        self._rows.put(_REMOVED + key, _pack((FORMAT, member.ordinal, slot)))
        if self.boots.pop(member.incarnation, None) is not None:
            self._rows.delete(_BOOT + key)


def _unpacked(raw: bytes) -> tuple[Any, ...]:
    row = msgpack.unpackb(raw, use_list=False)
    if row[0] != FORMAT:
        raise UnknownEntry(f"a state row has format {row[0]}, this version reads {FORMAT}")
    return tuple(row[1:])
