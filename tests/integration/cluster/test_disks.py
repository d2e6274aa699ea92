"""Disks that are lost, full, of somebody else, or far behind."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from integration.cluster.harness import Cluster, Node, wait_until
from integration.cluster.load import Load, value_of
from unit.storage.disks import mounted

MIB = 1024 * 1024
DISK = 192 * MIB


def status_of(node: Node) -> dict[str, object]:
    status = node.status()
    assert status is not None
    return status


def test_a_wiped_node_waits_is_admitted_and_refills(cluster: Cluster) -> None:
    with Load(cluster, sizes=(100, 10_000, 100_000)) as load:
        load.progress(200)
        lost = cluster.followers()[0]
        old = cluster.incarnation(lost)
        cluster.kill(lost)
        cluster.wipe(lost)
        load.progress(50)
        cluster.start(lost)
        node = cluster.nodes[lost]
        wait_until(
            lambda: (node.status() or {}).get("state") == "waiting to be admitted",
            "it to know its state",
        )
        status = status_of(node)
        assert not status["serving"]
        assert "admit" in str(status["detail"])
        assert status["incarnation"] != old
        for command in (("SET", "x", "1"), ("GET", "x")):
            with pytest.raises(redis.ResponseError, match=r"^NOTFORMED.*admit"):
                node.redis().execute_command(*command)
        answer = node.request("GET", "/v1/kv/x")
        assert (answer.status, answer.json["error"]) == (503, "not_formed")
        assert node.request("GET", "/readyz").status == 503
        new = cluster.replace(lost, old)
        cluster.wait_serving()
        assert status_of(node)["layout"]["members"][lost] == [lost, new]  # type: ignore[index]
        load.progress(50)
    cluster.wait_whole()
    cluster.kill(*[o for o in range(5) if o != lost][:2])
    load.check(*cluster.running)
    load.check(node)


def test_a_wiped_node_does_not_vote(cluster: Cluster) -> None:
    """With two others dead its vote would be the third: the cluster must stand still."""
    assert cluster.nodes[0].redis().set("kept", b"1")
    lost, *dead = cluster.followers()[:3]
    cluster.kill(lost)
    cluster.wipe(lost)
    cluster.start(lost)
    cluster.kill(*dead)
    for node in cluster.running:
        with pytest.raises(redis.ResponseError, match=r"^(NOQUORUM|NOTFORMED|OUTCOMEUNKNOWN)"):
            node.redis().set("kept", b"2")
        with pytest.raises(redis.ResponseError, match=r"^(NOQUORUM|NOTFORMED|TIMEOUT)"):
            node.redis().get("kept")
    cluster.start(dead[0])
    voters = [o for o in range(5) if o not in (lost, dead[1])]
    cluster.wait_serving(*voters)
    assert cluster.nodes[voters[0]].redis().get("kept") in (b"1", b"2")


def test_a_replacement_is_refused_to_strangers_and_to_wrong_claims(cluster: Cluster) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]
    incarnation = cluster.incarnation(follower)
    request = {"owner": "somebody", "ordinal": follower, "old": incarnation, "new": 5}
    answer = cluster.nodes[leader].admin("POST", "/v1/admin/replace", request)
    assert (answer.status, answer.json["error"]) == (403, "foreign_owner")
    request["owner"] = "owner-of-the-tests"
    answer = cluster.nodes[leader].admin("POST", "/v1/admin/replace", request)
    assert (answer.status, answer.json["error"]) == (409, "not_yet")
    answer = cluster.nodes[leader].admin("POST", "/v1/admin/replace", request | {"old": 7})
    assert answer.status == 400
    assert str(incarnation) in answer.json["message"]
    answer = cluster.nodes[follower].admin("POST", "/v1/admin/replace", request)
    assert (answer.status, answer.json["error"]) == (409, "not_leader")
    assert f"node {leader}" in answer.json["message"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", DISK) as mount:
        yield mount


@pytest.mark.parametrize("reserve", [32 * MIB, 0], ids=["reserve", "no reserve"])
def test_a_full_disk_makes_one_node_read_only_and_no_more(small_disk: Path, reserve: int) -> None:
    own = {"storage": {"directory": str(small_disk / "data"), "reserve": reserve}}
    with Cluster(per_node={1: own}) as cluster:
        node = cluster.nodes[1]
        with Load(cluster, clients=4, sizes=(100, 5000, 200_000)) as load:
            load.progress(50)
            ballast = small_disk / "ballast"
            with ballast.open("wb", buffering=0) as file:
                _fill(file.fileno(), spare=reserve // 2)
            wait_until(
                lambda: (node.status() or {}).get("disk_full"), "the node to see that it is full"
            )
            assert status_of(node)["state"] == "read-only"
            assert not status_of(node)["serving"]
            with pytest.raises(redis.ResponseError, match=r"^DISKFULL.*another node"):
                node.redis().set("x", b"1" * 10_000)
            load.progress(100, 30)
        answer = node.request("PUT", "/v1/kv/x", b"1")
        assert (answer.status, answer.json["error"]) == (507, "disk_full")
        load.check(*[n for n in cluster.nodes if n is not node])
        ballast.unlink()
        cluster.wait_serving()
        assert node.redis().set("x", b"2" * 10_000)
        cluster.wait_whole()
        load.check(*cluster.nodes)


def test_a_node_that_starts_on_a_full_disk_waits_for_space(small_disk: Path) -> None:
    """It does not end: what starts it again may take minutes over it (found by chaos)."""
    with Cluster(2, 1, per_node={1: {"storage": {"directory": str(small_disk / "data")}}}) as some:
        node = some.nodes[1]
        assert node.redis().set("kept", b"1")
        some.kill(1)
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            _fill(file.fileno(), spare=0)
        for stop in (signal.SIGTERM, None):
            before = len(node.log_text())
            node.start()
            wait_until(lambda n=before: "starts as soon as" in node.log_text()[n:], "it to say so")
            if stop is not None:
                node.send_signal(stop)
                assert node.exit_code(60) == 0
        ballast.unlink()
        some.wait_serving()
        assert node.redis().get("kept") == b"1"


@pytest.mark.parametrize(
    ("engine", "disk", "reserve", "spare", "size"),
    [
        ("files", 48 * MIB, 8 * MIB, 8 * MIB, 300_000),
        ("rocksdb", 160 * MIB, 16 * MIB, 64 * MIB, 1_200_000),
    ],
    ids=["files", "rocksdb"],
)
def test_a_cluster_whose_disks_are_all_full_reads_deletes_and_recovers(
    tmp_path: Path, engine: str, disk: int, reserve: int, spare: int, size: int
) -> None:
    """Nobody makes room from outside: deletions do, and an election must be possible too."""
    with contextlib.ExitStack() as disks:
        paths = [disks.enter_context(mounted(tmp_path / str(n), disk)) for n in range(5)]
        some = Cluster(
            overrides={"repair": {"grace": 2}, "limits": {"request_seconds": 2}},
            per_node={
                n: {
                    "storage": {
                        "engine": engine,
                        "reserve": reserve,
                        "directory": str(path / "data"),
                    }
                }
                for n, path in enumerate(paths)
            },
        )
        with some:
            written = _write_until_full(some, size)
            for path in paths:  # a few may have room for one more shard, which no write gets
                with (path / "ballast").open("wb", buffering=0) as file:
                    _fill(file.fileno(), spare=spare)
            wait_until(lambda: _every_disk_is_full(some), "all full")
            assert len(written) > 50
            leader = some.leader()
            some.kill(leader)
            wait_until(lambda: some.leader_or_none() not in (None, leader), "another leader")
            some.start(leader)
            wait_until(lambda: _every_disk_is_full(some), "all back, and to know of each other")
            for node in some.nodes:
                key, value = written[-1 - node.ordinal]
                assert node.redis().get(key) == value
                with pytest.raises(redis.ResponseError, match=r"^DISKFULL the disks of nodes"):
                    node.redis().set("x", bytes(10_000))
                wait_until(lambda n=node: _names_every_disk(n), "the refusal to name all disks")
            for number, (key, _) in enumerate(written[: len(written) * 3 // 4]):
                assert some.nodes[number % 5].redis().delete(key) == 1
            some.wait_serving()
            assert some.nodes[0].redis().set("x", bytes(100_000))
            key, value = written[-1]
            assert some.nodes[1].redis().get(key) == value


def _every_disk_is_full(some: Cluster) -> bool:
    """A node that is too slow to answer (None) is asked again."""
    said = [node.status() for node in some.nodes]
    return all(status is not None and status["state"] == "read-only" for status in said)


def _names_every_disk(node: Node) -> bool:
    """Peers greet once a second: who just came back may be missing for a moment."""
    try:
        node.redis().set("x", bytes(10_000))
    except redis.ResponseError as refusal:
        return "disks of nodes 0, 1, 2, 3, 4 are full" in str(refusal)
    raise AssertionError("a full node took a write")


def _write_until_full(some: Cluster, size: int) -> list[tuple[str, bytes]]:
    """Through every node in turn, until too few are left; what was acknowledged."""
    written: list[tuple[str, bytes]] = []

    def full() -> bool:
        node = some.nodes[len(written) % some.size]
        key = f"k{len(written)}"
        value = value_of(key, len(written), size)
        with contextlib.suppress(redis.ResponseError):
            if node.redis().set(key, value):
                written.append((key, value))
                return False
        said = [node.status() for node in some.nodes]
        return sum(status is not None and bool(status["disk_full"]) for status in said) >= 3

    wait_until(full, "so many disks to be full that no write is taken")
    return written


def _fill(descriptor: int, spare: int) -> None:
    block = bytes(64 * 1024)
    while True:
        found = os.fstatvfs(descriptor)
        if spare and found.f_bavail * found.f_frsize <= spare:
            return
        try:
            os.write(descriptor, block)
        except OSError:
            if len(block) == 512:
                return
            block = block[: len(block) // 2]


def restarted_with(node: Node, section: str, **fields: object) -> tuple[int, str]:
    """Exit code and log of a start with other settings, which are then taken back."""
    kept = node.config
    node.config = kept | {section: kept.get(section, {}) | fields}
    before = len(node.log_text())
    try:
        node.start()
        code = node.exit_code(60)
    finally:
        node.config = kept
    return code, node.log_text()[before:]


def test_a_directory_of_somebody_else_is_refused(cluster: Cluster) -> None:
    assert cluster.nodes[1].redis().set("kept", b"1")
    cluster.kill(0)
    node, other = cluster.nodes[0], cluster.nodes[1]
    code, log = restarted_with(node, "cluster", id="ab" * 16)
    assert code == 3
    assert cluster.id in log
    assert "ab" * 16 in log
    code, log = restarted_with(node, "node", ordinal=1)
    assert code == 3
    assert "ordinal 0" in log
    code, log = restarted_with(node, "storage", directory=str(other.data))
    assert code == 3
    assert str(other.data) in log  # a running node holds its lock
    cluster.start(0)
    cluster.wait_serving()
    assert node.redis().get("kept") == b"1"


@pytest.mark.parametrize("door", ["resp", "http", "admin", "link", "peers"])
def test_a_taken_port_is_named(door: str) -> None:
    cluster = Cluster(1, 0)
    try:
        import socket

        kind = socket.SOCK_DGRAM if door == "peers" else socket.SOCK_STREAM
        node = cluster.nodes[0]
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", node.ports[door]))
            if kind is socket.SOCK_STREAM:
                taken.listen()
            node.start()
            assert node.exit_code(60) == 5
        assert f"listen.{door} = 127.0.0.1:{node.ports[door]}" in node.log_text()
        assert "Traceback" not in node.log_text()
        cluster.start()  # nothing stayed behind that would be in the way
    finally:
        cluster.__exit__()


def test_a_wrong_key_keeps_a_node_out(cluster: Cluster) -> None:
    assert cluster.nodes[0].redis().set("kept", b"1")
    outsider = cluster.followers()[0]
    node = cluster.nodes[outsider]
    cluster.kill(outsider)
    right, wrong = node.config["keys"], cluster.path / "wrong-key"
    wrong.write_text("cd" * 32)
    node.config["keys"] = {"files": [str(wrong)]}
    cluster.start(outsider)

    def suspected() -> bool:
        others = [s for o, s in cluster.statuses().items() if o != outsider]
        return len(others) == 4 and all(s["suspicions"] for s in others)

    wait_until(suspected, "the others to count what they cannot open")
    assert status_of(node)["peers_up"] == []

    def left_out() -> bool:
        others = [s for o, s in cluster.statuses().items() if o != outsider]
        return all(outsider not in s["peers_up"] for s in others)

    wait_until(left_out, "the old connections to end")
    with pytest.raises(redis.ResponseError, match=r"^NOQUORUM.*1 of 5"):
        node.redis().get("kept")
    cluster.kill(outsider)
    node.config["keys"] = right
    cluster.start(outsider)
    cluster.wait_serving()
    assert node.redis().get("kept") == b"1"


SHORT_LOG = {"consensus": {"retain_slots": 100, "retain_bytes": MIB}}


def test_a_node_far_behind_gets_a_snapshot_and_is_equal() -> None:
    with Cluster(overrides=SHORT_LOG) as cluster:
        behind = cluster.followers()[0]
        with Load(cluster, sizes=(50, 1500, 30_000)) as load:
            load.progress(50)
            cluster.kill(behind)
            applied = int(max(s["applied"] for s in cluster.statuses().values()))

            def log_moved_on() -> bool:
                firsts = [status["log_first"] for status in cluster.statuses().values()]
                return min(firsts) > applied + 1

            wait_until(log_moved_on, "the log to be cut behind the dead node")
            cluster.start(behind)
            load.progress(50)
        cluster.wait_serving()
        cluster.wait_whole()
        keys = {o: status["keys"] for o, status in cluster.statuses().items()}
        assert len(set(keys.values())) == 1, keys
        cluster.kill(*[o for o in range(5) if o != behind][:2])
        load.check(cluster.nodes[behind])
        load.check(*cluster.running)


def test_a_node_is_killed_again_and_again_while_it_catches_up() -> None:
    with Cluster(overrides=SHORT_LOG) as cluster:
        behind = cluster.followers()[0]
        cluster.kill(behind)
        client = cluster.nodes[cluster.leader()].redis()
        values = {f"k{i}": value_of(f"k{i}", i, 3000) for i in range(500)}
        for key, value in values.items():  # one slot each, more than the log retains
            assert client.set(key, value)
        for attempt in range(4):
            cluster.start(behind)
            goal = 10 + attempt * 40
            node = cluster.nodes[behind]
            wait_until(
                lambda goal=goal, node=node: (
                    int(str((node.status() or {}).get("applied", 0))) >= goal
                ),
                "it to get somewhere",
            )
            cluster.kill(behind)
        cluster.start(behind)
        cluster.wait_serving()
        reader = cluster.nodes[behind].redis()
        assert reader.mget(*values) == list(values.values())
