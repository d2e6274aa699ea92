"""What clients on the wire can do to a RESP door: pipelines, pauses, limits, going away."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from integration.doors.support import FakeStore, Raw, resp_door, run, until
from unit.api.fakestore import Row

from distkv import operations as op
from distkv.api.options import KIB, MIB, Limits
from distkv.errors import NoQuorum


def encode(*arguments: bytes) -> bytes:
    parts = [b"*%d\r\n" % len(arguments)]
    return b"".join(parts + [b"$%d\r\n%b\r\n" % (len(a), a) for a in arguments])


def test_replies_keep_their_order_whatever_takes_longer() -> None:
    async def body() -> None:
        store = FakeStore()
        rng = random.Random(1)
        original = store.execute

        def execute(operation: op.Operation, deadline: float) -> Any:
            store.delay = rng.choice((0.0, 0.001, 0.02))
            return original(operation, deadline)

        store.execute = execute  # type: ignore[method-assign]
        async with resp_door(store) as door:
            client = await Raw.connect(door.port)
            sent, expected = b"", b""
            for i in range(300):
                key = b"key:%d" % rng.randrange(5)
                sent += encode(b"SET", key, b"%d" % i) + encode(b"GET", key) + encode(b"PING")
                expected += b"+OK\r\n" + b"$%d\r\n%d\r\n" % (len(str(i)), i) + b"+PONG\r\n"
            sent += encode(b"FLUSHDB") + encode(b"DBSIZE") + b"GET key:1\r\n"
            expected += b"+OK\r\n:0\r\n$-1\r\n"
            await client.send(sent)
            await client.expect(expected)
            assert store.in_flight_high > 1, "commands on different keys overlap"
            client.close()

    run(body)


def test_sets_side_by_side_are_one_write() -> None:
    async def body() -> None:
        store = FakeStore()
        async with resp_door(store, Limits(key_bytes_max=10)) as door:
            client = await Raw.connect(door.port)
            sets = b"".join(encode(b"SET", b"k%d" % (i % 3), b"%d" % i) for i in range(100))
            await client.send(sets + encode(b"GET", b"k0"))
            await client.expect(b"+OK\r\n" * 100 + b"$2\r\n99\r\n")
            assert store.rows[b"k1"].value == b"97"
            assert len(store.executed) <= 10
            assert door.metrics.kind("set").count == 100
            store.fail = lambda _: NoQuorum("too few")
            await client.send(encode(b"SET", b"k", b"v") * 3 + b"PING\r\n")
            await client.expect(b"-NOQUORUM too few\r\n" * 3 + b"+PONG\r\n")
            assert door.metrics.kind("set").errors == 3
            store.fail = lambda _: None
            await client.send(
                encode(b"SET", b"a", b"1") + encode(b"SET", b"k" * 11, b"v") + encode(b"SET", b"b")
            )
            await client.expect(b"+OK\r\n-TOOLARGE a key of 11 bytes")
            client.close()

    run(body)


def test_one_byte_at_a_time() -> None:
    async def body() -> None:
        store = FakeStore()
        async with resp_door(store) as door:
            client = await Raw.connect(door.port)
            client.writer.get_extra_info("socket").setsockopt(6, 1, 1)
            for byte in encode(b"SET", b"k", b"v\r\nw") + b"GET k\r\n" + encode(b"QUIT"):
                await client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert await client.rest() == b"+OK\r\n$4\r\nv\r\nw\r\n+OK\r\n"

    run(body)


def test_resp3_begins_where_hello_stands() -> None:
    async def body() -> None:
        store = FakeStore()
        store.delay = 0.01
        async with resp_door(store) as door:
            client = await Raw.connect(door.port)
            await client.send(encode(b"GET", b"x") + encode(b"HELLO", b"3") + encode(b"GET", b"x"))
            await client.expect(b"$-1\r\n%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n")
            data = b""
            while not data.endswith(b"_\r\n"):
                data += await client.line()
            await client.send(encode(b"HELLO", b"4"))
            assert (await client.line()).startswith(b"-NOPROTO")
            await client.send(encode(b"RESET") + encode(b"GET", b"x"))
            await client.expect(b"+RESET\r\n$-1\r\n")
            client.close()

    run(body)


def test_passwords() -> None:
    async def body() -> None:
        store = FakeStore()
        async with resp_door(store, password="open sesame") as door:
            client = await Raw.connect(door.port)
            large = encode(b"SET", b"k", b"x" * 200_000)
            await client.send(encode(b"GET", b"k") + large + encode(b"AUTH", b"wrong"))
            await client.expect(b"-NOAUTH Authentication required.\r\n" * 2)
            assert (await client.line()).startswith(b"-WRONGPASS")
            await client.send(encode(b"HELLO", b"3"))
            assert (await client.line()).startswith(b"-NOAUTH HELLO must be called")
            await client.send(encode(b"AUTH", b"nobody", b"open sesame"))
            assert (await client.line()).startswith(b"-WRONGPASS")
            await client.send(encode(b"AUTH", b"default", b"open sesame") + encode(b"GET", b"k"))
            await client.expect(b"+OK\r\n$-1\r\n")
            client.close()
            client = await Raw.connect(door.port)
            await client.send(encode(b"HELLO", b"2", b"AUTH", b"default", b"open sesame"))
            assert (await client.line()) == b"*14\r\n"
            client.close()
            assert not store.open_uploads()

    run(body)


@pytest.mark.parametrize(
    ("request_bytes", "answer"),
    [
        (b"*1\r\n:1\r\n", b"-ERR Protocol error: expected '$', got ':'\r\n"),
        (
            b"POST / HTTP/1.1\r\n",
            b"-ERR this port speaks the Redis protocol, not HTTP; closing\r\n",
        ),
        (b"*99999999\r\n", b"-ERR Protocol error: invalid multibulk length: a command has 65536"),
        (b"x" * 65_536, b"-ERR Protocol error: too big inline request: it has 65536"),
    ],
)
def test_what_ends_a_connection(request_bytes: bytes, answer: bytes) -> None:
    async def body() -> None:
        store = FakeStore()
        store.delay = 0.01
        async with resp_door(store) as door:
            client = await Raw.connect(door.port)
            await client.send(encode(b"GET", b"k") + request_bytes)
            rest = await client.rest()
            assert rest.startswith(b"$-1\r\n" + answer), "what came before is answered first"

    run(body)


def test_limits_name_themselves() -> None:
    async def body() -> None:
        store = FakeStore()
        limits = Limits(
            key_bytes_max=100,
            value_bytes_max=MIB,
            command_bytes_max=200 * KIB,
            connections_max=2,
            keys_listed_max=3,
        )
        async with resp_door(store, limits) as door:
            client = await Raw.connect(door.port)
            for request, name in (
                (encode(b"GET", b"k" * 101), b"key_bytes_max (100 bytes)"),
                (encode(b"MSET", b"a", b"1", b"k" * 101, b"2"), b"key_bytes_max (100 bytes)"),
                (encode(b"SET", b"k" * 70_000, b"v"), b"key_bytes_max (100 bytes)"),
                (encode(b"SET", b"k", b"v" * (MIB + 1)), b"value_bytes_max (1048576 bytes)"),
                (encode(b"ECHO", b"v" * 300_000), b"command_bytes_max (204800 bytes)"),
                (encode(b"MSET", *[b"v" * 60_000] * 4), b"command_bytes_max (204800 bytes)"),
            ):
                await client.send(request)
                line = await client.line()
                assert line.startswith(b"-TOOLARGE"), line
                assert name in line, line
            assert not store.rows
            await client.send(encode(b"SET", b"k" * 100, b"v" * MIB))
            await client.expect(b"+OK\r\n")
            for i in range(4):
                await client.send(encode(b"SET", b"%d" % i, b"v"))
                await client.expect(b"+OK\r\n")
            await client.send(encode(b"KEYS", b"*"))
            assert b"keys_listed_max (3)" in await client.line()
            second = await Raw.connect(door.port)
            await second.send(b"PING\r\n")
            await second.expect(b"+PONG\r\n")
            third = await Raw.connect(door.port)
            assert b"connections_max (2)" in await third.rest()
            second.close()
            await until(lambda: door.metrics.connections == 1)
            fourth = await Raw.connect(door.port)
            await fourth.send(b"PING\r\n")
            await fourth.expect(b"+PONG\r\n")
            client.close()
            fourth.close()
            assert not store.open_uploads()

    run(body)


def test_a_long_pipeline_waits_its_turn() -> None:
    async def body() -> None:
        store = FakeStore()
        store.delay = 0.001
        async with resp_door(store, Limits(pipeline_max=16)) as door:
            client = await Raw.connect(door.port)
            await client.send(b"".join(encode(b"GET", b"%d" % i) for i in range(2000)))
            await client.expect(b"$-1\r\n" * 2000)
            assert store.in_flight_high == 16
            client.close()

    run(body)


def test_memory_stays_bounded_with_256_clients_of_a_mebibyte() -> None:
    async def body() -> None:
        store = FakeStore()
        store.delay = 0.01
        limits = Limits(memory_in_flight_max=16 * MIB, request_seconds=50)
        highest = 0
        async with resp_door(store, limits) as door:
            value = b"v" * MIB

            async def one(number: int) -> None:
                client = await Raw.connect(door.port)
                await client.send(encode(b"SET", b"key %d" % (number % 4), value))
                await client.expect(b"+OK\r\n")
                await client.send(encode(b"GET", b"key %d" % (number % 4)))
                await client.expect(b"$%d\r\n%b\r\n" % (MIB, value))
                client.close()

            async def watch() -> None:
                nonlocal highest
                while True:
                    highest = max(highest, door.budget.used)
                    await asyncio.sleep(0.001)

            watching = asyncio.ensure_future(watch())
            await asyncio.gather(*(one(number) for number in range(256)))
            watching.cancel()
            assert store.upload_high <= 16, "no more values arrive at once than memory allows"
            # Above the limit: what one read of a socket brings.
            assert highest <= limits.memory_in_flight_max + 4 * MIB

    run(body)


def test_a_burst_of_large_reads_is_admitted_as_far_as_memory_goes() -> None:
    async def body() -> None:
        store = FakeStore()
        size = 200_000
        for number in range(20):
            store.rows[b"%d" % number] = Row(b"v" * size, 1, None)
        limits = Limits(memory_in_flight_max=8 * MIB, command_bytes_max=MIB, request_seconds=50)
        async with resp_door(store, limits) as door:
            request = b"".join(encode(b"GET", b"%d" % number) for number in range(20))
            answer = (b"$%d\r\n%b\r\n" % (size, b"v" * size)) * 20
            clients = [await Raw.connect(door.port) for _ in range(40)]
            await clients[0].send(encode(b"GET", b"0"))
            await clients[0].expect(answer[: len(answer) // 20])
            store.delay = 0.005

            async def burst(client: Raw) -> None:
                await client.send(request)
                await client.expect(answer)
                client.close()

            await asyncio.gather(*map(burst, clients))
            # What fits, and for progress one of each connection.
            assert store.in_flight_high <= 8 * MIB // size + len(clients)

    run(body)


def test_memory_that_never_comes_is_refused_by_name() -> None:
    async def body() -> None:
        store = FakeStore()
        store.delay = None
        limits = Limits(memory_in_flight_max=2 * MIB, command_bytes_max=MIB, request_seconds=1.5)
        async with resp_door(store, limits) as door:
            door.budget.take(2 * MIB)
            client = await Raw.connect(door.port)
            await client.send(encode(b"SET", b"k", b"v" * MIB) + encode(b"PING"))
            assert b"-BUSY no memory became free: limit memory_in_flight_max" in await client.line()
            door.budget.give(2 * MIB)
            await client.expect(b"+PONG\r\n")
            client.close()

    run(body)


def test_a_client_that_does_not_read_is_not_served_on_and_then_cut_off() -> None:
    async def body() -> None:
        store = FakeStore()
        store.rows[b"k"] = Row(b"v" * 200_000, 1, None)
        limits = Limits(stall_seconds=1.0, memory_in_flight_max=32 * MIB)
        async with resp_door(store, limits) as door:
            client = await Raw.connect(door.port)
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            client.writer.write(encode(b"GET", b"k") * 2000)
            await until(lambda: door.metrics.stalled == 1)
            assert store.in_flight_high <= 600
            assert len(store.executed) < 1500
            client.close()

    run(body)


@pytest.mark.parametrize("before", [0, 2000], ids=["at first", "after small ones"])
def test_reads_of_large_values_are_begun_as_far_as_memory_goes(before: int) -> None:
    """How large they are is known only once they are there (found by an audit: 1.7 GiB)."""

    async def body() -> None:
        store = FakeStore()
        store.rows[b"small"] = Row(b"v", 1, None)
        store.rows[b"large"] = Row(b"v" * 250_000, 1, None)
        async with resp_door(store, Limits(memory_in_flight_max=32 * MIB)) as door:
            clients = [await Raw.connect(door.port) for _ in range(40)]
            await clients[0].send(encode(b"GET", b"small") * before)
            await clients[0].expect(b"$1\r\nv\r\n" * before)
            store.in_flight_high = 0
            store.delay = 0.01
            for client in clients:
                client.writer.write(encode(b"GET", b"large") * 32)
            for client in clients:
                await client.expect((b"$250000\r\n" + b"v" * 250_000 + b"\r\n") * 32)
            if before:
                assert 200 < store.in_flight_high <= 256
            else:
                assert 20 < store.in_flight_high <= 140, "32 MiB of them"
            assert door.budget.used == 0
            for client in clients:
                client.close()

    run(body)


def test_a_client_that_does_not_read_is_cut_off_sooner_while_memory_is_short() -> None:
    """`stall_seconds` is far longer than others wait for what it holds."""

    async def body() -> None:
        store = FakeStore()
        store.rows[b"k"] = Row(b"v" * 200_000, 1, None)
        limits = Limits(memory_in_flight_max=32 * MIB, request_seconds=2.0)
        async with resp_door(store, limits) as door:
            client = await Raw.connect(door.port)
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            client.writer.write(encode(b"GET", b"k") * 400)  # far more than the kernel holds
            deaf = next(iter(door.clients()))
            await until(lambda: deaf.writing_paused and not store.in_flight)
            door.budget.take(32 * MIB)
            await until(lambda: door.metrics.stalled == 1)
            door.budget.give(32 * MIB)
            assert door.budget.used == 0
            client.close()

    run(body)


def test_who_waits_for_memory_is_refused_at_the_deadline() -> None:
    """What holds it goes on slowly, as uploads may (found by an audit: a minute, or for ever)."""

    async def body() -> None:
        store = FakeStore()
        limits = Limits(memory_in_flight_max=32 * MIB, request_seconds=1.0)
        async with resp_door(store, limits) as door:
            door.budget.take(32 * MIB)
            client = await Raw.connect(door.port)
            await client.send(encode(b"PING") + encode(b"GET", b"k") * 2 + encode(b"PING"))
            await client.expect(b"+PONG\r\n")
            for _ in range(3):
                line = await client.line()
                assert b"-BUSY no memory became free: limit memory_in_flight_max" in line
            await client.send(encode(b"GET", b"k"))
            await until(lambda: bool(door.budget._queue))
            door.budget.give(32 * MIB)
            await client.expect(b"$-1\r\n")
            assert door.budget.used == 0
            client.close()

    run(body)


def test_a_client_that_stops_in_the_middle_of_a_value_is_cut_off() -> None:
    async def body() -> None:
        store = FakeStore()
        async with resp_door(store, Limits(stall_seconds=1.0)) as door:
            client = await Raw.connect(door.port)
            await client.send(encode(b"SET", b"k", b"v" * MIB)[: MIB // 2])
            await until(lambda: bool(store.open_uploads()))
            assert await client.rest() == b""
            await until(lambda: not store.open_uploads())
            assert door.metrics.stalled == 1

    run(body)


def test_going_away_in_the_middle_of_everything_leaves_nothing() -> None:
    async def body() -> None:
        store = FakeStore()
        rng = random.Random(7)
        stream = (
            encode(b"SET", b"large", b"v" * 300_000)
            + encode(b"GET", b"large") * 3
            + encode(b"MSET", b"a", b"x" * 100_000, b"b", b"y" * 10)
            + encode(b"MGET", b"large", b"a", b"b")
            + encode(b"SCAN", b"0")
        )
        async with resp_door(store) as door:
            for _ in range(60):
                store.delay = rng.choice((0.0, 0.003))
                store.pause_uploads = rng.random() < 0.5
                client = await Raw.connect(door.port)
                await client.send(stream[: rng.randrange(len(stream))])
                if rng.random() < 0.5:
                    await asyncio.sleep(rng.random() * 0.01)
                client.writer.transport.abort()
            await until(lambda: door.metrics.connections == 0)
            await until(lambda: store.in_flight == 0)
        await until(lambda: all(download.closed for download in store.downloads))
        assert not store.open_uploads()

    run(body)


def test_a_value_that_breaks_off_ends_the_connection() -> None:
    async def body() -> None:
        store = FakeStore()
        async with resp_door(store) as door:
            client = await Raw.connect(door.port)
            await client.send(encode(b"SET", b"k", b"v" * MIB))
            await client.expect(b"+OK\r\n")
            store.fail_download_at = 300_000
            await client.send(encode(b"GET", b"k"))
            answer = await client.rest()
            assert answer.startswith(b"$1048576\r\n")
            assert len(answer) < MIB, "a short value must not look complete"

    run(body)


def test_garbage_never_breaks_the_door() -> None:
    async def body() -> None:
        store = FakeStore()
        rng = random.Random(11)
        async with resp_door(store, Limits(stall_seconds=5)) as door:
            for _ in range(150):
                client = await Raw.connect(door.port)
                data = bytearray(encode(b"SET", b"k", b"v" * 100) + encode(b"GET", b"k") * 2)
                for _ in range(rng.randint(1, 20)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
                await client.send(bytes(data) + rng.randbytes(rng.randrange(200)))
                client.writer.write_eof()
                await client.rest()
            client = await Raw.connect(door.port)
            await client.send(b"PING\r\n")
            await client.expect(b"+PONG\r\n")
            client.close()

    run(body)


def test_half_closed_clients_are_answered() -> None:
    async def body() -> None:
        store = FakeStore()
        store.delay = 0.05
        async with resp_door(store) as door:
            client = await Raw.connect(door.port)
            await client.send(encode(b"SET", b"k", b"v") + encode(b"GET", b"k"))
            client.writer.write_eof()
            assert await client.rest() == b"+OK\r\n$1\r\nv\r\n"

    run(body)


def test_closing_answers_what_was_begun() -> None:
    async def body() -> None:
        store = FakeStore()
        store.delay = 0.05
        async with resp_door(store) as door:
            client = await Raw.connect(door.port)
            await client.send(encode(b"GET", b"k"))
            await until(lambda: store.in_flight == 1)
            await asyncio.gather(door.close(5.0), client.expect(b"$-1\r\n"))
            assert await client.rest() == b""

    run(body)
