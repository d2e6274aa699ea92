"""Messages between replicas (consensus plane). Each is a tuple, so it travels as it is.

| message     | from      | to        | answers      |
|-------------|-----------|-----------|--------------|
| PreVote     | candidate | voters    |              |
| PreVoteReply| voter     | candidate | PreVote      |
| Prepare     | candidate | voters    |              |
| Promise     | voter     | candidate | Prepare (after persist) |
| Refuse      | voter     | any       | Prepare, Accept of a lower ballot |
| Accept      | leader    | members   | also the heartbeat, with no entries |
| Accepted    | member    | leader    | Accept (entries: after persist) |
| LearnRequest| member    | any peer  |              |
| Learn       | peer      | member    | LearnRequest |
| ReadRequest | member    | leader    |              |
| ReadReply   | leader    | member    | ReadRequest  |
| Transfer    | leader    | member    | asks it to stand for election at once |
"""

from __future__ import annotations

from typing import NamedTuple

from distkv.ids import Ballot


class PreVote(NamedTuple):
    """Would you vote for me in `ballot`? Changes no state. `chosen`: my chosen prefix."""

    ballot: Ballot
    chosen: int


class PreVoteReply(NamedTuple):
    """`ballot` as asked; `promised` lets a refused candidate raise its round."""

    ballot: Ballot
    granted: bool
    promised: Ballot
    chosen: int


class Prepare(NamedTuple):
    """Phase 1a for all slots above the acceptor's chosen prefix."""

    ballot: Ballot
    chosen: int


class Promise(NamedTuple):
    """Phase 1b, durable. `entries`: (slot, ballot, entry) accepted above `chosen`.

    `chosen`: the sender's own chosen prefix; a candidate behind it must learn up to it
    before it proposes. `first`: first slot the sender can still send as log; a candidate
    below it needs a snapshot.
    """

    ballot: Ballot
    chosen: int
    first: int
    entries: tuple[tuple[int, Ballot, bytes], ...]


class Refuse(NamedTuple):
    """The sender promised a higher ballot."""

    promised: Ballot


class Accept(NamedTuple):
    """Phase 2a for slots first, first+1, ...; all slots <= `chosen` are chosen.

    `probe`: read-confirmation round; the answer carries the highest probe seen.
    """

    ballot: Ballot
    first: int
    entries: tuple[bytes, ...]
    chosen: int
    probe: int


class Accepted(NamedTuple):
    """Every slot <= `upto` is known chosen, or durably accepted in `ballot`.

    `durable`: number of batches the sender has fsynced, ever (a lower one than before
    betrays a volume restored from a snapshot).
    """

    ballot: Ballot
    upto: int
    chosen: int
    probe: int
    durable: int


class LearnRequest(NamedTuple):
    """Send me chosen entries from slot `first` on."""

    first: int


class Learn(NamedTuple):
    """Chosen entries first, first+1, ...; `retained`: first slot the sender still has.

    If `retained` > the requested slot, `entries` is empty and a snapshot is needed.
    `chosen`: the sender's chosen prefix.
    """

    first: int
    entries: tuple[bytes, ...]
    retained: int
    chosen: int


class ReadRequest(NamedTuple):
    """Confirm you lead and tell me the index to wait for. `token` is the asker's own."""

    token: int


class ReadReply(NamedTuple):
    """`slot` -1: not leader, or no quorum; ask again."""

    token: int
    slot: int


class Transfer(NamedTuple):
    """The leader of `ballot` wants to hand over: start an election without a pre-vote."""

    ballot: Ballot


Message = (
    PreVote
    | PreVoteReply
    | Prepare
    | Promise
    | Refuse
    | Accept
    | Accepted
    | LearnRequest
    | Learn
    | ReadRequest
    | ReadReply
    | Transfer
)
