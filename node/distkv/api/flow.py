"""Coroutines over kernel futures without a kernel: for commands of several steps.

A door does not own the kernel of its store, but it may await the store's futures: each
resumes the coroutine at once, in the call that resolves it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from distkv.kernel import Future

T = TypeVar("T")


class _Run(Future[T]):
    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        super().__init__()
        self._coroutine = coroutine

    def step(self, _awaited: Future[Any] | None = None) -> None:
        try:
            awaited = self._coroutine.send(None)
        except StopIteration as stop:
            self.set_result(stop.value)
        except Exception as failure:
            self.set_exception(failure)
        else:
            awaited.add_callback(self.step)


def run(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Run it up to its first await of something not done; the future is its outcome."""
    task: _Run[T] = _Run(coroutine)
    task.step()
    return task
