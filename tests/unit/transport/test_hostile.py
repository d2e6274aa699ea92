"""Any bytes: never an exception, never a state change without a valid tag."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unit.transport.world import Node, World

from distkv.transport.base import Lane
from distkv.transport.packet import (
    ACK,
    ACK_FRAME,
    BEAT,
    BEAT_FRAME,
    CREDIT,
    DATA,
    HEADER,
    HELLO,
    NONCE,
    PART,
    PART_FRAME,
    WELCOME,
    WHOLE,
    WHOLE_FRAME,
)
from distkv.transport.session import Session


def connected() -> tuple[World, Node, Node]:
    world = World(1)
    world.keep_sent = True
    one, other = world.pair()
    one.hub.set_peer(5, "nobody", world.now)
    for number in range(5):
        one.hub.send(1, Lane.CONTROL, b"hello %d" % number)
        other.hub.send(0, Lane.BULK, bytes(5_000))
        world.spend(0.02)
    one.hub.on_timer(world.now)  # a greeting to nobody is under way
    return world, one, other


WORLD, ONE, OTHER = connected()


def state(value: Any, depth: int = 0) -> Any:
    """Everything reachable from a hub, except what counts forgeries and suspicions."""
    if isinstance(value, (int, float, str, bytes, type(None))):
        return value
    if isinstance(value, dict):
        return {repr(k): state(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)) or type(value).__name__ == "deque":
        return [state(v, depth + 1) for v in value]
    if not type(value).__module__.startswith("distkv.transport") or depth > 8:
        return type(value).__name__
    names = getattr(value, "__slots__", None) or vars(value)
    return {
        name: state(getattr(value, name), depth + 1)
        for name in names
        if name not in ("_forged", "_duplicates", "_handler", "moved")
    }


def unchanged_by(datagram: bytes) -> None:
    ONE.handler.suspicions.clear()
    messages = len(ONE.handler.messages)
    before = state(ONE.hub)
    for source in ("node-1", "somewhere else"):
        ONE.hub.receive(memoryview(datagram), source, WORLD.now)
    assert state(ONE.hub) == before
    assert len(ONE.handler.messages) == messages


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
@example(b"")
@example(bytes([HELLO]) + bytes(150))
@example(bytes([WELCOME]) + bytes(150))
@example(bytes([HELLO, 1]) + bytes(150))
@example(bytes([DATA]) * 65_507)
def test_any_bytes(datagram: bytes) -> None:
    unchanged_by(datagram)


@given(st.sampled_from([HELLO, WELCOME, DATA, DATA | 1]), st.binary(max_size=180))
@settings(max_examples=300, deadline=None)
def test_bytes_for_the_right_connection(kind: int, rest: bytes) -> None:
    session = ONE.hub._peers[1].session
    assert session is not None
    unchanged_by(bytes([kind]) + session.local.to_bytes(4, "big") + rest)
    name = ONE.hub._keys.current.name
    unchanged_by(bytes([kind, 1]) + name + rest)
    dial = ONE.hub._peers[5].dial
    assert dial is not None
    unchanged_by(bytes([kind, 1]) + dial.connection.to_bytes(4, "big") + rest)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(1, 255), st.booleans())
@settings(max_examples=300, deadline=None)
def test_true_datagrams_with_one_byte_changed(which: int, where: int, by: int, cut: bool) -> None:
    OTHER.hub.send(0, Lane.CONTROL, b"a message not yet delivered")
    fresh = OTHER.hub._peers[0].session
    assert fresh is not None
    sent = [d for _, _, target, d in WORLD.sent if target == "node-0"]
    sent += [d for d in fresh.transmit(WORLD.now) if d[0] & DATA]
    datagram = bytearray(sent[which % len(sent)])
    datagram[where % len(datagram)] ^= by
    if datagram[0] & DATA:  # a data datagram of an unknown kind is one with other flags
        unchanged_by(bytes(datagram[: -(1 + where % 20)] if cut else datagram))


def sealed(session: Session, plain: bytes) -> bytes:
    """What the holder of the keys could send to us."""
    recovery = session._recovery
    number = recovery.next_number
    recovery.next_number += 1
    header = HEADER.pack(DATA, session._remote, number & 0xFFFFFFFF)
    return header + session._seal.encrypt(NONCE.pack(number), plain, header)


@given(
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 0x10, 0x11, 0x12, 9, 255]), max_size=6),
    st.binary(max_size=80),
)
@settings(max_examples=200, deadline=None)
def test_authentic_nonsense_is_no_exception(kinds: list[int], filler: bytes) -> None:
    world = World(2)
    one, other = world.pair()
    session = other.hub._peers[0].session
    assert session is not None
    generator = random.Random(len(filler))
    plain = b"".join(bytes([kind]) + generator.randbytes(20) + filler for kind in kinds) + filler
    one.hub.receive(sealed(session, plain), other.address, world.now)
    world.spend(0.01)


@pytest.mark.parametrize(
    "plain",
    [
        ACK_FRAME.pack(ACK, 100_000, 0, 0, 0),
        ACK_FRAME.pack(ACK, 3, 0, 60_000, 0),
        ACK_FRAME.pack(ACK, 3, 0, 0, 9),
        WHOLE_FRAME.pack(WHOLE, 0, 0, 1_000) + b"short",
        WHOLE_FRAME.pack(WHOLE, 0x80, 0, 1) + b"x",
        PART_FRAME.pack(PART, 0, 0, 10, 8, 4) + b"past",
        PART_FRAME.pack(PART, 0, 0, 1 << 31, 0, 4) + b"huge",
        bytes([CREDIT]) + b"cut",
        BEAT_FRAME.pack(BEAT, 1_000) + b"short",
        b"\x77",
    ],
    ids=[
        "future-ack",
        "ack-below-zero",
        "cut-ack",
        "cut-message",
        "third-lane",
        "piece-outside",
        "huge-message",
        "cut-credit",
        "cut-beat",
        "unknown-frame",
    ],
)
def test_a_peer_that_breaks_the_protocol_is_reported_and_cut_off(plain: bytes) -> None:
    world = World(3)
    one, other = world.pair()
    session = other.hub._peers[0].session
    assert session is not None
    one.hub.receive(sealed(session, plain), other.address, world.now)
    assert one.handler.kinds() == {"protocol_error"}
    assert one.hub.connected(1) is None
    assert not one.handler.messages
