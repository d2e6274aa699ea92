"""The HTTP door over real sockets, with aiohttp and bare."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from integration.doors.support import FakeStore, Raw, http_door, run, session_of, until
from prometheus_client.parser import text_string_to_metric_families
from unit.api.fakestore import Row
from yarl import URL

from distkv.api.http.kv import idempotency_session
from distkv.api.http.server import HttpServer
from distkv.api.options import KIB, MIB, Limits
from distkv.errors import Busy, DataLost, DistKVError, NoQuorum, OutcomeUnknown


class Client:
    """Shorthand."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self.session = session
        self.base = f"http://127.0.0.1:{port}"

    async def __call__(self, method: str, path: str, **options: Any) -> tuple[int, Any, bytes]:
        url = URL(self.base + path, encoded=True)
        async with self.session.request(method, url, **options) as response:
            return response.status, response.headers, await response.read()


Test = Callable[[Client, FakeStore, HttpServer], Awaitable[None]]


def with_client(test: Test, limits: Limits | None = None) -> None:
    async def body() -> None:
        store = FakeStore()
        store.info["serving"] = True
        async with http_door(store, limits) as door, session_of() as session:
            await test(Client(session, door.port), store, door)
        await until(lambda: all(download.closed for download in store.downloads))
        assert not store.open_uploads()

    run(body)


def test_keys_and_versions() -> None:
    async def test(call: Client, store: FakeStore, _: HttpServer) -> None:
        status, headers, body = await call("PUT", "/v1/kv/a/b%20%00%ff", data=b"value")
        assert status == 201
        version = json.loads(body)["version"]
        assert headers["ETag"] == f'"{version}"'
        assert store.rows[b"a/b \x00\xff"].value == b"value"
        status, headers, body = await call("GET", "/v1/kv/a%2Fb%20%00%FF")
        assert (status, body, headers["ETag"]) == (200, b"value", f'"{version}"')
        status, headers, body = await call("HEAD", "/v1/kv/a/b%20%00%ff")
        assert (status, body, headers["Content-Length"]) == (200, b"", "5")
        tag = {"If-None-Match": f'"{version}"'}
        assert (await call("GET", "/v1/kv/a/b%20%00%ff", headers=tag))[0] == 304
        assert (await call("HEAD", "/v1/kv/a/b%20%00%ff", headers=tag))[0] == 304
        assert (await call("PUT", "/v1/kv/a/b%20%00%ff", headers=tag, data=b"x"))[0] == 412
        match = {"If-Match": f'"{version}"'}
        assert (await call("GET", "/v1/kv/a/b%20%00%ff", headers=match))[0] == 200
        assert (await call("PUT", "/v1/kv/a/b%20%00%ff", headers=match, data=b"new"))[0] == 200
        status, _, body = await call("PUT", "/v1/kv/a/b%20%00%ff", headers=match, data=b"newer")
        assert status == 412
        assert json.loads(body)["code"] == "condition_failed"
        assert (await call("GET", "/v1/kv/a/b%20%00%ff", headers=match))[0] == 412
        assert (await call("DELETE", "/v1/kv/a/b%20%00%ff", headers=match))[0] == 412
        assert (await call("DELETE", "/v1/kv/a/b%20%00%ff"))[0] == 204
        status, _, body = await call("DELETE", "/v1/kv/a/b%20%00%ff")
        assert (status, json.loads(body)["code"]) == (404, "not_found")
        assert (await call("GET", "/v1/kv/a/b%20%00%ff"))[0] == 404
        assert (await call("HEAD", "/v1/kv/a/b%20%00%ff"))[0] == 404
        only_new = {"If-None-Match": "*"}
        assert (await call("PUT", "/v1/kv/k", headers=only_new, data=b""))[0] == 201
        assert (await call("PUT", "/v1/kv/k", headers=only_new, data=b""))[0] == 412
        assert (await call("PUT", "/v1/kv/none", headers={"If-Match": "*"}, data=b""))[0] == 412

    with_client(test)


