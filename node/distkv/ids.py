"""Identities: who a node is, which leader speaks, which value a shard belongs to.

All are tuples, so that they order, hash and travel (msgpack arrays) as they are.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

Slot = int
"""Position in the replicated log; the first entry is slot 1, 0 means "nothing yet"."""

NO_ORDINAL = -1
"""Sender ordinal of a process that is not (yet) a member."""


class Member(NamedTuple):
    """A voter: the seat (`ordinal`) and the random 63-bit id of its data directory.

    A directory that was lost and made anew has another incarnation, so a node that
    forgot its promises can never vote as its old self.
    """

    ordinal: int
    incarnation: int


class Ballot(NamedTuple):
    """Paxos ballot: ordered by round; the other fields make it unique to its owner."""

    round: int
    ordinal: int
    incarnation: int


ZERO_BALLOT = Ballot(0, 0, 0)

_VALUE_ID = struct.Struct(">QIQ")


class ValueId(NamedTuple):
    """Name of one dispersed value: never used twice, not even after a crash.

    `boot` is fsynced before the first use of a counter under it.
    """

    incarnation: int
    boot: int
    counter: int

    def pack(self) -> bytes:
        """20 bytes, ordered like the tuple."""
        return _VALUE_ID.pack(self.incarnation, self.boot, self.counter)

    @classmethod
    def unpack(cls, raw: bytes) -> ValueId:
        """Inverse of `pack`; raises struct.error when `raw` is not 20 bytes."""
        return cls(*_VALUE_ID.unpack(raw))


VALUE_ID_BYTES = _VALUE_ID.size

_SESSION = struct.Struct(">QI")
SESSION_BYTES = _SESSION.size


def node_session(incarnation: int, boot: int) -> bytes:
    """The session (12 bytes) under which a booted node submits commands of its own clients."""
    return _SESSION.pack(incarnation, boot)
