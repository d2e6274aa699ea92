"""The machine against a naive model, and against itself: any log, any crashes.

Failing logs are not shrunk (it takes minutes); they are short as they are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from unit.machine.drawn import KEYS, Entry, logs, packed
from unit.machine.model import IDLE, INLINE_MAX, LIFE, Item, Model
from unit.machine.support import CLUSTER, CONFIGURATION, MEMBERS, OWNER, rows_of

from distkv.machine import commands as c
from distkv.machine.interface import Named, Outcome, OutcomeKind, Record, Superseded
from distkv.machine.machine import Machine
from distkv.machine.membership import Options
from distkv.machine.snapshot import SnapshotSink, SnapshotSource
from distkv.storage.memory import MemoryEngine

OPTIONS = Options(INLINE_MAX, IDLE, LIFE)


class Node:
    """A machine over its own engine; `turn` is how many entries it applies per write."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.machine = Machine.found(self.engine, CLUSTER, OWNER, CONFIGURATION, OPTIONS)
        self.apply(c.entry_batch(0, [c.pack_formed(CLUSTER, OWNER)]))
        self.drain()

    def apply(self, entry: bytes) -> None:
        self.machine.apply(self.machine.applied + 1, entry)

    def drain(self) -> list[Outcome]:
        self.engine.write(self.machine.drain_writes())
        return self.machine.drain_outcomes()


def seen(value: Any) -> Any:
    """A result as the model gives it."""
    if isinstance(value, Record):
        return Item(value.version, value.expires_ms, seen_value(value))
    if isinstance(value, tuple):
        return tuple(seen(item) for item in value)
    return value


def seen_value(record: Record) -> Any:
    return record.value if record.value is not None else (record.value_id, record.holders)


def expected(value: Any) -> Any:
    """A result of the model, its values in the form of `seen`."""
    if isinstance(value, Item):
        if isinstance(value.value, c.Dispersed):
            named = value.value
            return value._replace(value=(named.value_id, named.holders))  # type: ignore[arg-type]
        return value
    if isinstance(value, tuple):
        return tuple(expected(item) for item in value)
    return value


def same(outcome: Outcome, wanted: tuple[bytes, int, str, Any]) -> None:
    session, sequence, kind, detail = wanted
    assert (outcome.session, outcome.sequence, outcome.kind.name) == (session, sequence, kind)
    if outcome.kind is OutcomeKind.APPLIED:
        assert isinstance(outcome.detail, list)
        assert [seen(result) for result in outcome.detail] == [expected(r) for r in detail]
    elif outcome.kind not in (OutcomeKind.FAILED, OutcomeKind.UNKNOWN_SESSION):
        assert outcome.detail == detail


@settings(max_examples=300, deadline=None, phases=[Phase.generate])
@given(logs())
def test_the_machine_does_what_the_model_does(log: list[Entry]) -> None:
    node, model = Node(), Model(MEMBERS)
    names: dict[Any, bytes] = {}
    for entry in log:
        outcomes = model.run(entry)
        node.apply(packed(entry))
        for outcome, wanted in zip(node.drain(), outcomes, strict=True):
            same(outcome, wanted)
        visible = {key: expected(item) for key, item in model.visible().items()}
        records = node.machine.scan(b"", None, b"", 100)
        assert {key: seen(record) for key, record in records} == visible
        assert [key for key, _ in records] == sorted(visible)
        for key in KEYS:
            assert seen(node.machine.record(key)) == visible.get(key)
        assert node.machine.count() == len(visible)
        assert node.machine.keyspace.revision == model.revision
        assert node.machine.configuration.members == tuple(model.members)
        for event in node.machine.drain_events():
            if isinstance(event, Named):
                names[event.value_id] = event.key
            elif isinstance(event, Superseded):
                del names[event.value_id]
        coded = {
            item.value.value_id: key
            for key, item in model.items.items()
            if isinstance(item.value, c.Dispersed)
        }
        assert {value_id: node.machine.key_of(value_id) for value_id in coded} == coded
        assert names == coded, "events tell exactly which values are named"
        assert node.machine.membership.records == {1: len(coded)}


