"""Frames, operations and results of the gateway link: round trips and garbage."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distkv import errors
from distkv import operations as op
from distkv.api.link import operations, results
from distkv.api.link.frames import INLINE_MAX, FrameParser, LinkError, pack
from distkv.errors import DistKVError

keys = st.binary(max_size=30)
numbers = st.integers(0, 2**62)
expiries = st.builds(op.Expiry, st.none() | numbers, st.none() | numbers, st.booleans())
conditions = st.builds(op.Condition, st.sampled_from(op.Must), numbers)
signed = st.integers(-(2**63), 2**63 - 1)
mutations = st.one_of(
    st.builds(op.Put, keys, st.binary(max_size=99), expiries, conditions, st.booleans()),
    st.builds(op.Delete, keys, conditions, st.booleans()),
    st.builds(op.Check, keys, conditions),
    st.builds(op.Expire, keys, expiries, st.sampled_from(op.ExpireMode)),
    st.builds(op.Increment, keys, signed),
    st.builds(op.IncrementFloat, keys, st.binary(max_size=20)),
    st.builds(op.Append, keys, st.binary(max_size=99)),
    st.just(op.Flush()),
)
sessions = st.none() | st.binary(min_size=12, max_size=12)
wire_operations = st.one_of(
    st.builds(op.Write, st.lists(mutations, max_size=4).map(tuple), sessions, numbers, numbers),
    st.builds(op.Get, keys, st.booleans()),
    st.builds(op.GetMany, st.lists(keys, max_size=4).map(tuple)),
    st.builds(op.Stat, st.lists(keys, max_size=4).map(tuple)),
    st.builds(op.Scan, keys, st.none() | keys, keys, st.integers(1, 10_000)),
    st.just(op.Count()),
    st.builds(op.OpenSession, st.binary(min_size=12, max_size=12)),
)


class NoUploadError(Exception):
    """Nobody has this upload."""


def no_upload(_: Any) -> Any:
    raise NoUploadError


def through_the_wire(plain: Any) -> Any:
    return msgpack.unpackb(msgpack.packb(plain), raw=False, use_list=True)


@given(wire_operations)
def test_operations_arrive_as_they_left(operation: op.Operation) -> None:
    plain = through_the_wire(operations.to_plain(operation, no_upload))
    assert operations.OperationReader(4096, no_upload).read(plain) == operation


def test_uploads_travel_as_their_number() -> None:
    upload: Any = object()
    write = op.Write((op.Put(b"k", upload), op.Put(b"l", b"small")))
    plain = through_the_wire(operations.to_plain(write, lambda _: 7))
    read: Any = operations.OperationReader(4096, lambda n: ("upload", n)).read(plain)
    assert read.mutations[0].value == ("upload", 7)
    assert read.mutations[1].value == b"small"


META = op.Meta(5, 3, None, False)


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        (op.Get(b"k"), op.Value(META, b"abc")),
        (op.Get(b"k"), None),
        (op.GetMany((b"a", b"b")), [None, op.Value(META, b"abc")]),
        (op.Stat((b"a", b"b")), [op.Meta(1, 2, 3, True), None]),
        (op.Scan(), op.Page([(b"a", META)], b"b")),
        (op.Count(), 12),
        (op.OpenSession(b"x" * 12), True),
        (
            op.Write(
                (
                    op.Put(b"k", b"v", previous=True),
                    op.Delete(b"k"),
                    op.Expire(b"k", op.NEVER),
                    op.Increment(b"n", 1),
                    op.IncrementFloat(b"n", b"1"),
                    op.Append(b"k", b"x"),
                    op.Flush(),
                )
            ),
            [
                op.Written(9, True, op.Value(META, b"abc")),
                op.Written(0, False),
                True,
                -5,
                b"1.5",
                3,
                7,
            ],
        ),
    ],
)
def test_results_arrive_as_they_left(operation: op.Operation, result: Any) -> None:
    plain = through_the_wire(results.to_plain(operation, result, no_upload))
    assert results.ResultReader(no_upload).read(operation, plain) == result


def test_large_values_become_downloads() -> None:
    value = op.Value(META, b"x" * (INLINE_MAX + 1))
    plain = through_the_wire(results.to_plain(op.Get(b"k"), value, lambda _: 9))
    read: Any = results.ResultReader(lambda n, length: (n, length)).read(op.Get(b"k"), plain)
    assert read.data == (9, META.length)


def test_every_error_keeps_its_class() -> None:
    assert len(results.ERRORS) >= 13
    for name in dir(errors):
        found = getattr(errors, name)
        if isinstance(found, type) and issubclass(found, DistKVError):
            copy = results.error_from_plain(*results.error_to_plain(found("why")))
            assert type(copy) is found
            assert str(copy) == "why"
    assert type(results.error_from_plain("of the future", "x")) is DistKVError


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=12,
)


@settings(max_examples=300)
@given(plain_values, wire_operations)
def test_wrong_shapes_are_link_errors(plain: Any, operation: op.Operation) -> None:
    for read in (
        lambda: operations.OperationReader(4096, no_upload).read(plain),
        lambda: results.ResultReader(lambda n, length: None).read(operation, plain),  # type: ignore[arg-type,return-value]
    ):
        with contextlib.suppress(LinkError, NoUploadError):
            read()


@settings(max_examples=200)
@given(wire_operations, st.integers(0, 2**32))
def test_an_operation_with_one_item_changed_is_read_or_refused(
    operation: op.Operation, seed: int
) -> None:
    rng = random.Random(seed)
    plain = through_the_wire(operations.to_plain(operation, no_upload))
    target = plain
    while isinstance(target[-1], list) and target[-1] and rng.random() < 0.7:
        target = rng.choice([x for x in target if isinstance(x, list) and x])
    target[rng.randrange(len(target))] = rng.choice(
        [None, True, -1, 2**64 - 1, b"x" * 5000, "text", [], {}, 1.5]
    )
    with contextlib.suppress(LinkError, NoUploadError):
        operations.OperationReader(4096, no_upload).read(plain)


@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(1, 7))
def test_frames_however_they_are_cut(bodies: list[bytes], step: int) -> None:
    stream = b"".join(pack([1, body]) for body in bodies)
    parser = FrameParser(1000)
    found = []
    for at in range(0, len(stream), step):
        found += parser.feed(stream[at : at + step])
    assert found == [[1, body] for body in bodies]


@settings(max_examples=300)
@given(st.lists(st.binary(min_size=1, max_size=80), max_size=5))
def test_any_bytes_are_frames_or_a_link_error(pieces: list[bytes]) -> None:
    parser = FrameParser(64)
    try:
        for piece in pieces:
            for message in parser.feed(piece):
                assert isinstance(message[0], int)
    except LinkError:
        pass


@settings(max_examples=300)
@given(st.binary(min_size=1, max_size=60))
def test_any_frame_body_is_a_message_or_a_link_error(body: bytes) -> None:
    parser = FrameParser(64)
    with contextlib.suppress(LinkError):
        parser.feed(len(body).to_bytes(4, "big") + body)


def test_a_frame_over_the_limit_is_refused_before_it_arrives() -> None:
    with pytest.raises(LinkError, match="at most 100 are taken"):
        FrameParser(100).feed(b"\x00\x00\xff\xff")
