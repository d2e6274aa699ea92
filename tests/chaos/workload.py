"""Clients of a store under faults. Runs inside a pod of the project's image, as one file.

    python workload.py run CONFIG.json       until the stop file is there
    python workload.py final CONFIG.json     reads every key that was ever used, once per door

Each client keeps to one door (gateway or node, RESP or HTTP), as a node's partition must be seen by
those who ask that node. It writes one JSON line for each operation: what was asked, when, what was
answered, and when. Times are of one monotonic clock, so the order of two operations is real.
Values carry their token, their length and a checksum; one that does not fit is reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import aiohttp
import hiredis

TIMEOUT_SECONDS = 9.0
PAUSE_AFTER_ERROR = 0.25
SIZES = (40, 200, 900, 4000, 4200, 20_000, 70_000)
REGISTERS, COUNTERS = 10, 2
OPERATIONS = (("put", 38), ("get", 34), ("cas", 12), ("delete", 6), ("increment", 10))
CERTAIN = ("ERR", "BUSY", "TOOLARGE", "NOTFORMED", "NOQUORUM", "TIMEOUT", "DISKFULL", "SHUTDOWN")
"""Refusals that say: nothing was changed."""
INTERNAL = "error"
"""A bug of the store met the request, and it may have happened; HTTP's own code for it."""


class Refused(Exception):
    """The store said no. `code` is its error word; `certain`: nothing was changed."""

    def __init__(self, code: str, certain: bool) -> None:
        super().__init__(code)
        self.code, self.certain = code, certain


