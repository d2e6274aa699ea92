"""Phase two of a world: what must be true a while after the faults stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.simulation import disk as raw
from distkv.simulation import history, recoding, rotting
from distkv.simulation.clients import COUNTERS, LISTS, REGISTERS
from distkv.simulation.disk import Disk
from distkv.storage.base import Table

if TYPE_CHECKING:
    from distkv.simulation.full_world import World
    from distkv.simulation.member_host import Host

TABLES = (Table.RECORD, Table.NAME, Table.EXPIRY, Table.STATE)
LOOK_EVERY = 0.25
LOG_SLACK = 64
"""Rows of the log above `retain_slots` that may wait for the next truncation."""
EVERYTHING = 1 << 30
FALSE = (
    *("equivocation", "foreign_ballot", "ballot_regression", "impossible_ack"),
    *("durable_regression", "bad_checksum", "malformed_piece", "foreign_value", "impossible_drop"),
)
"""Suspicions (member.suspicions) that say that a member lies, or that its disk went back."""


class Settlement:
    """Asks again and again whether the world came to rest; `why` says what is missing."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._looked = float("-inf")
        self.why = "nobody looked yet"

    def reached(self) -> bool:
        """Whether everything is as it should be; looks a few times a second."""
        world = self._world
        if world.now - self._looked < LOOK_EVERY:
            return False
        self._looked = world.now
        self.why = self._missing()
        return not self.why

    def _missing(self) -> str:
        world = self._world
        busy = [client.number for client in world.clients if client.busy]
        if busy:
            return f"requests of clients {busy} are not answered"
        if world.restoring.restored:
            return f"{[h.ordinal for h in world.restoring.restored]} went back, and run on"
        if world.layouts.why():
            return world.layouts.why()
        for host in world.hosts:
            problem = self._not_ready(host)
            if problem:
                return f"node {host.ordinal} {problem}"
        leaders = [h.ordinal for h in world.hosts if h.leads]
        if len(leaders) != 1:
            return f"leaders: {leaders}"
        leading = Disk(world.hosts[leaders[0]].engine, False)
        if leading.barrier != leading.promised:
            world.violation(
                f"node {leaders[0]} leads with {leading.promised}, the barrier is {leading.barrier}"
            )
        for host in world.hosts:
            listed = host.member.seat.data.losses.listing(1)  # type: ignore[union-attr]
            if listed:
                world.violation(f"node {host.ordinal} calls {listed} lost: no more than f may be")
        applied = sorted({host.machine.applied for host in world.hosts})
        if len(applied) > 1:
            return f"applied slots differ: {applied}"
        for host in world.hosts:
            problem = (
                rotting.rotten(host)
                or self._shards(host)
                or self._leaks(host)
                or recoding.under_coded(world, host)
            )
            if problem:
                return f"node {host.ordinal} {problem}"
        return self._unequal()

    def _not_ready(self, host: Host) -> str:
        if host.member is None or host.member.seat is None:
            return "has no seat"
        if host.unwritten:
            return "waits for its disk"
        seat = host.member.seat
        voter = seat.machine.configuration.is_voter(seat.member)
        if not voter and (self._world.owner_replaces or host.ordinal not in self._world.wiped):
            return "is no voter"
        if voter and not seat.booted:
            return "is not booted"
        configuration = seat.machine.configuration
        there = [h for h in self._world.hosts if h.member is not None and h.member.seat is not None]
        voters = sum(configuration.is_voter(h.member.seat.member) for h in there)  # type: ignore[union-attr]
        if voter and seat.owner.peers.members_up(configuration) < voters:
            return "is not connected to all others"
        if seat.replica.chosen != seat.machine.applied:
            return "has chosen slots to apply"
        if seat.owner.disk_full or seat.data.disperser.full:
            return f"takes its own disk or those of {sorted(seat.data.disperser.full)} for full"
        return ""

    def _shards(self, host: Host) -> str:
        """Every shard where the layout says, and nothing else."""
        assert host.member is not None
        assert host.member.seat is not None
        seat = host.member.seat
        disk = Disk(host.engine, False)
        size = seat.machine.configuration.size
        wanted = {}
        if seat.machine.configuration.is_voter(seat.member):
            for value_id in host.engine.keys(Table.NAME, b"", None, EVERYTHING):
                boot = int.from_bytes(value_id[8:12], "big")
                counter = int.from_bytes(value_id[12:], "big")
                wanted[value_id] = (host.ordinal + boot + counter) % size
        for value_id, number in wanted.items():
            found = disk.shard(value_id)
            if found is None:
                repairer, applied = seat.data.repairer, seat.machine.applied
                if repairer.missing == 0 and repairer.counted(applied) == applied:
                    self._world.violation(f"node {host.ordinal} does not know what it lacks")
                return f"lacks its shard of {value_id.hex()}"
            if found[-1][0] != number:
                return f"holds shard {found[-1][0]} of {value_id.hex()} instead of {number}"
        for key in host.engine.keys(Table.SHARD, b"", None, EVERYTHING):
            value_id = key[1:] if raw.is_header(key) else key[:20]
            if value_id not in wanted:
                return f"keeps garbage of {value_id.hex()}"
        if seat.data.repairer.missing:
            return f"calls {seat.data.repairer.missing} shards missing that are there"
        return ""

    def _leaks(self, host: Host) -> str:
        """Memory and log are bounded: nothing is held for anybody."""
        assert host.member is not None
        assert host.member.seat is not None
        seat = host.member.seat
        if len(seat.pending):
            return f"has {len(seat.pending)} commands pending"
        if len(seat.reads):
            return f"has {len(seat.reads)} reads waiting"
        if seat.data.budget.used:
            return f"holds {seat.data.budget.used} bytes of requests"
        if seat.data.keeper.pending:
            return f"has {seat.data.keeper.pending} undecided shards in memory"
        rows = host.engine.count(Table.LOG)
        if rows > self._world.member_options.replica.retain_slots + LOG_SLACK:
            return f"keeps {rows} rows of the log"
        return ""

    def _unequal(self) -> str:
        """Equal tables at equal applied slots: not a matter of waiting."""
        world = self._world
        first = world.hosts[0]
        for table in TABLES:
            rows = first.engine.scan(table, b"", None, EVERYTHING)
            for host in world.hosts[1:]:
                other = host.engine.scan(table, b"", None, EVERYTHING)
                if rows != other:
                    different = [(a, b) for a, b in zip(rows, other, strict=False) if a != b][
                        :1
                    ] or (len(rows), len(other))
                    world.violation(
                        f"table {table.name} of nodes 0 and {host.ordinal} differs at slot "
                        f"{first.machine.applied}: {different}"
                    )
        return ""


