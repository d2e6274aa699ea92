"""Interface of the reliable UDP transport, as the rest of the node sees it."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, Protocol


class Lane(IntEnum):
    """Control always goes ahead of bulk.

    A beat is lost if the network loses it, and is in no order: for what is said again anyway.
    Nobody acknowledges it, so a heartbeat and its answer are two datagrams and no timer.
    """

    CONTROL = 0
    BULK = 1
    BEAT = 2


STREAMS = 64
"""Streams per lane: messages of one stream arrive in order, streams do not wait for each other."""


UNKNOWN_GENERATION = -1
"""Of a directory that has not learnt of the cluster yet: every generation takes it in."""


class Identity(NamedTuple):
    """Who speaks. `ordinal` is the seat it claims; `boot` counts starts of this directory.

    Nodes of different generations (see a member's forced recovery) refuse each other.
    """

    cluster: bytes
    generation: int
    ordinal: int
    incarnation: int
    boot: int


class Handler(Protocol):
    """Callbacks of an endpoint, all in the loop's thread."""

    def on_message(self, peer: Identity, lane: Lane, payload: bytes) -> None:
        """One message, once, in order of its stream within this connection."""

    def on_peer_up(self, peer: Identity) -> None:
        """A new connection to `peer` is established (both sides proved the key)."""

    def on_peer_down(self, peer: Identity, reason: str) -> None:
        """The connection is gone; messages not yet delivered are lost."""

    def on_drained(self, ordinal: int, lane: Lane) -> None:
        """A queue that had refused a message has room again."""

    def on_suspicion(self, source: str, kind: str, detail: str) -> None:
        """Something only a faulty or hostile peer does (bad tag, foreign cluster, ...)."""

    def on_turn(self) -> None:
        """All datagrams of this wake-up were delivered: drain outputs now, they are sent next."""


class Transport(Protocol):
    """What the member's adapter needs of an endpoint."""

    def send(self, ordinal: int, lane: Lane, payload: bytes, stream: int = 0) -> bool:
        """Queue for the peer at `ordinal`. False: no connection, or its bounded queue is full."""

    def queued(self, ordinal: int, lane: Lane) -> int:
        """Bytes queued or in flight to that peer on that lane."""

    def hold(self) -> None:
        """What is sent from here on waits for `flush`, which the caller promises."""

    def flush(self) -> None:
        """Let what is queued leave now, as far as it may, instead of at the end of this turn."""