def value_of(token: str, size: int) -> bytes:
    """`size` bytes (or a few more) that say what they are."""
    head = f"{token}|{size}|".encode()
    body = (hashlib.sha256(head).digest() * (size // 32 + 1))[: max(0, size - len(head) - 65)]
    return head + hashlib.sha256(head + body).hexdigest().encode() + b"|" + body


def token_of(value: bytes) -> str:
    """Raises ValueError if it is not exactly what a client wrote."""
    token, size, digest, _ = value.split(b"|", 3)
    if value != value_of(token.decode(), int(size)) or len(digest) != 64:
        raise ValueError(f"a value of {len(value)} bytes is not as written: {value[:100]!r}")
    return token.decode()


class RespDoor:
    """One connection, one request at a time. OSError: broken; the outcome is unknown if sent."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
            self._parser = hiredis.Reader()

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _call(self, *parts: bytes) -> Any:
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(
            b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)
        )
        while (reply := self._parser.gets()) is False:
            piece = await reader.read(1 << 17)
            if not piece:
                raise ConnectionResetError("closed by the other side")
            self._parser.feed(piece)
        if isinstance(reply, hiredis.ReplyError):
            code = INTERNAL if "internal error" in str(reply) else str(reply).split(" ", 1)[0]
            raise Refused(code, code in CERTAIN)
        return reply

    async def get(self, key: bytes) -> tuple[bytes | None, Any]:
        return await self._call(b"GET", key), None

    async def put(self, key: bytes, value: bytes) -> bool | None:
        await self._call(b"SET", key, value)
        return None

    async def put_if(self, key: bytes, value: bytes, handle: Any) -> bool:
        """RESP's only condition on what is there: that nothing is."""
        assert handle is None
        return await self._call(b"SET", key, value, b"NX") is not None

    async def delete(self, key: bytes) -> bool:
        return bool(await self._call(b"DEL", key))

    async def increment(self, key: bytes) -> int:
        return int(await self._call(b"INCR", key))


async def send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a request once.

    By itself aiohttp sends a PUT or DELETE again when its connection breaks, new connection or
    not. A node that is killed has perhaps done the first, and refuses the connection of the
    second: what may have happened would be entered as what surely has not.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientError(f"broken: {error}") from error


class HttpDoor:
    """The same over HTTP, where a version can be a condition."""

    def __init__(self, host: str, port: int) -> None:
        self._base = f"http://{host}:{port}/v1/kv/"
        self._session: aiohttp.ClientSession | None = None

    async def connect(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                middlewares=(send_once,),
                timeout=aiohttp.ClientTimeout(total=None),
            )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call(self, method: str, key: bytes, **options: Any) -> tuple[int, bytes, str | None]:
        assert self._session is not None
        url = self._base + key.decode() + options.pop("query", "")
        async with self._session.request(method, url, **options) as answer:
            body = await answer.read()
            if answer.status in (404, 412) or answer.status < 400:
                return answer.status, body, answer.headers.get("ETag")
            try:
                code = str(json.loads(body)["error"])
            except (ValueError, KeyError, TypeError):
                code = f"http_{answer.status}"
            raise Refused(code, answer.status in (400, 413, 429, 503, 507) or code == "deadline")

    async def get(self, key: bytes) -> tuple[bytes | None, Any]:
        status, body, etag = await self._call("GET", key)
        return (None if status == 404 else body), etag

    async def put(self, key: bytes, value: bytes) -> bool | None:
        status, _, _ = await self._call("PUT", key, data=value)
        return status == 200

    async def put_if(self, key: bytes, value: bytes, handle: Any) -> bool:
        headers = {"If-Match": handle} if handle else {"If-None-Match": "*"}
        status, _, _ = await self._call("PUT", key, data=value, headers=headers)
        return status != 412

    async def delete(self, key: bytes) -> bool:
        status, _, _ = await self._call("DELETE", key)
        return status != 404

    async def increment(self, key: bytes) -> int:
        _, body, _ = await self._call("POST", key, query="?increment=1")
        return int(json.loads(body)["value"])


Door = RespDoor | HttpDoor


class History:
    """The file of operations."""

    def __init__(self, path: Path, mode: str) -> None:
        self._file: TextIO = path.open(mode, buffering=1 << 16)
        self.count = 0

    def add(self, **entry: Any) -> None:
        self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self.count += 1

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Client:
    """Operations one after the other at one door."""

    def __init__(self, number: int, name: str, door: Door, config: dict[str, Any], out: History):
        self._number, self._name, self._door, self._out = number, name, door, out
        self._random = random.Random(config["seed"] * 1_000_003 + number)
        self._lifetime = config["key_seconds"]
        self._pace = config["pace_seconds"]
        self._writes = 0

    async def run(self, stop: asyncio.Event, began: float) -> None:
        kinds, weights = zip(*OPERATIONS, strict=True)
        while not stop.is_set():
            kind = self._random.choices(kinds, weights)[0]
            generation = int((time.monotonic() - began) / self._lifetime)
            number = self._random.randrange(COUNTERS if kind == "increment" else REGISTERS)
            key = f"{'c' if kind == 'increment' else 'r'}{generation}-{number}"
            if not await self.operate(kind, key):
                await asyncio.sleep(PAUSE_AFTER_ERROR)
            await asyncio.sleep(self._pace * self._random.random() * 2)
        await self._door.close()

    async def operate(self, kind: str, key: str) -> bool:
        """One operation and its entry; whether it was answered without an error."""
        entry: dict[str, Any] = {"c": self._number, "d": self._name, "k": key, "o": kind}
        sent = False
        entry["i"] = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await self._door.connect()
                sent = True
                await self._ask(kind, key, entry)
            entry["r"] = time.monotonic()
        except Refused as refusal:
            entry |= {"e": refusal.code, "sure": refusal.certain, "r": time.monotonic()}
        except (OSError, TimeoutError, aiohttp.ClientError, hiredis.ProtocolError) as error:
            refused = isinstance(error, aiohttp.ClientConnectorError)
            entry |= {"e": type(error).__name__, "sure": not sent or refused, "r": time.monotonic()}
            with contextlib.suppress(OSError):
                await self._door.close()
        except ValueError as wrong:
            entry |= {"e": "WRONG VALUE", "why": str(wrong), "sure": True, "r": time.monotonic()}
        self._out.add(**entry)
        return "e" not in entry

    async def _ask(self, kind: str, key: str, entry: dict[str, Any]) -> None:
        name = key.encode()
        if kind == "get":
            value, _ = await self._door.get(name)
            entry["v"] = None if value is None else _read(key, value)
        elif kind == "put":
            token, content = self._new(entry)
            entry["v"] = token
            entry["x"] = await self._door.put(name, content)
        elif kind == "delete":
            entry["x"] = await self._door.delete(name)
        elif kind == "increment":
            entry["v"] = await self._door.increment(name)
        else:
            await self._compare_and_set(name, entry)

    async def _compare_and_set(self, name: bytes, entry: dict[str, Any]) -> None:
        """A read, entered as one, and a write on the condition that nothing has changed since."""
        handle, expected = None, None
        if isinstance(self._door, HttpDoor):
            entry["o"] = "get"
            value, handle = await self._door.get(name)
            expected = None if value is None else token_of(value)
            found = {"v": expected, "r": time.monotonic()}
            self._out.add(**{**entry, **found})
            entry |= {"o": "cas", "i": time.monotonic()}
        token, content = self._new(entry)
        entry |= {"v": token, "w": expected}
        entry["met"] = await self._door.put_if(name, content, handle)

    def _new(self, entry: dict[str, Any]) -> tuple[str, bytes]:
        self._writes += 1
        token = f"{self._number}.{self._writes}"
        size = self._random.choice(SIZES)
        entry |= {"v": token, "s": size}
        return token, value_of(token, size)


def _read(key: str, value: bytes) -> str | int:
    return int(value) if key.startswith("c") else token_of(value)


def doors(config: dict[str, Any]) -> list[tuple[str, Door]]:
    """Every door once, from [name, RESP host:port, HTTP host:port]; a gateway's name is g."""
    found: list[tuple[str, Door]] = []
    for name, resp, http in config["doors"]:
        found.append((name, RespDoor(*_address(resp))))
        found.append((name, HttpDoor(*_address(http))))
    return found


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def run(config: dict[str, Any]) -> None:
    """Clients of all doors, those of the gateway several times, until the stop file is there."""
    out = History(Path(config["history"]), "w")
    began = time.monotonic()
    out.add(o="clock", i=began, wall=time.time())
    stop = asyncio.Event()
    homes = [door for _ in range(config["rounds"]) for door in doors(config)]
    homes += [door for _ in range(config["more_of_gateway"]) for door in doors(config)[:2]]
    tasks = [
        asyncio.create_task(Client(number, name, door, config, out).run(stop, began))
        for number, (name, door) in enumerate(homes)
    ]
    end = began + config["seconds_max"]
    stop_file, done_file = Path(config["stop"]), Path(config["done"])
    while not await asyncio.to_thread(stop_file.exists) and time.monotonic() < end:
        await asyncio.sleep(0.5)
        out.flush()
    stop.set()
    await asyncio.gather(*tasks)
    out.close()
    await asyncio.to_thread(done_file.touch)
    await asyncio.Event().wait()  # the pod stays, so that what it wrote can be read


async def final(config: dict[str, Any]) -> None:
    """One read of every key through every door, entered like all others."""
    path = Path(config["history"])
    lines = (await asyncio.to_thread(path.read_text)).splitlines()
    keys = sorted({entry["k"] for entry in map(json.loads, lines) if "k" in entry})
    out = History(path, "a")
    failed = 0
    for number, (name, door) in enumerate(doors(config)):
        client = Client(1000 + number, name, door, config, out)
        for key in keys:
            for _ in range(4):
                if await client.operate("get", key):
                    break
                await asyncio.sleep(PAUSE_AFTER_ERROR)
            else:
                failed += 1
        await door.close()
    out.add(o="final", keys=len(keys), failed=failed)
    out.close()
    print(json.dumps({"keys": len(keys), "failed": failed}))


def main() -> None:
    mode, path = sys.argv[1:]
    config = json.loads(Path(path).read_text())
    asyncio.run({"run": run, "final": final}[mode](config))


if __name__ == "__main__":
    main()
