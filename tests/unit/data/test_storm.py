"""Many values through a network that loses, delays and cuts: what is acknowledged survives
any f wiped disks at that very instant, and what is not needed goes."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from unit.data.world import World, sample

from distkv.coding.layout import stripe_count
from distkv.data import rows
from distkv.data.messages import ShardPiece, ShardStored
from distkv.data.ports import Addressed, Dispersed
from distkv.data.repair import RepairLimits
from distkv.data.shards import KeeperLimits, ShardKeeper
from distkv.errors import DistKVError
from distkv.ids import Member
from distkv.storage.base import Table


def durable_shards(world: World, value: Dispersed) -> list[int]:
    """Shard number that each node holds durably and whole, -1 for none."""
    shards = []
    for node in world.nodes:
        table = node.engine.durable[Table.SHARD]
        count = stripe_count(value.length, value.code.stripe_bytes)
        found = [table.get(rows.piece_key(value.value_id, stripe)) for stripe in range(count)]
        shards.append(rows.unpack_piece(found[0]).shard if all(found) and found[0] else -1)
    return shards


def survives(world: World, value: Dispersed) -> bool:
    """Decodable whichever f disks are lost."""
    shards = durable_shards(world, value)
    f = world.configuration.failures
    for lost in combinations(range(len(shards)), f):
        left = {s for i, s in enumerate(shards) if i not in lost and s >= 0}
        if len(left) < value.code.data_shards:
            return False
    return True


def storm(seed: int, k: int, m: int) -> tuple[World, int, list[object]]:
    world = World(
        k,
        m,
        seed=seed,
        keeper=KeeperLimits(grace_seconds=1.0),
        repair=RepairLimits(pass_seconds=1.0, settle_seconds=0.2),
    )
    chance, f, n = random.Random(seed), world.configuration.failures, k + m
    world.capacity = chance.choice([3000, 20_000, 1 << 30])
    world.delay = lambda a, b, message: chance.choice([0.0005, 0.001, 0.004, 0.05])
    silent: list[int] = []
    world.lost = lambda a, b, message: a in silent or b in silent
    for node in world.nodes:
        node.flush_seconds = lambda: chance.choice([0.0005, 0.002, 0.03])
        node.plane.repairer.start()
    dead: list[int] = []
    values: dict[bytes, bytes] = {}
    acknowledged, trace = 0, []
    for number in range(40):
        action = chance.random()
        if action < 0.15 and len(dead) + len(silent) < f:
            dead.append(chance.choice([i for i in range(n) if i not in dead + silent]))
            world.kill(dead[-1])
        elif action < 0.3 and dead:
            back = dead.pop()
            world.restart(back)
            catch_up(world, back, next(i for i in range(n) if i not in [*dead, back]))
            world.nodes[back].plane.repairer.start()
        elif action < 0.4 and len(dead) + len(silent) < f:
            silent.append(chance.choice([i for i in range(n) if i not in dead + silent]))
        elif action < 0.6 and silent:
            silent.pop()
        at = chance.choice([i for i in range(n) if i not in dead + silent])
        key, value = b"k%d" % chance.randrange(4), sample(chance.randrange(65, 9000), number)
        dispersal = world.nodes[at].plane.disperser.disperse(value)
        try:
            result = world.wait(dispersal.outcome(world.kernel.now + 5.0), 10.0)
        except DistKVError as error:
            trace.append((number, error.code))
            world.step(0.2)
            continue
        assert survives(world, result), (seed, number, durable_shards(world, result))
        acknowledged += 1
        trace.append((number, result.value_id, result.code.data_shards, round(world.kernel.now, 6)))
        world.put(key, result)
        dispersal.close()
        values[key] = value
        if chance.random() < 0.5:
            asked = chance.choice(list(values))
            reader = chance.choice([i for i in range(n) if i not in dead + silent])
            assert world.read(asked, reader) == values[asked], (seed, number)
    silent.clear()
    for back in dead:
        world.restart(back)
        catch_up(world, back, next(i for i in range(n) if i not in dead))
        world.nodes[back].plane.repairer.start()
    finish(world, values)
    return world, acknowledged, trace


def catch_up(world: World, ordinal: int, source: int) -> None:
    """A node that was away learns the log (here: takes over another's applied state)."""
    state, other = world.nodes[ordinal].state, world.nodes[source].state
    events = []
    for key in list(state.records):
        if state.records[key] != other.records.get(key):
            events += state.put(key, None)
    for key, record in other.records.items():
        if key not in state.records:
            events += state.put(key, record)
    state.applied = other.applied
    world.nodes[ordinal].plane.apply_events(events)


def finish(world: World, values: dict[bytes, bytes]) -> None:
    """Faults are over: every shard is where it belongs, and nothing else."""
    world.step(5.0)
    for node in world.nodes:
        disperser = node.plane.disperser
        world.settle(node.member.incarnation, node.boot, disperser.settled_counter)
        world.boot(node.member.incarnation, node.boot)
        assert node.plane.budget.used == 0
    names = sorted(world.nodes[0].state.names)

    def clean() -> bool:
        for node in world.nodes:
            held = [rows.value_of(key) for key in node.held() if key[:1] == b"\xff"]
            if held != names or node.plane.keeper.pending:
                return False
            for value_id in names:
                record = node.state.record(node.state.names[value_id])
                assert record is not None
                if node.plane.repairer.lacking(value_id, record):
                    return False
            assert node.plane.repairer.missing == 0
        return True

    world.until(clean, 40.0, grain=0.25)
    for key, value in values.items():
        for node in world.nodes:
            assert world.read(key, node.member.ordinal) == value


MIXES = [(k, m, seed) for k, m in [(3, 2), (2, 1), (1, 2), (2, 3), (1, 0)] for seed in range(4)]
FOUND = [(2, 3, 111), (3, 2, 130)]
"""Reads waited too long for a member that was silent."""


@pytest.mark.parametrize(("k", "m", "seed"), MIXES + FOUND)
def test_storm(k: int, m: int, seed: int) -> None:
    _, acknowledged, _ = storm(seed, k, m)
    assert acknowledged >= 20


def test_the_same_seed_gives_the_same_trace() -> None:
    first, second = storm(3, 3, 2), storm(3, 3, 2)
    assert first[2] == second[2]
    assert len(first[0].traffic) == len(second[0].traffic)


def storms(seeds: int) -> None:
    for seed in range(seeds):
        storm(seed, 3, 2)


LOST = r"\(\d+, \d+, \["
"""The message of the check that a value survives."""


def test_the_checker_notices_one_acknowledgement_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A majority instead of k_e + f, and this world must object."""
    monkeypatch.setattr("distkv.data.attempt.Attempt.need", property(lambda attempt: 3))
    with pytest.raises(AssertionError, match=LOST):
        storms(20)


def test_the_checker_notices_an_acknowledgement_before_the_flush(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take = ShardKeeper._take

    def at_once(self: ShardKeeper, sender: Member, piece: ShardPiece, named: bool) -> None:
        take(self, sender, piece, named)
        while self._stored:
            ordinal, value_id = self._stored.pop()
            self._replies.append(Addressed(ordinal, 0, ShardStored(value_id, piece.shard)))

    monkeypatch.setattr(ShardKeeper, "_take", at_once)
    with pytest.raises(AssertionError, match=LOST):
        storms(10)


def test_the_checker_notices_shards_that_are_never_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ShardKeeper, "_sweep", lambda self: None)
    monkeypatch.setattr(ShardKeeper, "on_dropped", lambda self, sender, message: None)
    with pytest.raises(AssertionError, match="not met in time"):
        storms(10)
