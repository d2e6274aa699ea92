"""Messages between members that belong to neither plane alone. Each is a tuple.

| message        | from        | to       | meaning |
|----------------|-------------|----------|---------|
| Greeting       | any         | any      | on connection and every second: how far I am |
| Founding       | founded     | empty    | the one-time list of voters |
| Forward        | coordinator | leader   | commands to propose |
| NotLeader      | asked node  | coordinator | ask another: these commands were not proposed |
| SnapshotWanted | joiner      | any peer | the piece after `cursor` of a metadata snapshot |
| SnapshotPiece  | peer        | joiner   | rows of one consistent moment |
"""

from __future__ import annotations

from typing import NamedTuple


class Greeting(NamedTuple):
    """`founded`: the sender holds a founding list; `serving`: it takes client requests."""

    founded: bool
    serving: bool
    disk_full: bool
    applied: int
    shards_held: int
    shards_missing: int
    shards_corrupt: int


class Founding(NamedTuple):
    """The voters a cluster was founded with; persisted before any vote.

    `members`: (ordinal, incarnation) in order of ordinals.
    """

    cluster: bytes
    owner: str
    data_shards: int
    parity_shards: int
    members: tuple[tuple[int, int], ...]
    inline_max: int


class Forward(NamedTuple):
    """Packed commands for the leader's next batch."""

    commands: tuple[bytes, ...]


class NotLeader(NamedTuple):
    """The sender does not lead, so nothing of the last Forward was proposed by it."""


class SnapshotWanted(NamedTuple):
    """`transfer`: chosen by the joiner, 0 < transfer; `piece`: number of the piece wanted."""

    transfer: int
    piece: int


class SnapshotPiece(NamedTuple):
    """`slot`: applied index of the picture; `body`: packed rows; `last`: no more follow.

    `body` empty and `last` false: the sender cannot serve this transfer (any more).
    """

    transfer: int
    piece: int
    slot: int
    last: bool
    body: bytes


MemberMessage = Greeting | Founding | Forward | NotLeader | SnapshotWanted | SnapshotPiece
