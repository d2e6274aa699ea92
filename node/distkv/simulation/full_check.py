"""What must hold in every world of whole nodes, checked apart from the code that is checked.

The checker sees rows on disks, messages on their way, entries handed to state machines and
answers to clients, and reads rows with its own eyes (`disk`). `victims` are the nodes whose
disk was lost or rotten once: the promise allows f of them, and each may lack one shard.
"""

from __future__ import annotations

import itertools
import zlib
from typing import TYPE_CHECKING

from distkv.coding.checksum import checksum
from distkv.coding.codec import codec
from distkv.core.messages import Accept, Accepted, Promise
from distkv.data.messages import ShardStored
from distkv.member.messages import Forward
from distkv.simulation import disk as raw
from distkv.simulation.disk import Coded, Disk
from distkv.simulation.layout_check import Epoch, LayoutCheck
from distkv.simulation.recoding import RecodingCheck
from distkv.storage.base import Delete, Put, StorageOperation, Table

if TYPE_CHECKING:
    from distkv.simulation.full_world import World
    from distkv.simulation.member_host import Host

CONSUMING = (0, 1, 4)
"""Outcomes that use up their sequence number: applied, condition not met, failed."""

DECODINGS_MAX = 20
"""Choices of f wiped disks tried for each value."""


class Checker:
    """See the module. Raises what `world.violation` raises."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.entries: dict[int, bytes] = {}
        """Slot -> entry, as the first node applied it."""
        self.values_checked = 0
        self.coded_named = 0
        self.recoding = RecodingCheck(world)
        self.layouts = LayoutCheck(world)
        self._versions: dict[tuple[bytes, int], object] = {}
        self._submitted: dict[bytes, None] = {}
        self._dropped: dict[tuple[int, bytes], None] = {}
        """(incarnation, value id) of shards that a node removed by itself."""
        self._acknowledged: dict[tuple[int, bytes], None] = {}
        """(incarnation, value id) of shards that a node said to hold, which was true."""
        self._lost: dict[int, None] = {}
        """Incarnations whose disk was lost."""
        self._told: dict[int, tuple[int, int]] = {}
        """Ordinal -> (incarnation, highest slot it said to hold)."""
        self._promised: dict[int, tuple[int, tuple[int, int, int]]] = {}

    def _disks(self) -> list[Disk]:
        return [Disk(host.engine) for host in self._world.hosts]

    # -- messages and disks

    def sending(self, host: Host, message: object) -> None:
        """A message leaves: what it says to be durable must be."""
        world = self._world
        kind = type(message)
        if kind is Promise:
            assert isinstance(message, Promise)
            if Disk(host.engine).promised < tuple(message.ballot):
                world.violation(f"node {host.ordinal} promises {message.ballot} before its disk")
            self.layouts.votes(host, "promises")
        elif kind is Accepted:
            assert isinstance(message, Accepted)
            if message.probe:
                self.layouts.votes(host, "confirms a read")
            incarnation, told = self._told.get(host.ordinal, (0, 0))
            told = told if incarnation == host.incarnation else 0
            if message.upto > told:
                self._told[host.ordinal] = (host.incarnation, message.upto)
                self._check_accepted(host, told, message)
        elif kind is Forward:
            assert isinstance(message, Forward)
            for command in message.commands:
                self._check_submitted(command)
        elif kind is Accept:
            assert isinstance(message, Accept)
            for entry in message.entries:
                for command in raw.commands_of(entry):
                    self._check_submitted(command)
        elif kind is ShardStored:
            assert isinstance(message, ShardStored)
            found = Disk(host.engine).shard(message.value_id.pack())
            # What the applied log, or its coordinator, ruled out meanwhile may be gone again.
            name = host.incarnation, message.value_id.pack()
            excused = host.ordinal in world.victims or name in self._dropped
            if not excused and (found is None or found[-1][0] != message.shard):
                world.violation(f"node {host.ordinal} acknowledges a shard that is not on its disk")
            self._acknowledged[name] = None

    def _check_accepted(self, host: Host, told: int, message: Accepted) -> None:
        disk = Disk(host.engine)
        applied = disk.applied
        for slot in range(max(told, applied) + 1, message.upto + 1):
            if disk.accepted(slot) is None:
                self._world.violation(
                    f"node {host.ordinal} says to hold slot {slot}, which is not on its disk"
                )

    def _check_submitted(self, command: bytes) -> None:
        """A put leaves its coordinator: every holder it lists has its shard on disk, or had it.

        It may be gone again: with its disk, or because the applied log ruled the value out
        while its coordinator waited for another holder. Such a put must be refused at apply;
        `applied` sees whether it is.
        """
        world = self._world
        for naming in raw.namings(command):
            if naming.value_id in self._submitted:
                continue
            self._submitted[naming.value_id] = None
            for ordinal, incarnation in naming.holders:
                if self.layouts.left(incarnation):
                    continue  # such a put is refused at apply
                host, name = world.hosts[ordinal], (incarnation, naming.value_id)
                if ordinal in world.victims or name in self._dropped:
                    continue
                if host.incarnation == incarnation:
                    held = Disk(host.engine).shard(naming.value_id) is not None
                else:
                    held = incarnation in self._lost and name in self._acknowledged
                if not held:
                    world.violation(
                        f"a put of {naming.key!r} names node {ordinal} as holder of "
                        f"{naming.value_id.hex()}, which is not on its disk"
                    )

    def disk_lost(self, host: Host) -> None:
        """All rows of this node are gone."""
        self._lost[host.incarnation] = None

    def disk_restored(self, host: Host) -> None:
        """What this node promised is gone with all its later rows; what it says counts no more."""
        self._lost[host.incarnation] = None
        self._promised.pop(host.ordinal, None)

    def started(self, host: Host) -> None:
        """A process starts on this disk: its promise may not be lower than before."""
        if Disk(host.engine).boot != host.boot:
            self._world.violation(f"node {host.ordinal} uses boot {host.boot} before its disk")
        promised = Disk(host.engine).promised
        incarnation, before = self._promised.get(host.ordinal, (0, (0, 0, 0)))
        if incarnation == host.incarnation and promised < before:
            self._world.violation(f"the ballot on disk {host.ordinal} fell to {promised}")
        self.flushed(host)

    def flushed(self, host: Host) -> None:
        """A flush ended: note the ballot that is now durable."""
        promised = Disk(host.engine).promised
        incarnation, before = self._promised.get(host.ordinal, (0, (0, 0, 0)))
        if incarnation == host.incarnation and promised < before:
            self._world.violation(f"the ballot on disk {host.ordinal} fell to {promised}")
        self._promised[host.ordinal] = (host.incarnation, promised)

    def wrote(self, host: Host, writes: list[StorageOperation]) -> None:
        """A batch is in the engine: no shard of a live record may be among what it removes."""
        self.layouts.wrote(host, writes)
        for operation in writes:
            if type(operation) is Put and operation.table is Table.STATE:
                self._check_results(host, operation)
            if type(operation) is not Delete or operation.table is not Table.SHARD:
                continue
            if not raw.is_header(operation.key):
                continue
            # Noted of victims, too: they may be refilled before the put is submitted.
            self._dropped[host.incarnation, operation.key[1:]] = None
            if host.ordinal in self._world.victims:
                continue
            if Disk(host.engine, False).get(Table.NAME, operation.key[1:]) is not None:
                self._world.violation(f"node {host.ordinal} drops its shard of a live record")

    def _check_results(self, host: Host, row: Put) -> None:
        """Only what took effect, or was found wrong for good, consumes a sequence number."""
        kinds = raw.stored_kinds(row.key, row.value)
        if any(kind not in CONSUMING for kind in kinds):
            self._world.violation(f"node {host.ordinal} stores results of the kinds {kinds}")

    # -- state machines

    def applied(self, host: Host, slot: int, entry: bytes) -> None:
        """A node applied a slot."""
        known = self.entries.get(slot)
        if known is not None:
            if known != entry:
                self._world.violation(f"slot {slot} has two values; the other at {host.ordinal}")
            self.layouts.compare(host.machine, slot)
            return
        self.entries[slot] = entry
        disks = self._disks()
        self._check_chosen(slot)
        machine = host.machine
        self.layouts.applied(machine, slot, entry)
        self.recoding.applied(machine, slot, entry)
        namings = [n for command in raw.commands_of(entry) for n in raw.namings(command)]
        for key, value_id, holders in namings:
            record = machine.record(key)
            if record is None or record.value_id is None or record.value_id.pack() != value_id:
                continue
            self.coded_named += 1
            coded = Coded(
                key, record.version, record.slot, record.checksum, record.length, value_id,
                record.data_shards, record.size, record.stripe_bytes, record.epoch,
            )  # fmt: skip
            self._check_kept(value_id, holders)
            self._check_holders(coded, disks, "as it is named")
            self._check_decodable(coded, disks)

    def _check_kept(self, value_id: bytes, holders: tuple[tuple[int, int], ...]) -> None:
        """A put took effect: no holder had taken its value for ruled out."""
        for ordinal, incarnation in holders:
            gone = (incarnation, value_id) in self._dropped
            if gone and ordinal not in self._world.rotten:
                self._world.violation(
                    f"node {ordinal} dropped its shard of {value_id.hex()}, whose put took effect"
                )

    def _check_chosen(self, slot: int) -> None:
        """As it is applied first: durable on f + 1 members, but for disks lost since."""
        epoch = self.layouts.at(slot)
        if slot == epoch.begun + 1:
            self._check_held(epoch)
        hosts = [h for h in self._world.hosts if (h.ordinal, h.incarnation) in epoch.members]
        count = self._holding(slot, [Disk(host.engine) for host in hosts])
        lost = sum(ordinal < len(epoch.members) for ordinal in self._world.wiped)
        if count + lost <= epoch.failures:
            self._world.violation(f"slot {slot} counts as chosen, durable on {count} nodes only")

    def _check_held(self, epoch: Epoch) -> None:
        """The first slot under a new layout: f + 1 of its members have all that was chosen
        before, under whatever f."""
        held = 0
        for ordinal, incarnation in epoch.members:
            if ordinal >= len(self._world.hosts):
                continue
            host = self._world.hosts[ordinal]
            disk = Disk(host.engine)
            slots = range(disk.applied + 1, epoch.begun + 1)
            held += host.incarnation == incarnation and all(
                self._holding(slot, [disk]) for slot in slots
            )
        lost = sum(ordinal < len(epoch.members) for ordinal in self._world.wiped)
        if held + lost <= epoch.failures:
            self._world.violation(
                f"slot {epoch.begun + 1} is chosen by epoch {epoch.number}, of which only {held} "
                f"members have all up to slot {epoch.begun}"
            )

    def _check_durable(self, slot: int, disks: list[Disk]) -> None:
        """Any f disks may go now, and it is still there: f of its layout or, if that is
        less, of the newest, whose first f + 1 members to be there have it too."""
        failures = min(self.layouts.at(slot).failures, self.layouts.write_epoch.failures)
        count = self._holding(slot, disks)
        if count + len(self._world.wiped) <= failures:
            self._world.violation(f"slot {slot} is acknowledged, durable on {count} nodes only")

    def _holding(self, slot: int, disks: list[Disk]) -> int:
        entry = self.entries[slot]
        count = 0
        for disk in disks:
            row = disk.accepted(slot)
            count += (row is not None and row[1] == entry) or disk.applied >= slot
        return count

    def _shards(self, coded: Coded, disks: list[Disk]) -> dict[int, dict[int, bytes]]:
        """Durable whole shards: ordinal -> pieces."""
        found = {}
        for ordinal, disk in enumerate(disks):
            shard = disk.shard(coded.value_id)
            if shard is not None:
                found[ordinal] = shard
        return found

    def _check_holders(self, coded: Coded, disks: list[Disk], when: str) -> None:
        self.values_checked += 1
        shards = self._shards(coded, disks)
        numbers = {shard[-1][0] for shard in shards.values()}
        failures = self.layouts.failures_of(coded.epoch)
        need = coded.data_shards + failures - self._world.victims_in(coded.size)
        if len(numbers) < need:
            self._world.violation(
                f"value {coded.value_id.hex()} of {coded.key!r} version {coded.version} has "
                f"{len(numbers)} durable shards {when}, {need} are needed "
                f"(k_e {coded.data_shards}, f {failures}, at {sorted(shards)})"
            )

    def _check_decodable(self, coded: Coded, disks: list[Disk]) -> None:
        """The bytes come back after any f disks are wiped (a sample, where there are many)."""
        shards = self._shards(coded, disks)
        failures = self.layouts.failures_of(coded.epoch)
        left = max(0, failures - self._world.victims_in(coded.size))
        choices = itertools.combinations(sorted(shards), min(left, len(shards)))
        for wiped in itertools.islice(choices, DECODINGS_MAX):
            kept = {s[-1][0]: s for o, s in shards.items() if o not in wiped}
            if not self._decodes(coded, kept):
                self._world.violation(
                    f"value {coded.value_id.hex()} of {coded.key!r} cannot be decoded after the "
                    f"disks {wiped} are lost"
                )

    @staticmethod
    def _decodes(coded: Coded, shards: dict[int, dict[int, bytes]]) -> bool:
        code = codec(coded.data_shards, coded.size)
        crc = b""
        for stripe in range(coded.stripes):
            length = min(coded.stripe_bytes, coded.length - stripe * coded.stripe_bytes)
            pieces = {number: shard[stripe] for number, shard in shards.items()}
            try:
                crc += code.decode(pieces, length)
            except ValueError:
                return False
        return checksum(crc) == coded.checksum

    # -- clients

    def version_seen(self, key: bytes, version: int, state: object) -> None:
        """A client was told that this version of the key is this state."""
        if version and self._versions.setdefault((key, version), state) != state:
            self._world.violation(
                f"version {version} of {key!r} is {state} and "
                f"{self._versions[key, version]} at once"
            )

    def state_of_version(self, key: bytes, version: int) -> tuple[object] | None:
        """What a version is known to be."""
        if not version:
            return (None,)
        known = self._versions.get((key, version))
        return None if known is None else (known,)

    def acknowledged(self, key: bytes, version: int) -> None:
        """A client was told that its write took effect: f disks may go, now."""
        disks = self._disks()
        newest = max(self._world.hosts, key=lambda host: Disk(host.engine, False).applied)
        if version:
            for host in self._world.hosts:
                row = Disk(host.engine, False).get(Table.RECORD, key)
                if row is not None and raw.version_and_slot(row)[0] == version:
                    self._check_durable(raw.version_and_slot(row)[1], disks)
                    break
        self.check_live(newest, disks, "at an acknowledgement")

    def check_live(self, newest: Host, disks: list[Disk], when: str) -> None:
        """Every coded value that is live at the most advanced node."""
        disk = Disk(newest.engine, False)
        for live in newest.engine.keys(Table.RECORD, b"", None, 10_000):
            row = disk.get(Table.RECORD, live)
            coded = None if row is None else raw.record(live, row)
            if coded is not None:
                self._check_holders(coded, disks, when)

    # -- digest

    def digest(self) -> int:
        """Of every entry applied."""
        crc = 0
        for slot in sorted(self.entries):
            crc = zlib.crc32(self.entries[slot], crc)
        return crc
