"""Commands that wait for a slot: a bounded queue that is cut into batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from distkv.core.options import ReplicaOptions


class Proposals:
    """First in, first out."""

    __slots__ = ("_commands", "_options", "size")

    def __init__(self, options: ReplicaOptions) -> None:
        self._commands: deque[bytes] = deque()
        self._options = options
        self.size = 0

    def __len__(self) -> int:
        return len(self._commands)

    def add(self, commands: Sequence[bytes]) -> bool:
        """All or none; False: full."""
        size = sum(map(len, commands))
        options = self._options
        if (
            len(self._commands) + len(commands) > options.queue_commands
            or self.size + size > options.queue_bytes
        ):
            return False
        self._commands.extend(commands)
        self.size += size
        return True

    def take(self) -> list[bytes]:
        """The next batch: as many as fit, at least one."""
        commands = self._commands
        options = self._options
        if len(commands) <= options.batch_commands and self.size <= options.batch_bytes:
            batch = list(commands)
            commands.clear()
            self.size = 0
            return batch
        batch = []
        size = 0
        while commands and len(batch) < options.batch_commands:
            size += len(commands[0])
            if batch and size > options.batch_bytes:
                break
            batch.append(commands.popleft())
        self.size -= sum(map(len, batch))
        return batch
