from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration.transport.namespaces import Network, unavailable


@pytest.fixture(scope="session")
def namespaces_work() -> None:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def network(namespaces_work: None) -> Iterator[Network]:
    network = Network()
    try:
        yield network
    finally:
        network.remove()
