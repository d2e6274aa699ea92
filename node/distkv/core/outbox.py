"""The `Ready` in the making: what this turn wrote and wants sent."""

from __future__ import annotations

from distkv.core.messages import Message
from distkv.core.ready import Ready
from distkv.storage.base import StorageOperation


class Outbox:
    """`number` is that of the next Ready: what is written now is durable with it."""

    __slots__ = ("after_flush", "beats", "messages", "must_flush", "number", "reads", "writes")

    def __init__(self) -> None:
        self.number = 1
        self.writes: list[StorageOperation] = []
        self.must_flush = False
        self.messages: list[tuple[int, Message]] = []
        self.after_flush: list[tuple[int, Message]] = []
        self.beats: list[tuple[int, Message]] = []
        self.reads: list[tuple[int, int]] = []

    def send(self, ordinal: int, message: Message) -> None:
        """At any time."""
        self.messages.append((ordinal, message))

    def beat(self, ordinal: int, message: Message) -> None:
        """At any time; it may be lost, for it is said again."""
        self.beats.append((ordinal, message))

    def send_after_flush(self, ordinal: int, message: Message) -> None:
        """Only once everything written up to the end of this turn is durable."""
        self.must_flush = True
        self.after_flush.append((ordinal, message))

    @property
    def empty(self) -> bool:
        """Nothing to hand out."""
        return not (
            self.messages
            or self.beats
            or self.writes
            or self.after_flush
            or self.reads
            or self.must_flush
        )

    def take(self) -> Ready:
        """Hand out and begin the next."""
        ready = Ready(
            self.number,
            self.writes,
            self.must_flush,
            self.messages,
            self.after_flush,
            self.reads,
            self.beats,
        )
        self.number += 1
        self.writes, self.must_flush = [], False
        self.messages, self.after_flush, self.reads, self.beats = [], [], [], []
        return ready
