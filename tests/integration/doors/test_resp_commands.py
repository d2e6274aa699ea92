"""Every command over a real socket, with redis-py, in RESP2 and RESP3."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio as redis
from integration.doors.support import NO_RETRY, FakeStore, resp_door, run
from redis.exceptions import ResponseError

from distkv.errors import (
    Busy,
    ConditionFailed,
    DataLost,
    DiskFull,
    NoQuorum,
    NotFormed,
    OutcomeUnknown,
)
from distkv.operations import Get

Test = Callable[[redis.Redis, FakeStore], Awaitable[None]]


def with_client(test: Test, protocol: int = 2) -> None:
    async def body() -> None:
        store = FakeStore()
        async with resp_door(store) as door:
            client: Any = redis.Redis(
                port=door.port, protocol=protocol, single_connection_client=True, retry=NO_RETRY
            )
            try:
                connection = await client.client_id()
                await test(client, store)
                assert await client.client_id() == connection, "it was closed meanwhile"
            finally:
                await client.aclose()

    run(body)


@pytest.mark.parametrize("protocol", [2, 3])
def test_strings(protocol: int) -> None:
    async def test(r: Any, _: FakeStore) -> None:
        assert await r.set("k", b"v\r\n\x00") is True
        assert await r.get("k") == b"v\r\n\x00"
        assert await r.get("none") is None
        assert await r.mset({"a": "1", "b": "2"})
        assert await r.mget("a", "none", "b") == [b"1", None, b"2"]
        assert not await r.msetnx({"b": "3", "c": "3"})
        assert await r.get("c") is None
        assert await r.msetnx({"c": "3", "d": "4"})
        assert await r.strlen("k") == 4
        assert await r.strlen("none") == 0
        assert await r.append("a", "23") == 3
        assert await r.exists("a", "a", "none") == 2
        assert await r.delete("a", "b", "none") == 2
        assert await r.unlink("c") == 1
        assert await r.type("d") == b"string"
        assert await r.type("a") == b"none"
        assert await r.dbsize() == 2
        assert await r.execute_command("ECHO", "x") == b"x"
        assert await r.ping() is True
        assert len(await r.time()) == 2

    with_client(test, protocol)


@pytest.mark.parametrize("protocol", [2, 3])
def test_set_options(protocol: int) -> None:
    async def test(r: Any, store: FakeStore) -> None:
        assert await r.set("k", "1", xx=True) is None
        assert await r.set("k", "1", nx=True) is True
        assert await r.set("k", "2", nx=True) is None
        assert await r.set("k", "2", nx=True, get=True) == b"1"
        assert await r.set("new", "2", nx=True, get=True) is None
        assert await r.get("new") == b"2"
        assert await r.set("k", "3", get=True) == b"1"
        assert await r.set("k", "4", xx=True, get=True) == b"3"
        assert await r.set("absent", "4", xx=True, get=True) is None
        assert await r.exists("absent") == 0
        assert await r.set("k", "5", ex=100) is True
        assert 99 <= await r.ttl("k") <= 100
        assert await r.set("k", "6", keepttl=True) is True
        assert await r.ttl("k") > 0
        assert await r.set("k", "7") is True
        assert await r.ttl("k") == -1
        assert await r.set("k", "8", px=50_000) is True
        assert 49_000 <= await r.pttl("k") <= 50_000
        at = int(time.time()) + 1000
        assert await r.set("k", "9", exat=at) is True
        assert await r.expiretime("k") == at
        assert await r.set("k", "9", pxat=at * 1000 + 5) is True
        assert await r.pexpiretime("k") == at * 1000 + 5
        assert await r.getset("k", "10") == b"9"
        assert await r.getdel("k") == b"10"
        assert await r.getdel("k") is None
        assert await r.setex("k", 10, "v")
        assert await r.psetex("k", 10_000, "v")
        assert await r.setnx("k", "v") is False
        assert await r.setnx("k2", "v") is True
        for wrong in (
            ("SET", "k", "v", "EX", "0"),
            ("SET", "k", "v", "PX", "-1"),
            ("SETEX", "k", "0", "v"),
        ):
            with pytest.raises(ResponseError, match="invalid expire time in"):
                await r.execute_command(*wrong)
        for wrong in (
            ("SET", "k", "v", "EX"),
            ("SET", "k", "v", "NX", "XX"),
            ("SET", "k", "v", "EX", "1", "PX", "1"),
            ("SET", "k", "v", "EX", "1", "KEEPTTL"),
            ("SET", "k", "v", "WHAT"),
            ("GETEX", "k", "EX", "1", "PERSIST"),
        ):
            with pytest.raises(ResponseError, match=r"^syntax error"):
                await r.execute_command(*wrong)
        with pytest.raises(ResponseError, match="not an integer"):
            await r.execute_command("SET", "k", "v", "EX", "1x")
        assert store.rows[b"k2"].value == b"v"

    with_client(test, protocol)


def test_versions_as_conditions() -> None:
    async def test(r: Any, _: FakeStore) -> None:
        assert await r.execute_command("DISTKV.VERSION", "k") is None
        assert await r.execute_command("SET", "k", "1", "IFVERSION", "0") is True
        assert await r.execute_command("SET", "k", "2", "IFVERSION", "0") is None
        version = await r.execute_command("DISTKV.VERSION", "k")
        assert await r.execute_command("SET", "k", "2", "IFVERSION", version) is True
        assert await r.execute_command("SET", "k", "3", "IFVERSION", version) is None
        assert await r.execute_command("DELEX", "k", "IFVERSION", version) == 0
        version = await r.execute_command("DISTKV.VERSION", "k")
        assert await r.execute_command("DELEX", "k", "IFVERSION", version) == 1

    with_client(test)


@pytest.mark.parametrize("protocol", [2, 3])
def test_expiry(protocol: int) -> None:
    async def test(r: Any, _: FakeStore) -> None:
        assert await r.ttl("k") == -2
        assert await r.expire("k", 5) is False
        await r.set("k", "v")
        assert await r.expire("k", 100, xx=True) is False
        assert await r.expire("k", 100, gt=True) is False
        assert await r.expire("k", 100, nx=True) is True
        assert await r.expire("k", 100, nx=True) is False
        assert await r.expire("k", 50, gt=True) is False
        assert await r.expire("k", 200, gt=True) is True
        assert await r.pexpire("k", 1000, lt=True) is True
        assert await r.pexpireat("k", int(time.time() * 1000) + 9_000) is True
        assert await r.expireat("k", int(time.time()) + 90) is True
        assert 88 <= await r.ttl("k") <= 90
        assert await r.persist("k") is True
        assert await r.persist("k") is False
        assert await r.ttl("k") == -1
        assert await r.getex("k", ex=10) == b"v"
        assert await r.ttl("k") in (9, 10)
        assert await r.getex("k", persist=True) == b"v"
        assert await r.ttl("k") == -1
        assert await r.getex("k") == b"v"
        assert await r.getex("none", ex=10) is None
        assert await r.expire("k", -1) is True
        assert await r.get("k") is None
        assert await r.set("k", b"v")
        assert await r.expire("k", 100, xx=True, lt=True) is False
        assert await r.ttl("k") == -1
        assert await r.expire("none", 100, xx=True, lt=True) is False
        assert await r.expire("k", 100, xx=True, gt=True) is False
        assert await r.expire("k", 100) is True
        assert await r.expire("k", 200, xx=True, lt=True) is False
        assert await r.expire("k", 50, xx=True, lt=True) is True
        assert 49 <= await r.ttl("k") <= 50
        with pytest.raises(ResponseError, match="NX and XX, GT or LT"):
            await r.execute_command("EXPIRE", "k", "1", "NX", "GT")
        with pytest.raises(ResponseError, match="GT and LT"):
            await r.execute_command("EXPIRE", "k", "1", "LT", "GT")
        with pytest.raises(ResponseError, match="Unsupported option X"):
            await r.execute_command("EXPIRE", "k", "1", "X")
        with pytest.raises(ResponseError, match="invalid expire time in 'expire'"):
            await r.execute_command("EXPIRE", "k", str(2**63 - 1))

    with_client(test, protocol)


def test_numbers() -> None:
    async def test(r: Any, _: FakeStore) -> None:
        assert await r.incr("n") == 1
        assert await r.incrby("n", 10) == 11
        assert await r.decr("n") == 10
        assert await r.decrby("n", 3) == 7
        assert await r.incrbyfloat("n", 0.5) == 7.5
        await r.set("text", "x")
        with pytest.raises(ResponseError, match=r"^value is not an integer or out of range"):
            await r.incr("text")
        with pytest.raises(ResponseError, match="not a valid float"):
            await r.execute_command("INCRBYFLOAT", "n", "nan")
        with pytest.raises(ResponseError, match="would overflow"):
            await r.execute_command("DECRBY", "n", str(-(2**63)))
        with pytest.raises(ResponseError, match="not an integer"):
            await r.execute_command("INCRBY", "n", str(2**63))

    with_client(test)


def test_parts_of_values_large_and_small() -> None:
    async def test(r: Any, store: FakeStore) -> None:
        large = bytes(range(256)) * 4096
        await r.set("large", large)
        await r.set("small", "Hello World")
        for first, last, expected in (
            (0, 4, b"Hello"),
            (-5, -1, b"World"),
            (6, 100, b"World"),
            (5, 3, b""),
            (-1, -5, b""),
            (100, 200, b""),
        ):
            assert await r.getrange("small", first, last) == expected
        assert await r.getrange("large", 300_000, 700_000) == large[300_000:700_001]
        assert await r.getrange("large", -10, -1) == large[-10:]
        assert await r.execute_command("SUBSTR", "small", 0, 1) == b"He"
        assert await r.getrange("none", 0, -1) == b""
        assert await r.setrange("small", 6, "Redis") == 11
        assert await r.get("small") == b"Hello Redis"
        assert await r.setrange("pad", 3, "x") == 4
        assert await r.get("pad") == b"\0\0\0x"
        assert await r.setrange("none", 3, "") == 0
        assert await r.exists("none") == 0
        assert await r.setrange("large", 500_000, "zz") == len(large)
        assert (await r.get("large"))[500_000:500_002] == b"zz"
        with pytest.raises(ResponseError, match="command_bytes_max"):
            await r.setrange("small", 2**30, "x")
        assert all(download.closed for download in store.downloads)

    with_client(test)


def test_listing_keys() -> None:
    async def test(r: Any, _: FakeStore) -> None:
        names = {f"user:{i:03d}".encode() for i in range(50)} | {b"other", b"a*b"}
        for name in names:
            await r.set(name, "v")
        assert set(await r.keys("*")) == names
        assert set(await r.keys("user:00?")) == {f"user:{i:03d}".encode() for i in range(10)}
        assert await r.keys("a\\*b") == [b"a*b"]
        found = [key async for key in r.scan_iter(count=7)]
        assert found == sorted(names), "in order, each once"
        found = [key async for key in r.scan_iter(match="user:*1", count=5)]
        assert found == sorted(n for n in names if n.startswith(b"user") and n.endswith(b"1"))
        assert [key async for key in r.scan_iter(_type="hash")] == []
        cursor, first = await r.scan(0, count=10)
        assert await r.scan(cursor, count=10) == await r.scan(cursor, count=10)
        assert len(first) == 10
        with pytest.raises(ResponseError, match="start again with 0"):
            await r.execute_command("SCAN", "12345")
        with pytest.raises(ResponseError, match="invalid cursor"):
            await r.execute_command("SCAN", "x")
        assert await r.flushdb() is True
        assert await r.dbsize() == 0
        assert await r.flushall(asynchronous=True) is True

    with_client(test)


@pytest.mark.parametrize("size", [10, 100_000])
def test_set_with_a_condition_and_get(size: int) -> None:
    async def test(r: Any, _: FakeStore) -> None:
        one, two, three = (letter * size for letter in (b"1", b"2", b"3"))
        assert await r.set("k", one, xx=True, get=True) is None
        assert await r.get("k") is None
        assert await r.set("k", one, nx=True, get=True) is None
        assert await r.set("k", two, nx=True, get=True) == one
        assert await r.get("k") == one
        assert await r.set("k", three, xx=True, get=True) == one
        assert await r.get("k") == three

    with_client(test)


def test_a_large_value_whose_way_became_free_meanwhile_is_to_be_tried_again() -> None:
    async def test(r: Any, store: FakeStore) -> None:
        await r.set("k", b"old")
        execute = store.execute

        def gone_before_it_is_read(operation: Any, deadline: float) -> Any:
            if isinstance(operation, Get):
                store.rows.clear()
            return execute(operation, deadline)

        store.execute = gone_before_it_is_read  # type: ignore[method-assign]
        with pytest.raises(ResponseError, match="gone; nothing was set"):
            await r.set("k", b"x" * 100_000, nx=True, get=True)
        assert await r.exists("k") == 0
        assert await r.set("k", b"small", nx=True, get=True) is None

    with_client(test)


@pytest.mark.parametrize("protocol", [2, 3])
def test_introspection(protocol: int) -> None:
    async def test(r: Any, store: FakeStore) -> None:
        await r.set("k", "v")
        store.info["role"] = "leader"
        info = await r.info()
        assert info["role"] == "master"
        assert info["db0"]["keys"] == 1
        assert info["state"] == "serving"
        assert info["consensus_role"] == "leader"
        assert "redis_version" in await r.info("server")
        assert "role" not in await r.info("server")
        assert (await r.config_get("save"))["save"] == ""
        assert set(await r.config_get("app*")) == {"appendonly", "appendfsync"}
        with pytest.raises(ResponseError, match="distkv config explain"):
            await r.config_set("save", "1")
        assert await r.command_count() > 50
        assert await r.execute_command("COMMAND", "INFO", "get")
        row = (await r.execute_command("COMMAND", "INFO", "mset"))["mset"]
        assert (row["first_key_pos"], row["last_key_pos"], row["step_count"]) == (1, -1, 2)
        assert len(await r.execute_command("COMMAND")) > 50
        filtered = ("COMMAND LIST", "FILTERBY")
        found = await r.execute_command(*filtered, "PATTERN", "*getset*")
        assert [getattr(name, "decode", lambda n=name: n)() for name in found] == ["getset"]
        assert await r.execute_command(*filtered, "MODULE", "json") == []
        for wrong in (("ACLCAT", "read"), ("X", "y"), ("PATTERN",)):
            with pytest.raises(ResponseError):
                await r.execute_command(*filtered, *wrong)
        for name in ("COMMAND", "CLIENT", "CONFIG"):
            lines = await r.execute_command(f"{name} HELP")
            assert name in str(lines[0])
            assert "HELP" in str(lines[-1])
        assert await r.client_setname("me") is True
        assert await r.client_getname() in ("me", b"me")
        assert await r.client_id() > 0
        assert (await r.client_info())["name"] == "me"
        own = await r.client_id()
        assert [line["id"] for line in await r.client_list()] == [str(own)]
        assert len(await r.client_list(_type="normal")) == 1
        assert await r.client_list(_type="replica") == []
        assert len(await r.client_list(client_id=[own, own + 1])) == 1
        assert await r.client_list(client_id=[own + 1]) == []
        for wrong in (("TYPE", "x"), ("ID", "x"), ("ID",), ("X", "1")):
            with pytest.raises(ResponseError):
                await r.execute_command("CLIENT", "LIST", *wrong)
        assert any(c["name"] == "me" for c in await r.client_list())
        assert await r.execute_command("CLIENT", "NO-EVICT", "ON") == b"OK"
        with pytest.raises(ResponseError, match=r"unknown subcommand 'nope'\. Try CLIENT HELP"):
            await r.execute_command("CLIENT", "nope")
        with pytest.raises(ResponseError, match=r"wrong number of arguments for 'client\|setname'"):
            await r.execute_command("CLIENT", "SETNAME")
        with pytest.raises(ResponseError, match="cannot contain spaces"):
            await r.client_setname("a b")
        with pytest.raises(ResponseError, match="DB index is out of range"):
            await r.execute_command("SELECT", "1")
        assert await r.execute_command("SELECT", "0") in (b"OK", True)
        with pytest.raises(
            ResponseError, match="unknown command 'FOO', with args beginning with: 'a' 'b'"
        ):
            await r.execute_command("FOO", "a", "b")
        with pytest.raises(ResponseError, match="wrong number of arguments for 'get' command"):
            await r.execute_command("GET")

    with_client(test, protocol)


@pytest.mark.parametrize("protocol", [2, 3])
def test_large_values(protocol: int) -> None:
    async def test(r: Any, store: FakeStore) -> None:
        store.pause_uploads = True
        value = bytes(range(256)) * 20_000
        assert await r.set("large", value) is True
        assert await r.get("large") == value
        assert await r.set("large", b"x" * 70_000, get=True) == value
        assert await r.mset({"a": value, "b": b"small", "c": value})
        assert await r.mget("a", "b", "c") == [value, b"small", value]
        assert await r.getset("a", value[:300_000]) == value
        assert await r.append("b", value[:100_000]) == 100_005
        assert await r.execute_command("ECHO", value[:100_000]) == value[:100_000]
        assert await r.set("a", value, nx=True) is None
        assert await r.getex("c", ex=100) == value
        assert await r.ttl("c") in range(80, 101)
        # Over at once: what was being read is answered all the same.
        assert await r.getex("c", exat=1) == value
        assert await r.exists("c") == 0
        assert await r.set("a", value, nx=True, get=True) == value[:300_000]
        with pytest.raises(ResponseError, match="syntax error"):
            await r.execute_command("SET", "a", value, "NONSENSE")
        with pytest.raises(ResponseError, match="unknown command"):
            await r.execute_command("NOPE", "a", value)
        states = {upload.state for upload in store.uploads}
        assert states <= {"finished", "aborted"}
        assert any(upload.paused for upload in store.uploads)
        assert all(download.closed for download in store.downloads)

    with_client(test, protocol)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (NoQuorum("too few"), "NOQUORUM too few"),
        (OutcomeUnknown("maybe"), "OUTCOMEUNKNOWN maybe"),
        (Busy("limit x"), "BUSY limit x"),
        (NotFormed("wait"), "NOTFORMED wait"),
        (DataLost("gone"), "DATALOST gone"),
        (DiskFull("full"), "DISKFULL full"),
        (ConditionFailed("no"), "CONDITIONFAILED no"),
    ],
)
def test_refusals_of_the_store(error: Any, word: str) -> None:
    async def test(r: Any, store: FakeStore) -> None:
        store.fail = lambda _: error
        for command in (("GET", "k"), ("DEL", "k"), ("SCAN", "0"), ("SETRANGE", "k", "1", "x")):
            with pytest.raises(ResponseError, match=f"^{word}"):
                await r.execute_command(*command)
        store.refuse_upload = error
        with pytest.raises(ResponseError, match=f"^{word}"):
            await r.set("k", b"x" * 100_000)
        store.fail = lambda _: None
        assert await r.get("k") is None, "the connection is still in step"

    with_client(test)


def test_a_fault_of_the_store_is_told_as_internal() -> None:
    async def test(r: Any, store: FakeStore) -> None:
        store.apply = lambda operation: 1 / 0  # type: ignore[method-assign]
        original = store._run

        def run_anyhow(future: Any, operation: Any) -> None:
            try:
                original(future, operation)
            except ZeroDivisionError as error:
                future.set_exception(error)

        store._run = run_anyhow  # type: ignore[method-assign]
        with pytest.raises(ResponseError, match="internal error"):
            await r.get("k")
        assert await r.ping()

    with_client(test)


def test_deadline() -> None:
    async def body() -> None:
        from distkv.api.options import Limits

        store = FakeStore()
        async with resp_door(store, Limits(request_seconds=0.1)) as door:
            client: Any = redis.Redis(port=door.port, retry=NO_RETRY)
            store.delay = None
            began = asyncio.get_running_loop().time()
            with pytest.raises(ResponseError, match=r"^TIMEOUT"):
                await client.get("k")
            with pytest.raises(ResponseError, match=r"^OUTCOMEUNKNOWN"):
                await client.set("k", "v")
            assert asyncio.get_running_loop().time() - began < 5
            await client.aclose()

    run(body)
