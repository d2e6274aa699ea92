"""A picture of a replica for people, metrics and whoever admits members."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from distkv.core.acceptor import Acceptor
from distkv.core.leader import Leader
from distkv.core.shared import Shared
from distkv.ids import Ballot, Member

if TYPE_CHECKING:
    from distkv.core.replica import Replica


NEVER = 1 << 60


class PeerStatus(NamedTuple):
    """What the leader knows of a peer. `silent`: ms since it last answered; NEVER if it has not
    yet, in this tenure and over its present connection."""

    member: Member
    voter: bool
    match: int
    chosen: int
    silent: int


class Status(NamedTuple):
    """A picture for people and metrics. `peers` is empty on a follower; `durable`: every slot
    up to it is on the disk of this node."""

    role: str
    ballot: Ballot
    leader: Member | None
    chosen: int
    applied: int
    durable: int
    first: int
    last: int
    voter: bool
    queued: int
    window: int
    changing: bool
    elections: int
    rounds: int
    read_rounds: int
    needs_snapshot: int | None
    suspicions: tuple[Member, ...]
    peers: tuple[PeerStatus, ...]


def picture(shared: Shared, leader: Leader | None, replica: Replica, acceptor: Acceptor) -> Status:
    """As of now; costs a tuple per peer, so not for hot paths."""
    peers: tuple[PeerStatus, ...] = ()
    if leader is not None:
        peers = tuple(
            PeerStatus(
                p.member,
                p in leader.peers.voters,
                p.match,
                p.chosen,
                (shared.now - p.heard) * shared.options.tick if p.known else NEVER,
            )
            for p in leader.peers.all.values()
        )
    return Status(
        replica.role,
        replica.ballot,
        replica.leader,
        shared.log.chosen,
        shared.machine.applied,
        acceptor.durable_upto(replica.ballot),
        shared.log.first,
        shared.log.last,
        shared.may_vote(),
        0 if leader is None else len(leader.proposals),
        0 if leader is None else leader.next_slot - 1 - shared.log.chosen,
        leader is not None and leader.changing,
        replica.elections,
        shared.rounds,
        shared.read_rounds,
        replica.needs_snapshot,
        tuple(shared.peers.suspicions),
        peers,
    )
