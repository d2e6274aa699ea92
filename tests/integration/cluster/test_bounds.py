"""Load tools run through, and memory, files and connections stay within their limits."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading

import pytest
import redis
from integration.cluster.harness import HOST, Cluster, wait_until

KIB, MIB = 1024, 1024 * 1024


def benchmark(cluster: Cluster, *arguments: str) -> str:
    """Run redis-benchmark against node 0; its output. Fails on any error it reports."""
    if shutil.which("redis-benchmark") is None:
        pytest.skip("redis-benchmark is missing: apt-get install redis-tools")
    port = str(cluster.nodes[0].ports["resp"])
    command = ["redis-benchmark", "-h", HOST, "-p", port, "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert "rror" not in output, output[-3000:]
    return output


def test_redis_benchmark_runs_with_small_values(shared: Cluster) -> None:
    output = benchmark(shared, *["-t", "set,get", "-d", "1024", "-c", "32", "-n", "20000"])
    assert output.count("requests per second") == 2


def test_redis_benchmark_runs_with_large_values(shared: Cluster) -> None:
    output = benchmark(shared, *["-t", "set", "-d", "1000000", "-c", "8", "-n", "200"])
    assert output.count("requests per second") == 1


def test_redis_benchmark_runs_with_pipelines(shared: Cluster) -> None:
    tests = ["-t", "set,get,incr,mset", "-r", "5000"]
    benchmark(shared, *tests, "-d", "64", "-c", "50", "-n", "20000", "-P", "32")


LIMITS = {
    "memory_in_flight_max": 48 * MIB,
    "values_in_flight_max": 96 * MIB,
    "value_bytes_max": 64 * MIB,
}
GRACE_BYTES = 32 * MIB


@pytest.mark.timeout(600)
def test_memory_stays_bounded_with_256_clients_of_one_mebibyte() -> None:
    """Unbounded, 256 values of 1 MiB coded 5/3 would hold 256 MiB and more at the node asked."""
    overrides = {"limits": LIMITS, "repair": {"grace_bytes": GRACE_BYTES}}
    with Cluster(overrides=overrides) as cluster:
        node = cluster.nodes[0]
        value = os.urandom(MIB)
        assert node.redis().set("warm", value)
        before = {n.ordinal: n.resident_bytes() for n in cluster.nodes}
        highest = dict(before)
        failures: list[str] = []
        done = [0]

        def client(number: int) -> None:
            connection = node.redis(120)
            for turn in range(2):
                for _ in range(50):
                    try:
                        connection.set(f"m-{number}", value)
                        assert connection.get(f"m-{number}") == value
                        break
                    except redis.ResponseError as error:
                        if not str(error).startswith(("BUSY", "TIMEOUT", "OUTCOMEUNKNOWN")):
                            failures.append(str(error))
                            return
                else:
                    failures.append(f"client {number} was never served in turn {turn}")
            done[0] += 1

        threads = [threading.Thread(target=client, args=(i,), daemon=True) for i in range(256)]
        for thread in threads:
            thread.start()

        def watched() -> bool:
            for n in cluster.nodes:
                highest[n.ordinal] = max(highest[n.ordinal], n.resident_bytes())
            return not any(thread.is_alive() for thread in threads)

        wait_until(watched, "256 clients", 400)
        assert not failures, failures[:5]
        assert done[0] == 256
        # In flight twice (doors and coding), the transport's queues to four peers, and what
        # malloc keeps of all that.
        queues = 4 * (8 + 16) * MIB
        bound = 2 * (LIMITS["memory_in_flight_max"] + LIMITS["values_in_flight_max"]) + queues
        grown = {o: (highest[o] - before[o]) // MIB for o in before}
        assert max(grown.values()) * MIB < bound, grown


def test_clients_past_the_limit_are_told_and_the_rest_goes_on() -> None:
    with Cluster(1, 0, overrides={"limits": {"connections_max": 16}}) as cluster:
        node = cluster.nodes[0]
        sockets = [socket.create_connection((HOST, node.ports["resp"]), 20) for _ in range(16)]
        for connection in sockets:
            connection.sendall(b"PING\r\n")
            assert connection.recv(100) == b"+PONG\r\n"
        with socket.create_connection((HOST, node.ports["resp"]), 20) as late:
            late.sendall(b"PING\r\n")
            told = late.recv(1000)
        assert told.startswith(b"-")
        assert b"connections_max" in told
        for connection in sockets:
            connection.sendall(b"PING\r\n")
            assert connection.recv(100) == b"+PONG\r\n"
            connection.close()
        wait_until(lambda: _pings(node.ports["resp"]), "room for a new client")


def _pings(port: int) -> bool:
    with socket.create_connection((HOST, port), 20) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(100) == b"+PONG\r\n"


def test_connections_leave_no_open_files_behind(shared: Cluster) -> None:
    node = shared.nodes[2]
    assert node.request("PUT", "/v1/kv/files", os.urandom(3 * MIB)).status in (200, 201)
    before = node.open_files()
    for number in range(200):
        with socket.create_connection((HOST, node.ports["resp"]), 20) as connection:
            connection.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n" + b"x" * number * 100)
        with socket.create_connection((HOST, node.ports["http"]), 20) as connection:
            connection.sendall(b"GET /v1/kv/files HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: node.open_files() <= before + 10, "the files to be closed")

    def idle() -> bool:
        status = node.status()
        return status is not None and status["memory_in_flight"] == 0

    wait_until(idle, "the memory to be free again")
    assert node.redis().get("files") is not None


def test_noise_at_every_door_harms_nobody(shared: Cluster) -> None:
    node = shared.nodes[3]
    assert node.redis().set("calm", b"1")
    noise = [
        os.urandom(5000),
        b"GET / HTTP/1.1\r\n\r\n",
        b"*1000000000\r\n",
        b"$-5\r\n",
        b"\0" * 70_000,
    ]
    for door in ("resp", "http", "admin", "link"):
        for piece in noise:
            with socket.create_connection((HOST, node.ports[door]), 20) as connection:
                connection.settimeout(5)
                try:
                    connection.sendall(piece)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65_536):
                        pass
                except OSError:
                    continue
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for size in (0, 1, 20, 64, 1200, 9000):
            for _ in range(20):
                datagrams.sendto(os.urandom(size), (HOST, node.ports["peers"]))
    assert node.redis().get("calm") == b"1"
    assert "Traceback" not in node.log_text()
    assert node.running