def test_expiry_counters_and_listing() -> None:
    async def test(call: Client, store: FakeStore, _: HttpServer) -> None:
        now = store.wall_ms()
        await call("PUT", "/v1/kv/t?ttl=100", data=b"v")
        assert 99_000 < store.rows[b"t"].expires - now < 110_000
        await call("PUT", "/v1/kv/t?ttl_ms=5000", data=b"v")
        _, headers, _ = await call("GET", "/v1/kv/t")
        assert int(headers["X-DistKV-Expires-Ms"]) == store.rows[b"t"].expires
        await call("PUT", "/v1/kv/t?keep_ttl=1", data=b"w")
        assert store.rows[b"t"].expires is not None
        await call("PUT", "/v1/kv/t", data=b"w")
        assert store.rows[b"t"].expires is None
        assert json.loads((await call("POST", "/v1/kv/n?increment=5"))[2]) == {"value": 5}
        assert json.loads((await call("POST", "/v1/kv/n?increment=-7"))[2]) == {"value": -2}
        store.rows.clear()
        names = [b"a/%d" % i for i in range(25)] + [b"b", b"\xff\xfe"]
        for name in names:
            store.rows[name] = Row(b"123", 5, None)
        found: list[dict[str, Any]] = []
        query = "limit=10"
        while True:
            page = json.loads((await call("GET", f"/v1/kv?{query}"))[2])
            found += page["keys"]
            if page["cursor"] is None:
                assert page["next_start"] is None
                break
            query = f"limit=10&cursor={page['cursor']}"
        assert [
            base64.b64decode(e["key"]) if "encoding" in e else e["key"].encode() for e in found
        ] == (sorted(names))
        assert found[0]["length"] == 3
        page = json.loads((await call("GET", "/v1/kv?prefix=a%2F&start=a/3&end=a/5"))[2])
        assert [e["key"] for e in page["keys"]] == ["a/3", "a/4"]

    with_client(test)


def test_large_values_stream_both_ways() -> None:
    async def test(call: Client, store: FakeStore, _: HttpServer) -> None:
        store.pause_uploads = True
        value = bytes(range(256)) * 20_000
        assert (await call("PUT", "/v1/kv/large", data=value))[0] == 201
        assert (await call("GET", "/v1/kv/large"))[2] == value

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(value), 70_001):
                yield value[at : at + 70_001]

        assert (await call("PUT", "/v1/kv/chunked", data=pieces()))[0] == 201
        assert store.rows[b"chunked"].value == value
        assert len(store.uploads) == 2
        for text, part in (
            ("bytes=0-9", value[:10]),
            ("bytes=300000-700000", value[300_000:700_001]),
            ("bytes=-5", value[-5:]),
            ("bytes=5119995-", value[5_119_995:]),
        ):
            status, headers, body = await call("GET", "/v1/kv/large", headers={"Range": text})
            assert (status, body) == (206, part)
            assert headers["Content-Range"].endswith(f"/{len(value)}")
        outside = {"Range": "bytes=9999999-"}
        status, headers, body = await call("GET", "/v1/kv/large", headers=outside)
        assert (status, headers["Content-Range"]) == (416, f"bytes */{len(value)}")
        assert f"the value, which has {len(value)} bytes" in json.loads(body)["message"]
        for text in ("bytes=5-2", "lines=1-2", "bytes=0-1,3-4"):
            assert (await call("GET", "/v1/kv/large", headers={"Range": text}))[0] == 200
        expecting = {"Expect": "100-continue"}
        assert (await call("PUT", "/v1/kv/large", data=value, headers=expecting))[0] == 200
        store.fail_download_at = 1_000_000
        with pytest.raises(aiohttp.ClientPayloadError):
            await call("GET", "/v1/kv/large")

    with_client(test)


def test_an_idempotency_key_applies_once() -> None:
    async def test(call: Client, store: FakeStore, _: HttpServer) -> None:
        once = {"Idempotency-Key": "abc"}
        for _ in range(3):
            status, _, body = await call("POST", "/v1/kv/n?increment=5", headers=once)
            assert (status, json.loads(body)) == (200, {"value": 5})
        assert store.rows[b"n"].value == b"5"
        write: Any = store.executed[-1]
        assert write.session == idempotency_session("abc")
        assert (len(write.session), write.sequence) == (12, 1)
        first = await call("PUT", "/v1/kv/k", data=b"1" * 100_000, headers={"Idempotency-Key": "x"})
        again = await call("PUT", "/v1/kv/k", data=b"1" * 100_000, headers={"Idempotency-Key": "x"})
        assert first[2] == again[2]
        status, _, body = await call("DELETE", "/v1/kv/k", headers={"Idempotency-Key": "y" * 300})
        assert status == 400
        assert b"Idempotency-Key must have 1 to 256 characters" in body

    with_client(test)


