"""What a member wants done after a turn: the member's only way to touch the world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from distkv.storage.base import StorageOperation
from distkv.transport.base import Lane


class Outgoing(NamedTuple):
    """One message to one peer."""

    ordinal: int
    lane: Lane
    stream: int
    message: object


@dataclass(slots=True)
class Output:
    """Order for the caller: write `writes` (one atomic batch), send `messages` at any time;
    once the batch is durable send `messages_after_flush` and call `member.flushed(number)`.
    `must_flush` false: nobody waits, no flush need be started for it.
    """

    number: int
    writes: list[StorageOperation] = field(default_factory=list)
    must_flush: bool = False
    messages: list[Outgoing] = field(default_factory=list)
    messages_after_flush: list[Outgoing] = field(default_factory=list)
