"""What a hub remembers of each seat and of the greetings under way."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from distkv.transport.base import Identity
from distkv.transport.connection import Parameters, Statistics
from distkv.transport.handshake import Greeting
from distkv.transport.keys import ClusterKey
from distkv.transport.session import Session

Address = Hashable


class Dial:
    """A greeting under way."""

    __slots__ = ("attempt", "connection", "deadline", "hello", "key", "started")

    def __init__(self, connection: int, hello: bytes, key: ClusterKey, attempt: int) -> None:
        self.connection = connection
        self.hello = hello
        self.key = key
        self.attempt = attempt
        self.started = self.deadline = 0.0


class Peer:
    """What is known of a seat. `incarnation`, `boot`: of its last confirmed connection."""

    __slots__ = (
        "address",
        "attempts",
        "boot",
        "dial",
        "dial_at",
        "half_open",
        "incarnation",
        "ordinal",
        "session",
        "wanted",
    )

    def __init__(self, ordinal: int) -> None:
        self.ordinal = ordinal
        self.address: Address | None = None
        self.wanted = False
        self.session: Session | None = None
        self.half_open: HalfOpen | None = None
        self.dial: Dial | None = None
        self.dial_at = 0.0
        self.attempts = 0
        self.incarnation = -1
        self.boot = -1


class HalfOpen(NamedTuple):
    """An incoming connection whose initiator has proved nothing yet."""

    session: Session
    peer: Peer
    address: Address
    key: ClusterKey
    deadline: float


class PeerStatistics(NamedTuple):
    """One line for each connection."""

    peer: Identity
    address: Address
    connection: Statistics


def parameters(local: int, greeting: Greeting) -> Parameters:
    """Of a connection `local` with the node that greeted so."""
    return Parameters(
        local,
        greeting.connection,
        greeting.control_credit,
        greeting.bulk_credit,
        greeting.socket_buffer,
    )
