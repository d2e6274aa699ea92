"""`distkv admin` against real nodes: finding the leader, the token, the owner."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from integration.cluster.harness import HOST, OWNER, Cluster, wait_until
from integration.cluster.test_rot import flip_rows
from integration.local.cluster import environment

from distkv.storage.base import Table


class Admin:
    """The command, with the options that find `cluster`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.where: list[str] = ["--token-file", str(cluster.path / "token")]
        for node in cluster.nodes:
            self.where += ["--admin", f"{HOST}:{node.ports['admin']}"]

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "distkv", "admin", arguments[0], *self.where, *arguments[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            env=environment(),
        )
        assert done.returncode == code, done.stdout
        return done.stdout


@pytest.fixture
def admin(cluster: Cluster) -> Admin:
    return Admin(cluster)


def test_a_new_directory_is_admitted_by_command(admin: Admin, tmp_path: Path) -> None:
    cluster = admin.cluster
    assert "nothing to do" in admin("replace", "2")
    cluster.kill(2)
    assert "node 2 does not answer" in admin("replace", "2", code=2)
    cluster.wipe(2)
    cluster.start(2)
    said = admin("replace", "2", "--owner", "somebody", code=1)
    assert "foreign_owner" in said
    wrong = tmp_path / "token"
    wrong.write_text("wrong")
    said = admin("replace", "2", "--token-file", str(wrong), code=1)
    assert "unauthorized" in said
    assert "there is no ordinal 5" in admin("replace", "5", "--new", "7", code=2)
    done = json.loads(admin("replace", "2", "--json", "--owner", OWNER).splitlines()[-1])
    assert done == {"ordinal": 2, "incarnation": cluster.incarnation(2), "replaced": True}
    cluster.wait_serving()
    assert "nothing to do" in admin("replace", "2")


def test_what_is_not_safe_is_refused_with_the_reason(admin: Admin) -> None:
    """With two more nodes dead the change would leave too few that are caught up."""
    cluster = admin.cluster
    cluster.kill(4)
    cluster.wipe(4)
    cluster.start(4)
    others = [ordinal for ordinal in cluster.followers() if ordinal != 4][:2]
    cluster.kill(*others)
    said = admin("replace", "4", "--wait", "1", code=1)
    assert "are needed" in said or "no leader" in said
    cluster.start(*others)
    admin("replace", "4")
    wait_until(lambda: len(cluster.statuses()) == 5, "all five")
    cluster.wait_serving()


def test_a_lost_value_is_listed_until_it_is_overwritten(admin: Admin) -> None:
    """More shards rot than parity makes up for: the key is refused, and named."""
    cluster = admin.cluster
    value = os.urandom(30_000)
    assert cluster.nodes[0].redis().set("precious", value)
    assert "no value is known to be lost" in admin("lost")
    wait_until(
        lambda: all(s["shards"] == 1 for s in cluster.statuses().values()), "every shard to be held"
    )
    rng = random.Random(1)
    # Four, not three: while nodes are slow the value may be coded for two of them.
    for node in cluster.nodes[:4]:
        assert flip_rows(node, Table.SHARD, rng, 5_000)

    def refused() -> bool:
        answer = cluster.nodes[0].request("GET", "/v1/kv/precious")
        assert answer.status != 200, "rot must never be handed out"
        return answer.status == 500 and answer.json["error"] == "data_lost"

    wait_until(refused, "the loss to be told")
    found = json.loads(admin("lost", "--json"))
    assert [entry["key"] for entry in found["lost"]] == ["precious"]
    assert found["lost"][0]["shards"] < found["lost"][0]["data_shards"]
    said = admin("lost")
    assert "precious: " in said
    assert "shards are left" in said
    assert cluster.nodes[0].redis().set("precious", value)
    wait_until(lambda: "no value is known to be lost" in admin("lost"), "the list to be empty")
    assert cluster.nodes[1].redis().get("precious") == value
