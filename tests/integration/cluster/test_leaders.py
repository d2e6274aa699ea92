"""Leaders that freeze, return, and must not answer from the past."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import redis
from integration.cluster.harness import Cluster, Node, wait_until
from integration.cluster.load import Load


def freeze(node: Node) -> None:
    node.send_signal(signal.SIGSTOP)
    wait_until(lambda: state_of(node) == "T", "the process to stop")


def state_of(node: Node) -> str:
    with open(f"/proc/{node.pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def others_lead(cluster: Cluster, frozen: int) -> Callable[[], int | None]:
    def leader() -> int | None:
        for node in cluster.nodes:
            if node.ordinal != frozen:
                status = node.status()
                if status is not None and status["role"] == "leader":
                    return node.ordinal + 1
        return None

    return leader


def test_a_leader_that_was_frozen_answers_nothing_from_before(cluster: Cluster) -> None:
    """Requests wait in its sockets while the others write on: it must not answer them from
    what it knew when it froze."""
    for number in range(4):
        old = cluster.leader()
        node = cluster.nodes[old]
        key = f"counter-{number}"
        first = cluster.nodes[(old + 1) % 5].redis()
        assert first.set(key, "old")
        assert first.set(f"large-{key}", b"old" * 10_000)
        # Greeted while it runs, so that nothing but the request itself waits in its sockets.
        clients = {name: node.redis() for name in (key, f"large-{key}")}
        links = {name: client.connection_pool.get_connection() for name, client in clients.items()}
        freeze(node)
        new = wait_until(others_lead(cluster, old), "another leader") - 1
        writer = cluster.nodes[new].redis()
        assert writer.set(key, "new")
        assert writer.set(f"large-{key}", b"new" * 10_000)
        for name, link in links.items():
            link.send_command("GET", name)
        node.send_signal(signal.SIGCONT)
        answers: dict[str, object] = {}
        for name, link in links.items():
            try:
                answers[name] = link.read_response()
            except redis.RedisError as error:
                answers[name] = error
            link.disconnect()
        expected = {key: b"new", f"large-{key}": b"new" * 10_000}
        for name, answer in answers.items():
            refused = isinstance(answer, redis.ResponseError)
            assert refused or answer == expected[name], (name, repr(answer)[:200])
        wait_until(
            lambda node=node: (
                (node.status() or {}).get("role") != "leader"
                or cluster.leader_or_none() == node.ordinal
            ),
            "the old leader to know better",
        )
        cluster.wait_serving()
        assert node.redis().get(key) == b"new"


def test_writes_survive_leaders_that_freeze_under_load(cluster: Cluster) -> None:
    with Load(cluster, clients=6, sizes=(10, 900, 5000, 50_000)) as load:
        load.progress(50)
        for _ in range(3):
            old = cluster.nodes[cluster.leader()]
            freeze(old)
            wait_until(others_lead(cluster, old.ordinal), "another leader")
            load.progress(30)
            old.send_signal(signal.SIGCONT)
            cluster.wait_serving()
    cluster.wait_whole()
    load.check(*cluster.nodes)


def test_no_reader_goes_back_in_time_while_leaders_die(cluster: Cluster) -> None:
    """One key counts up through any node; whoever reads it later must not see less."""
    ending = threading.Event()
    lock = threading.Lock()
    acknowledged = [0]
    wrong: list[str] = []
    reads = [0]

    def write() -> None:
        number, ordinal = 0, 0
        while not ending.is_set():
            number += 1
            try:
                cluster.nodes[ordinal].redis().set("count", number)
            except (redis.RedisError, OSError):
                ordinal = (ordinal + 1) % 5
            else:
                with lock:
                    acknowledged[0] = number

    def read(ordinal: int) -> None:
        client = cluster.nodes[ordinal].redis()
        while not ending.is_set():
            with lock:
                least = acknowledged[0]
            try:
                found = int(client.get("count") or 0)
            except (redis.RedisError, OSError):
                client.close()
                ending.wait(0.02)
                client = cluster.nodes[ordinal].redis()
                continue
            reads[0] += 1
            if found < least:
                wrong.append(f"node {ordinal} said {found} after {least} was acknowledged")

    threads = [threading.Thread(target=write)]
    threads += [threading.Thread(target=read, args=(ordinal,)) for ordinal in range(5)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            goal = acknowledged[0] + 50
            wait_until(lambda goal=goal: acknowledged[0] >= goal or wrong, "the count to go on")
            old = cluster.leader()
            cluster.kill(old)
            goal = acknowledged[0] + 50
            wait_until(lambda goal=goal: acknowledged[0] >= goal or wrong, "the count to go on")
            cluster.start(old)
            cluster.wait_serving()
    finally:
        ending.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong, wrong[:5]
    assert reads[0] > 50
