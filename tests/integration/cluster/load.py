"""Writers that know what was acknowledged, and values that say what they are.

Most keys are written once: an acknowledged one must be there exactly. Some are written again
and again: such a key must hold the last acknowledged value, or one whose outcome the store
did not tell (it may take effect at any later time).
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Iterable
from typing import Any

import redis
from integration.cluster.harness import Cluster, Node, wait_until

SIZES = (0, 1, 17, 900, 4096, 4097, 20_000, 70_000, 300_000)
HOT_KEYS = 4


def value_of(key: str, number: int, size: int) -> bytes:
    """`size` bytes that no other write has."""
    head = f"{key} {number} {size}:".encode()
    block = hashlib.sha256(head).digest()
    return (head + block * (size // len(block) + 1))[:size] if size else b""


class Writer(threading.Thread):
    """One client: a node at a time, another one after every refusal."""

    def __init__(self, load: Load, number: int) -> None:
        super().__init__(daemon=True, name=f"writer-{number}")
        self._load = load
        self._number = number
        self._random = random.Random(number)
        self._node = number % load.cluster.size
        self._client: redis.Redis | None = None
        self.writes = 0
        self.errors: list[str] = []
        self.broken: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._load.ending.is_set():
                self._write()
                self._load.ending.wait(self._load.pause)
        except BaseException as error:
            self.broken = error
            raise

    def _write(self) -> None:
        hot = self._random.random() < 0.25
        self.writes += 1
        name = f"hot-{self._random.randrange(HOT_KEYS)}" if hot else str(self.writes)
        key = f"w{self._load.name}-{self._number}-{name}"
        value = value_of(key, self.writes, self._random.choice(self._load.sizes))
        self._load.attempted(key, value)
        try:
            if self._client is None:
                self._client = self._load.cluster.nodes[self._node].redis()
            done = self._client.set(key, value)
        except (redis.RedisError, OSError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            self._turn_elsewhere()
        else:
            assert done is True
            self._load.acknowledged(key, value)

    def _turn_elsewhere(self) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.close()
        self._client = None
        self._node = (self._node + 1) % self._load.cluster.size
        self._load.ending.wait(0.02)  # not to burn the machine while all refuse


class Load:
    """`clients` writers at once; use as a context manager, then `check`.

    `pause`: seconds between two writes of a writer, where a test is about something that must
    keep up with the load whatever the machine is.
    """

    def __init__(
        self,
        cluster: Cluster,
        clients: int = 8,
        sizes: tuple[int, ...] = SIZES,
        name: str = "",
        pause: float = 0.0,
    ) -> None:
        self.cluster = cluster
        self.pause = pause
        self.sizes = sizes
        self.name = name
        self.ending = threading.Event()
        self.writers = [Writer(self, number) for number in range(clients)]
        self._lock = threading.Lock()
        self._possible: dict[str, list[bytes]] = {}
        self._sure: dict[str, bytes] = {}
        self.count = 0
        self.last = 0.0

    def attempted(self, key: str, value: bytes) -> None:
        with self._lock:
            self._possible.setdefault(key, []).append(value)

    def acknowledged(self, key: str, value: bytes) -> None:
        with self._lock:
            self._possible[key].remove(value)
            self._sure[key] = value
            self.count += 1
            self.last = time.monotonic()

    def __enter__(self) -> Load:
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        for writer in self.writers:
            writer.join(60)
        assert not any(writer.is_alive() for writer in self.writers), "a request hung"
        for writer in self.writers:
            assert writer.broken is None, writer.broken

    def progress(self, writes: int, seconds: float = 60.0) -> float:
        """Wait for so many more acknowledged writes; how long it took."""
        began, goal = time.monotonic(), self.count + writes
        wait_until(lambda: self.count >= goal, f"{writes} more writes", seconds)
        return time.monotonic() - began

    @property
    def errors(self) -> list[str]:
        return [error for writer in self.writers for error in writer.errors]

    def check(self, *nodes: Node) -> None:
        """Every key, read through every node given in turn, is what it must be."""
        assert self.ending.is_set()
        assert self._sure, "nothing was acknowledged at all"
        clients = [node.redis() for node in nodes]
        wrong: list[str] = []
        for number, key in enumerate(sorted(self._possible)):
            found = clients[number % len(clients)].get(key)
            allowed = self.allowed(key)
            if found not in allowed:
                wrong.append(f"{key}: {_shown(found)} instead of {list(map(_shown, allowed))}")
        for client in clients:
            client.close()
        assert not wrong, f"{len(wrong)} of {len(self._possible)} keys are wrong: {wrong[:20]}"

    def allowed(self, key: str) -> Iterable[bytes | None]:
        """Values that a read may find now."""
        return [self._sure.get(key), *self._possible[key]]


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{len(value)} bytes {value[:40]!r}"
