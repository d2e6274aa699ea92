"""A node of laptop mode loses its disk and is replaced, with real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import pytest
from integration.local.cluster import PATIENCE_SECONDS, Cluster, environment, until

from distkv.local.directory import Directory
from distkv.local.ports import HOST

Make = Callable[[int, int], Cluster]
VALUE = os.urandom(20_000).hex()


def request(cluster: Cluster, method: str, number: int, body: str | None = None) -> str:
    connection = HTTPConnection(HOST, cluster.plan.gateway_http, timeout=PATIENCE_SECONDS)
    try:
        connection.request(method, f"/v1/kv/key-{number}", body)
        answer = connection.getresponse()
        said = answer.read().decode()
        assert answer.status < 300, said
        return said
    finally:
        connection.close()


def fill(cluster: Cluster, count: int) -> None:
    for number in range(count):
        request(cluster, "PUT", number, f"{number} {VALUE}")


def is_filled(cluster: Cluster, count: int) -> bool:
    return all(request(cluster, "GET", i) == f"{i} {VALUE}" for i in range(count))


def lose(cluster: Cluster, ordinal: int) -> None:
    cluster.local("kill", str(ordinal))
    cluster.local("wipe", str(ordinal))


def whole(cluster: Cluster) -> bool:
    nodes = cluster.status()["nodes"]
    return all(node["serving"] and node["shards_missing"] == 0 for node in nodes)


def test_a_wiped_node_is_admitted_and_gets_its_shards(make: Make) -> None:
    cluster = make(2, 1)
    cluster.up()
    fill(cluster, 8)
    old = cluster.node(1)["incarnation"]
    cluster.local("kill", "1")
    assert "start it with" in cluster.local("wipe", "1")
    assert cluster.node(1)["replacement"]["stage"] == "wiped"
    said = cluster.local("start", "1")
    assert "healed: it holds all its 8 shards" in said
    node = cluster.node(1)
    assert node["incarnation"] not in (None, old)
    assert (node["serving"], node["shards"], node["shards_missing"]) == (True, 8, 0)
    assert node["replacement"] is None
    # It counts as a voter and as a holder again: another one may go.
    cluster.local("kill", "0")
    assert is_filled(cluster, 8)
    fill(cluster, 1)
    cluster.local("start", "0")
    # Down and up again, it is what it was.
    cluster.local("down")
    cluster.up()
    assert is_filled(cluster, 8)


def test_two_at_once_and_one_of_them_again(make: Make) -> None:
    cluster = make(3, 2)
    cluster.up()
    fill(cluster, 5)
    lose(cluster, 1)
    lose(cluster, 3)
    cluster.local("start", "1", "--no-wait")
    cluster.local("start", "3", "--no-wait")
    lose(cluster, 1)
    assert "healed" in cluster.local("start", "1")
    until("all to be whole", lambda: whole(cluster))
    for ordinal in (0, 2):
        cluster.local("kill", str(ordinal))
    assert is_filled(cluster, 5)


def test_more_than_the_cluster_bears_is_said_and_admits_nobody(make: Make) -> None:
    cluster = make(2, 1)
    cluster.up()
    cluster.kv("set", "a", "1")
    cluster.local("kill", "1")
    cluster.local("kill", "2")
    assert "beware" not in cluster.local("wipe", "1")
    assert "beware: 2 disks are lost" in cluster.local("wipe", "2")
    for ordinal in ("1", "2"):
        cluster.local("start", ordinal, "--no-wait")
    until(
        "the strangers",
        lambda: [cluster.node(i)["state"] for i in (1, 2)] == ["waiting to be admitted"] * 2,
    )
    assert all(cluster.node(i)["replacement"]["stage"] == "joining" for i in (1, 2))
    said = cluster.kv("get", "a", code=1)
    assert "no_quorum" in said or "not_formed" in said, said


def test_an_empty_directory_alone_is_not_admitted_but_by_command(make: Make) -> None:
    cluster = make(2, 1)
    cluster.up()
    cluster.kv("set", "a", "1")
    cluster.local("kill", "2")
    shutil.rmtree(cluster.path / "node-2")
    cluster.local("start", "2")
    until("the stranger", lambda: cluster.node(2)["state"] == "waiting to be admitted")
    node = cluster.node(2)
    assert node["replacement"] is None
    command = f"distkv admin replace 2 --dir {cluster.path}"
    assert command in node["detail"]
    assert command in cluster.local("status")
    said = cluster.distkv(*command.split()[1:])
    assert "is a member now" in said
    until("the node", lambda: cluster.node(2)["serving"])
    assert cluster.kv("get", "a") == "1"


@pytest.mark.parametrize("moment", ["wiped", "started"])
def test_the_supervisor_is_killed_in_between(make: Make, moment: str) -> None:
    cluster = make(2, 1)
    cluster.up()
    fill(cluster, 3)
    lose(cluster, 0)
    if moment == "started":
        cluster.local("start", "0", "--no-wait")
    pid = Directory(cluster.path).supervisor()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until("its end", lambda: not Directory(cluster.path).is_running())
    cluster.up()
    until("the node to be whole", lambda: whole(cluster))
    assert is_filled(cluster, 3)


def test_ctrl_c_ends_the_watching_alone(make: Make, tmp_path: Path) -> None:
    cluster = make(2, 1)
    cluster.up()
    fill(cluster, 3)
    lose(cluster, 1)
    # The leader admits nobody while the other follower is away, so the watching goes on.
    cluster.local("kill", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "distkv", "local", "start", "1", "--dir", str(cluster.path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        # Tests started in the background ignore Ctrl-C, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:  # from its first line on it watches
        if "waiting to be admitted" in line:
            break
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "it goes on" in said
    cluster.local("start", "2")
    until("the node to be whole", lambda: whole(cluster))
    assert json.loads((cluster.path / "owner.json").read_text())["lost"] == []


def test_a_node_restored_from_a_snapshot_stops_and_is_replaced(make: Make) -> None:
    """Its directory is a copy from before: it has forgotten what it promised since."""
    cluster = make(2, 1)
    cluster.up()
    fill(cluster, 2)
    node = cluster.path / "node-1"
    snapshot = cluster.path.with_name("snapshot")
    cluster.local("kill", "1")
    shutil.copytree(node, snapshot)
    cluster.local("start", "1")
    fill(cluster, 6)
    until("all to be whole", lambda: whole(cluster))
    cluster.local("kill", "1")
    shutil.rmtree(node)
    shutil.copytree(snapshot, node)
    cluster.local("start", "1", "--no-wait")
    until("node 1 to stop", lambda: cluster.node(1)["process"] != "running")
    logs = "".join(path.read_text() for path in cluster.path.rglob("*1*.log"))
    assert "restored from a snapshot or a backup" in logs
    suspicions = cluster.status()["suspicions"]
    assert {(s["source"], s["kind"]) for s in suspicions} == {("node 1", "durable_regression")}
    assert is_filled(cluster, 6)
    cluster.local("wipe", "1")
    assert "healed" in cluster.local("start", "1")
    cluster.local("kill", "0")
    assert is_filled(cluster, 6)
