"""The cluster that the tests of this folder share.

One that is up already (`hack/kube up`) is used and left up. Otherwise one is started here and taken
down at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "hack"))

from testbed.choose import make
from testbed.cli import cluster_name, recorded_provider
from testbed.harness import Cluster, Space, hack_kube
from testbed.progress import Progress

NODES = 6


def running_cluster() -> Cluster | None:
    provider = recorded_provider(cluster_name())
    return Cluster(make(provider, cluster_name(), Progress(quiet=True))) if provider else None


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    ours = recorded_provider(cluster_name()) is None
    try:
        hack_kube("up", "--nodes", str(NODES))
        found = running_cluster()
        assert found is not None
        yield found
    finally:
        if ours:
            hack_kube("down")


@pytest.fixture
def space(cluster: Cluster) -> Iterator[Space]:
    """A namespace of the test's own."""
    with cluster.space() as found:
        yield found
