"""Leader election by a Lease: at most one operator acts at a time.

A holder that cannot renew gives up well before another may take over (`renew_within` is less
than `duration`), and the process ends then: whatever it had begun is repeated by the next one.
Other holders' times are judged by our own clock from when we saw them change, so clocks that
differ do no harm.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from distkv_operator.kube.errors import ApiError
from distkv_operator.kube.gate import Gate
from distkv_operator.kube.kinds import LEASE, Manifest

log = logging.getLogger("distkv.operator.lease")


class LeaseOptions(NamedTuple):
    """Seconds."""

    namespace: str
    name: str
    identity: str
    duration: float = 30.0
    renew_within: float = 20.0
    retry: float = 3.0


class Election:
    """`acquire` waits for the lease, `hold` returns once it is lost."""

    def __init__(
        self, gate: Gate, options: LeaseOptions, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._gate = gate
        self._options = options
        self._clock = clock
        self._seen: tuple[Any, Any] | None = None
        self._seen_at = 0.0
        self._last_round = clock()

    @property
    def age(self) -> float:
        """Seconds since the last successful look at the Lease: for the liveness probe."""
        return self._clock() - self._last_round

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        announced: str | None = None
        while True:
            holder = await self._round()
            if holder == self._options.identity:
                log.info("leading as %s", holder)
                return
            if holder is not None and holder != announced:
                announced = holder
                log.info("standing by: %s leads", holder)
            await asyncio.sleep(self._options.retry)

    async def hold(self) -> None:
        """Renew until that fails for too long, or somebody else has the lease."""
        renewed = self._clock()
        while self._clock() - renewed < self._options.renew_within:
            await asyncio.sleep(self._options.retry)
            began = self._clock()
            left = self._options.renew_within - (began - renewed)
            try:
                holder = await asyncio.wait_for(self._round(), max(left, 0.1))
            except TimeoutError:
                continue
            if holder == self._options.identity:
                renewed = began
            elif holder is not None:
                log.error("the lease was taken by %s", holder)
                return
        log.error("the lease could not be renewed for %.0f s", self._options.renew_within)

    async def release(self) -> None:
        """Let the next one take over at once; failing to is harmless."""
        try:
            lease = await self._gate.get(LEASE, self._options.namespace, self._options.name)
            if lease is not None and _spec(lease).get("holderIdentity") == self._options.identity:
                lease["spec"] = _spec(lease) | {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._gate.replace(lease | _type())
        except ApiError as error:
            log.warning("the lease could not be released: %s", error)

    async def _round(self) -> str | None:
        """Take or renew the lease if that is allowed; who holds it now, None if unknown."""
        try:
            return await self._take_or_renew()
        except ApiError as error:
            if not error.is_conflict:
                log.warning("the lease cannot be read or written: %s", error)
            return None

    async def _take_or_renew(self) -> str | None:
        options = self._options
        lease = await self._gate.get(LEASE, options.namespace, options.name)
        self._last_round = self._clock()
        if lease is None:
            meta = {"namespace": options.namespace, "name": options.name}
            made = await self._gate.create(_type() | {"metadata": meta, "spec": self._taken({})})
            return options.identity if made is not None else None
        spec = _spec(lease)
        holder = spec.get("holderIdentity") or ""
        self._observe(spec)
        if holder and holder != options.identity and not self._expired(spec):
            return str(holder)
        lease["spec"] = self._taken(spec)
        await self._gate.replace(lease | _type())
        return options.identity

    def _observe(self, spec: Manifest) -> None:
        seen = (spec.get("holderIdentity"), spec.get("renewTime"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()

    def _expired(self, spec: Manifest) -> bool:
        duration = float(spec.get("leaseDurationSeconds") or self._options.duration)
        return self._clock() - self._seen_at > duration

    def _taken(self, spec: Manifest) -> Manifest:
        options = self._options
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = spec.get("holderIdentity") == options.identity
        changes = int(spec.get("leaseTransitions") or 0)
        return {
            "holderIdentity": options.identity,
            "leaseDurationSeconds": round(options.duration),
            "acquireTime": (spec.get("acquireTime") or now) if ours else now,
            "renewTime": now,
            "leaseTransitions": changes if ours or not spec else changes + 1,
        }


def _spec(lease: Manifest) -> Manifest:
    return dict(lease.get("spec") or {})


def _type() -> Manifest:
    return {"apiVersion": LEASE.api_version, "kind": LEASE.name}
