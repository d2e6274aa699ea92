"""Peer messages: round trips of every type, and no bytes that do anything but refuse."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distkv.core import messages as core
from distkv.data import messages as data
from distkv.ids import Ballot, Member, ValueId
from distkv.wire import codec
from distkv.wire import fields as f
from distkv.wire.codec import VERSION, Unknown, WireError, decode, encode

numbers = st.integers(0, 2**63 - 1)
small = st.integers(0, 255)
counts = st.integers(0, 2**32 - 1)
blobs = st.binary(max_size=40)
ballots = st.builds(Ballot, numbers, st.integers(0, 11), numbers)
value_ids = st.builds(ValueId, numbers, counts, numbers)
entries = st.lists(blobs, max_size=4).map(tuple)
codes = st.builds(data.Code, small, small, st.integers(1, 2**30))

MESSAGES: dict[type[Any], st.SearchStrategy[Any]] = {
    core.PreVote: st.builds(core.PreVote, ballots, numbers),
    core.PreVoteReply: st.builds(core.PreVoteReply, ballots, st.booleans(), ballots, numbers),
    core.Prepare: st.builds(core.Prepare, ballots, numbers),
    core.Promise: st.builds(
        core.Promise,
        ballots,
        numbers,
        numbers,
        st.lists(st.tuples(numbers, ballots, blobs), max_size=3).map(tuple),
    ),
    core.Refuse: st.builds(core.Refuse, ballots),
    core.Accept: st.builds(core.Accept, ballots, numbers, entries, numbers, numbers),
    core.Accepted: st.builds(core.Accepted, ballots, numbers, numbers, numbers, numbers),
    core.LearnRequest: st.builds(core.LearnRequest, numbers),
    core.Learn: st.builds(core.Learn, numbers, entries, numbers, numbers),
    core.ReadRequest: st.builds(core.ReadRequest, numbers),
    core.ReadReply: st.builds(core.ReadReply, numbers, st.integers(-1, 2**63 - 1)),
    core.Transfer: st.builds(core.Transfer, ballots),
    data.ShardPiece: st.builds(
        data.ShardPiece,
        value_ids,
        small,
        counts,
        counts,
        codes,
        numbers,
        ballots,
        numbers,
        blobs,
        numbers,
        counts,
        blobs,
    ),
    data.ShardStored: st.builds(data.ShardStored, value_ids, small),
    data.ShardRefused: st.builds(
        data.ShardRefused, value_ids, small, st.sampled_from(data.Refusal)
    ),
    data.ShardDropped: st.builds(data.ShardDropped, st.lists(value_ids, max_size=4).map(tuple)),
    data.ShardWanted: st.builds(data.ShardWanted, numbers, value_ids, counts, counts),
    data.ShardGiven: st.builds(
        data.ShardGiven,
        numbers,
        st.sampled_from(data.Found),
        small,
        counts,
        numbers,
        counts,
        blobs,
    ),
}
anything = st.one_of(*MESSAGES.values())


def typed(value: Any) -> Any:
    """The value with the types of all its parts: tuples of equal items are equal otherwise."""
    if isinstance(value, tuple):
        return (type(value), [typed(item) for item in value])
    return (type(value), value)


def test_every_message_of_both_planes_has_a_code() -> None:
    both = {*get_args(core.Message), *get_args(data.DataMessage)}
    assert both == set(MESSAGES)
    assert both <= set(codec._codes)


def test_codes_are_what_they_always_were() -> None:
    """Wire format: a code is never given to another message."""
    assert {code: kind.__name__ for kind, code in codec._codes.items() if code < 64} == {
        1: "PreVote",
        2: "PreVoteReply",
        3: "Prepare",
        4: "Promise",
        5: "Refuse",
        6: "Accept",
        7: "Accepted",
        8: "LearnRequest",
        9: "Learn",
        10: "ReadRequest",
        11: "ReadReply",
        12: "Transfer",
        32: "ShardPiece",
        33: "ShardStored",
        34: "ShardRefused",
        35: "ShardDropped",
        36: "ShardWanted",
        37: "ShardGiven",
    }


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_message_survives_the_wire(kind: type[Any]) -> None:
    @settings(max_examples=40, deadline=None)
    @given(MESSAGES[kind])
    def check(message: Any) -> None:
        (received,) = decode(encode([message]))
        assert typed(received) == typed(message)

    check()


@settings(max_examples=100, deadline=None)
@given(st.lists(anything, max_size=6))
def test_batches_keep_their_order(messages: list[Any]) -> None:
    assert [typed(m) for m in decode(encode(messages))] == [typed(m) for m in messages]


def accept(payload: bytes) -> None:
    """Decode, and hold whatever comes to the types that the messages promise."""
    try:
        messages = decode(payload)
    except WireError:
        return
    for message in messages:
        if type(message) is Unknown:
            assert message.code not in codec._readers
            continue
        assert type(message) in codec._codes
        assert decode(encode([message])) == [message]


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_are_messages_or_refused(payload: bytes) -> None:
    accept(payload)


@settings(max_examples=400, deadline=None)
@given(st.lists(anything, min_size=1, max_size=3), st.data())
def test_damaged_payloads_are_messages_or_refused(messages: list[Any], draw: st.DataObject) -> None:
    payload = bytearray(encode(messages))
    for _ in range(draw.draw(st.integers(1, 3))):
        payload[draw.draw(st.integers(0, len(payload) - 1))] = draw.draw(st.integers(0, 255))
    accept(bytes(payload[: draw.draw(st.integers(0, len(payload)))]))
    accept(bytes(payload))


foreign = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.binary(max_size=5),
        st.text(max_size=5),
        ballots,
        value_ids,
    ),
    lambda items: st.lists(items, max_size=5) | st.dictionaries(st.binary(max_size=2), items),
    max_leaves=8,
)


@settings(max_examples=1000, deadline=None)
@given(anything, st.data())
def test_no_field_takes_a_wrong_type(message: Any, draw: st.DataObject) -> None:
    """One field replaced: a refusal, or a message that is as good as one made here."""
    fields = list(message)
    fields[draw.draw(st.integers(0, len(fields) - 1))] = draw.draw(foreign)
    code = codec._codes[type(message)]
    accept(msgpack.packb((VERSION, (code, *fields))))


@pytest.mark.parametrize("field", range(1, 6))
@pytest.mark.parametrize("wrong", [None, True, -1, 2**63, 1.0, b"1", "1", (1, 2), (1, 2, -3), {}])
def test_accepted_takes_numbers_only(field: int, wrong: object) -> None:
    item: list[object] = [7, (1, 2, 3), 4, 5, 6, 7]
    assert decode(msgpack.packb((VERSION, item))) == [core.Accepted(Ballot(1, 2, 3), 4, 5, 6, 7)]
    item[field] = wrong
    with pytest.raises(WireError):
        decode(msgpack.packb((VERSION, item)))


@pytest.mark.parametrize(
    "payload",
    [
        (),
        7,
        (VERSION + 1,),
        (True,),
        (VERSION, 7),
        (VERSION, ()),
        (VERSION, (True, (1, 2, 3))),
        (VERSION, (0, 1)),
        (VERSION, (-1, 1)),
        (VERSION, (256, 1)),
        (VERSION, (10,)),
        (VERSION, (10, 1, 2)),
        (VERSION, (7, (1, 2, 3), 4, 5, 6)),
        (VERSION, (34, (1, 2, 3), 4, 0)),
        (VERSION, (34, (1, 2, 3), 4, True)),
        (VERSION, (35, ((1, 2**32, 3),))),
        (VERSION, (10, 1), (10, -1)),
    ],
)
def test_refused(payload: object) -> None:
    with pytest.raises(WireError):
        decode(msgpack.packb(payload))


def test_a_message_of_a_newer_version_does_not_take_others_with_it() -> None:
    """Nodes are upgraded one after the other."""
    known = core.ReadRequest(1)
    payload = msgpack.unpackb(encode([known]), use_list=False)
    newer = msgpack.packb((*payload, (254, "whatever", [1, 2]), (255,), payload[1]))
    assert decode(newer) == [known, Unknown(254), Unknown(255), known]


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(WireError):
        decode(b"\x91" * 100_000)


def test_too_many_are_refused() -> None:
    with pytest.raises(WireError, match="more than"):
        decode(encode([core.ReadRequest(1)] * codec.MESSAGES_MAX))
    with pytest.raises(WireError, match="at most"):
        decode(encode([core.Learn(1, (b"",) * (f.ENTRIES_MAX + 1), 1, 1)]))


class Extra(NamedTuple):
    text: str
    members: tuple[Member, ...]
    small: bytes


def test_others_register_their_messages_once() -> None:
    with pytest.raises(TypeError, match="register"):
        encode([Extra("a", (), b"")])
    readers = (f.text_to(3), f.array_of(f.member, 2), f.blob_to(2))
    with pytest.raises(AssertionError):
        codec.register(7, Extra, *readers)
    with pytest.raises(AssertionError):
        codec.register(200, Extra, *readers[1:])
    codec.register(200, Extra, *readers)
    try:
        message = Extra("abc", (Member(1, 2), Member(3, 4)), b"xy")
        assert typed(decode(encode([message]))[0]) == typed(message)
        for wrong in (
            Extra("abcd", (), b""),
            Extra(b"a", (), b""),  # type: ignore[arg-type]
            Extra("a", (Member(1, 2),) * 3, b""),
            Extra("a", (Member(-1, 2),), b""),
            Extra("a", (), b"xyz"),
        ):
            with pytest.raises(WireError, match="Extra"):
                decode(encode([wrong]))
    finally:
        del codec._codes[Extra], codec._readers[200]
