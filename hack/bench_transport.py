"""Loopback figures of the transport: round trips, CPU per message, bulk throughput.

Two processes, so each side has a core of its own. `python hack/bench_transport.py [--seconds 2]`
CPU is the process's own user and system time over both sides, as the kernel counts it.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "node"))

from distkv.transport.base import Identity, Lane
from distkv.transport.endpoint import Endpoint, open_endpoint
from distkv.transport.keys import KeyRing

SECRET = bytes(range(32))
CLUSTER = b"benchmark cluster"
QUIT = b"quit"
REPORT = b"report"


class Side:
    """A handler that answers control messages (server) or counts answers (client)."""

    def __init__(self, server: bool) -> None:
        self.server = server
        self.endpoint: Endpoint | None = None
        self.received = 0
        self.received_bytes = 0
        self.up = asyncio.Event()
        self.ended = asyncio.Event()
        self.drained = asyncio.Event()
        self.window = 0
        self.payload = b""

    def on_message(self, peer: Identity, lane: Lane, payload: bytes) -> None:
        self.received += 1
        self.received_bytes += len(payload)
        assert self.endpoint is not None
        if self.server:
            if lane is Lane.CONTROL:
                if payload == QUIT:
                    self.ended.set()
                else:
                    self.endpoint.send(peer.ordinal, Lane.CONTROL, payload[:64])
            elif payload == REPORT:
                self.endpoint.send(peer.ordinal, Lane.CONTROL, b"%d" % self.received_bytes)
        elif self.payload:
            self.endpoint.send(peer.ordinal, Lane.CONTROL, self.payload)
        else:
            self.drained.set()

    def on_peer_up(self, peer: Identity) -> None:
        self.up.set()

    def on_peer_down(self, peer: Identity, reason: str) -> None:
        print(f"connection lost: {reason}", file=sys.stderr)
        self.ended.set()

    def on_drained(self, ordinal: int, lane: Lane) -> None:
        self.drained.set()

    def on_suspicion(self, source: str, kind: str, detail: str) -> None:
        print(f"suspicion: {source} {kind} {detail}", file=sys.stderr)

    def on_turn(self) -> None:
        pass


def identity(ordinal: int) -> Identity:
    """Who the process is."""
    return Identity(CLUSTER, 1, ordinal, 100 + ordinal, 1)


async def serve(pipe: Connection) -> None:
    """The answering process."""
    side = Side(server=True)
    endpoint = side.endpoint = await open_endpoint(
        identity(1), KeyRing(SECRET), side, "127.0.0.1", 0
    )
    pipe.send(endpoint.address[1])
    await side.ended.wait()
    endpoint.close()


def cpu(pid: int) -> float:
    """Seconds of user and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def exchange(side: Side, other: int, size: int, window: int, seconds: float) -> None:
    """Round trips with `window` messages under way; the answer has at most 64 bytes."""
    assert side.endpoint is not None
    side.payload = bytes(size)
    start, before = time.monotonic(), side.received
    spent = cpu(os.getpid()) + cpu(other)
    sent = side.endpoint.statistics()[0].connection
    for _ in range(window):
        side.endpoint.send(1, Lane.CONTROL, side.payload)
    await asyncio.sleep(seconds)
    trips = side.received - before
    took = time.monotonic() - start
    spent = cpu(os.getpid()) + cpu(other) - spent
    after = side.endpoint.statistics()[0].connection
    side.payload = b""
    await asyncio.sleep(0.2)
    packets = after.packets_sent - sent.packets_sent + after.packets_received
    packets -= sent.packets_received
    print(
        f"{size:>7} B, window {window:>3}: {trips / took:>8.0f} round trips/s, "
        f"{spent / max(trips, 1) / 2 * 1e6:6.1f} us CPU per message (both sides), "
        f"{packets / max(trips, 1):.2f} datagrams per round trip"
    )


async def bulk(side: Side, other: int, seconds: float) -> None:
    """One-way throughput of 256 KiB messages."""
    assert side.endpoint is not None
    payload = os.urandom(256 * 1024)
    start, sent = time.monotonic(), 0
    spent = cpu(os.getpid()) + cpu(other)
    while time.monotonic() < start + seconds:
        side.drained.clear()
        while side.endpoint.send(1, Lane.BULK, payload, sent % 8):
            sent += 1
        await side.drained.wait()
    while side.endpoint.queued(1, Lane.BULK):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    took = time.monotonic() - start
    spent = cpu(os.getpid()) + cpu(other) - spent
    size = sent * len(payload) / 1e6
    now = side.endpoint.statistics()[0].connection
    print(
        f"   bulk: {size / took:.0f} MB/s, {spent / size * 1e3:.2f} ms CPU per MB (both sides), "
        f"datagrams of {now.datagram} B, {now.packets_lost} of {now.packets_sent} packets lost"
    )


async def measure(port: int, other: int, seconds: float) -> None:
    """The asking process."""
    side = Side(server=False)
    endpoint = side.endpoint = await open_endpoint(
        identity(0), KeyRing(SECRET), side, "127.0.0.1", 0
    )
    endpoint.set_peer(1, "127.0.0.1", port)
    await asyncio.wait_for(side.up.wait(), 5)
    for size, window in ((64, 1), (64, 16), (1024, 1), (35_000, 1), (35_000, 4)):
        await exchange(side, other, size, window, seconds)
    await bulk(side, other, seconds)
    endpoint.send(1, Lane.CONTROL, QUIT)
    await asyncio.sleep(0.1)
    endpoint.close()


def run(coroutine: object, plain: bool) -> None:
    """With uvloop unless told otherwise."""
    if plain:
        asyncio.run(coroutine)  # type: ignore[arg-type]
        return
    import uvloop

    uvloop.run(coroutine)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="time per measurement")
    parser.add_argument("--asyncio", action="store_true", help="asyncio's own loop, not uvloop")
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(
        target=lambda: run(serve(theirs), options.asyncio), daemon=True
    )
    server.start()
    assert server.pid is not None
    run(measure(ours.recv(), server.pid, options.seconds), options.asyncio)
    server.join(5)


if __name__ == "__main__":
    main()
