"""Making batches durable: at once in the loop's thread while that is quick, else in another.

A hop to another thread and back costs several switches between threads that hold Python's
lock, more CPU than everything else a small write needs; so a flush that is expected to be
over in a moment runs where it is asked for. A slow disk, or much to write, goes to a thread
that does nothing else, and the loop runs meanwhile.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable

from distkv.storage.base import Engine

Done = Callable[[BaseException | None], None]

QUICK_SECONDS = 0.001
"""Flushes that take less, on average, block the loop for less than a hop would cost others."""
QUICK_BYTES = 64 * 1024
"""More than this takes its time on any disk."""
_WEIGHT = 0.25
"""Of the latest flush in the average."""
_SLOWEST_COUNTED = 2 * QUICK_SECONDS
"""What most flushes take is asked, not what a few stalls of the disk do to the mean."""


class Flusher:
    """`flush(done)` from the loop's thread; `done(error)` is called there, too."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._average = QUICK_SECONDS / 2
        self._jobs: queue.SimpleQueue[tuple[Done, bool] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
        self._thread.start()

    def quick(self, written: int) -> bool:
        """Whether making so many bytes durable is expected to be over in a moment."""
        return written <= QUICK_BYTES and self._average < QUICK_SECONDS

    def flush_now(self) -> BaseException | None:
        """Make everything written so far durable before this returns; what went wrong."""
        return self._timed(True)

    def flush(self, done: Done, written: int) -> None:
        """Make everything written so far (since the last flush `written` bytes) durable."""
        self._jobs.put((done, written <= QUICK_BYTES))

    def _timed(self, counts: bool) -> BaseException | None:
        began = time.monotonic()
        try:
            self._engine.flush()
        except Exception as failure:
            return failure
        if counts:
            took = min(time.monotonic() - began, _SLOWEST_COUNTED)
            self._average += (took - self._average) * _WEIGHT
        return None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            done, counts = job
            error = self._timed(counts)
            try:
                self._loop.call_soon_threadsafe(done, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    async def close(self) -> None:
        """End the thread after what is queued."""
        self._jobs.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
