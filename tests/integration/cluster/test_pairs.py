"""Every pair of nodes, killed and with both disks wiped at once, under load.

Two is f of 3 + 2: all that the cluster promises to bear. Afterwards the two are new members
that hold every shard again, every acknowledged value is right through every node, and the
status says that two may go once more.
"""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

import pytest
from integration.cluster.harness import Cluster, wait_until
from integration.cluster.load import Load

PAIRS = list(combinations(range(5), 2))
SIZES = (0, 100, 4097, 20_000, 150_000)

OF_A_QUICK_START = ("seat_taken",)
"""Who is back with a new directory before its predecessor has been silent for two pings is
refused its seat until then, and that is counted. Half the rounds start the pair at once."""


def is_green(cluster: Cluster) -> bool:
    """All nodes agree that nothing is missing and that two nodes, and disks, may go."""
    statuses = cluster.statuses()
    if len(statuses) < cluster.size:
        return False
    whole = {"available": 2, "durable": 2, "durable_if_silent_return": 2}
    return all(
        status["serving"]
        and status["cluster_view"]["shards_missing"] == 0
        and status["cluster_view"]["survives"] == whole
        for status in statuses.values()
    )


def shown(cluster: Cluster) -> dict[int, Any]:
    """What is not green, for the report."""
    return {
        ordinal: (status["state"], status["cluster_view"])
        for ordinal, status in cluster.statuses().items()
    }


def lose_both(cluster: Cluster, pair: tuple[int, int], load: Load, rng: random.Random) -> None:
    """Kill and wipe the pair at a random instant, bring it back, and have it admitted."""
    load.progress(rng.randrange(5, 60))
    old = {ordinal: cluster.incarnation(ordinal) for ordinal in pair}
    cluster.kill(*pair)
    for ordinal in pair:
        cluster.wipe(ordinal)
    if rng.random() < 0.5:
        load.progress(rng.randrange(1, 40))
    order = list(pair)
    rng.shuffle(order)
    cluster.start(*order)
    for ordinal in order:
        cluster.replace(ordinal, old[ordinal])
    load.progress(rng.randrange(1, 40))


def rounds(pair: tuple[int, int], count: int) -> None:
    """Lose the pair `count` times, on one cluster; check after each time."""
    seed = random.SystemRandom().getrandbits(32)
    rng = random.Random(seed)
    with Cluster() as cluster:
        for number in range(count):
            try:
                with Load(cluster, clients=6, sizes=SIZES, name=str(number), pause=0.02) as load:
                    lose_both(cluster, pair, load, rng)
                wait_until(lambda: is_green(cluster), "the cluster to be whole again")
                load.check(*cluster.nodes)
            except (AssertionError, OSError) as error:
                raise AssertionError(
                    f"pair {pair}, round {number}, seed {seed}: {error}\n"
                    f"{shown(cluster)}\n{cluster.logs()}"
                ) from error
        suspicions = {
            o: [s for s in status["suspicions"] if s["kind"] not in OF_A_QUICK_START]
            for o, status in cluster.statuses().items()
        }
        assert not any(suspicions.values()), suspicions


@pytest.mark.parametrize("pair", [(0, 1), (2, 4)], ids=str)
def test_a_pair_loses_its_disks(pair: tuple[int, int]) -> None:
    rounds(pair, 1)


def test_the_leader_and_another_one_lose_their_disks(cluster: Cluster) -> None:
    rng = random.Random(12)
    with Load(cluster, clients=6, sizes=SIZES) as load:
        leader = cluster.leader()
        lose_both(cluster, (leader, (leader + 1) % 5), load, rng)
    wait_until(lambda: is_green(cluster), "the cluster to be whole again")
    load.check(*cluster.nodes)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_every_pair_twenty_times(pair: tuple[int, int]) -> None:
    rounds(pair, 20)
