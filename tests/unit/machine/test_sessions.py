"""Exactly once: low marks, results above them, windows, life and end of sessions."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.machine.support import SESSION, World, rows_of

from distkv.ids import node_session
from distkv.machine import commands as c
from distkv.machine import once, sessions
from distkv.machine.interface import Outcome, OutcomeKind
from distkv.machine.membership import Options
from distkv.operations import Condition, Increment, Must, Mutation, Put
from distkv.storage import base as storage
from distkv.storage.base import Table

GATEWAY = b"gateway-0001"
IDLE = 1000
LIFE = 5000
OPTIONS = Options(4096, IDLE, LIFE)


def command(
    sequence: int,
    mutation: Mutation | None = None,
    session: bytes = SESSION,
    low: int = 0,
    implicit: bool = False,
) -> bytes:
    mutations = c.wire_mutations([mutation or Increment(b"n", 1)])
    return c.pack_write(session, sequence, low, implicit, mutations)


def number(world: World) -> int:
    record = world.machine.record(b"n")
    return 0 if record is None else int(record.value or b"0")


@pytest.mark.parametrize("restart", [False, True])
def test_a_retry_gets_the_stored_answer(restart: bool) -> None:
    world = World()
    world.results(Put(b"p", b"before"))
    world.sequence = 0
    first: list[Outcome] = world.commands(
        command(11),
        command(12, Put(b"n", b"x" * 10, condition=Condition(Must.BE_ABSENT))),
        command(13, Put(b"p", b"after", previous=True)),
        command(14, Increment(b"p", 1)),
    )
    kinds = [outcome.kind for outcome in first]
    assert kinds == [
        OutcomeKind.APPLIED,
        OutcomeKind.CONDITION,
        OutcomeKind.APPLIED,
        OutcomeKind.FAILED,
    ]
    world.results(Put(b"p", b"later"))
    if restart:
        world.reload()
    again = world.commands(*(command(sequence) for sequence in (14, 12, 11, 13)))
    assert sorted(again, key=lambda outcome: outcome.sequence) == first
    assert number(world) == 1


def test_reordered_sequences_are_all_applied() -> None:
    """A plain "last sequence" would swallow 2 and 1."""
    world = World()
    outcomes = world.commands(command(3), command(1), command(2), command(3), command(1))
    assert [outcome.detail for outcome in outcomes] == [[1], [2], [3], [1], [2]]


def test_below_the_low_mark_nothing_is_applied_again() -> None:
    world = World()
    world.commands(*(command(sequence) for sequence in range(1, 6)))
    (outcome,) = world.commands(command(6, low=5))
    assert outcome.detail == [6]
    for sequence in range(5):
        (outcome,) = world.commands(command(sequence))
        assert outcome.kind is OutcomeKind.UNKNOWN_SESSION
    assert world.commands(command(5))[0].detail == [5]
    assert number(world) == 6


def test_a_low_mark_above_the_own_sequence_counts_only_up_to_it() -> None:
    world = World()
    assert world.commands(command(3, low=100))[0].kind is OutcomeKind.APPLIED
    assert world.commands(command(4))[0].kind is OutcomeKind.APPLIED
    assert world.commands(command(2))[0].kind is OutcomeKind.UNKNOWN_SESSION


def test_the_low_mark_never_goes_back() -> None:
    world = World()
    world.commands(*(command(sequence) for sequence in range(1, 6)), command(6, low=5))
    # A late copy of 3 with a higher mark: its answer was forgotten, not its application.
    (outcome,) = world.commands(command(3, low=6))
    assert outcome.kind is OutcomeKind.UNKNOWN_SESSION
    assert number(world) == 6


def test_a_page_that_stays_for_one_result_does_not_bring_back_the_others() -> None:
    world = World()
    world.commands(*(command(sequence) for sequence in (1, 2, 9)))
    world.commands(command(10, low=5))
    assert len(world.engine.keys(Table.STATE, b"p", b"q", 10)) == 2
    world.reload()
    (outcome,) = world.commands(command(2))
    assert outcome.kind is OutcomeKind.UNKNOWN_SESSION
    assert world.commands(command(9))[0].detail == [3]


def test_pages_of_answered_results_go() -> None:
    world = World()
    for sequence in range(1, 200):
        world.commands(command(sequence, low=max(0, sequence - 3)))
    pages = world.engine.keys(Table.STATE, b"p", b"q", 1000)
    assert len(pages) == 4
    world.commands(command(10**9, low=10**9))
    assert len(world.engine.keys(Table.STATE, b"p", b"q", 1000)) == 1
    assert list(world.machine._sessions._sessions[SESSION].results) == [10**9]


def test_who_asks_one_thing_at_a_time_has_one_row_written_over() -> None:
    world = World()
    for sequence in range(1, 20):
        if sequence == 10:
            world.reload()
        world.machine.apply(
            world.machine.applied + 1,
            c.entry_batch(world.now, (command(sequence, low=sequence),)),
        )
        writes = world.machine.drain_writes()
        pages = [row for row in writes if row[0] is Table.STATE and row[1][:1] == b"p"]
        assert [type(row) for row in pages] == [storage.Put]
        world.engine.write(writes)
        assert len(world.engine.keys(Table.STATE, b"p", b"q", 10)) == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 8), st.booleans()), max_size=40))
def test_a_restart_does_not_change_where_results_are_kept(
    steps: list[tuple[int, int, bool]],
) -> None:
    """Else two replicas would have other rows from one log."""
    one, other = World(), World()
    sequence = low = 0
    for many, behind, restart in steps:
        low = max(low, sequence + 1 - behind)
        batch = [command(sequence + 1 + i, low=low) for i in range(many)]
        sequence += many
        one.commands(*batch)
        other.commands(*batch)
        if restart:
            other.reload()
        assert rows_of(one.engine) == rows_of(other.engine)


def test_results_of_a_version_that_numbered_pages_by_slots_are_read() -> None:
    world = World()
    world.commands(command(1), command(2))
    slot = world.machine.applied
    ((key, row),) = world.engine.scan(Table.STATE, b"p", b"q", 10)
    old = msgpack.packb([1, *msgpack.unpackb(row)[2:]])
    world.engine.write(
        [
            storage.Delete(Table.STATE, key),
            storage.Put(Table.STATE, sessions.page_key(SESSION, slot), old),
        ]
    )
    world.reload()
    assert [outcome.detail for outcome in world.commands(command(2), command(1))] == [[2], [1]]
    world.commands(command(3, low=3))
    assert [k for k, _ in world.engine.scan(Table.STATE, b"p", b"q", 10)] == [
        sessions.page_key(SESSION, 0)
    ]


def test_the_window_bounds_how_far_ahead_a_session_may_be() -> None:
    world = World()
    (outcome,) = world.commands(command(sessions.WINDOW))
    assert (outcome.kind, outcome.detail) == (OutcomeKind.REFUSED, "window")
    assert world.commands(command(sessions.WINDOW - 1))[0].kind is OutcomeKind.APPLIED
    assert world.commands(command(sessions.WINDOW, low=1))[0].kind is OutcomeKind.APPLIED


@pytest.mark.parametrize("restart", [False, True])
def test_old_values_in_results_are_bounded_but_the_lowest_goes_on(
    restart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "WEIGHT_MAX", 3000)
    world = World()
    take = Put(b"a", b"x" * 1000, previous=True)
    outcomes = world.commands(*(command(sequence, take) for sequence in range(1, 7)))
    # The first has no old value; after three the limit is reached.
    assert [outcome.detail for outcome in outcomes[4:]] == ["window", "window"]
    if restart:
        world.reload()
    assert world.commands(command(5, take))[0].detail == "window"
    assert world.commands(command(5, take, low=5))[0].kind is OutcomeKind.APPLIED
    assert world.commands(command(6, take, low=5))[0].kind is OutcomeKind.APPLIED
    assert world.machine._sessions._sessions[SESSION].weight == 2000


def test_unknown_sessions_are_never_applied() -> None:
    world = World()
    (outcome,) = world.commands(command(1, session=GATEWAY))
    assert outcome.kind is OutcomeKind.UNKNOWN_SESSION
    assert number(world) == 0
    (opened,) = world.commands(c.pack_open(GATEWAY))
    assert opened == (GATEWAY, 0, OutcomeKind.APPLIED, [True])
    assert world.commands(command(1, session=GATEWAY))[0].detail == [1]
    # Opening once more does not forget what was applied.
    world.commands(c.pack_open(GATEWAY))
    assert world.commands(command(1, session=GATEWAY))[0].detail == [1]
    assert number(world) == 1


@pytest.mark.parametrize("tick", [False, True])
def test_a_gateway_session_ends_when_idle_by_log_time(tick: bool) -> None:
    world = World(options=OPTIONS)
    world.commands(c.pack_open(GATEWAY))
    for _ in range(3):
        world.now += IDLE - 1
        assert not world.machine.due(world.now)
        world.sequence += 1
        (outcome,) = world.commands(command(world.sequence, session=GATEWAY))
        assert outcome.kind is OutcomeKind.APPLIED
    assert not world.machine.due(world.now + IDLE - 1)
    assert world.machine.due(world.now + IDLE)
    world.now += IDLE
    if tick:
        world.tick()
        assert world.engine.keys(Table.STATE, b"s" + GATEWAY, b"s" + GATEWAY + b"\0", 10) == []
        assert world.engine.keys(Table.STATE, b"p", b"q", 10) == []
        assert not world.machine.due(world.now + 10 * IDLE)
    (outcome,) = world.commands(command(9, session=GATEWAY))
    assert outcome.kind is OutcomeKind.UNKNOWN_SESSION
    # A node's own session does not end by time.
    assert world.commands(command(9))[0].kind is OutcomeKind.APPLIED


def test_a_node_session_ends_with_the_next_boot() -> None:
    world = World()
    world.commands(command(1))
    world.commands(c.pack_boot(100, 0, 2, 1))
    (outcome,) = world.commands(command(2))
    assert outcome.kind is OutcomeKind.UNKNOWN_SESSION
    assert world.engine.keys(Table.STATE, b"p", b"q", 10) == []
    (outcome,) = world.commands(command(1, session=node_session(100, 2)))
    assert outcome.detail == [2]


def test_a_node_session_ends_with_its_replacement() -> None:
    world = World()
    body = c.change_replace("owner-one", 0, 100, 200)
    world.entry(c.entry_configuration(world.now, body))
    (outcome,) = world.commands(command(1))
    assert outcome.kind is OutcomeKind.UNKNOWN_SESSION


def test_too_many_gateway_sessions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "OPENED_MAX", 2)
    world = World(options=OPTIONS)
    names = [b"gateway-%04d" % i for i in range(3)]
    outcomes = world.commands(*map(c.pack_open, names))
    assert [outcome.kind for outcome in outcomes] == [
        OutcomeKind.APPLIED,
        OutcomeKind.APPLIED,
        OutcomeKind.REFUSED,
    ]
    world.reload()
    assert world.commands(c.pack_open(names[2]))[0].detail == "sessions"
    world.now += IDLE
    world.tick()
    assert world.commands(c.pack_open(names[2]))[0].kind is OutcomeKind.APPLIED


KEY = b"\0Kidempotent"[:12]


@pytest.mark.parametrize("restart", [False, True])
def test_an_idempotency_key_opens_with_its_write_and_ends_by_time(restart: bool) -> None:
    world = World(options=OPTIONS)
    outcome = world.commands(command(1, session=KEY, implicit=True))[0]
    assert outcome.detail == [1]
    if restart:
        world.reload()
    world.now += LIFE - 1
    assert world.commands(command(1, session=KEY, implicit=True)) == [outcome]
    (other,) = world.commands(command(2, session=KEY, implicit=True))
    assert other.kind is OutcomeKind.UNKNOWN_SESSION
    assert not world.machine.due(world.now)
    world.now += 1
    assert world.machine.due(world.now)
    world.tick()
    assert world.engine.keys(Table.STATE, b"i", b"k", 10) == []
    assert not world.machine.due(world.now)
    assert world.commands(command(1, session=KEY, implicit=True))[0].detail == [2]
    assert number(world) == 2


def test_an_expired_idempotency_key_is_forgotten_even_without_a_tick() -> None:
    world = World(options=OPTIONS)
    world.commands(command(1, session=KEY, implicit=True))
    world.now += LIFE
    assert world.commands(command(1, session=KEY, implicit=True))[0].detail == [2]
    assert len(world.engine.keys(Table.STATE, b"i", b"k", 10)) == 2


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("ticked", [False, True])
def test_a_clock_that_leaps_ahead_does_not_end_an_idempotency_key(
    restart: bool, ticked: bool
) -> None:
    """A second copy of the command, or its client's next try, would be applied once more."""
    world = World()
    write = command(1, session=KEY, implicit=True)
    first = world.commands(write)
    life = world.machine.options.once_life_ms
    world.now += 2 * life
    if ticked:
        world.tick()
    if restart:
        world.reload()
    assert world.commands(write) == first
    assert number(world) == 1
    # That clock is put right, and the time of the key goes on when the others reach it.
    world.now -= life
    world.tick()
    assert world.commands(write) == first


