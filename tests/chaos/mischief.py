"""Nodes that are wrong on purpose: the harness proves itself by failing with them.

An image with one more layer: this file, and a line that Python runs at its start. The mistakes are
those that a store is tempted by: to answer reads from what it remembers, and to acknowledge a write
before it is anywhere.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

KINDS = ("stale-reads", "early-acknowledgement")
MODULE = "distkv_mischief"
REMEMBERED_SECONDS = 3.0
DELAY_SECONDS = 0.6


def stale_reads() -> None:
    """A value that was read a moment ago is answered again, without asking anybody."""
    from distkv.operations import Get
    from distkv.runtime.store import NodeStore

    original = NodeStore.execute
    remembered: dict[bytes, tuple[float, Any]] = {}

    def execute(self: NodeStore, operation: Any, deadline: float) -> Any:
        if not isinstance(operation, Get):
            return original(self, operation, deadline)
        known = remembered.get(operation.key)
        if known is not None and self.now() - known[0] < REMEMBERED_SECONDS:
            return known[1]
        future = original(self, operation, deadline)

        def remember(done: Any) -> None:
            if done.error is None and (done.result() is None or _is_whole(done.result())):
                remembered[operation.key] = (self.now(), done)

        future.add_callback(remember)
        return future

    NodeStore.execute = execute  # type: ignore[method-assign]


def _is_whole(value: Any) -> bool:
    return isinstance(value.data, bytes)


def early_acknowledgement() -> None:
    """An unconditional put is acknowledged at once, and dispersed and ordered a moment later."""
    from distkv.kernel import Future
    from distkv.operations import Must, Put, Write, Written
    from distkv.runtime.store import NodeStore

    original = NodeStore.execute

    def execute(self: NodeStore, operation: Any, deadline: float) -> Any:
        plain = (
            isinstance(operation, Write)
            and len(operation.mutations) == 1
            and isinstance(put := operation.mutations[0], Put)
            and isinstance(put.value, bytes)
            and put.condition.must is Must.ANYTHING
        )
        if not plain:
            return original(self, operation, deadline)
        asyncio.get_running_loop().call_later(
            DELAY_SECONDS, original, self, operation, deadline + DELAY_SECONDS
        )
        future: Future[object] = Future()
        future.set_result([Written(1, False)])
        return future

    NodeStore.execute = execute  # type: ignore[method-assign]


def layer(kind: str) -> bytes:
    """Of the image; see the module."""
    from testbed.image.build import PACKAGES
    from testbed.image.layer import Layer

    found = Layer()
    found.file(f"{PACKAGES}/{MODULE}.py", Path(__file__).read_bytes())
    found.file(f"{PACKAGES}/{MODULE}.pth", f"import {MODULE}; {MODULE}.begin({kind!r})\n".encode())
    return found.to_bytes()


def begin(kind: str) -> None:
    """At the start of every Python of the image; only nodes are changed."""
    words = [os.path.basename(word) for word in sys.orig_argv]
    if "distkv" in words and "node" in words:
        {"stale-reads": stale_reads, "early-acknowledgement": early_acknowledgement}[kind]()
