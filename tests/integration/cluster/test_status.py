"""What real nodes say of the whole cluster, whichever is asked."""

from __future__ import annotations

import os
from typing import Any

from integration.cluster.harness import Cluster, Node, wait_until


def view(node: Node) -> dict[str, Any]:
    status = node.status()
    assert status is not None
    found: dict[str, Any] = status["cluster_view"]
    return found


def survives(node: Node) -> tuple[int | None, int | None, int | None]:
    found = view(node)["survives"]
    return found["available"], found["durable"], found["durable_if_silent_return"]


def all_say(cluster: Cluster, *expected: int | None) -> None:
    def said() -> set[tuple[int | None, int | None, int | None]]:
        statuses = cluster.statuses().values()
        if len(statuses) < len(cluster.running):
            return set()
        found = [status["cluster_view"]["survives"] for status in statuses]
        return {(s["available"], s["durable"], s["durable_if_silent_return"]) for s in found}

    wait_until(lambda: said() == {expected}, f"all to say {expected}")


def test_the_budget_of_failures_is_told_by_every_node(cluster: Cluster) -> None:
    value = os.urandom(50_000)
    for number in range(10):
        assert cluster.nodes[number % 5].redis().set(f"key-{number}", value)
    all_say(cluster, 2, 2, 2)
    for node in cluster.running:
        wait_until(lambda node=node: view(node)["shards"] == 50, "all shards to be told")
        found = view(node)
        assert (found["shards_missing"], found["shards_corrupt"]) == (0, 0)
        assert [row["ordinal"] for row in found["members"]] == [0, 1, 2, 3, 4]
        assert sum(row["role"] == "leader" for row in found["members"]) == 1
        assert all(row["up"] and row["serving"] for row in found["members"])

    lost, away = cluster.followers()[:2]
    old = cluster.incarnation(lost)
    cluster.kill(lost)
    all_say(cluster, 1, 1, 2)
    assert view(cluster.nodes[away])["shards_missing"] is None
    cluster.kill(away)
    all_say(cluster, 0, 0, 2)
    cluster.start(away)
    cluster.wipe(lost)
    cluster.start(lost)
    voters = [node for node in cluster.running if node.ordinal != lost]
    wait_until(
        lambda: all(survives(node) == (1, 1, 1) for node in voters), "the lost disk to be counted"
    )
    found = view(voters[0])
    assert found["shards_missing"] == 10
    row = found["members"][lost]
    assert (row["up"], row["disk_lost"], row["shards"], row["incarnation"]) == (False, True, 0, old)
    metrics = voters[0].request("GET", "/metrics").body.decode()
    assert "distkv_cluster_survives_durable 1.0" in metrics
    assert "distkv_cluster_shards_missing 10.0" in metrics

    cluster.replace(lost, old)
    all_say(cluster, 2, 2, 2)
    assert view(cluster.nodes[lost])["members"][lost]["repair_bytes_done"] >= 10 * (50_000 // 3)
    assert not any(status["suspicions"] for status in cluster.statuses().values())


def test_a_node_without_a_quorum_does_not_guess(cluster: Cluster) -> None:
    assert cluster.nodes[0].redis().set("key", os.urandom(50_000))
    all_say(cluster, 2, 2, 2)
    cluster.kill(0, 1, 2)
    all_say(cluster, None, None, None)


def number(node: Node, name: str) -> float:
    for line in node.request("GET", "/metrics").body.decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    raise AssertionError(f"{name} is not told")


def test_metrics_tell_of_rounds_and_of_bytes_on_the_wire(cluster: Cluster) -> None:
    leader = cluster.nodes[cluster.leader()]
    lost, *_ = cluster.followers()
    rounds = number(leader, "distkv_consensus_rounds_total")
    reads = number(leader, "distkv_read_rounds_total")
    sent = number(leader, "distkv_wire_sent_bytes_total")
    received = number(leader, "distkv_wire_received_bytes_total")
    value = os.urandom(1_000_000)
    assert leader.redis().set("key", value)
    assert leader.redis().get("key") == value
    assert number(leader, "distkv_consensus_rounds_total") >= rounds + 1
    assert number(leader, "distkv_read_rounds_total") >= reads + 1
    # At least k - 1 pieces go to others, and come back for the read.
    assert number(leader, "distkv_wire_sent_bytes_total") >= sent + 0.6 * len(value)
    cluster.kill(lost)
    wait_until(
        lambda: f'peer="{lost}"' not in leader.request("GET", "/metrics").body.decode(),
        "the connection to be gone",
    )
    assert number(leader, "distkv_wire_sent_bytes_total") >= sent + 0.6 * len(value)
    assert number(leader, "distkv_wire_received_bytes_total") > received


def test_metrics_tell_of_values_on_their_way(cluster: Cluster) -> None:
    value = os.urandom(1_000_000)
    assert cluster.nodes[0].redis().set("key", value)
    writer, reader = cluster.nodes[0], cluster.nodes[1]
    assert number(writer, 'distkv_dispersals_total{data_shards="3"}') >= 1
    assert number(writer, "distkv_dispersed_bytes_total") >= 5 / 3 * len(value)
    cluster.wait_coded()  # of a value of two data shards half would come from others
    before = number(reader, "distkv_gathered_bytes_total")
    assert reader.redis().get("key") == value
    assert number(reader, "distkv_gathered_bytes_total") - before >= 0.6 * len(value)
    assert number(reader, "distkv_gathers_hedged_total") >= 0
    wait_until(lambda: number(reader, "distkv_gathering_bytes") == 0, "all that was asked for")
