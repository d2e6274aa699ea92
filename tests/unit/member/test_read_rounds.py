"""Rounds of linearizable reads: who is served when, and what an earlier boot left behind."""

from __future__ import annotations

import pytest

from distkv.errors import DeadlineExceeded, NoQuorum
from distkv.member.reads import ROUNDS_MAX, ReadRounds


class Leader:
    """Takes note of the tokens it is asked to confirm."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def read(self, token: int) -> bool:
        self.tokens.append(token)
        return True


def test_readers_that_wait_together_share_a_round() -> None:
    rounds, leader = ReadRounds(100, 7, 1), Leader()
    readers = [rounds.wait(10.0) for _ in range(3)]
    rounds.start(leader.read)
    late = rounds.wait(10.0)
    assert len(leader.tokens) == 1
    rounds.confirmed(leader.tokens[0], 7)
    rounds.applied(6)
    assert not any(reader.done for reader in readers)
    rounds.applied(7)
    assert all(reader.done for reader in readers)
    assert not late.done, "it came after the round was opened"


def test_an_index_confirmed_for_an_earlier_boot_serves_nobody() -> None:
    before, after, leader = ReadRounds(100, 7, 1), ReadRounds(100, 7, 2), Leader()
    before.wait(10.0)
    before.start(leader.read)
    reader = after.wait(10.0)
    after.start(leader.read)
    stale, fresh = leader.tokens
    after.confirmed(stale, 3)
    after.applied(3)
    assert not reader.done, "the leader chose more since slot 3"
    after.confirmed(fresh, 9)
    after.applied(9)
    assert reader.done


def test_an_unconfirmed_round_is_asked_again() -> None:
    rounds, leader = ReadRounds(100, 7, 1), Leader()
    reader = rounds.wait(10.0)
    rounds.start(leader.read)
    rounds.confirmed(leader.tokens[0], -1)
    rounds.start(leader.read)
    assert len(set(leader.tokens)) == 2
    rounds.confirmed(leader.tokens[1], 0)
    rounds.applied(0)
    assert reader.done


def test_rounds_in_flight_are_bounded() -> None:
    rounds, leader = ReadRounds(100, 7, 1), Leader()
    for _ in range(ROUNDS_MAX + 2):
        rounds.wait(10.0)
        rounds.start(leader.read)
    assert len(leader.tokens) == ROUNDS_MAX
    assert not rounds.wants_round


def test_nobody_waits_beyond_the_deadline_or_without_a_quorum() -> None:
    rounds, leader = ReadRounds(100, 7, 1), Leader()
    late, patient = rounds.wait(1.0), rounds.wait(5.0)
    rounds.start(leader.read)
    rounds.sweep(2.0, lambda: "no leader is known")
    with pytest.raises(DeadlineExceeded, match="no leader is known"):
        late.result()
    assert not patient.done
    rounds.refuse("2 of 5 nodes answer")
    with pytest.raises(NoQuorum, match="2 of 5"):
        patient.result()
    assert len(rounds) == 0


def test_who_had_the_seat_before_asked_under_other_tokens() -> None:
    """Both are at their first boot, and the leader answers the seat."""
    left, joined, leader = ReadRounds(100, 7, 1), ReadRounds(100, 8, 1), Leader()
    left.wait(9.0)
    left.start(leader.read)
    reader = joined.wait(9.0)
    joined.start(leader.read)
    first, second = leader.tokens
    joined.confirmed(first, 3)
    joined.applied(3)
    assert not reader.done
    joined.confirmed(second, 5)
    joined.applied(5)
    assert reader.done
