"""The directory of a local cluster, its ports and its processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from distkv.local import up
from distkv.local.directory import Directory, Identity
from distkv.local.errors import LocalError, NotRunning
from distkv.local.layout import write_configurations
from distkv.local.ports import HOST, PortPlan, check_free, free_base
from distkv.local.processes import Child, start_time
from distkv.manifest import cluster_of

pytestmark = pytest.mark.xdist_group("ports")

IDENTITY = Identity("a", "ab" * 16, 3, 2, 7000, None, {})


@pytest.fixture
def base() -> int:
    # Other test processes look for ports at the same time: everyone begins elsewhere.
    found = free_base(PortPlan(12000 + os.getpid() % 997 * 10, 5))
    assert found is not None
    return found


def test_ports_are_as_documented() -> None:
    plan = PortPlan(7000, 5)
    assert (plan.gateway_resp, plan.gateway_http) == (7000, 7001)
    assert plan.node(0) == (7010, 7011, 7012, 7013, 7014)
    assert plan.node(4).resp == 7050
    assert len({need.port for need in plan.needs()}) == 27
    assert [need.port for need in plan.needs() if need.udp] == [7012, 7022, 7032, 7042, 7052]


@pytest.mark.parametrize(("offset", "udp"), [(0, False), (1, False), (13, False), (12, True)])
def test_a_taken_port_is_named_with_who_holds_it(base: int, offset: int, udp: bool) -> None:
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((HOST, base + offset))
        if not udp:
            taken.listen()
        with pytest.raises(LocalError) as error:
            check_free(PortPlan(base, 5))
    text = str(error.value)
    assert f"port {base + offset}, which " in text
    assert ("UDP" if udp else "TCP") in text
    assert f"process {os.getpid()}" in text
    other = int(text.rpartition("--port-base ")[2].split()[0])
    check_free(PortPlan(other, 5))


def test_a_port_that_is_not_permitted_is_not_said_to_be_taken(
    base: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind = socket.socket.bind

    def refuse(self: socket.socket, address: tuple[str, int]) -> None:
        if address[1] < 1024:
            raise PermissionError
        bind(self, address)

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(LocalError, match=r"TCP port 80, .* may not be used by this user") as error:
        check_free(PortPlan(80, 5))
    assert "taken" not in str(error.value)


def test_a_directory_that_cannot_be_made_is_named() -> None:
    with pytest.raises(LocalError, match="--dir /proc/nothing cannot be written to"):
        Directory(Path("/proc/nothing")).try_lock()


def test_a_base_beyond_all_ports_is_refused() -> None:
    with pytest.raises(LocalError, match="from 1 to 65475"):
        check_free(PortPlan(65500, 5))


def test_nothing_is_created_when_a_port_is_taken(tmp_path: Path, base: int) -> None:
    with socket.create_server((HOST, base + 10)), pytest.raises(LocalError, match="node 0"):
        up.prepare(tmp_path / "new", None, (3, 2), base)
    assert not (tmp_path / "new").exists()


def test_a_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    assert not directory.is_running()
    assert directory.try_lock()
    other = Directory(tmp_path)
    assert other.is_running()
    assert other.supervisor() == os.getpid()
    assert not other.try_lock()
    directory.unlock()
    assert not other.is_running()
    assert other.try_lock()


def test_a_running_directory_says_so(tmp_path: Path, base: int) -> None:
    directory = up.prepare(tmp_path / "c", None, (1, 0), base)
    with pytest.raises(LocalError, match=f"running already in .* process {os.getpid()}"):
        up.prepare(tmp_path / "c", None)
    directory.unlock()


def test_a_directory_is_resumed_as_what_it_is(tmp_path: Path, base: int) -> None:
    first = up.prepare(tmp_path, None, (2, 1), base)
    known = first.identity()
    first.unlock()
    again = up.prepare(tmp_path, cluster_of("other", 2, 1), (None, None), None)
    assert again.identity() == known
    again.unlock()
    with pytest.raises(LocalError, match=r"2 \+ 1 shards, not 3 \+ 1"):
        up.prepare(tmp_path, None, (3, None))


def test_a_directory_with_other_things_in_it_is_left_alone(tmp_path: Path, base: int) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(LocalError, match="not empty"):
        up.prepare(tmp_path, None, (1, 0), base)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.create(IDENTITY)
    write_configurations(directory)
    for name in ("cluster.key", "admin.token", "node-0.json"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    assert len(bytes.fromhex((tmp_path / "cluster.key").read_text().strip())) == 32
    assert "cluster.key" not in (tmp_path / "gateway.json").read_text()


def test_the_files_of_nodes_and_gateway_are_valid(tmp_path: Path) -> None:
    from distkv.config import load

    directory = Directory(tmp_path)
    directory.create(IDENTITY._replace(tuning={"limits": {"pipeline_max": 7}}))
    write_configurations(directory)
    nodes = [load("node", tmp_path / f"node-{i}.json") for i in range(5)]
    assert [node.ordinal for node in nodes] == [0, 1, 2, 3, 4]
    assert all(node.peers == nodes[0].peers for node in nodes)
    assert [str(node.listen.peers) for node in nodes] == list(map(str, nodes[0].peers.addresses))
    gateway = load("gateway", tmp_path / "gateway.json")
    assert [str(node.listen.link) for node in nodes] == list(map(str, gateway.gateway.nodes))
    assert {config.limits.pipeline_max for config in [*nodes, gateway]} == {7}


def test_remove_leaves_what_others_put_there(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "c")
    directory.path.mkdir()
    directory.create(IDENTITY)
    write_configurations(directory)
    directory.node(0).mkdir()
    (directory.node(0) / "data").write_text("x")
    (directory / "mine.txt").write_text("x")
    directory.remove()
    assert [entry.name for entry in directory.path.iterdir()] == ["mine.txt"]
    (directory / "mine.txt").unlink()
    directory.remove()
    assert not directory.path.exists()


def test_a_directory_without_a_cluster_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="distkv local up"):
        Directory(tmp_path).identity()


def sleeper(tmp_path: Path, name: str = "node-0") -> Child:
    script = "import time\nwhile True: time.sleep(60)"
    return Child(name, tmp_path, [sys.executable, "-c", script])


def test_a_child_that_was_killed_is_exited_or_down(tmp_path: Path) -> None:
    child = sleeper(tmp_path)
    assert (child.state, child.pid, child.exit_code) == ("down", None, None)
    child.start()
    assert child.state == "running"
    child.signal(signal.SIGKILL)
    assert child._process is not None
    child._process.wait(10)
    assert (child.state, child.exit_code) == ("exited", -signal.SIGKILL)
    child.asked_down = True
    assert child.state == "down"


def test_leftovers_are_killed_only_if_they_are_ours(tmp_path: Path) -> None:
    child = sleeper(tmp_path)
    child.start()
    assert child.pid is not None
    started = start_time(child.pid)
    record = tmp_path / "node-0.pid"
    ours = record.read_text()
    record.write_text(ours.replace(str(started), str((started or 0) + 1)))
    sleeper(tmp_path).kill_leftover()
    assert child.is_running, "a process with another start time is not ours"
    record.write_text(ours)
    sleeper(tmp_path).kill_leftover()
    assert child._process is not None
    assert child._process.wait(10) == -signal.SIGKILL
    assert not record.exists()


def test_a_child_dies_with_its_parent_however_that_dies(tmp_path: Path) -> None:
    source = (
        "import os, signal, sys, pathlib\n"
        "from distkv.local.processes import Child\n"
        "code = ('from distkv.local.processes import die_with_parent; die_with_parent(); '\n"
        "        'print(1, flush=True); import time; time.sleep(600)')\n"
        f"child = Child('node-0', pathlib.Path({str(tmp_path)!r}), [sys.executable, '-c', code])\n"
        "child.start()\n"
        "while child.last_words() != '1': pass\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    for _ in range(1_000_000):
        if start_time(pid) is None:
            return
    pytest.fail("the child lives on")
