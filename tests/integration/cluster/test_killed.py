"""Nodes die under load: what was acknowledged stays, what cannot be done is refused."""

from __future__ import annotations

import time
from itertools import permutations

import pytest
import redis
from integration.cluster.harness import Cluster, wait_until
from integration.cluster.load import Load

FAILOVER_SECONDS = 20.0
"""Generous: a busy machine with two cores runs five nodes and the writers."""
REFUSAL_SECONDS = 15.0
"""The default deadline is 10 s."""


def victims(cluster: Cluster, order: str) -> tuple[int, int]:
    leader, followers = cluster.leader(), cluster.followers()
    return {
        "leader first": (leader, followers[0]),
        "leader second": (followers[1], leader),
        "followers": (followers[2], followers[3]),
    }[order]


def test_two_of_five_die_in_several_orders_and_then_two_others(cluster: Cluster) -> None:
    orders = ("leader first", "followers", "leader second")
    with Load(cluster) as load:
        load.progress(200)
        for order in orders:
            first, second = victims(cluster, order)
            cluster.kill(first)
            load.progress(50, FAILOVER_SECONDS)
            cluster.kill(second)
            load.progress(50, FAILOVER_SECONDS)
            cluster.start(first, second)
            cluster.wait_serving()
            load.progress(50)
    cluster.wait_whole()
    load.check(*cluster.nodes)
    others = tuple(o for o in range(5) if o not in (first, second))[:2]
    cluster.kill(*others)
    load.check(*cluster.running)


def test_both_of_the_two_die_at_once(cluster: Cluster) -> None:
    with Load(cluster) as load:
        load.progress(200)
        dead = victims(cluster, "leader first")
        cluster.kill(*dead)
        load.progress(100, FAILOVER_SECONDS)
        load.ending.set()
    load.check(*cluster.running)
    cluster.start(*dead)
    cluster.wait_whole()
    cluster.kill(*cluster.followers()[:2])
    load.check(*cluster.running)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_pair_in_every_order(cluster: Cluster) -> None:
    with Load(cluster) as load:
        for first, second in permutations(range(5), 2):
            load.progress(50)
            cluster.kill(first)
            load.progress(20, FAILOVER_SECONDS)
            cluster.kill(second)
            load.progress(20, FAILOVER_SECONDS)
            cluster.start(first, second)
            cluster.wait_serving()
    cluster.wait_whole()
    load.check(*cluster.nodes)


def refused_by_redis(client: redis.Redis, *command: object) -> str:
    """The error's message; fails if the command succeeds."""
    try:
        found = client.execute_command(*command)
    except redis.ResponseError as error:
        return str(error)
    raise AssertionError(f"{command} was answered: {found!r}")


def test_without_a_quorum_every_door_refuses_in_time(cluster: Cluster) -> None:
    with Load(cluster, clients=4, sizes=(10, 5000, 50_000)) as load:
        load.progress(100)
        dead = cluster.followers()[1:]
        cluster.kill(*dead)
        began = time.monotonic()

        def refused_everywhere() -> bool:
            count = len(load.errors)
            return count >= 3 * len(load.writers)

        wait_until(refused_everywhere, "writers to be told", 60)
    answered = [e for e in load.errors if e.startswith("ResponseError")]
    allowed = ("NOQUORUM", "OUTCOMEUNKNOWN", "TIMEOUT", "BUSY")
    strange = [e for e in answered if not e.partition(": ")[2].startswith(allowed)]
    assert not strange, strange[:5]
    assert load.last < began + REFUSAL_SECONDS, "a minority acknowledged a write"
    for node in cluster.running:
        client = node.redis()
        for command in (
            ("SET", "x", "1"),
            ("SET", "x", b"1" * 50_000),
            ("GET", "w-0-hot-0"),
            ("DEL", "x"),
            ("INCR", "n"),
            ("DBSIZE",),
            ("SCAN", "0"),
        ):
            asked = time.monotonic()
            message = refused_by_redis(client, *command)
            assert message.startswith("NOQUORUM"), (command, message)
            assert "of 5 nodes answer" in message
            assert time.monotonic() - asked < REFUSAL_SECONDS
        assert client.ping() is True
        for method, body in (
            ("PUT", b"1"),
            ("PUT", b"1" * 100_000),
            ("GET", None),
            ("DELETE", None),
        ):
            answer = node.request(method, "/v1/kv/x", body)
            assert (answer.status, answer.json["error"]) == (503, "no_quorum"), answer
            assert answer.json["applied"] == "no"
        assert node.request("GET", "/livez").status == 200
        status = node.status()
        assert status is not None
        assert status["members_up"] == 2
    cluster.start(*dead)
    cluster.wait_serving()
    load.check(*cluster.nodes)
    with Load(cluster, clients=2, name="again") as again:
        again.progress(50)
    again.check(*cluster.nodes)


def test_all_five_die_at_once_under_load(cluster: Cluster) -> None:
    loads = []
    for number in range(2):
        with Load(cluster, name=str(number)) as load:
            load.progress(150)
            cluster.kill(*range(5))
            load.ending.set()
        loads.append(load)
        cluster.start()
        cluster.wait_serving()
    for load in loads:
        load.check(*cluster.nodes)


def test_a_leader_that_is_told_to_stop_hands_over(cluster: Cluster) -> None:
    with Load(cluster, clients=4) as load:
        for _ in range(3):
            load.progress(50)
            leader = cluster.nodes[cluster.leader()]
            before = load.count
            leader.process.terminate()
            assert leader.exit_code(30) == 0
            wait_until(lambda before=before: load.count >= before + 20, "writes to go on")
            cluster.start(leader.ordinal)
            cluster.wait_serving()
    unknown = [e for e in load.errors if "OUTCOMEUNKNOWN" in e or "NOQUORUM" in e]
    assert not unknown, unknown[:5]
    load.check(*cluster.nodes)
