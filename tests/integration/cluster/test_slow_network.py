"""Values that take the network longer than a request may take by default."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from integration.cluster.harness import Cluster
from integration.transport.namespaces import Network, inside, run, unavailable

MEGABITS = 40
VALUE_BYTES = 10_000_000
"""Two thirds of it alone take the network 1.3 s, four thirds 2.7 s, beside what clients move."""
REQUEST_SECONDS = 1.6
LIMITS = {"limits": {"request_seconds": REQUEST_SECONDS}}


@pytest.fixture
def slow() -> Iterator[Cluster]:
    """Five nodes and their clients on one loopback that carries 40 Mbit/s."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    network = Network()
    try:
        namespace = network.add("slow")
        shape = ["rate", f"{MEGABITS}mbit", "burst", "131072", "limit", "1000000"]
        run("tc", "-n", namespace, "qdisc", "add", "dev", "lo", "root", "tbf", *shape)
        with inside(namespace), Cluster(overrides=LIMITS) as cluster:
            yield cluster
    finally:
        network.remove()


def test_a_large_value_is_stored_and_read_over_a_slow_network(slow: Cluster) -> None:
    """A read was cut off at the default deadline, and a write too, which besides took the bytes
    that stood in line for silence, and sent them all again."""
    value, other = os.urandom(VALUE_BYTES), os.urandom(VALUE_BYTES)
    stored = slow.nodes[0].request("PUT", "/v1/kv/key", value, seconds=90.0)
    assert stored.status == 201, stored
    read = slow.nodes[1].request("GET", "/v1/kv/key", seconds=90.0)
    assert (read.status, read.body == value) == (200, True)
    assert slow.nodes[2].redis(90.0).set("key", other)
    assert slow.nodes[3].redis(90.0).get("key") == other
