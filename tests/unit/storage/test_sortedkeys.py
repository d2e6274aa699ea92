"""Sorted keys against a plain sorted list, snapshots included."""

from __future__ import annotations

import random

import pytest

from distkv.storage import sortedkeys
from distkv.storage.sortedkeys import SortedKeys


@pytest.mark.parametrize("seed", range(60))
def test_like_a_sorted_list(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(sortedkeys, "CHUNK_KEYS", rng.choice([1, 2, 5, 16]))
    space = rng.choice([20, 300])
    model = {b"%03d" % rng.randrange(space) for _ in range(rng.randrange(space))}
    keys = SortedKeys(model)
    snapshots: list[tuple[SortedKeys, list[bytes]]] = []
    for _ in range(400):
        key, other = b"%03d" % rng.randrange(space), b"%03d" % rng.randrange(space)
        chance = rng.random()
        if chance < 0.4 and key not in model:
            model.add(key)
            keys.add(key)
        elif chance < 0.7 and key in model:
            model.remove(key)
            keys.remove(key)
        elif chance < 0.75:
            removed = sorted(k for k in model if key <= k < other)
            assert keys.remove_range(key, other) == removed
            model.difference_update(removed)
        elif chance < 0.8:
            snapshots.append((keys.snapshot(), sorted(model)))
        limit = rng.randrange(30)
        end = other if rng.random() < 0.7 else None
        expected = sorted(k for k in model if k >= key and (end is None or k < end))
        assert keys.range(key, end, limit) == expected[:limit]
        assert keys.range(b"", None, 1000) == sorted(model)
    for snapshot, then in snapshots:
        assert snapshot.range(b"", None, 1000) == then


def test_chunks_stay_short_whatever_the_order() -> None:
    forwards, backwards, shuffled = SortedKeys(), SortedKeys(), SortedKeys()
    numbers = list(range(20_000))
    for number in numbers:
        forwards.add(number.to_bytes(8, "big"))
        backwards.add((20_000 - number).to_bytes(8, "big"))
    random.Random(1).shuffle(numbers)
    for number in numbers:
        shuffled.add(number.to_bytes(8, "big"))
    for keys in (forwards, backwards, shuffled):
        lengths = [len(chunk) for chunk in keys._chunks]
        assert sum(lengths) == 20_000
        assert max(lengths) < 2 * sortedkeys.CHUNK_KEYS
        assert len(lengths) <= 2 * 20_000 // sortedkeys.CHUNK_KEYS
