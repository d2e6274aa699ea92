"""Clusters that leave nothing behind."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from integration.local.cluster import Cluster


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[int, int], Cluster]]:
    """Clusters of this test, not started."""
    made: list[Cluster] = []

    def one(k: int, m: int) -> Cluster:
        made.append(Cluster(tmp_path / f"cluster-{len(made)}", k, m))
        return made[-1]

    yield one
    for cluster in made:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            cluster.local("clean")
