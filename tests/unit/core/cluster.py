"""Replicas in one process without faults: messages by hand, flushes when the test says."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import msgpack

from distkv.core import entries
from distkv.core.configuration import Configuration
from distkv.core.messages import Message
from distkv.core.options import ReplicaOptions
from distkv.core.ready import Ready
from distkv.core.replica import Replica
from distkv.ids import Member
from distkv.simulation.core_machine import ChainMachine
from distkv.storage.memory import MemoryEngine


class Node:
    """One replica with its disk. `applied`: entries in order of slots."""

    def __init__(self, member: Member, genesis: Configuration, options: ReplicaOptions) -> None:
        self.member = member
        self.genesis = genesis
        self.options = options
        self.engine = MemoryEngine()
        self.start()

    def start(self) -> None:
        self.applied: list[bytes] = []
        self.machine = ChainMachine(
            self.genesis, self.engine, lambda slot, entry: self.applied.append(entry)
        )
        self.replica = Replica(
            self.member, self.machine, self.engine, self.options, random.Random(self.member.ordinal)
        )
        self.reads: list[tuple[int, int]] = []
        self.unflushed: list[Ready] = []

    def drain(self) -> list[tuple[int, Message]]:
        """Take every Ready, write it, flush nothing; returns what may leave at once."""
        sent: list[tuple[int, Message]] = []
        while (ready := self.replica.ready()) is not None:
            self.engine.write(ready.writes + self.machine.drain_writes())
            self.unflushed.append(ready)
            self.reads += ready.reads
            sent += ready.messages + ready.beats
        return sent

    def flush(self) -> list[tuple[int, Message]]:
        """Everything drained becomes durable; returns what waited for that."""
        self.engine.flush()
        sent: list[tuple[int, Message]] = []
        for ready in self.unflushed:
            sent += ready.messages_after_flush
        if self.unflushed:
            self.replica.persisted(self.unflushed[-1].number)
        self.unflushed = []
        return sent

    def crash(self, rng: random.Random) -> None:
        """Power loss with all that was not flushed, and restart."""
        self.engine = self.engine.crash(rng, torn=False)
        self.start()


class Cluster:
    """`cut`: ordinals that neither send nor receive. `drop(sender, to, message)` filters."""

    def __init__(self, k: int, m: int, extra: int = 0, **options: int) -> None:
        members = tuple(Member(i, 100 + i) for i in range(k + m))
        self.configuration = Configuration(1, k, m, members)
        self.options = replace(ReplicaOptions(), **options)
        self.nodes = [Node(member, self.configuration, self.options) for member in members]
        self.cut: list[int] = []
        self.drop: Callable[[int, int, Message], bool] = lambda sender, to, message: False
        self.wall = 0

    def settle(self) -> None:
        """Exchange messages and flush until nothing is left to do."""
        busy = True
        while busy:
            busy = False
            for node in list(self.nodes):
                sent = node.drain()
                if node.unflushed:
                    busy = True
                    sent += node.flush()
                for ordinal, message in sent:
                    self.deliver(node, ordinal, message)

    def deliver(self, node: Node, ordinal: int, message: Message) -> None:
        sender = node.member.ordinal
        if sender in self.cut or ordinal in self.cut or self.drop(sender, ordinal, message):
            return
        for other in self.nodes:
            if other.member.ordinal == ordinal and other is not node:
                other.replica.step(node.member, message)

    def tick(self, ticks: int = 1) -> None:
        for _ in range(ticks):
            self.wall += self.options.tick
            for node in self.nodes:
                node.replica.tick(self.wall)
            self.settle()

    def leaders(self) -> list[Node]:
        return [n for n in self.nodes if n.replica.is_leader and n.member.ordinal not in self.cut]

    def elect(self) -> Node:
        """Tick until exactly one node leads."""
        for _ in range(500):
            self.tick()
            if len(self.leaders()) == 1:
                self.tick(6)  # a heartbeat tells everybody what is chosen
                return self.leaders()[0]
        raise AssertionError([n.replica.status() for n in self.nodes])

    def followers(self) -> list[Node]:
        return [n for n in self.nodes if not n.replica.is_leader]


def commands(node: Node) -> list[bytes]:
    found: list[bytes] = []
    for entry in node.applied:
        if entry[0] == entries.BATCH:
            found += msgpack.unpackb(entry[entries.HEADER_BYTES :])
    return found
