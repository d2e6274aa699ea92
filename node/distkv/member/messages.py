"""Messages between members that belong to neither plane alone. Each is a tuple.

| message        | from        | to       | meaning |
|----------------|-------------|----------|---------|
| Greeting       | any         | any      | on connection and every second: how far I am |
| WentBack       | any         | any      | your directory held more once; you do not count |
| Founding       | founded     | empty    | the one-time list of voters |
| Forward        | coordinator | leader   | commands to propose |
| NotLeader      | asked node  | coordinator | ask another: these commands were not proposed |
| SnapshotWanted | joiner      | any peer | the piece after `cursor` of a metadata snapshot |
| SnapshotPiece  | peer        | joiner   | rows of one consistent moment |
| RowsWanted     | damaged     | any peer | these rows of the state are rotten here |
| RowsGiven      | peer        | damaged  | those of them that are sound, and of which slot |
"""

from __future__ import annotations

from typing import NamedTuple

from distkv.storage.base import Table

MENDING = "mending"
"""State of a node that applies nothing until a peer's state takes the place of its own."""


class Greeting(NamedTuple):
    """`founded`: the sender holds a founding list; `serving`: it takes client requests.

    `durable`: every slot up to it is on its disk; `voting`: its votes count; `state`: one word
    of `member.report`. Of counts that may be unknown, -1 says that they are: `shards_missing`,
    `values_lost`, `repair_left` (bytes), `repair_seconds`. `repair_rate`: bytes per second.
    `counted`: `shards_missing` speaks of values named up to this slot. `start`: a random number
    of this start of the process, 0 before it knows the founders; `flushes`: batches counted when
    it started, `flushed`: those durable now (see core.hardstate).
    """

    founded: bool
    serving: bool
    disk_full: bool
    applied: int
    shards_held: int = 0
    shards_missing: int = -1
    shards_corrupt: int = 0
    durable: int = 0
    voting: bool = False
    state: str = ""
    values_lost: int = -1
    repair_done: int = 0
    repair_left: int = -1
    repair_rate: int = 0
    repair_seconds: int = -1
    suspicions: int = 0
    counted: int = 0
    start: int = 0
    flushes: int = 0
    flushed: int = 0


def known(count: int) -> int | None:
    """A count as it is shown: -1 is unknown."""
    return None if count < 0 else count


class WentBack(NamedTuple):
    """The sender was told once that `flushes` batches are durable in the directory of whoever
    greeted with `start`, which began with fewer: it takes no message of it but greetings."""

    start: int
    flushes: int


class Founding(NamedTuple):
    """The voters a cluster was founded with; persisted before any vote.

    `members`: (ordinal, incarnation) in order of ordinals. `generation`: how often a forced
    recovery has made a new beginning since.
    """

    cluster: bytes
    owner: str
    data_shards: int
    parity_shards: int
    members: tuple[tuple[int, int], ...]
    inline_max: int
    generation: int = 0


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


class RowsWanted(NamedTuple):
    """Rows of the state: (table, key)."""

    rows: tuple[tuple[Table, bytes], ...]


class RowsGiven(NamedTuple):
    """Rows as they are in the state after `slot`: (table, key, row)."""

    slot: int
    rows: tuple[tuple[Table, bytes, bytes], ...]


MemberMessage = (
    Greeting
    | WentBack
    | Founding
    | Forward
    | NotLeader
    | SnapshotWanted
    | SnapshotPiece
    | RowsWanted
    | RowsGiven
)
