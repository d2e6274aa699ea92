"""Clusters for tests; the logs of the nodes go with the report of a test that failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from integration.cluster.harness import Cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Cluster):
                report.sections.append(("logs of the nodes", value.logs()))
    return report


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Five nodes (k=3, m=2), for this test alone."""
    with Cluster() as five:
        yield five


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """Five nodes for all tests of a module that leave them as they were."""
    with Cluster() as five:
        yield five
