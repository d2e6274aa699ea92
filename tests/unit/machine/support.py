"""A machine over a memory engine, driven entry by entry."""

from __future__ import annotations

from collections.abc import Sequence

from distkv.core.configuration import Configuration
from distkv.data.messages import Code
from distkv.ids import Ballot, Member, ValueId, node_session
from distkv.machine import commands as c
from distkv.machine.interface import Event, Outcome, OutcomeKind
from distkv.machine.machine import Machine
from distkv.machine.membership import Options
from distkv.operations import Mutation
from distkv.storage.base import Engine, Table
from distkv.storage.memory import MemoryEngine

CLUSTER = b"cluster-one"
OWNER = "owner-one"
MEMBERS = tuple(Member(i, 100 + i) for i in range(5))
CONFIGURATION = Configuration(1, 3, 2, MEMBERS)
BALLOT = Ballot(3, 0, 100)
SESSION = node_session(100, 1)
STATE_TABLES = (Table.STATE, Table.RECORD, Table.NAME, Table.EXPIRY, Table.META)

Rows = dict[Table, list[tuple[bytes, bytes]]]


def rows_of(engine: Engine) -> Rows:
    """Everything the machine may have written."""
    return {table: engine.scan(table, b"", None, 1_000_000) for table in STATE_TABLES}


class World:
    """One node's machine; `now` is the leader's clock."""

    def __init__(
        self,
        configuration: Configuration = CONFIGURATION,
        options: Options | None = None,
        formed: bool = True,
    ) -> None:
        self.engine = MemoryEngine()
        self.machine = Machine.found(self.engine, CLUSTER, OWNER, configuration, options)
        self.now = 1_000_000
        self.sequence = 0
        self.counter = 0
        self.events: list[Event] = []
        self.flush()
        self.commands(c.pack_boot(100, 0, 1, 1))
        if formed:
            self.commands(c.pack_formed(CLUSTER, OWNER))
        self.events.clear()

    def flush(self) -> None:
        """Write what the machine wants written."""
        self.engine.write(self.machine.drain_writes())

    def reload(self) -> None:
        """Crash after the last flush and start again."""
        self.machine = Machine.load(self.engine)

    def entry(self, entry: bytes) -> list[Outcome]:
        """Apply one entry and flush."""
        self.machine.apply(self.machine.applied + 1, entry)
        self.flush()
        self.events += self.machine.drain_events()
        return self.machine.drain_outcomes()

    def commands(self, *commands: bytes) -> list[Outcome]:
        """One batch."""
        return self.entry(c.entry_batch(self.now, commands))

    def take_events(self) -> list[Event]:
        """Events since the last call."""
        events, self.events = self.events, []
        return events

    def tick(self) -> None:
        """Let time do its work."""
        self.commands(c.pack_tick())

    def raise_barrier(self, ballot: Ballot) -> None:
        """A new leader's first entry."""
        self.entry(c.entry_barrier(self.now, ballot))

    def write_raw(self, *wire: c.WireMutation, session: bytes = SESSION) -> Outcome:
        """One write of packed mutations under the next sequence number."""
        self.sequence += 1
        command = c.pack_write(session, self.sequence, 0, False, wire)
        (outcome,) = self.commands(command)
        assert (outcome.session, outcome.sequence) == (session, self.sequence)
        return outcome

    def write(self, *mutations: Mutation) -> Outcome:
        """One write of inline mutations."""
        return self.write_raw(*c.wire_mutations(mutations))

    def results(self, *mutations: Mutation) -> list[object]:
        """Results of a write that must be applied."""
        outcome = self.write(*mutations)
        assert outcome.kind is OutcomeKind.APPLIED, outcome
        assert isinstance(outcome.detail, list)
        return outcome.detail

    def dispersed(
        self,
        counter: int | None = None,
        incarnation: int = 100,
        boot: int = 1,
        stamp: Ballot = BALLOT,
        epoch: int = 1,
        data_shards: int = 3,
        holders: Sequence[Member] = MEMBERS,
        length: int = 10_000,
        checksum: int = 77,
    ) -> c.Dispersed:
        """A value whose shards are where `holders` says, under a fresh id."""
        if counter is None:
            self.counter += 1
            counter = self.counter
        return c.Dispersed(
            ValueId(incarnation, boot, counter),
            Code(data_shards, 5, 65536),
            length,
            checksum,
            stamp,
            epoch,
            tuple(holders),
        )
