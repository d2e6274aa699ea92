"""`hack/bench rebuild`: one node loses its disk under load, and gets its shards back.

Prints bytes on the wire per byte rebuilt (the lower bound is k), the speed, and the 99th
percentile of small requests of clients while it runs, beside that before.
"""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
from http.client import HTTPConnection
from typing import Any

from bench_cluster import Cluster, loopback_bytes
from bench_sections import SCRATCH, connected, put

from distkv.cli import load
from distkv.cli.load import Work
from distkv.local import control
from distkv.local.ports import HOST

VALUE_BYTES = 4_000_000
WINDOW_SECONDS = 4.0
WINDOWS_BEFORE = 4
CLIENTS = 4
READS = 0.5
REBUILD_SECONDS_MAX = 3600.0
VICTIM_OFFSET = 1


class Foreground(threading.Thread):
    """Small requests at one node, window after window, until `stop`."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(daemon=True)
        self._work = Work(host, port, CLIENTS, WINDOW_SECONDS, 1024, keys=1000, reads=READS)
        self._ending = threading.Event()
        self.p99: list[float] = []
        self.errors = 0

    def run(self) -> None:
        """One window after the other."""
        while not self._ending.is_set():
            result = load.run(self._work)
            self.p99.append(result.p99_ms)
            self.errors += result.errors

    def stop(self) -> None:
        """After the window under way."""
        self._ending.set()
        self.join()


def metrics(port: int) -> dict[str, float]:
    """Samples of a node without labels."""
    connection = HTTPConnection(HOST, port, timeout=10.0)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#") and "{" not in line:
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def status(port: int) -> dict[str, Any]:
    """/v1/status of a node; {} if nobody answers."""
    try:
        connection = HTTPConnection(HOST, port, timeout=5.0)
        connection.request("GET", "/v1/status")
        found = json.loads(connection.getresponse().read())
        connection.close()
    except OSError:
        return {}
    return found if isinstance(found, dict) else {}


def rebuild(shard_bytes: int) -> dict[str, Any]:
    """Fill a cluster until each node holds `shard_bytes` of shards, wipe one, watch it heal."""
    with Cluster(SCRATCH / "rebuild") as cluster:
        cluster.settled()
        fill(cluster, shard_bytes)
        victim = (cluster.leader() + VICTIM_OFFSET) % (cluster.k + cluster.m)
        observer = (victim + 1) % (cluster.k + cluster.m)
        before = Foreground(*cluster.resp(observer))
        wire, began = loopback_bytes(), time.monotonic()
        before.start()
        while len(before.p99) < WINDOWS_BEFORE:
            time.sleep(0.1)
        before.stop()
        rate = (loopback_bytes() - wire) / (time.monotonic() - began)
        cluster.kill(victim)
        control.command(cluster.directory, "wipe", who=str(victim))
        during = Foreground(*cluster.resp(observer))
        during.start()
        wire, began = loopback_bytes(), time.monotonic()
        cluster.start(victim)
        wait_healed(cluster, victim, shard_bytes)
        seconds = time.monotonic() - began
        sent = loopback_bytes() - wire - rate * seconds
        found = metrics(cluster.plan.node(victim).http)
        during.stop()
        return report(found, sent, seconds, cluster.k, before, during)


def fill(cluster: Cluster, shard_bytes: int) -> None:
    """Large values through one node."""
    count = max(1, shard_bytes * cluster.k // VALUE_BYTES)
    rng = random.Random(1)
    with connected(*cluster.resp(cluster.leader())) as connection:
        for i in range(count):
            put(connection, b"large:%d" % i, rng.randbytes(VALUE_BYTES))


def wait_healed(cluster: Cluster, victim: int, shard_bytes: int) -> None:
    """Until the victim serves, has looked at everything, and lacks nothing."""
    port, end = cluster.plan.node(victim).http, time.monotonic() + REBUILD_SECONDS_MAX
    while time.monotonic() < end:
        found = status(port)
        whole = found.get("shards_missing") == 0 and found.get("serving")
        if whole and found.get("shards_bytes", 0) >= 0.9 * shard_bytes:
            return
        time.sleep(0.5)
    raise RuntimeError(f"not rebuilt within {REBUILD_SECONDS_MAX:.0f} s: {status(port)}")


def report(
    found: dict[str, float],
    sent: float,
    seconds: float,
    k: int,
    before: Foreground,
    during: Foreground,
) -> dict[str, Any]:
    """Plain figures."""
    built = found["distkv_repair_bytes_total"]
    return {
        "rebuilt_bytes": int(built),
        "seconds": round(seconds, 1),
        "bytes_per_second": round(built / seconds),
        "k": k,
        "fetched_per_byte": round(found["distkv_repair_fetched_bytes_total"] / built, 3),
        # All that crossed the loopback device but what the clients' load alone costs.
        "wire_per_byte": round(sent / built, 3),
        "p99_before_ms": round(statistics.median(before.p99), 2),
        "p99_during_ms": round(statistics.median(during.p99), 2),
        "p99_during_worst_ms": round(max(during.p99), 2),
        "refused": before.errors + during.errors,
    }


def sentences(found: dict[str, Any]) -> list[str]:
    """For people."""
    return [
        f"rebuilt {found['rebuilt_bytes'] / 2**20:.0f} MiB of shards in {found['seconds']:g} s "
        f"({found['bytes_per_second'] / 2**20:.1f} MiB/s): {found['fetched_per_byte']:g} bytes "
        f"fetched and {found['wire_per_byte']:g} on the wire for each byte rebuilt "
        f"(k is {found['k']}, at most {1.1 * found['k']:g} are allowed)",
        f"small requests meanwhile: p99 {found['p99_during_ms']:g} ms (worst window "
        f"{found['p99_during_worst_ms']:g} ms), before {found['p99_before_ms']:g} ms; "
        f"{found['refused']} refused",
    ]
