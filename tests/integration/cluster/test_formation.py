"""Founding happens once, whatever dies in the middle of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from integration.cluster.harness import OWNER, Cluster, wait_until


@pytest.fixture
def unfounded() -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.__exit__()


def test_an_empty_directory_serves_nobody_and_says_what_it_waits_for(unfounded: Cluster) -> None:
    for node in unfounded.nodes:
        with pytest.raises(
            redis.ResponseError, match=r"^NOTFORMED.*founded by the cluster's owner"
        ):
            node.redis().set("x", "1")
        answer = node.request("PUT", "/v1/kv/x", b"1" * 100_000)
        assert (answer.status, answer.json["error"]) == (503, "not_formed")
        assert node.request("GET", "/livez").status == 200
        assert node.request("GET", "/readyz").status == 503
        status = node.status()
        assert status is not None
        assert status["state"] == "waiting to be founded"


def test_nodes_that_die_while_the_cluster_is_founded(unfounded: Cluster) -> None:
    cluster = unfounded
    request = cluster.found_request(cluster.founders())
    answer = cluster.nodes[0].admin("POST", "/v1/admin/found", request)
    assert answer.json == {"accepted": True}
    cluster.kill(0, 1, 2)
    cluster.start(0, 1, 2)
    # The owner repeats what it did not see through: the same list is taken, another is not.
    assert cluster.nodes[0].admin("POST", "/v1/admin/found", request).status == 200
    other = request | {"owner": "somebody else"}
    answer = cluster.nodes[0].admin("POST", "/v1/admin/found", other)
    assert answer.status == 400
    assert "never founded again" in answer.json["message"]
    wait_until(lambda: cluster.leader_or_none() is not None, "a leader")
    with pytest.raises(redis.ResponseError, match=r"^NOTFORMED"):
        cluster.nodes[cluster.leader()].redis().set("x", "1")
    # A leader needs three of them; one without a seat does not know its owner yet.
    wait_until(
        lambda: cluster.nodes[1].admin("GET", "/v1/admin/identity").json["founded"],
        "node 1 to hear of it",
    )
    stranger = {"cluster_id": cluster.id, "owner": "somebody else"}
    answer = cluster.nodes[1].admin("POST", "/v1/admin/formed", stranger)
    assert (answer.status, answer.json["error"]) == (403, "foreign_owner")
    cluster.nodes[1].admin("POST", "/v1/admin/formed", stranger | {"owner": OWNER})
    cluster.kill(*range(5))
    cluster.start()
    cluster.form()
    cluster.wait_serving()
    assert cluster.nodes[3].redis().set("x", "1")
    cluster.kill(*range(5))
    cluster.start()
    cluster.wait_serving()
    assert cluster.nodes[4].redis().get("x") == b"1"


def test_a_founder_wiped_before_it_voted_is_no_founder_any_more(unfounded: Cluster) -> None:
    cluster = unfounded
    founders = cluster.founders()
    cluster.kill(4)
    cluster.wipe(4)
    cluster.start(4)
    answer = cluster.nodes[0].admin("POST", "/v1/admin/found", cluster.found_request(founders))
    assert answer.status == 200
    cluster.form()
    cluster.wait_serving(0, 1, 2, 3)
    node = cluster.nodes[4]
    wait_until(
        lambda: (node.status() or {}).get("state") == "waiting to be admitted",
        "the fifth node to know that it is a stranger",
    )
    cluster.replace(4, founders[4][1])
    cluster.wait_serving()
    assert node.redis().set("x", "1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layout": {"data_shards": 4, "parity_shards": 2}}, "5 members do not match"),
        ({"layout": {"data_shards": 0, "parity_shards": 5}}, "data_shards"),
        ({"layout": {}}, "data_shards"),
        ({"owner": ""}, "owner"),
        ({"owner": 7}, "owner"),
        ({"cluster_id": "xyz"}, "cluster_id"),
        ({"cluster_id": "ab" * 16}, "cluster_id"),
        ({"members": [[0, 1]]}, "members"),
        ({"members": "all"}, "members"),
        ({"members": [[i, 2**80] for i in range(5)]}, "members"),
        ({"members": [[i, -5 - i] for i in range(5)]}, "members"),
    ],
)
def test_a_founding_command_that_is_wrong_names_the_field(
    waiting: Cluster, change: dict[str, object], said: str
) -> None:
    request = waiting.found_request(waiting.founders()) | change
    answer = waiting.nodes[0].admin("POST", "/v1/admin/found", request)
    assert answer.status == 400, answer
    assert said in answer.json["message"]
    status = waiting.nodes[0].status()
    assert status is not None
    assert status["state"] == "waiting to be founded"
    assert "Traceback" not in waiting.nodes[0].log_text()


@pytest.fixture(scope="module")
def waiting() -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.__exit__()
