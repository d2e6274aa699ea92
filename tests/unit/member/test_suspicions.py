"""The suspicion log: one count for each peer and kind, one line for each burst."""

from __future__ import annotations

from unit.member.test_seat import CLUSTER, FOUNDERS, Lone, peer

from distkv.coding.checksum import checksum
from distkv.core.messages import Prepare
from distkv.data.messages import Code, ShardDropped, ShardPiece
from distkv.ids import Ballot, ValueId
from distkv.member.messages import Founding
from distkv.member.suspicions import BURST_SECONDS, SOURCES_MAX, SuspicionLog
from distkv.wire.codec import Unknown

CODE = Code(3, 5, 3000)


def test_one_line_for_each_burst() -> None:
    said: list[str] = []
    log = SuspicionLog(said.append)
    for second in range(100):
        log.add(float(second), "node 1", "bad_tag", f"number {second}")
    log.add(99.0, "node 2", "bad_tag", "another peer")
    log.add(99.0, "node 1", "equivocation", "another kind")
    assert len(said) == 3
    log.add(99.0 + BURST_SECONDS + 1, "node 1", "bad_tag", "again")
    assert len(said) == 4
    assert "node 1: bad_tag: again" in said[-1]
    rows = {(row["source"], row["kind"]): row["count"] for row in log.status()}
    assert rows["node 1", "bad_tag"] == 101
    assert log.total == 103


def test_sources_are_bounded() -> None:
    log = SuspicionLog(lambda text: None)
    for number in range(2 * SOURCES_MAX):
        log.add(0.0, f"10.0.0.1:{number}", "garbage", "")
    assert len(log.entries) == SOURCES_MAX + 1
    assert log.entries["others", "garbage"].count == SOURCES_MAX


def piece(of: int = 101, **changes: object) -> ShardPiece:
    body = bytes(1000)
    made = ShardPiece(
        *(ValueId(of, 1, 1), 0, 0, 1, CODE, 1, Ballot(1, 0, 100), 0, b""),
        *(3000, checksum(body), body),
    )
    return made._replace(**changes)


def kinds(lone: Lone) -> dict[tuple[str, str], int]:
    lone.step(1.0)
    status = lone.member.status()
    rows = status["suspicions"]
    assert isinstance(rows, list)
    return {(row["source"], row["kind"]): row["count"] for row in rows}


def test_what_peers_send_is_counted_by_kind() -> None:
    lone = Lone()
    for ordinal in (1, 2):
        lone.member.peer_up(peer(ordinal))
    lone.member.receive(peer(1), piece(crc=7))
    lone.member.receive(peer(1), piece(crc=8))
    assert kinds(lone) == {("node 1", "bad_checksum"): 2}

    lone.member.receive(peer(1), piece(shard=9))
    lone.member.receive(peer(1), piece(of=102))
    lone.member.receive(peer(1), ShardDropped((ValueId(102, 1, 1),)))
    lone.member.receive(peer(1), piece())
    lone.member.receive(peer(1), piece(shard=1))
    lone.member.receive(peer(2), Prepare(Ballot(5, 1, 101), 0))
    lone.member.receive(peer(2), Founding(CLUSTER, "another", 3, 2, FOUNDERS, 4096))
    lone.member.receive(peer(2), Unknown(200))
    assert kinds(lone) == {
        ("node 1", "bad_checksum"): 2,
        ("node 1", "malformed_piece"): 1,
        ("node 1", "foreign_value"): 2,
        ("node 1", "equivocation"): 1,
        ("node 2", "foreign_ballot"): 1,
        ("node 2", "other_founders"): 1,
        ("node 2", "unknown_message"): 1,
    }
    assert lone.seat.greeting().suspicions == 9


def test_nothing_is_said_of_sound_peers() -> None:
    lone = Lone()
    lone.member.peer_up(peer(1))
    lone.member.receive(peer(1), piece())
    lone.member.receive(peer(1), piece())
    lone.member.receive(peer(1), ShardDropped((ValueId(101, 1, 1),)))
    lone.member.receive(peer(1), Prepare(Ballot(5, 1, 101), 0))
    assert kinds(lone) == {}