@pytest.mark.parametrize(
    ("error", "status", "applied", "retry"),
    [
        (NoQuorum("too few"), 503, "no", True),
        (Busy("limit"), 429, "no", True),
        (OutcomeUnknown("who knows"), 504, "maybe", False),
        (DataLost("gone"), 500, "no", False),
    ],
)
def test_refusals(error: DistKVError, status: int, applied: str, retry: bool) -> None:
    async def test(call: Client, store: FakeStore, _: HttpServer) -> None:
        store.fail = lambda _: error
        for method, path in (("GET", "/v1/kv/k"), ("DELETE", "/v1/kv/k"), ("GET", "/v1/kv")):
            got, headers, body = await call(method, path)
            assert got == status
            document = json.loads(body)
            assert document["code"] == error.code
            assert document["message"] == str(error)
            assert (document["applied"], document["retry"]) == (applied, retry)
            assert ("Retry-After" in headers) == retry
        store.refuse_upload = error
        assert (await call("PUT", "/v1/kv/k", data=b"x" * 100_000))[0] == status

    with_client(test)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "text"),
    [
        ("GET", "/nothing", {}, 404, "there is nothing at /nothing"),
        ("POST", "/v1/status", {}, 405, "/v1/status takes GET"),
        ("PATCH", "/v1/kv/k", {}, 405, "a key takes GET"),
        ("GET", "/v1/kv/", {}, 400, "the key is empty"),
        ("GET", "/v1/kv/" + "k" * 5000, {}, 413, "key_bytes_max (4096 bytes)"),
        ("GET", "/v1/kv/k?what=1", {}, 400, "query parameter 'what' is not known here"),
        ("PUT", "/v1/kv/k?ttl=0", {}, 400, "ttl must be from 1"),
        ("PUT", "/v1/kv/k?ttl=x", {}, 400, "ttl must be a whole number"),
        ("PUT", "/v1/kv/k?ttl=1&ttl_ms=1", {}, 400, "give one of ttl, ttl_ms and keep_ttl"),
        ("POST", "/v1/kv/k", {}, 400, "POST on a key needs ?increment=n"),
        ("GET", "/v1/kv/k", {"X-DistKV-Timeout-Ms": "0"}, 400, "X-DistKV-Timeout-Ms must be from"),
        ("PUT", "/v1/kv/k", {"If-Match": "abc"}, 400, "If-Match must be"),
        ("PUT", "/v1/kv/k", {"If-Match": "*", "If-None-Match": "*"}, 400, "not both"),
        ("GET", "/v1/kv?limit=0", {}, 400, "limit must be from 1"),
        ("GET", "/v1/kv?cursor=!!", {}, 400, "cursor is not one that a listing gave"),
        ("GET", "/v1/kv/k", {"X-Large": "x" * 20_000}, 431, "have more than 16384 bytes"),
    ],
)
def test_wrong_requests_name_the_field(
    method: str, path: str, headers: dict[str, str], status: int, text: str
) -> None:
    async def test(call: Client, store: FakeStore, _: HttpServer) -> None:
        got, answered, body = await call(method, path, headers=headers)
        assert got == status, body
        assert answered.get("Allow", "").startswith("GET, HEAD" if status == 405 else "")
        assert text in json.loads(body)["message"]
        assert not store.executed

    with_client(test)


def test_limits_of_bodies() -> None:
    async def test(call: Client, store: FakeStore, _: HttpServer) -> None:
        status, _, body = await call("PUT", "/v1/kv/k", data=b"x" * (MIB + 1))
        assert (status, json.loads(body)["code"]) == (413, "too_large")
        assert b"value_bytes_max (1048576 bytes)" in body

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(1000):
                yield b"x" * 100_000

        try:
            status, _, body = await call("PUT", "/v1/kv/k", data=endless())
            assert status == 413
        except aiohttp.ClientError:
            pass  # The client went on sending after the answer.
        status, _, body = await call("GET", "/v1/kv/k", data=b"x" * 100)
        assert status == 413
        assert not store.rows
        assert (await call("PUT", "/v1/kv/k", data=b"x" * MIB))[0] == 201

    with_client(test, Limits(value_bytes_max=MIB, command_bytes_max=MIB))


