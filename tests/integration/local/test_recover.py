"""A cluster of 2 + 3 loses three disks: shards are left, a quorum is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from integration.local.cluster import Cluster, until

Make = Callable[[int, int], Cluster]

FIRST, SECOND = 1, 3
"""The nodes that are left; the second was down when the last keys were written."""


def value_of(key: str) -> bytes:
    block = hashlib.sha256(key.encode()).hexdigest().encode()
    return block * (300 if key.startswith("large") else 1)


def put(cluster: Cluster, *keys: str) -> None:
    for key in keys:
        cluster.kv("set", key, value_of(key).decode())


def test_three_of_five_disks_are_lost_and_the_rest_goes_on(make: Make) -> None:
    cluster = make(2, 3)
    cluster.up()
    whole = [f"large-{i}" for i in range(12)] + ["small-1", "small-2"]
    put(cluster, *whole)
    until("all shards", lambda: {n["shards"] for n in cluster.status()["nodes"]} == {12})
    cluster.local("kill", str(SECOND))
    until("the others to see it", lambda: cluster.status()["nodes"][SECOND]["process"] == "down")
    late = ["large-late", "small-late"]

    def late_has_two_data_shards() -> bool:
        """A value written while nodes are too busy to answer may get one: then once more."""
        put(cluster, *late)
        return bool(cluster.status()["under_coded"] == 0)

    until("the late value with k = 2", late_has_two_data_shards)
    until("FIRST to hold it", lambda: (cluster.node(FIRST)["shards"] or 0) == 13)
    lost_nodes = [o for o in range(5) if o not in (FIRST, SECOND)]
    for ordinal in lost_nodes:
        cluster.local("kill", str(ordinal))
        cluster.local("wipe", str(ordinal))
    cluster.local("start", str(SECOND), "--no-wait")
    until("no quorum", lambda: cluster.node(FIRST)["state"] == "no quorum")
    assert "the cluster runs" in cluster.local("recover", code=1)
    cluster.local("down")

    findings = json.loads(cluster.local("recover", "--json").split("nothing was changed")[0])
    assert findings["survivors"] == [FIRST, SECOND]
    assert findings["lost_ordinals"] == lost_nodes
    assert (findings["keys"], findings["keys_lost"]) == (16, 1)
    assert findings["lost"] == ["large-late"]
    said = cluster.local("recover")
    assert "nothing was changed" in said
    assert "large-late" in said
    assert "does not fit" in cluster.local("recover", "--yes", "anything", code=2)
    assert "loses-1-keys" in findings["phrase"]
    assert "done" in cluster.local("recover", "--yes", findings["phrase"])
    assert "a forced recovery is not needed" in cluster.local("recover", code=1)

    cluster.up("--port-base", str(cluster.plan.base))
    for key in [*whole, "small-late"]:
        assert cluster.kv("get", key).encode() == value_of(key)
    assert "data_lost" in cluster.kv("get", "large-late", code=1)
    put(cluster, "large-late")
    assert cluster.kv("get", "large-late").encode() == value_of("large-late")
    until("the shards to be back", lambda: cluster.status()["shards_missing"] == 0)
    # What repair gave the new nodes is enough without the old ones.
    cluster.local("kill", str(FIRST))
    cluster.local("kill", str(SECOND))
    for key in [*whole, *late]:
        assert cluster.kv("get", key).encode() == value_of(key)
