"""Debian's etcd, five nodes, and a load of puts over gRPC that is light enough to share a machine.

Every request is the same bytes but for the stream number, and of an answer only the frame
headers are read: a put that was done has a DATA frame before the end of its stream, one that
was refused ends without (gRPC over HTTP/2: RFC 9113, and the protocol's own PROTOCOL-HTTP2).
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import cast

import uvloop
from bench_cluster import cpu_seconds

from distkv.cli.load import Clock, Result, Work, summarize
from distkv.local.ports import HOST

ETCD = Path(".cache/etcd/usr/bin/etcd")
NODES = 5
READY_SECONDS = 30.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WINDOW_BYTES = 1 << 30


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header that is not indexed and not compressed (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def put_headers(authority: bytes) -> bytes:
    """The header block of etcdserverpb.KV/Put."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/etcdserverpb.KV/Put"),
        (b":authority", authority),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    return b"".join(literal(name, value) for name, value in fields)


def varint(number: int) -> bytes:
    """Protocol buffers' base 128."""
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def put_message(key: bytes, value: bytes) -> bytes:
    """A PutRequest with its gRPC length prefix."""
    message = b"\x0a" + varint(len(key)) + key + b"\x12" + varint(len(value)) + value
    return b"\x00" + struct.pack(">I", len(message)) + message


class PutClient(asyncio.Protocol):
    """One connection with one put under way."""

    def __init__(self, clock: Clock, messages: list[bytes], authority: bytes, seed: int) -> None:
        self._clock = clock
        self._messages = messages
        self._headers = put_headers(authority)
        self._choose = random.Random(seed).randrange
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._stream = -1
        self._answered = False
        self._received = 0
        self._began = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello and begin."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        settings = struct.pack(">HI", 4, WINDOW_BYTES)
        update = struct.pack(">I", WINDOW_BYTES)
        self._transport.write(
            PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW, 0, 0, update)
        )
        self._send()

    def _send(self) -> None:
        now = time.perf_counter()
        assert self._transport is not None
        if now >= self._clock.end:
            if not self.done.done():
                self.done.set_result(None)
            self._transport.close()
            return
        self._began = now
        self._stream += 2
        self._answered = False
        message = self._messages[self._choose(len(self._messages))]
        self._transport.write(
            frame(HEADERS, END_HEADERS, self._stream, self._headers)
            + frame(DATA, END_STREAM, self._stream, message)
        )

    def data_received(self, data: bytes) -> None:
        """Frames."""
        self._buffer += data
        while len(self._buffer) >= 9:
            length = int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < 9 + length:
                return
            kind, flags = self._buffer[3], self._buffer[4]
            payload = self._buffer[9 : 9 + length]
            self._buffer = self._buffer[9 + length :]
            self._frame(kind, flags, payload)

    def _frame(self, kind: int, flags: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == SETTINGS and not flags & ACK:
            self._transport.write(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self._fail("the server said goodbye")
        elif kind == DATA:
            self._answered = True
        elif kind == HEADERS and flags & END_STREAM:
            clock = self._clock
            if not self._answered:
                self._fail("a put was refused")
            else:
                clock.acknowledged += 1
                if self._began >= clock.counting_from:
                    clock.latencies.append(time.perf_counter() - self._began)
            self._send()

    def _fail(self, reason: str) -> None:
        self._clock.errors += 1
        self._clock.first_error = self._clock.first_error or reason

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, or an error."""
        if not self.done.done():
            self._fail(f"connection lost: {exc}")
            self.done.set_result(None)


async def drive(work: Work) -> Result:
    """Puts until the time is over."""
    rng = random.Random(work.seed)
    number = min(work.keys, 1000)
    value = rng.randbytes(work.size)
    messages = [put_message(b"bench:%010d" % i, value) for i in range(number)]
    authority = f"{work.host}:{work.port}".encode()
    clock = Clock(work)
    loop = asyncio.get_running_loop()
    clients = []
    for seed in range(work.clients):
        _, client = await loop.create_connection(
            lambda seed=seed: PutClient(clock, messages, authority, seed),  # type: ignore[misc]
            work.host,
            work.port,
        )
        clients.append(client)
    _, unfinished = await asyncio.wait(
        [client.done for client in clients], timeout=work.seconds + READY_SECONDS
    )
    if unfinished:
        clock.errors += len(unfinished)
        clock.first_error = clock.first_error or "no answer"
    seconds = min(time.perf_counter(), clock.end) - clock.counting_from
    return summarize(clock, seconds)


class Etcd:
    """Five nodes of etcd with its usual settings; use as a context manager."""

    def __init__(self, path: Path, base: int) -> None:
        self.path = path
        self.base = base
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Etcd:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        cluster = ",".join(f"n{i}=http://{HOST}:{self.base + 2 * i + 1}" for i in range(NODES))
        for i in range(NODES):
            client, peer = (f"http://{HOST}:{self.base + 2 * i + j}" for j in range(2))
            command = [str(ETCD), "--name", f"n{i}", "--data-dir", str(self.path / f"n{i}")]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            command += ["--initial-cluster", cluster, "--initial-cluster-state", "new"]
            command += ["--logger", "zap", "--log-level", "error"]
            log = (self.path / f"n{i}.log").open("wb")
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.path, ignore_errors=True)

    def leader_port(self) -> int:
        """Client port of the leader; waits for one."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            for i in range(NODES):
                with contextlib.suppress(OSError, ValueError, KeyError, http.client.HTTPException):
                    port = self.base + 2 * i
                    connection = http.client.HTTPConnection(HOST, port, timeout=2)
                    connection.request("POST", "/v3/maintenance/status", b"{}")
                    answer = json.loads(connection.getresponse().read())
                    if answer["leader"] == answer["header"]["member_id"]:
                        return port
            time.sleep(0.05)
        raise RuntimeError("etcd has no leader")

    def measure(self, clients: int, seconds: float, size: int) -> dict[str, float]:
        """Puts to the leader: puts/s, latency, CPU of all nodes per put."""
        port = self.leader_port()
        pids = [process.pid for process in self.processes]
        before = cpu_seconds(pids)
        result = uvloop.run(drive(Work(HOST, port, clients, seconds, size)))
        used = cpu_seconds(pids) - before
        if result.errors:
            raise RuntimeError(f"etcd refused {result.errors} puts: {result.first_error}")
        return {
            "puts_per_second": result.per_second,
            "p50_ms": result.p50_ms,
            "p99_ms": result.p99_ms,
            "cpu_ms_per_put": round(1000 * used / max(1, result.acknowledged), 4),
        }