def test_pages() -> None:
    async def test(call: Client, store: FakeStore, _: HttpServer) -> None:
        store.info["odd"] = b"\x01\x02"
        assert (await call("GET", "/livez"))[2] == b"ok\n"
        assert (await call("GET", "/readyz"))[0] == 200
        status = json.loads((await call("GET", "/v1/status"))[2])
        assert (status["state"], status["odd"]) == ("serving", "0102")
        store.info |= {"serving": False, "state": "forming", "detail": "no owner yet"}
        got, headers, body = await call("GET", "/readyz")
        assert (got, headers["Retry-After"]) == (503, "1")
        assert json.loads(body)["message"] == "forming: no owner yet"
        _, headers, body = await call("GET", "/metrics")
        assert headers["Content-Type"].startswith("text/plain")
        names = {f.name for f in text_string_to_metric_families(body.decode())}
        assert {"distkv_request_seconds", "distkv_door_connections"} <= names

    with_client(test)


def test_deadlines() -> None:
    async def test(call: Client, store: FakeStore, _: HttpServer) -> None:
        store.delay = None
        began = asyncio.get_running_loop().time()
        headers = {"X-DistKV-Timeout-Ms": "100"}
        status, _, body = await call("GET", "/v1/kv/k", headers=headers)
        assert (status, json.loads(body)["code"]) == (504, "deadline")
        status, _, body = await call("PUT", "/v1/kv/k", headers=headers, data=b"x")
        assert (status, json.loads(body)["applied"]) == (504, "maybe")
        assert asyncio.get_running_loop().time() - began < 5

    with_client(test)


async def _responses(client: Raw, count: int) -> list[tuple[bytes, bytes]]:
    found = []
    for _ in range(count):
        head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 20)
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        found.append((head.split(b"\r\n")[0], await client.reader.readexactly(length)))
    return found


def test_pipelines_are_answered_in_order() -> None:
    async def test(call: Client, store: FakeStore, door: HttpServer) -> None:
        rng = random.Random(3)
        store.delay = 0.001
        client = await Raw.connect(door.port)
        sent, expected = b"", []
        for i in range(100):
            size = rng.choice((0, 5, 100_000)) if i % 10 == 0 else 5
            value = b"%d " % i * size
            sent += b"PUT /v1/kv/k HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(value), value)
            sent += b"GET /v1/kv/k HTTP/1.1\r\n\r\n"
            expected.append(value)
        client.writer.write(sent)
        found = await _responses(client, 200)
        assert [body for _, body in found[1::2]] == expected
        assert store.in_flight_high == 1
        client.close()

    with_client(test)


def test_one_byte_at_a_time() -> None:
    async def test(call: Client, store: FakeStore, door: HttpServer) -> None:
        client = await Raw.connect(door.port)
        client.writer.get_extra_info("socket").setsockopt(6, 1, 1)
        chunked = b"3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\nTrailer: t\r\n\r\n"
        for byte in (
            b"PUT /v1/kv/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunked
            + b"GET /v1/kv/k HTTP/1.1\r\nConnection: close\r\n\r\n"
        ):
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        found = await _responses(client, 2)
        assert found[0][0] == b"HTTP/1.1 201 Created"
        assert found[1][1] == b"abcdefgh"
        assert await client.rest() == b""

    with_client(test)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", b"400"),
        (b"PUT /v1/kv/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET /" + b"a" * 700_000 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"a%d: b\r\n" % i for i in range(999)) + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 700_000 + b"\r\n\r\n", b"431"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"400"),
    ],
)
def test_broken_requests_end_the_connection(data: bytes, status: bytes) -> None:
    async def test(call: Client, store: FakeStore, door: HttpServer) -> None:
        client = await Raw.connect(door.port)
        client.writer.write(b"GET /livez HTTP/1.1\r\n\r\n" + data)
        rest = await client.rest()
        assert rest.startswith(b"HTTP/1.1 200 OK\r\n"), "what came before is answered"
        assert b"HTTP/1.1 " + status in rest
        client.close()

    with_client(test)


