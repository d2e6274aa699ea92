"""Reading what changes rarely, once for all clusters: kinds, storage classes, hosts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from distkv_operator.kube.errors import ApiError
from distkv_operator.kube.gate import Gate
from distkv_operator.kube.kinds import NODE, SERVICE_MONITOR, STORAGE_CLASS, VOLUME, Manifest

T = TypeVar("T")

HOST_SECONDS = 1.5
RARE_SECONDS = 60.0
ENTRIES_MAX = 4096


class Readings:
    """Remembers answers for a moment. What is refused to us counts as unknown."""

    def __init__(self, gate: Gate, clock: Callable[[], float] = time.monotonic) -> None:
        self._gate = gate
        self._clock = clock
        self._kept: dict[Hashable, tuple[float, Any]] = {}

    async def host(self, name: str) -> Manifest | None:
        """A Kubernetes node; None: it does not exist. Raises ApiError (403: not allowed)."""
        return await self._once(
            ("host", name), HOST_SECONDS, lambda: self._gate.get(NODE, None, name)
        )

    async def service_monitors(self) -> bool:
        """Whether the API server knows the kind ServiceMonitor."""
        return await self._once("monitors", RARE_SECONDS, lambda: self._gate.knows(SERVICE_MONITOR))

    async def expandable(self, storage_class: str) -> bool | None:
        """Whether volumes of the class may grow; None: unknown."""

        async def ask() -> bool | None:
            try:
                found = await self._gate.get(STORAGE_CLASS, None, storage_class)
            except ApiError as error:
                if error.status == 403:
                    return None
                raise
            return None if found is None else bool(found.get("allowVolumeExpansion"))

        return await self._once(("class", storage_class), RARE_SECONDS, ask)

    async def volume_host(self, volume: str) -> str | None:
        """The only Kubernetes node that reaches a volume; empty: any. None: not allowed to ask."""

        async def ask() -> str | None:
            try:
                found = await self._gate.get(VOLUME, None, volume)
            except ApiError as error:
                if error.status == 403:
                    return None
                raise
            return "" if found is None else only_host(found)

        return await self._once(("volume", volume), RARE_SECONDS, ask)

    async def _once(self, key: Hashable, seconds: float, ask: Callable[[], Awaitable[T]]) -> T:
        now = self._clock()
        kept = self._kept.get(key)
        if kept is not None and now - kept[0] < seconds:
            answer: T = kept[1]
            return answer
        answer = await ask()
        if len(self._kept) >= ENTRIES_MAX:
            self._kept.clear()
        self._kept[key] = (now, answer)
        return answer


def only_host(volume: Manifest) -> str:
    """The one hostname that a volume's node affinity allows; empty if it ties it to none."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required") or {}
    hosts: set[str] = set()
    for term in required.get("nodeSelectorTerms") or []:
        for rule in term.get("matchExpressions") or []:
            if rule.get("key") == "kubernetes.io/hostname" and rule.get("operator") == "In":
                hosts.update(rule.get("values") or [])
    return hosts.pop() if len(hosts) == 1 else ""
