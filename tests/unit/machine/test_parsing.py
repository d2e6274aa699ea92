"""What this version does not know halts the node before anything of it is applied."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.machine.support import SESSION, World, rows_of

from distkv.ids import Ballot
from distkv.machine import commands as c
from distkv.machine.parsing import parse_batch, parse_command
from distkv.operations import (
    Append,
    Condition,
    Delete,
    Expire,
    Expiry,
    Flush,
    Increment,
    IncrementFloat,
    Must,
    Mutation,
    Put,
)

ALL: list[Mutation] = [
    Put(b"a", b"1"),
    Delete(b"a"),
    Expire(b"a", Expiry(after_ms=5)),
    Increment(b"a", 1),
    IncrementFloat(b"a", b"1.5"),
    Append(b"a", b"1"),
    Flush(),
]
GOOD = c.pack_write(SESSION, 50, 0, False, c.wire_mutations([Put(b"good", b"1")]))


def write(*mutations: object) -> bytes:
    packed: bytes = msgpack.packb((c.WRITE, SESSION, 1, 0, False, mutations))
    return packed


def packed_entry(kind: int, body: object) -> bytes:
    return bytes([kind]) + bytes(8) + bytes(msgpack.packb(body))


ID = bytes(20)
PLACE = (ID, 3, 5, 65536, 100, 1, (1, 0, 100), 1, (0, 100))
MALFORMED = [
    b"",
    b"\xc1",
    b"\x91",
    msgpack.packb(()),
    msgpack.packb(7),
    msgpack.packb({1: 2}),
    msgpack.packb((99,)),
    msgpack.packb(((1,),)),
    msgpack.packb((c.TICK, 1)),
    msgpack.packb((c.OPEN, b"short")),
    msgpack.packb((c.OPEN, "gateway-0001")),
    msgpack.packb((c.BOOT, 1, 2)),
    msgpack.packb((c.BOOT, 1, 0, 2**32)),
    msgpack.packb((c.BOOT, -1, 0, 2)),
    msgpack.packb((c.SETTLED, 1, 2, 2**63)),
    msgpack.packb((c.FORMED, "text", "owner")),
    msgpack.packb((c.FORMED, b"c", "")),
    msgpack.packb((c.WRITE, SESSION, 1, 0, False)),
    msgpack.packb((c.WRITE, SESSION[1:], 1, 0, False, ((c.FLUSH,),))),
    msgpack.packb((c.WRITE, SESSION, -1, 0, False, ((c.FLUSH,),))),
    msgpack.packb((c.WRITE, SESSION, 1, "0", False, ((c.FLUSH,),))),
    msgpack.packb((c.WRITE, SESSION, 1, 0, 0, ((c.FLUSH,),))),
    msgpack.packb((c.WRITE, SESSION, 1, 0, False, ())),
    write((77, b"a")),
    write(5),
    write(()),
    write((c.FLUSH, 1)),
    write((c.PUT_INLINE, b"a", 0, 0, 0, 0, False, 1)),
    write((c.PUT_INLINE, "a", 0, 0, 0, 0, False, 1, b"")),
    write((c.PUT_INLINE, b"a" * 4097, 0, 0, 0, 0, False, 1, b"")),
    write((c.PUT_INLINE, b"a", 5, 0, 0, 0, False, 1, b"")),
    write((c.PUT_INLINE, b"a", 0, -1, 0, 0, False, 1, b"")),
    write((c.PUT_INLINE, b"a", 0, 0, 4, 0, False, 1, b"")),
    write((c.PUT_INLINE, b"a", 0, 0, 0, 2**52, False, 1, b"")),
    write((c.PUT_INLINE, b"a", 0, 0, 0, 0, 0, 1, b"")),
    write((c.PUT_INLINE, b"a", 0, 0, 0, 0, False, 2**32, b"")),
    write((c.PUT_INLINE, b"a", 0, 0, 0, 0, False, 1, "")),
    write((c.PUT_CODED, b"a", 0, 0, 0, 0, False)),
    write((c.PUT_CODED, b"a", 0, 0, 0, 0, False, *PLACE[:-1])),
    write((c.PUT_CODED, b"a", 0, 0, 0, 0, False, ID[1:], *PLACE[1:])),
    write((c.PUT_CODED, b"a", 0, 0, 0, 0, False, ID, 0, *PLACE[2:])),
    write((c.PUT_CODED, b"a", 0, 0, 0, 0, False, ID, 6, *PLACE[2:])),
    write((c.PUT_CODED, b"a", 0, 0, 0, 0, False, ID, 3, 13, *PLACE[3:])),
    write((c.PUT_CODED, b"a", 0, 0, 0, 0, False, ID, 3, 5, 0, *PLACE[4:])),
    write((c.PUT_CODED, b"a", 0, 0, 0, 0, False, *PLACE[:6], (1, 2), 1, (0, 100))),
    write((c.PUT_CODED, b"a", 0, 0, 0, 0, False, *PLACE[:8], (0, 100, 1))),
    write((c.PUT_CODED, b"a", 0, 0, 0, 0, False, *PLACE[:8], (0, 1) * 13)),
    write((c.DELETE, b"a", 0, 0, 1)),
    write((c.EXPIRE, b"a", 5, 0, 0)),
    write((c.INCREMENT, b"a", 2**63)),
    write((c.INCREMENT, b"a", 1.0)),
    write((c.INCREMENT_FLOAT, b"a", 1.0)),
    write((c.APPEND, b"a", "x")),
    write((c.RESTRIPE, b"a", b"", *PLACE)),
    write((c.CHECK, b"a", 0)),
    write((c.BASIS, b"a", -1)),
]


@pytest.mark.parametrize("command", MALFORMED)
def test_malformed_commands_halt_with_nothing_applied(command: bytes) -> None:
    world = World()
    before = rows_of(world.engine)
    with pytest.raises(c.UnknownEntry):
        world.commands(GOOD, command)
    assert world.machine.drain_outcomes() == []
    assert world.machine.drain_writes() == []
    assert rows_of(world.engine) == before
    assert world.machine.record(b"good") is None
    # The machine itself is still whole.
    assert world.commands(GOOD)[0].detail == [(1, False, None)]


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\0" * 8,
        b"\4" + bytes(8),
        b"\1" + b"\xff" * 8 + b"\x90",
        packed_entry(c.BATCH, b"x"),
        packed_entry(c.BATCH, ("text",)),
        packed_entry(c.BATCH, (5,)),
        packed_entry(c.BARRIER, (1, 2)),
        packed_entry(c.BARRIER, (1, 2, "3")),
        packed_entry(c.CONFIGURATION, ()),
        packed_entry(c.CONFIGURATION, (9, "owner-one")),
        packed_entry(c.CONFIGURATION, (c.REPLACE, "owner-one", 1, 2)),
        packed_entry(c.CONFIGURATION, (c.REPLACE, "", 1, 2, 3)),
        packed_entry(c.CONFIGURATION, (c.LAYOUT, "owner-one", 2, 3, 2, ())),
        packed_entry(c.CONFIGURATION, (c.LAYOUT, "owner-one", 2, 3, 2, tuple(range(13)))),
        packed_entry(c.CONFIGURATION, (c.RETIRE, "owner-one", b"1")),
        packed_entry(c.CONFIGURATION, (c.OWNER, "owner-one", b"1")),
        c.entry_barrier(1, Ballot(1, 2, 3)) + b"x",
    ],
)
def test_unknown_entries_halt(entry: bytes) -> None:
    world = World()
    slot = world.machine.applied
    with pytest.raises(c.UnknownEntry):
        world.entry(entry)
    assert world.machine.applied == slot
    assert world.machine.log_time_ms == world.now


def test_an_empty_batch_only_moves_time() -> None:
    world = World()
    assert world.entry(c.entry_batch(world.now + 5, [])) == []
    assert world.machine.log_time_ms == world.now + 5


@pytest.mark.parametrize("mutation", ALL)
def test_what_is_packed_parses(mutation: Mutation) -> None:
    command = c.pack_write(SESSION, 1, 0, True, c.wire_mutations([mutation] * 2))
    assert parse_command(command)[5] == c.wire_mutations([mutation, mutation])
    batch = parse_batch(c.entry_batch(7, [command, c.pack_tick()]))
    assert [parsed[0] for parsed in batch] == [c.WRITE, c.TICK]


def test_entries_tell_kind_and_stamp() -> None:
    entries = [
        c.entry_noop(3),
        c.entry_batch(4, [c.pack_tick()]),
        c.entry_barrier(5, Ballot(1, 2, 3)),
        c.entry_configuration(6, c.change_retire("o", 1)),
    ]
    assert [c.entry_kind(entry) for entry in entries] == [0, 1, 2, 3]
    assert [c.entry_stamp(entry) for entry in entries] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    "mutations",
    [
        [],
        [Put(b"a" * 4097, b"")],
        [Increment(b"a", 2**63)],
        [Put(b"a", b"", condition=Condition(Must.HAVE_VERSION, 2**63))],
        [Delete(b"a", Condition(Must.HAVE_VERSION, -1))],
        [Put(b"a", object())],  # type: ignore[arg-type]
        ["mutation"],
    ],
)
def test_packing_refuses_what_would_halt_the_cluster(mutations: list[Mutation]) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        c.wire_mutations(mutations)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            msgpack.packb,
            st.recursive(
                st.one_of(
                    st.none(),
                    st.booleans(),
                    st.integers(-(2**63), 2**64 - 1),
                    st.binary(max_size=20),
                    st.text(max_size=5),
                    st.floats(),
                    st.sampled_from([SESSION, PLACE, ID]),
                ),
                lambda items: st.lists(items, max_size=9),
                max_leaves=20,
            ),
        ),
    )
)
def test_any_bytes_parse_or_are_refused(raw: bytes) -> None:
    try:
        command = parse_command(raw)
    except c.UnknownEntry:
        return
    assert command[0] in range(c.WRITE, c.FORMED + 1)
