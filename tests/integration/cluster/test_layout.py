"""Another layout under load: members come and go, nodes die in between, nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from integration.cluster.harness import DOORS, OWNER, Answer, Cluster, Node, free_ports
from integration.cluster.harness import wait_until as wait
from integration.cluster.load import Load

from distkv.data import rows
from distkv.storage.base import Table
from distkv.storage.open import open_engine

SHORT = {"limits": {"request_seconds": "5s"}, "repair": {"grace": "5s"}}
PATIENCE = 240.0
BACK = ("serving", "leaving", "retired")


class Changing(Cluster):
    """A cluster whose owner changes its layout."""

    def __init__(self, k: int, m: int) -> None:
        super().__init__(k, m, overrides=SHORT)

    def add_node(self) -> Node:
        """A further process with an empty directory; the others are not told of it."""
        ordinal = len(self.nodes)
        node = Node(self, ordinal, dict(zip(DOORS, free_ports(len(DOORS)), strict=True)))
        self.nodes.append(node)
        node.config = self._config(node, SHORT, None)
        node.start()
        self._until_answering(node)
        return node

    def layout(self) -> dict[str, Any] | None:
        """What the leader says."""
        leader = self.leader_or_none()
        if leader is None:
            return None
        try:
            answer = self.nodes[leader].admin("GET", "/v1/admin/layout")
        except OSError:
            return None
        found: dict[str, Any] = answer.json
        return found if answer.status == 200 else None

    def ask(self, k: int, m: int, **changed: object) -> Answer | None:
        """Order a layout of the leader; None: there is none."""
        seen = self.layout()
        if seen is None:
            return None
        seats = dict([*seen["members"], *seen["leaving"]])
        for node in self.nodes[: k + m]:
            if node.ordinal not in seats and node.running:
                seats[node.ordinal] = self.incarnation(node.ordinal)
        request = {
            "owner": OWNER,
            "data_shards": k,
            "parity_shards": m,
            "members": [[o, seats[o]] for o in range(k + m) if o in seats],
        } | changed
        try:
            return self.nodes[self.leader()].admin("POST", "/v1/admin/layout", request)
        except OSError:
            return None

    def change(self, k: int, m: int) -> None:
        """Until the leader has applied the new layout."""

        def done() -> bool:
            answer = self.ask(k, m)
            if answer is None:
                return False
            assert answer.status in (200, 409, 503), answer
            return answer.status == 200 and bool(answer.json["done"])

        wait(done, f"the layout {k} + {m} to be applied")
        self.size = k + m

    @property
    def changed(self) -> bool:
        """Whether only one layout is left."""
        seen = self.layout()
        return seen is not None and not seen["changing"]


@pytest.fixture
def five() -> Iterator[Changing]:
    with Changing(3, 2) as cluster:
        yield cluster


def kill_until_changed(cluster: Changing, load: Load, rng: random.Random, least: int) -> int:
    """Kill -9 a node and start it again, the leader every other time; how often."""
    kills = 0
    while kills < least or not cluster.changed:
        victim = cluster.leader() if kills % 2 else rng.choice([n.ordinal for n in cluster.running])
        cluster.kill(victim)
        load.progress(10)
        cluster.start(victim)
        kills += 1
        wait(
            lambda v=victim: (cluster.nodes[v].status() or {}).get("state") in BACK,
            f"node {victim} to be back",
        )
        assert kills < 60, f"the change does not end: {cluster.layout()}"
    return kills


def check_disks(cluster: Changing, size: int) -> int:
    """Stopped nodes hold shards of the newest layout only; how many."""
    found = 0
    for node in cluster.nodes[:size]:
        engine = open_engine("files", node.data)
        try:
            for key in engine.keys(Table.SHARD, rows.HEADERS, None, 1_000_000):
                row = engine.get(Table.SHARD, key)
                assert row is not None
                assert rows.unpack_header(row).code.size == size, f"node {node.ordinal}"
                found += 1
        finally:
            engine.close()
    return found


@pytest.mark.timeout(900)
def test_it_grows_and_shrinks_under_load_with_kills_in_between(five: Changing) -> None:
    rng = random.Random(5)
    with Load(five, clients=4, sizes=(100, 5_000, 40_000)) as load:
        load.progress(150)
        node = five.add_node()
        wait(
            lambda: (node.status() or {}).get("state") == "waiting to be admitted",
            "the new node to hear of the cluster",
        )
        five.change(4, 2)
        kill_until_changed(five, load, rng, 4)
        five.wait_serving(*range(6))
        load.progress(50)
        five.change(2, 1)
        kill_until_changed(five, load, rng, 4)
        for leaving in range(3, 6):
            wait(
                lambda o=leaving: (five.nodes[o].status() or {}).get("state") == "retired",
                f"node {leaving} to know that it may go",
            )
        five.kill(3, 4, 5)
        load.progress(50)
    seen = five.layout()
    assert seen is not None
    assert (seen["failures"], len(seen["epochs"]), seen["leaving"]) == (1, 1, [])
    three = five.nodes[:3]
    load.check(*three)

    def clean() -> bool:
        statuses = [node.status() or {} for node in three]
        return all(s.get("shards_pending") == 0 and s.get("shards_missing") == 0 for s in statuses)

    wait(clean, "the old shards to go", PATIENCE)
    five.kill(0)
    load.check(*three[1:])
    five.kill(1, 2)
    assert check_disks(five, 3) > 100


@pytest.mark.timeout(600)
def test_a_change_is_reversed_half_way(five: Changing) -> None:
    with Load(five, clients=3, sizes=(100, 30_000)) as load:
        load.progress(150)
        five.add_node()
        five.change(4, 2)
        load.progress(30)
        five.kill(five.leader())
        five.change(3, 2)
        five.start(*[o for o in range(6) if not five.nodes[o].running])
        load.progress(30)
        wait(lambda: five.changed, "both older epochs to end", PATIENCE)
        wait(lambda: (five.nodes[5].status() or {}).get("state") == "retired", "node 5 to retire")
        five.kill(5)
    seen = five.layout()
    assert seen is not None
    assert (seen["epoch"], seen["data_shards"], seen["failures"]) == (3, 3, 2)
    load.check(*five.nodes[:5])


def test_what_would_break_a_promise_is_refused_with_the_reason(five: Changing) -> None:
    def refused(status: int, error: str, text: str, k: int, m: int, **changed: object) -> None:
        answer = five.ask(k, m, **changed)
        assert answer is not None
        assert (answer.status, answer.json["error"]) == (status, error), answer
        assert text in answer.json["message"]

    refused(400, "bad_request", "data_shards", 0, 5)
    refused(400, "bad_request", "5 members do not match", 4, 2)
    refused(403, "foreign_owner", "another owner", 3, 2, owner="somebody")
    refused(409, "not_yet", "not connected", 4, 2, members=[*five.founders(), [5, 77]])
    node = five.add_node()

    def refusal() -> str:
        with pytest.raises(redis.ResponseError, match=r"^NOTFORMED") as caught:
            node.redis().set("x", b"1")
        return str(caught.value)

    wait(lambda: "ordinal 5" in refusal(), "node 5 to be told of the cluster by a peer")
    members = five.founders()
    dead = [o for o in five.followers() if o < 5][:2]
    five.kill(*dead)
    wait(
        lambda: all(s["members_up"] == 3 for o, s in five.statuses().items() if o != 5),
        "the others to see that two are gone",
    )
    refused(409, "not_yet", "start nodes", 5, 1, members=[*members, [5, five.incarnation(5)]])
    refused(400, "bad_request", "replace it first", 3, 2, members=[[0, 7], *members[1:]])

    def waiting() -> bool:
        seen = five.layout()
        assert seen is None or seen["epoch"] == 1
        return seen is not None and [w["ordinal"] for w in seen["waiting"]] == [5]

    wait(waiting, "the leader to see that node 5 waits")
