"""A member without a seat: it takes no shard, and says so at once."""

from __future__ import annotations

from unit.member.alone import CLUSTER, member_on

from distkv.coding.checksum import checksum
from distkv.data.messages import Code, Refusal, ShardPiece, ShardRefused
from distkv.ids import Ballot, ValueId
from distkv.storage.memory import MemoryEngine
from distkv.transport.base import Identity


def test_a_member_without_a_seat_refuses_pieces() -> None:
    """Its silence held every write up until it was gone round (full world 6835266)."""
    member = member_on(MemoryEngine(), ordinal=3)
    assert member.seat is None
    coordinator = Identity(CLUSTER, 1, 0, 100, 1)
    value_id = ValueId(100, 1, 7)
    stamp, data = Ballot(1, 0, 100), b"bytes"
    code = Code(1, 3, 4096)
    piece = ShardPiece(value_id, 2, 0, 1, code, 1, stamp, 0, b"", 5, checksum(data), data)
    member.peer_up(coordinator)
    member.turn(1000.0, 1_000_000)
    member.receive(coordinator, piece)
    said = [sent.message for sent in member.turn(1000.1, 1_000_100).messages if sent.ordinal == 0]
    assert ShardRefused(value_id, 2, Refusal.NOT_MEMBER) in said
