"""What a replica wants done: the only way the consensus core touches the world."""

from __future__ import annotations

from dataclasses import dataclass, field

from distkv.core.messages import Message
from distkv.storage.base import StorageOperation


@dataclass(slots=True)
class Ready:
    """One turn's output.

    Order for the caller: hand `writes` to the engine as one atomic batch (with whatever
    else it writes in this turn); send `messages` at any time; once everything written up
    to here is *durable*, send `messages_after_flush` and call `replica.persisted(number)`.
    Numbers grow by one; a flush that covers number n covers all before it. If
    `must_flush` is false nobody waits for these writes and no flush need be started.
    `reads`: (token, index) of confirmed reads: serve once the state machine applied
    `index`; index -1: could not be confirmed, ask again.
    `beats`: messages for any time that may get lost: heartbeats and their answers.
    """

    number: int
    writes: list[StorageOperation] = field(default_factory=list)
    must_flush: bool = False
    messages: list[tuple[int, Message]] = field(default_factory=list)
    messages_after_flush: list[tuple[int, Message]] = field(default_factory=list)
    reads: list[tuple[int, int]] = field(default_factory=list)
    beats: list[tuple[int, Message]] = field(default_factory=list)
