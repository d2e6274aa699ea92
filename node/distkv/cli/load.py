"""A light closed-loop load generator over RESP: each client sends, waits, sends again.

It shares the machine with what it measures, so one request costs it a few microseconds of
Python: requests are made beforehand, replies are only counted, and one timestamp is taken for each.
"""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from typing import NamedTuple, cast

import uvloop

WARM_SHARE = 0.1
"""This part of the time, at the beginning, is not counted."""
CONNECT_SECONDS = 10.0
DRAIN_SECONDS = 30.0
VALUES = 16
REQUESTS_MADE_MAX = 64 * 1024 * 1024
"""Bytes of requests made beforehand."""


class Work(NamedTuple):
    """What the clients do; `reads` is the share of GETs, `size` bytes of a value."""

    host: str
    port: int
    clients: int
    seconds: float
    size: int = 1024
    keys: int = 10_000
    reads: float = 0.0
    seed: int = 1


class Result(NamedTuple):
    """Requests acknowledged in the counted time; latencies in milliseconds.

    `acknowledged`: all of the run, warm-up included.
    """

    requests: int
    acknowledged: int
    errors: int
    seconds: float
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    largest_ms: float
    first_error: str


class Clock:
    """Shared by all clients of one run."""

    def __init__(self, work: Work) -> None:
        self.counting_from = time.perf_counter() + work.seconds * WARM_SHARE
        self.end = time.perf_counter() + work.seconds
        self.latencies = array("d")
        self.errors = 0
        self.first_error = ""
        self.acknowledged = 0
        """All, warm-up included."""


class Client(asyncio.Protocol):
    """One connection with one request under way."""

    def __init__(self, clock: Clock, requests: list[bytes], rng: random.Random) -> None:
        self._clock = clock
        self._requests = requests
        self._choose = rng.randrange
        self._transport: asyncio.Transport | None = None
        self._began = 0.0
        self._wanted = -1
        self._had = 0
        self._refused = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        now = time.perf_counter()
        if now >= self._clock.end:
            self._finish()
            return
        self._began = now
        self._wanted = -1
        self._had = 0
        self._refused = False
        assert self._transport is not None
        self._transport.write(self._requests[self._choose(len(self._requests))])

    def data_received(self, data: bytes) -> None:
        """A reply, or a part of one."""
        if self._wanted < 0:
            if data[:1] == b"$":
                head, _, _ = data.partition(b"\r\n")
                length = int(head[1:])
                self._wanted = len(head) + 2 + (length + 2 if length >= 0 else 0)
            elif data.endswith(b"\r\n"):
                self._wanted = len(data)
                if data[:1] == b"-":
                    self._refused = True
                    self._error(data[1:].decode(errors="replace").strip())
        self._had += len(data)
        if self._had >= self._wanted >= 0:
            clock = self._clock
            clock.acknowledged += not self._refused
            if self._began >= clock.counting_from and not self._refused:
                clock.latencies.append(time.perf_counter() - self._began)
            self._send()

    def _error(self, reason: str) -> None:
        self._clock.errors += 1
        self._clock.first_error = self._clock.first_error or reason

    def connection_lost(self, exc: Exception | None) -> None:
        """The server went away: an error, unless the run is over."""
        if not self.done.done():
            self._error("connection lost" if exc is None else f"connection lost: {exc}")
            self.done.set_result(None)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        assert self._transport is not None
        self._transport.close()


def encode(*parts: bytes) -> bytes:
    """A RESP command."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


def make_requests(work: Work, rng: random.Random) -> list[bytes]:
    """Requests to choose from: enough keys, a bounded amount of memory."""
    number = max(1, min(work.keys, REQUESTS_MADE_MAX // max(1, work.size)))
    values = [rng.randbytes(work.size) for _ in range(min(VALUES, number))]
    requests = []
    for i in range(number):
        key = b"bench:%010d" % i
        read = rng.random() < work.reads
        requests.append(encode(b"GET", key) if read else encode(b"SET", key, values[i % VALUES]))
    return requests


async def drive(work: Work) -> Result:
    """Run the load. Raises OSError if the server cannot be reached."""
    loop = asyncio.get_running_loop()
    rng = random.Random(work.seed)
    requests = make_requests(work, rng)
    clock = Clock(work)
    clients = []
    for number in range(work.clients):
        generator = random.Random(work.seed * 1_000_003 + number)
        async with asyncio.timeout(CONNECT_SECONDS):
            _, client = await loop.create_connection(
                lambda generator=generator: Client(clock, requests, generator),  # type: ignore[misc]
                work.host,
                work.port,
            )
        clients.append(client)
    _, unfinished = await asyncio.wait(
        [client.done for client in clients], timeout=work.seconds + DRAIN_SECONDS
    )
    if unfinished:
        clock.errors += len(unfinished)
        clock.first_error = clock.first_error or "no answer"
    return summarize(clock, max(0.0, min(time.perf_counter(), clock.end) - clock.counting_from))


def summarize(clock: Clock, seconds: float) -> Result:
    """Figures of one run."""
    ordered = sorted(clock.latencies)

    def quantile(share: float) -> float:
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    return Result(
        len(ordered),
        clock.acknowledged,
        clock.errors,
        round(seconds, 3),
        round(len(ordered) / max(1e-9, seconds), 1),
        round(quantile(0.5), 3),
        round(quantile(0.95), 3),
        round(quantile(0.99), 3),
        round(quantile(1.0), 3),
        clock.first_error,
    )


def run(work: Work) -> Result:
    """`drive` in a loop of its own."""
    return uvloop.run(drive(work))
