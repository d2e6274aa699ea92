"""The requeue loop: one task for each cluster, woken by events, by time, or by its nodes.

Many wakes make one reconcile; after a failure the pauses grow; while all is settled the nodes
alone are asked every two seconds, and only what they say anew wakes a reconcile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import NamedTuple

from distkv_operator.handlers.reconcile import Reconciler
from distkv_operator.kube.errors import ApiError

log = logging.getLogger("distkv.operator")

GATHER_SECONDS = 0.1
"""Wakes that come together are served together."""
BACK_OFF_SECONDS_MAX = 60.0


class QueueOptions(NamedTuple):
    """Seconds, but for `at_once`: clusters reconciled at the same time."""

    poll: float = 2.0
    at_once: int = 8


class Queue:
    """`observe_time` is told how long each reconcile took, and whether it failed."""

    def __init__(
        self,
        reconciler: Reconciler,
        options: QueueOptions,
        observe_time: Callable[[float, bool], None] = lambda *_: None,
    ) -> None:
        self._reconciler = reconciler
        self._options = options
        self._observe_time = observe_time
        self._slots = asyncio.Semaphore(options.at_once)
        self._wakes: dict[tuple[str, str], asyncio.Event] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    def wake(self, namespace: str, name: str) -> None:
        """Something about this cluster may have changed."""
        key = (namespace, name)
        wake = self._wakes.setdefault(key, asyncio.Event())
        wake.set()
        task = self._tasks.get(key)
        if task is None or task.done():
            self._tasks[key] = asyncio.create_task(self._serve(key, wake), name=f"{key}")

    @property
    def clusters(self) -> int:
        """How many are looked after."""
        return len(self._tasks)

    async def close(self) -> None:
        """Stop all; what was begun is repeated by whoever comes next."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._wakes.clear()

    async def _serve(self, key: tuple[str, str], wake: asyncio.Event) -> None:
        failures = 0
        while True:
            await asyncio.sleep(GATHER_SECONDS)
            wake.clear()
            pause = await self._round(key, failures)
            if pause is None:
                if wake.is_set():
                    continue
                self._tasks.pop(key, None)
                self._wakes.pop(key, None)
                self._reconciler.forget(*key)
                return
            seconds, failed = pause
            failures = failures + 1 if failed else 0
            await self._wait(key, wake, seconds)

    async def _round(self, key: tuple[str, str], failures: int) -> tuple[float, bool] | None:
        """Pause until the next one and whether this one failed; None: the cluster is gone."""
        began = time.monotonic()
        failed = True
        try:
            async with self._slots:
                following = await self._reconciler.reconcile(*key)
            failed = following.failed
            if following.gone:
                return None
            seconds = following.seconds
        except ApiError as error:
            log.warning("%s", error, extra={"cluster": "/".join(key)})
            seconds = 1.0
        except Exception:
            log.exception("the reconcile failed", extra={"cluster": "/".join(key)})
            seconds = 1.0
        finally:
            self._observe_time(time.monotonic() - began, failed)
        if failed:
            seconds = min(seconds * 2**failures, BACK_OFF_SECONDS_MAX)
            seconds *= random.uniform(0.8, 1.2)
        return seconds, failed

    async def _wait(self, key: tuple[str, str], wake: asyncio.Event, seconds: float) -> None:
        """Until woken, until the time is over, or until the nodes say something new."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), min(left, self._options.poll))
                return
            if left > self._options.poll and await self._reconciler.nodes_changed(*key):
                return
