"""kopf, as thinly as can be: watches that wake the queue, and nothing else.

Only event handlers are used: kopf's timers, daemons and handlers of changes and deletions put a
finalizer on the resource, which blocks its deletion when the operator is gone; and its indexes
keep objects that were deleted while a watch was interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

import kopf

from distkv_operator import names
from distkv_operator.kube.kinds import CLUSTER, LEASE, WATCHED

Wake = Callable[[str, str], None]

SERVER_TIMEOUT_SECONDS = 270
CLIENT_TIMEOUT_SECONDS = 300


class Heartbeat:
    """When a watch last brought something. Our own Lease, renewed every other second, is among
    what is watched, so a watch that is alive never stays silent for long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        """A watch brought an event."""
        self._last = self._clock()

    @property
    def age(self) -> float:
        """Seconds since the last one."""
        return self._clock() - self._last


def registry(
    wake: Wake, heartbeat: Heartbeat, served: Collection[str], login: Callable[[], Any]
) -> kopf.OperatorRegistry:
    """`served`: namespaces whose clusters are looked after; empty: all."""
    found = kopf.OperatorRegistry()

    def is_served(namespace: str | None) -> bool:
        return namespace is not None and (not served or namespace in served)

    async def on_cluster(namespace: str | None, name: str | None, **_: Any) -> None:
        heartbeat.beat()
        if is_served(namespace) and name is not None:
            wake(str(namespace), name)

    async def on_child(namespace: str | None, labels: Any, **_: Any) -> None:
        heartbeat.beat()
        cluster = labels.get(names.CLUSTER_LABEL)
        if is_served(namespace) and cluster:
            wake(str(namespace), cluster)

    async def on_lease(**_: Any) -> None:
        heartbeat.beat()

    async def on_login(**_: Any) -> Any:
        return login()

    kopf.on.login(registry=found, id="login")(on_login)
    kopf.on.event(CLUSTER.group, CLUSTER.version, CLUSTER.plural, registry=found, id="cluster")(
        on_cluster
    )
    for kind in WATCHED:
        kopf.on.event(kind.group, kind.version, kind.plural, registry=found, id=kind.plural)(
            on_child
        )
    kopf.on.event(LEASE.group, LEASE.version, LEASE.plural, registry=found, id="lease")(on_lease)
    return found


def settings(lease: str) -> kopf.OperatorSettings:
    """Of kopf: narrow watches, no posting of its own, quick reconnection."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.peering.standalone = True
    found.scanning.disabled = True
    found.networking.request_timeout = 15
    found.networking.connect_timeout = 5
    found.watching.server_timeout = SERVER_TIMEOUT_SECONDS
    found.watching.client_timeout = CLIENT_TIMEOUT_SECONDS
    found.watching.connect_timeout = 5
    found.watching.chunk_size = 500
    found.process.ultimate_exiting_timeout = 15
    ours = f"{names.MANAGED_BY_LABEL}={names.MANAGER},{names.CLUSTER_LABEL}"
    for kind in WATCHED:
        found.watching.label_selectors[kind.group, kind.version, kind.plural] = ours
    found.watching.field_selectors[LEASE.group, LEASE.version, LEASE.plural] = (
        f"metadata.name={lease}"
    )
    return found
