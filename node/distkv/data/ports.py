"""What the data plane needs of the member that it is part of. Nothing else reaches it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from distkv.core.configuration import Configuration
from distkv.data.messages import Code, DataMessage
from distkv.ids import Ballot, Member, ValueId
from distkv.kernel import Future
from distkv.machine.interface import Record
from distkv.storage.base import Table
from distkv.transport.base import STREAMS


class Dispersed(NamedTuple):
    """Enough members hold the value durably: what its put command names."""

    value_id: ValueId
    code: Code
    length: int
    checksum: int
    stamp: Ballot
    epoch: int
    holders: tuple[Member, ...]


class Outbox(Protocol):
    """Sends to other members (never to the own ordinal). Bounded in bytes for each peer."""

    def send(self, ordinal: int, message: DataMessage, stream: int) -> bool:
        """False: not taken (no connection, or full; then `DataPlane.drained` tells of room)."""

    def line(self, ordinal: int) -> tuple[int, int]:
        """Bytes that were taken for this peer, ever, and how many of them it did not acknowledge
        yet: they stand in line for its link."""


class Applied(Protocol):
    """The replicated state after the last applied slot, as far as shards depend on it."""

    @property
    def applied(self) -> int:
        """Last applied slot."""

    @property
    def barrier(self) -> Ballot:
        """Highest applied leader barrier."""

    @property
    def configuration(self) -> Configuration:
        """Members and layout of new values."""

    @property
    def members(self) -> tuple[Member, ...]:
        """Whoever may hold shards: members of every layout that is not retired, by ordinal."""

    def layout(self, epoch: int) -> Configuration | None:
        """Members and code of a layout epoch; None once it is retired."""

    def due(self, member: Member) -> tuple[int, int]:
        """How many shards a member should hold, and about how many bytes they have."""

    def boot_of(self, incarnation: int) -> int:
        """Highest applied boot of the incarnation, 0 if none."""

    def settled_of(self, incarnation: int, boot: int) -> int:
        """Every value id of that boot with a counter below this one is decided; 0 if unknown."""

    def key_of(self, value_id: ValueId) -> bytes | None:
        """The key whose record refers to this value."""

    def record(self, key: bytes) -> Record | None:
        """The record of a key, also one whose time is over. Raises CorruptRow."""

    def values(self, start: bytes, limit: int) -> list[bytes]:
        """Up to `limit` packed value ids >= `start` that records refer to, in order."""


class Coordinator(Protocol):
    """What values are dispersed under."""

    member: Member
    """This node, as a member (its seat and its incarnation)."""

    boot: int
    """Count of starts of this directory, fsynced before use."""

    def stamp(self) -> Ballot:
        """Highest ballot known to lead: a put dispersed under it counts until a later barrier."""

    def fatal(self, error: BaseException) -> None:
        """A flow in the background failed in a way that it should not: halt the node."""

    def rotten(self, table: Table, key: bytes) -> None:
        """A row that is not a shard's fails its checksum: mend it."""

    def wall_ms(self) -> int:
        """This node's clock, ms since 1970."""

    def current(self, deadline: float) -> Future[None]:
        """Done once the applied state is at least as new as the cluster's at this moment."""

    def restripe(
        self, key: bytes, old: ValueId, dispersed: Dispersed, deadline: float
    ) -> Future[bool]:
        """Put a value that was coded anew in the place of the old one, through the log. True
        once it is there, False if something else is, or it was refused. Fails with a
        DistKVError."""


class Addressed(NamedTuple):
    """One message of the bulk lane to one peer."""

    ordinal: int
    stream: int
    message: DataMessage


def stream_of(value_id: ValueId) -> int:
    """Messages about one value travel in order; different values do not wait for each other."""
    return value_id.counter % STREAMS
