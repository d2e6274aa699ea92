"""Which shards may still matter: section 3 of the protocol, in one place.

A put takes effect only if, at apply, its stamp is not below the barrier, its boot is the
current one of its incarnation, its value id is not settled, and its coordinator is a member.
Once the *applied* state rules one of these out, for ever (barriers, boots and settled marks
only grow, a removed incarnation never returns), nothing can name the value any more.
Silence, refusals and reconnects say nothing of the kind.
"""

from __future__ import annotations

from enum import Enum

from distkv.coding.checksum import checksum
from distkv.coding.layout import piece_length
from distkv.data.messages import ShardPiece
from distkv.data.ports import Applied
from distkv.ids import Ballot, ValueId

STRIPES_MAX = 1 << 16
"""Most stripes of one value: far above what the largest value needs."""


class Verdict(Enum):
    """What the applied state says about a value."""

    NAMED = "a record refers to it"
    POSSIBLE = "a later entry may name it"
    RULED_OUT = "no entry can name it any more"


def judge(applied: Applied, value_id: ValueId, stamp: Ballot, epoch: int) -> Verdict:
    """Whether a shard of `value_id`, dispersed under `stamp` for layout `epoch`, must be kept."""
    if applied.key_of(value_id) is not None:
        return Verdict.NAMED
    incarnation, boot, counter = value_id
    if (
        applied.barrier > stamp
        or applied.boot_of(incarnation) > boot
        or counter < applied.settled_of(incarnation, boot)
        or (epoch <= applied.configuration.epoch and not is_member(applied, incarnation))
    ):
        return Verdict.RULED_OUT
    return Verdict.POSSIBLE


def is_member(applied: Applied, incarnation: int) -> bool:
    """Whether the incarnation holds a seat in the newest applied configuration.

    If not, and the shard is not of an epoch that is yet to be applied here, its coordinator was
    removed, or a smaller layout left it out. What that one dispersed names an older epoch, which
    no put may do any more, not even after a further epoch seated it again. Of a newer epoch it
    may be: a node that catches up passes states in which a coordinator of today had no seat
    (full world 6400230).
    """
    return any(member.incarnation == incarnation for member in applied.configuration.members)


def well_formed(piece: ShardPiece) -> bool:
    """Whether numbers, lengths and checksum of a piece fit together."""
    code = piece.code
    return (
        1 <= code.data_shards <= code.size
        and 0 <= piece.shard < code.size
        and 0 <= piece.stripe < STRIPES_MAX
        and 0 <= piece.last <= STRIPES_MAX
        and (not piece.last or piece.stripe == piece.last - 1)
        and piece.length <= code.stripe_bytes
        and len(piece.piece) == piece_length(piece.length, code.data_shards, piece.shard)
        and checksum(piece.piece) == piece.crc
    )