def test_an_idempotency_key_ends_while_nothing_else_happens() -> None:
    """Ticks let its time go on; each counts for a minute at most."""
    world = World()
    world.commands(command(1, session=KEY, implicit=True))
    began, ticks = world.now, 0
    while world.engine.keys(Table.STATE, b"i", b"k", 1):
        world.now += 1000
        if world.machine.due(world.now):
            world.tick()
            ticks += 1
    life = world.machine.options.once_life_ms
    assert life <= world.now - began <= life + 2000
    assert ticks <= life // 60_000 + 1
    assert not world.machine.due(2**50)


def test_an_idempotency_key_keeps_old_values_and_refusals_do_not_use_it_up() -> None:
    world = World()
    world.results(Put(b"n", b"7"))
    take = Put(b"n", b"8", previous=True)
    first = world.commands(command(1, take, KEY, implicit=True))
    assert first[0].detail[0][2].value == b"7"  # type: ignore[index]
    assert world.commands(command(1, take, KEY, implicit=True)) == first
    coded = c.wire_mutations([Put(b"n", b"")], {0: world.dispersed(epoch=9)})
    other = KEY[:-1] + b"!"
    (refused,) = world.commands(c.pack_write(other, 1, 0, True, coded))
    assert refused.kind is OutcomeKind.REFUSED
    assert world.commands(command(1, session=other, implicit=True))[0].detail == [9]