def test_garbage_never_breaks_the_door() -> None:
    async def test(call: Client, store: FakeStore, door: HttpServer) -> None:
        rng = random.Random(5)
        start = (
            b"PUT /v1/kv/k HTTP/1.1\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"
            b"GET /v1/kv/k?x=%zz HTTP/1.1\r\nRange: bytes=0-1\r\n\r\n"
        )
        for _ in range(150):
            data = bytearray(start)
            for _ in range(rng.randint(1, 15)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            client = await Raw.connect(door.port)
            await client.send(bytes(data) + rng.randbytes(rng.randrange(50)))
            client.writer.write_eof()
            await client.rest()
            client.close()
        assert (await call("GET", "/livez"))[0] == 200

    with_client(test)


def test_a_read_that_waits_for_memory_is_refused_at_its_deadline() -> None:
    async def test(call: Client, store: FakeStore, door: HttpServer) -> None:
        limit = door.budget.limit
        door.budget.take(limit)
        assert (await call("GET", "/livez"))[0] == 200
        for headers in ({}, {"X-DistKV-Timeout-Ms": "100"}):
            answer = await call("GET", "/v1/kv/k", headers=headers)
            assert answer[0] == 429
            assert b"limit memory_in_flight_max" in answer[2]
        assert (await call("GET", "/v1/kv/k", headers={"X-DistKV-Timeout-Ms": "x"}))[0] == 400
        door.budget.give(limit)
        assert (await call("GET", "/v1/kv/k"))[0] == 404
        assert door.budget.used == 0

    with_client(test, Limits(request_seconds=1.0))


def test_too_many_connections_and_stalled_ones() -> None:
    async def test(call: Client, store: FakeStore, door: HttpServer) -> None:
        first = await Raw.connect(door.port)
        await first.send(
            b"PUT /v1/kv/k HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000
        )
        second = await Raw.connect(door.port)
        await until(lambda: len(door.connections) == 2)
        third = await Raw.connect(door.port)
        answer = await third.rest()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"connections_max (2)" in answer
        assert await first.rest() == b""
        assert door.metrics.stalled == 1
        await until(lambda: not store.open_uploads())
        second.close()
        await until(lambda: not door.connections)
        assert (await call("GET", "/livez"))[0] == 200

    with_client(test, Limits(connections_max=2, stall_seconds=1.0))


def test_memory_stays_bounded_with_256_clients_of_a_mebibyte() -> None:
    limits = Limits(memory_in_flight_max=16 * MIB, request_seconds=50)

    async def test(call: Client, store: FakeStore, door: HttpServer) -> None:
        store.delay = 0.005
        value = b"v" * MIB
        highest = 0

        async def one(number: int) -> None:
            nonlocal highest
            client = await Raw.connect(door.port)
            head = b"PUT /v1/kv/k%d HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (number % 4, MIB)
            await client.send(head + value)
            await _responses(client, 1)
            highest = max(highest, door.budget.used)
            await client.send(b"GET /v1/kv/k%d HTTP/1.1\r\n\r\n" % (number % 4))
            assert (await _responses(client, 1))[0][1] == value
            client.close()

        await asyncio.gather(*(one(number) for number in range(256)))
        assert store.upload_high <= 16
        assert highest <= limits.memory_in_flight_max + 4 * MIB

    with_client(test, limits)


def test_a_burst_of_large_reads_is_admitted_as_far_as_memory_goes() -> None:
    limits = Limits(memory_in_flight_max=8 * MIB, command_bytes_max=MIB)

    async def test(call: Client, store: FakeStore, door: HttpServer) -> None:
        store.rows[b"k"] = Row(b"v" * 200_000, 1, None)
        assert len((await call("GET", "/v1/kv/k"))[2]) == 200_000
        store.delay = 0.005
        clients = [await Raw.connect(door.port) for _ in range(200)]
        for client in clients:
            client.writer.write(b"GET /v1/kv/k HTTP/1.1\r\n\r\n")
        for client in clients:
            assert len((await _responses(client, 1))[0][1]) == 200_000
            client.close()
        assert store.in_flight_high <= 8 * MIB // 200_000 + 1

    with_client(test, limits)


def test_header_limit_holds_while_the_head_arrives() -> None:
    async def test(call: Client, store: FakeStore, door: HttpServer) -> None:
        client = await Raw.connect(door.port)
        await client.send(b"GET / HTTP/1.1\r\n")
        for _ in range(100):
            client.writer.write(b"X-Part: " + b"y" * KIB + b"\r\n")
            await asyncio.sleep(0)
            if client.reader.at_eof():
                break
        assert (await client.rest()).startswith(b"HTTP/1.1 431")
        client.close()

    with_client(test)