def final(world: World) -> None:
    """Write through and read every key at every voter, then judge the whole history."""
    keys = (*REGISTERS, *COUNTERS, *LISTS)
    reader = world.clients[0]
    voters = []
    reads = []
    for host in world.hosts:
        assert host.member is not None
        assert host.member.seat is not None
        if host.member.seat.machine.configuration.is_voter(host.member.seat.member):
            voters.append(host.ordinal)
            reads += [(key, host.ordinal) for key in keys]
    answered: list[bool] = []
    refused: list[int] = []

    async def read_all() -> None:
        for ordinal in voters:
            if not await reader.put_at(world.rng.choice(REGISTERS), ordinal):
                refused.append(ordinal)
        for key, ordinal in reads:
            answered.append(await reader.get_at(key, ordinal))

    reader.also(read_all())
    if not world.run_until(lambda: len(answered) == len(reads), 60.0):
        world.violation("reads of a calm cluster are not answered")
    if refused:
        world.violation(f"a put at node {refused[0]} of a calm cluster failed")
    if not all(answered):
        failed = reads[answered.index(False)]
        world.violation(f"a read of {failed[0]!r} at node {failed[1]} of a calm cluster failed")
    _nobody_suspected(world)
    newest = max(world.hosts, key=lambda host: host.machine.applied)
    world.checker.check_live(newest, [Disk(h.engine) for h in world.hosts], "at the end")
    problems, world.too_hard = history.check(world.calls)
    if problems:
        world.violation("not linearizable: " + "\n".join(problems))


def _nobody_suspected(world: World) -> None:
    """Disks and networks are bad here, but no node is false: none may be taken for it. Only a
    disk that did go back in time is to be known for that."""
    for host in world.hosts:
        assert host.member is not None
        for (source, kind), suspicion in host.member.suspicions.entries.items():
            if kind == "durable_regression" and source in world.restoring.known:
                continue
            if kind in FALSE:
                world.violation(
                    f"node {host.ordinal} suspects {source} of {kind}: {suspicion.detail}"
                )
