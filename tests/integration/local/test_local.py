"""Laptop mode with real nodes and a real gateway."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

from integration.local.cluster import PATIENCE_SECONDS, Cluster, environment, until

from distkv.local.ports import HOST, check_free
from distkv.local.processes import start_time

Make = Callable[[int, int], Cluster]


def gone(pids: list[int]) -> bool:
    return all(start_time(pid) is None for pid in pids)


def test_a_cluster_of_three_through_its_whole_life(make: Make) -> None:
    cluster = make(2, 1)
    said = cluster.up()
    assert "is ready after" in said
    assert f"redis-cli -p {cluster.plan.gateway_resp}" in said
    assert "running already" in cluster.local("up", "--detach", code=1)

    cluster.kv("set", "greeting", "hello")
    status = cluster.status()
    assert status["formed"]
    assert status["ready"]
    assert status["leader"] in (0, 1, 2)
    until("every node's count of shards", lambda: cluster.status()["shards_missing"] == 0)
    until(
        "all three to serve",
        lambda: [node["state"] for node in cluster.status()["nodes"]] == ["serving"] * 3,
    )
    status = cluster.status()
    assert len({node["incarnation"] for node in status["nodes"]}) == 3
    assert str(cluster.plan.node(2).resp) in cluster.local("status")

    leader = status["leader"]
    assert "SIGKILL" in cluster.local("kill", str(leader))
    assert "is not running" in cluster.local("kill", str(leader), code=1)
    until("another leader", lambda: cluster.status()["leader"] not in (None, leader))
    assert cluster.node(leader)["process"] == "down"
    cluster.kv("set", "greeting", "hello again")
    assert cluster.kv("get", "greeting") == "hello again"

    other = next(i for i in range(3) if i != leader)
    assert "take it down first" in cluster.local("wipe", str(other), code=1)
    assert "started" in cluster.local("start", str(leader))
    until("the old leader", lambda: cluster.node(leader)["state"] == "serving")
    assert "running already" in cluster.local("start", str(leader), code=1)
    assert "there is no node 3" in cluster.local("start", "3", code=1)

    pids = cluster.pids()
    assert len(pids) == 4
    cluster.local("down")
    assert gone(pids)
    check_free(cluster.plan)
    assert "distkv local up" in cluster.local("status", code=1)

    cluster.up()
    assert cluster.kv("get", "greeting") == "hello again"
    cluster.local("clean")
    assert not cluster.path.exists()


def test_a_process_that_ends_by_itself_is_reported_and_not_restarted(make: Make) -> None:
    cluster = make(1, 0)
    cluster.up()
    gateway = cluster.status()["gateway"]["pid"]
    os.kill(gateway, signal.SIGKILL)
    until("the report", lambda: cluster.status()["gateway"]["process"] == "exited")
    assert not cluster.status()["ready"]
    until("a log line", lambda: "gateway ended" in (cluster.path / "supervisor.log").read_text())
    cluster.local("start", "gateway")
    until("the gateway", lambda: cluster.status()["ready"])


def test_a_frozen_node_is_shown_and_goes_on(make: Make) -> None:
    cluster = make(1, 0)
    cluster.up()
    cluster.local("kill", "0", "--signal", "STOP")
    assert cluster.node(0)["process"] == "stopped"
    assert "goes on" in cluster.local("start", "0")
    until("the node", lambda: cluster.node(0)["state"] == "serving")


def test_ctrl_c_leaves_no_process_behind(make: Make) -> None:
    cluster = make(2, 1)
    command = [sys.executable, "-m", "distkv", "local", "up", *cluster.geometry]
    process = subprocess.Popen(
        [*command, "--dir", str(cluster.path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "is ready" in line:
            break
    pids = cluster.pids()
    assert len(pids) == 4
    # As a terminal does: the whole process group is told.
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert gone(pids)
    check_free(cluster.plan)


def test_a_supervisor_that_is_killed_takes_its_children_along(make: Make) -> None:
    cluster = make(2, 1)
    cluster.up()
    cluster.kv("set", "a", "1")
    pids = cluster.pids()
    os.kill(int((cluster.path / "lock").read_text()), signal.SIGKILL)
    until("all processes to end", lambda: gone(pids))
    cluster.up("--port-base", str(cluster.plan.base))
    assert cluster.kv("get", "a") == "1"


def test_a_taken_port_is_refused_by_name_before_anything_is_made(make: Make) -> None:
    cluster = make(2, 1)
    port = cluster.plan.node(1).http
    with socket.create_server((HOST, port)):
        said = cluster.local("up", *cluster.geometry, "--detach", code=1)
    assert f"TCP port {port}, which node 1 (http) needs, is taken by process {os.getpid()}" in said
    assert "--port-base" in said
    assert not cluster.path.exists()


def test_a_path_longer_than_a_socket_may_have(make: Make) -> None:
    cluster = make(1, 0)
    cluster.path = cluster.path / ("deep" * 20) / ("deeper" * 10)
    cluster.up()
    assert cluster.status()["ready"]
    cluster.local("clean")