@settings(max_examples=150, deadline=None, phases=[Phase.generate])
@given(logs(), st.data())
def test_crashes_and_turns_change_nothing(log: list[Entry], draw: st.DataObject) -> None:
    """Entry by entry without a crash, or many in a turn with crashes and a snapshot: equal."""
    steady, shaken = Node(), Node()
    outcomes: list[Outcome] = []
    entries = [packed(entry) for entry in log]
    for entry in entries:
        steady.apply(entry)
        outcomes += steady.drain()
    told: list[Outcome] = []
    position = 0
    base = shaken.machine.applied
    while position < len(entries):
        action = draw.draw(st.sampled_from(["turn", "crash", "reload", "move"]))
        for entry in entries[position : position + draw.draw(st.integers(1, 4))]:
            shaken.apply(entry)
        if action == "crash":
            # The turn is lost before it was written: its entries are applied again.
            shaken.machine = Machine.load(shaken.engine)
            action = "turn" if shaken.machine.applied < base + len(entries) else action
            shaken.apply(entries[shaken.machine.applied - base])
        told += shaken.drain()
        position = shaken.machine.applied - base
        if action == "reload":
            shaken.machine = Machine.load(shaken.engine)
        if action == "move":
            moved(shaken)
    assert told == outcomes
    assert rows_of(shaken.engine) == rows_of(steady.engine)


def moved(node: Node) -> None:
    """Go on from a snapshot in another engine."""
    engine = MemoryEngine()
    source, sink = SnapshotSource(node.engine.view(), 300), SnapshotSink()
    engine.write(sink.begin(0))
    while not sink.done:
        piece = source.piece(sink.number)
        assert piece is not None
        engine.write(sink.take(piece[0]))
    node.engine = engine
    node.machine = Machine.load(engine)


SCRIPT = """
import hashlib, random
from unit.machine.support import World, rows_of
from distkv.machine import commands as c
from distkv.core.configuration import Configuration
from distkv.ids import Member
from distkv.operations import *

world = World()
chance = random.Random(7)
digest = hashlib.sha256()
for turn in range(300):
    world.now += chance.randrange(50)
    key = b"k%d" % chance.randrange(20)
    packed = []
    for i in range(chance.randrange(1, 5)):
        session = b"gateway-%04d" % chance.randrange(30)
        expiry = Expiry(after_ms=chance.randrange(1, 900))
        put = Put(key + b"%d" % i, b"v" * chance.randrange(50), expiry)
        packed.append(c.pack_open(session))
        packed.append(c.pack_write(session, turn, 0, False, c.wire_mutations([put, Delete(key)])))
        once = b"\\0Konce-%05d" % chance.randrange(99)
        packed.append(c.pack_write(once, 1, 0, True, c.wire_mutations([Increment(b"n", 1)])))
    packed.append(c.pack_tick())
    outcomes = world.commands(*packed)
    world.write_raw(*c.wire_mutations([Put(key, b"")], {0: world.dispersed()}))
    if turn % 50 == 49:
        world.write(Flush())
    digest.update(repr((outcomes, world.take_events())).encode())
members = tuple(Member(i, 500 + i) for i in range(5))
for i in range(1, 5):
    world.entry(c.entry_configuration(0, c.change_replace("owner-one", i, 100 + i, 500 + i)))
digest.update(repr(rows_of(world.engine)).encode())
print(digest.hexdigest())
"""


def test_equal_under_two_hash_seeds() -> None:
    root = Path(__file__).resolve().parents[3]
    digests = []
    for seed in ("1", "77"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join([str(root / "node"), str(root / "tests")]),
        }
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        digests.append(done.stdout.strip())
    assert len(digests[0]) == 64
    assert digests[0] == digests[1]
