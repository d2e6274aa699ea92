"""The measurements of `hack/bench`, each returning plain figures."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_cluster import WAIT_SECONDS, Cluster, cpu_seconds, disk_bytes, loopback_bytes
from bench_etcd import ETCD, Etcd

from distkv.cli import load
from distkv.cli.load import Work, encode
from distkv.local.ports import HOST, PortPlan, free_base

BUDGET_MS = {1: 1.5, 32: 0.35, 256: 0.2}
SIZE = 1024
LARGE_BYTES = 1_000_000
SCRATCH = Path(".cache/bench")
QUIET_SECONDS = 2.0


def measure_puts(cluster: Cluster, clients: int, seconds: float, node: int) -> dict[str, float]:
    """1 KiB puts to that node: puts/s, latency, CPU of all five nodes per put."""
    host, port = cluster.resp(node)
    pids = cluster.pids()
    before = cpu_seconds(pids)
    result = load.run(Work(host, port, clients, seconds, SIZE))
    used = cpu_seconds(pids) - before
    if result.errors:
        raise RuntimeError(f"{result.errors} puts were refused: {result.first_error}")
    return {
        "puts_per_second": result.per_second,
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "cpu_ms_per_put": round(1000 * used / max(1, result.acknowledged), 4),
    }


@contextlib.contextmanager
def etcd_beside() -> Iterator[Etcd | None]:
    """etcd, if it could be fetched."""
    base = free_base(PortPlan(12000, 5))
    if not ETCD.exists() or base is None:
        yield None
        return
    with Etcd(SCRATCH / "etcd", base) as etcd:
        etcd.leader_port()
        yield etcd


def idle_cpu(pids: list[int], seconds: float) -> float:
    """CPU milliseconds per second that all these processes use when nothing is asked."""
    before, began = cpu_seconds(pids), time.monotonic()
    time.sleep(seconds)
    return round(1000 * (cpu_seconds(pids) - before) / (time.monotonic() - began), 2)


def cost(rounds: int, seconds: float) -> dict[str, Any]:
    """Both stores in turn, so that what disturbs one disturbs the other; medians of the rounds.

    Puts go to the leader, as those to etcd do, and then to a node that must forward them.
    The one that is not measured idles; an idle five-node cluster costs a little CPU as well.
    """
    rows = []
    with Cluster(SCRATCH / "cost") as cluster, etcd_beside() as etcd:
        cluster.settled()
        idle = {"distkv": idle_cpu(cluster.pids(), seconds)}
        if etcd is not None:
            idle["etcd"] = idle_cpu([process.pid for process in etcd.processes], seconds)
        for clients, budget in BUDGET_MS.items():
            ours, forwarded, theirs = [], [], []
            for _ in range(rounds):
                ours.append(measure_puts(cluster, clients, seconds, cluster.leader()))
                forwarded.append(measure_puts(cluster, clients, seconds, _follower(cluster)))
                if etcd is not None:
                    theirs.append(etcd.measure(clients, seconds, SIZE))
            rows.append(
                {
                    "clients": clients,
                    "budget_cpu_ms": budget,
                    "distkv": medians(ours),
                    "distkv_through_a_follower": medians(forwarded),
                    "etcd": medians(theirs) if theirs else None,
                }
            )
    return {"idle_cpu_ms_per_second": idle, "puts": rows}


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Field by field."""
    return {name: round(statistics.median(run[name] for run in runs), 4) for name in runs[0]}


def bytes_stored(values: int) -> list[dict[str, Any]]:
    """Wire and disk per byte of 1 MB values, with five, four and three nodes up."""
    rows = []
    with Cluster(SCRATCH / "bytes") as cluster:
        cluster.settled()
        for down in range(3):
            if down:
                cluster.kill((cluster.leader() + 1) % 5 if down == 1 else _follower(cluster))
                wait_for_write(cluster)
            up = 5 - down
            k = min(cluster.k, up - 2)
            rows.append(_bytes_row(cluster, values, up, k))
    return rows


def _follower(cluster: Cluster) -> int:
    leader = cluster.leader()
    running: list[int] = [
        n["ordinal"] for n in cluster.status()["nodes"] if n["process"] == "running"
    ]
    return next(ordinal for ordinal in running if ordinal != leader)


