"""One thread that does nothing but flush: fdatasync lets the loop run meanwhile.

Leaner than an executor (no future to wrap): at one client its cost shows in every write.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable

from distkv.storage.base import Engine

Done = Callable[[BaseException | None], None]


class Flusher:
    """`flush(done)` from the loop's thread; `done(error)` is called there, too."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Done | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
        self._thread.start()

    def flush(self, done: Done) -> None:
        """Make everything written so far durable."""
        self._jobs.put(done)

    def _run(self) -> None:
        while (done := self._jobs.get()) is not None:
            error: BaseException | None = None
            try:
                self._engine.flush()
            except Exception as failure:
                error = failure
            try:
                self._loop.call_soon_threadsafe(done, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    async def close(self) -> None:
        """End the thread after what is queued."""
        self._jobs.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