def test_too_many_idempotency_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "ONCE_MAX", 2)
    world = World(options=OPTIONS)
    keys = [b"\0Kkey%07d" % i for i in range(3)]
    outcomes = world.commands(*(command(1, session=key, implicit=True) for key in keys))
    assert (outcomes[2].kind, outcomes[2].detail) == (OutcomeKind.REFUSED, "sessions")
    world.reload()
    assert world.commands(command(1, session=keys[2], implicit=True))[0].detail == "sessions"
    world.now += LIFE
    world.tick()
    assert world.commands(command(1, session=keys[2], implicit=True))[0].detail == [3]


@pytest.mark.parametrize("restart", [False, True])
def test_a_session_that_ended_does_not_come_back(restart: bool) -> None:
    """Seed 100293 of the simulator: the leader's clock jumped, the session ended, then late
    copies of its opening and of a write arrived and the write was applied once more."""
    world = World(options=OPTIONS)
    opening, write = c.pack_open(GATEWAY), command(3, session=GATEWAY)
    world.commands(opening)
    assert world.commands(write)[0].kind is OutcomeKind.APPLIED
    world.now += IDLE + 1
    world.commands(c.pack_tick())
    if restart:
        world.reload()
    (opened,) = world.commands(opening)
    assert opened.kind is OutcomeKind.UNKNOWN_SESSION
    assert world.commands(write)[0].kind is OutcomeKind.UNKNOWN_SESSION
    assert number(world) == 1


def test_names_of_sessions_that_ended_are_forgotten_when_no_copy_can_be_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sessions, "ENDED_SLOTS", 3)
    world = World(options=OPTIONS)
    world.commands(c.pack_open(GATEWAY))
    world.now += IDLE + 1
    world.commands(c.pack_tick())
    for _ in range(3):
        world.flush()
        assert [k for k, _ in world.engine.scan(Table.STATE, b"x", b"y", 9)] == [b"x" + GATEWAY]
        world.commands(c.pack_tick())
    world.flush()
    assert world.engine.scan(Table.STATE, b"x", b"y", 9) == []