def _bytes_row(cluster: Cluster, values: int, up: int, k: int) -> dict[str, Any]:
    writer = cluster.leader()
    time.sleep(QUIET_SECONDS)
    idle = loopback_bytes()
    began = time.monotonic()
    time.sleep(QUIET_SECONDS)
    idle_rate = (loopback_bytes() - idle) / (time.monotonic() - began)
    disk = disk_bytes(cluster.directory.path)
    wire, began = loopback_bytes(), time.monotonic()
    total = values * LARGE_BYTES
    with connected(*cluster.resp(writer)) as connection:
        rng = random.Random(up)
        for i in range(values):
            put(connection, b"large:%d:%d" % (up, i), rng.randbytes(LARGE_BYTES))
    time.sleep(QUIET_SECONDS)
    sent = loopback_bytes() - wire - idle_rate * (time.monotonic() - began)
    return {
        "nodes_up": up,
        # What the client sent crossed the same device once.
        "wire_per_byte": round(sent / total - 1, 3),
        "wire_theory": round((up - 1) / k, 3),
        "disk_per_byte": round((disk_bytes(cluster.directory.path) - disk) / total, 3),
        "disk_theory": round(up / k, 3),
    }


@contextlib.contextmanager
def connected(host: str, port: int, timeout: float = WAIT_SECONDS) -> Iterator[socket.socket]:
    """A plain connection."""
    with socket.create_connection((host, port), timeout) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def put(connection: socket.socket, key: bytes, value: bytes) -> None:
    """SET, raising RuntimeError unless it was acknowledged."""
    connection.sendall(encode(b"SET", key, value))
    answer = b""
    while not answer.endswith(b"\r\n"):
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionError("the connection was closed")
        answer += piece
    if answer != b"+OK\r\n":
        raise RuntimeError(answer.decode(errors="replace").strip())


def wait_for_write(cluster: Cluster) -> None:
    """Until a node that runs takes writes again."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            with connected(*cluster.resp(cluster.leader())) as connection:
                put(connection, b"bench:probe", b"x")
                return
        except (OSError, RuntimeError):
            if time.monotonic() > deadline:
                raise


class Writer(threading.Thread):
    """Puts one after the other to one node, through refusals; `acknowledged`: (sent, answered)."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(daemon=True)
        self._where = (host, port)
        self.acknowledged: list[tuple[float, float]] = []
        self.ended = threading.Event()

    def run(self) -> None:
        """Until `ended`."""
        while not self.ended.is_set():
            with contextlib.suppress(OSError, RuntimeError), connected(*self._where) as connection:
                while not self.ended.is_set():
                    sent = time.monotonic()
                    put(connection, b"bench:failover", b"x" * SIZE)
                    self.acknowledged.append((sent, time.monotonic()))

    def first_since(self, moment: float) -> float | None:
        """Seconds from then to the answer of the first put that was sent later."""
        for sent, answered in self.acknowledged[-10_000:]:
            if sent >= moment:
                return answered - moment
        return None


def failover(rounds: int) -> dict[str, Any]:
    """kill -9 of the leader, to the next write another node acknowledges."""
    gaps = []
    with Cluster(SCRATCH / "failover") as cluster:
        for _ in range(rounds):
            cluster.settled()
            leader = cluster.leader()
            writer = Writer(*cluster.resp((leader + 1) % 5))
            writer.start()
            while len(writer.acknowledged) < 20:
                time.sleep(0.01)
            pid = cluster.status()["nodes"][leader]["pid"]
            assert pid is not None
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            gaps.append(_gap(writer, killed))
            writer.ended.set()
            writer.join()
            cluster.start(leader)
    ordered = sorted(gaps)
    return {
        "rounds": rounds,
        "median_ms": round(1000 * statistics.median(ordered), 1),
        "p95_ms": round(1000 * ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 1),
        "largest_ms": round(1000 * ordered[-1], 1),
        "all_ms": [round(1000 * gap, 1) for gap in gaps],
    }


def _gap(writer: Writer, killed: float) -> float:
    """From the kill to the first acknowledgement of a put that was sent after it."""
    deadline = killed + WAIT_SECONDS
    while time.monotonic() < deadline:
        gap = writer.first_since(killed)
        if gap is not None:
            return gap
        time.sleep(0.005)
    raise RuntimeError(f"no write was acknowledged within {WAIT_SECONDS:.0f} s; nodes on {HOST}")
