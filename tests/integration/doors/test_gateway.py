"""A gateway before three nodes; nodes die, hang and refuse."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from integration.doors.cluster import Cluster, put, read_all, settled, upload, with_cluster
from integration.doors.support import FakeStore, Raw, run, until

from distkv import operations as op
from distkv.api.link.server import LinkServer
from distkv.api.options import LinkOptions
from distkv.errors import (
    BadRequest,
    Busy,
    ConditionFailed,
    DeadlineExceeded,
    NoQuorum,
    NotFormed,
    OutcomeUnknown,
    ShuttingDown,
    TooLarge,
)
from distkv.gateway.options import GatewayOptions
from distkv.gateway.store import GatewayStore


def test_every_operation_through_the_link() -> None:
    async def test(c: Cluster) -> None:
        large = bytes(range(256)) * 10_000
        (written,) = await c.do(put(b"a", b"1"))
        assert (written.existed, written.previous) == (False, None)
        (written,) = await c.do(put(b"a", upload(c, large), previous=True))
        assert written.previous.data == b"1"
        assert await read_all(await c.do(op.Get(b"a"))) == large
        values = await c.do(op.GetMany((b"a", b"none")))
        assert values[1] is None
        assert await read_all(values[0]) == large
        metas = await c.do(op.Stat((b"a", b"none")))
        assert (metas[0].length, metas[0].version, metas[1]) == (len(large), written.version, None)
        assert await c.do(op.Write((op.Increment(b"n", 5), op.Append(b"t", b"xy")))) == [5, 2]
        page = await c.do(op.Scan(limit=2))
        assert ([k for k, _ in page.keys], page.next_start) == ([b"a", b"n"], b"t")
        assert await c.do(op.Count()) == 3
        with pytest.raises(ConditionFailed):
            await c.do(put(b"a", b"2", condition=op.Condition(op.Must.BE_ABSENT)))
        with pytest.raises(BadRequest, match="not an integer"):
            await c.do(op.Write((op.Increment(b"a", 1),)))
        (written,) = await c.do(op.Write((op.Delete(b"a", previous=True),)))
        assert await read_all(written.previous) == large
        assert await c.do(op.Write((op.Flush(),))) == [2]
        assert c.gateway.sessions_opened == 1
        assert c.gateway.status()["serving"] is True

    with_cluster(test)


def test_requests_are_spread() -> None:
    async def test(c: Cluster) -> None:
        for store in c.stores:
            store.delay = 0.002
        await asyncio.gather(*(c.do(op.Get(b"k")) for _ in range(300)))
        assert all(len(store.executed) > 50 for store in c.stores)

    with_cluster(test)


def test_increments_through_dying_nodes_are_applied_exactly_once() -> None:
    async def test(c: Cluster) -> None:
        rng = random.Random(2)
        for store in c.stores:
            store.delay = 0.003
        done = 0

        async def trouble() -> None:
            for _ in range(8):
                index = rng.randrange(3)
                link = c.gateway.nodes.links[index]
                await until(lambda link=link: link.in_flight > 0)  # type: ignore[misc]
                c.kill(index)
                await until(lambda link=link: not link.connected)  # type: ignore[misc]
                await c.revive(index)
                await until(lambda link=link: link.serving)  # type: ignore[misc]

        troubling = asyncio.ensure_future(trouble())

        async def client() -> None:
            nonlocal done
            while not troubling.done():
                await c.do(op.Write((op.Increment(b"n", 1),)), 20)
                done += 1

        await asyncio.gather(troubling, *(client() for _ in range(16)))
        assert c.shared.rows[b"n"].value == b"%d" % done
        assert c.gateway.retries >= 8, "every kill met a request"

    with_cluster(test)


def test_an_unknown_outcome_is_told_only_when_it_is_unknown() -> None:
    async def test(c: Cluster) -> None:
        for store in c.stores:
            store.delay = None
        with pytest.raises(OutcomeUnknown):
            await c.do(put(b"k", b"v"), 0.5)
        with pytest.raises(DeadlineExceeded):
            await c.do(op.Get(b"k"), 0.3)
        for index in range(3):
            c.kill(index)
        await until(lambda: c.gateway.nodes.connected == 0)
        with pytest.raises(NoQuorum, match="no node of the cluster could be reached"):
            await c.do(put(b"k", b"v"), 0.3)
        with pytest.raises(NoQuorum):
            await c.do(op.Get(b"k"), 0.3)
        assert c.gateway.status()["serving"] is False

    async def with_session(c: Cluster) -> None:
        await c.do(put(b"first", b"opens the session"))
        await test(c)

    with_cluster(with_session)


@pytest.mark.parametrize(
    "error", [NoQuorum("cut off"), NotFormed("x"), ShuttingDown("x"), Busy("x")]
)
def test_a_refusal_of_one_node_is_tried_elsewhere(error: Any) -> None:
    async def test(c: Cluster) -> None:
        c.stores[0].fail = c.stores[1].fail = lambda _: error
        for number in range(20):
            await c.do(put(b"k%d" % number, b"v"))
            assert (await c.do(op.Get(b"k%d" % number))).data == b"v"
        c.stores[2].fail = lambda _: error
        with pytest.raises(type(error), match=str(error)):
            await c.do(put(b"k", b"v"))
        with pytest.raises(type(error), match=str(error)):
            await c.do(op.Get(b"k"))

    with_cluster(test)


def test_an_outcome_that_one_node_does_not_know_another_may() -> None:
    async def test(c: Cluster) -> None:
        told = 0

        def forget_once(operation: op.Operation) -> Any:
            nonlocal told
            if isinstance(operation, op.Write) and told == 0:
                told += 1
                return OutcomeUnknown("the node stopped before the command was decided")
            return None

        for store in c.stores:
            store.after_apply = forget_once
        assert await c.do(op.Write((op.Increment(b"n", 1),))) == [1]
        assert told == 1
        assert c.shared.rows[b"n"].value == b"1"

    with_cluster(test)


@pytest.mark.parametrize("error", [TooLarge("no"), BadRequest("no")])
def test_what_a_node_refuses_says_nothing_of_an_earlier_try(error: Any) -> None:
    async def test(c: Cluster) -> None:
        tries = 0

        def fail(operation: op.Operation) -> Any:
            nonlocal tries
            if not isinstance(operation, op.Write):
                return None
            tries += 1
            return OutcomeUnknown("the node stopped") if tries == 1 and earlier else error

        for store in c.stores:
            store.fail = fail
        earlier = True
        with pytest.raises(OutcomeUnknown):
            await c.do(op.Write((op.Append(b"n", b"x"),)))
        assert tries == 2
        earlier = False
        with pytest.raises(type(error), match="no"):
            await c.do(op.Write((op.Append(b"n", b"x"),)))

    with_cluster(test)


def test_a_forgotten_session_is_replaced() -> None:
    async def test(c: Cluster) -> None:
        await c.do(op.Write((op.Increment(b"n", 1),)))
        c.shared.open_sessions.clear()
        c.shared.sessions.clear()
        assert await c.do(op.Write((op.Increment(b"n", 1),))) == [2]
        assert c.gateway.sessions_opened == 2

    with_cluster(test)


def test_low_lets_the_cluster_forget_results() -> None:
    async def test(c: Cluster) -> None:
        for _ in range(50):
            await c.do(op.Write((op.Increment(b"n", 1),)))
        (results,) = c.shared.sessions.values()
        assert len(results) <= 2

    with_cluster(test)


def test_a_clients_own_session_travels_through() -> None:
    async def test(c: Cluster) -> None:
        write = op.Write((op.Increment(b"n", 1),), b"\0K" + b"x" * 10, 1)
        assert await c.do(write) == [1]
        assert await c.do(write) == [1]
        assert c.gateway.sessions_opened == 0

    with_cluster(test)


def test_nodes_that_come_late_serve_those_who_wait() -> None:
    async def test(c: Cluster) -> None:
        for index in range(3):
            c.kill(index)
        await until(lambda: c.gateway.nodes.connected == 0)
        waiting = c.gateway.execute(put(b"k", upload(c, b"v" * 100_000)), c.gateway.now() + 20)
        await c.revive(1)
        await settled(waiting)
        assert c.shared.rows[b"k"].value == b"v" * 100_000

    with_cluster(test)


def test_a_node_that_hangs_is_given_up() -> None:
    async def test(c: Cluster) -> None:
        await c.do(put(b"first", b"opens the session"))
        for store in c.stores:
            store.delay = None
        future = c.gateway.execute(op.Write((op.Increment(b"n", 1),)), c.gateway.now() + 25)
        await until(lambda: any(link.in_flight for link in c.gateway.nodes.links))
        index = c.busy_node()
        for store in c.stores:
            store.delay = 0.0
        for connection in c.servers[index].connections:
            assert connection._transport is not None
            connection._transport.pause_reading()
        assert await settled(future) == [1]

    with_cluster(test)


def test_too_many_requests_name_the_limit() -> None:
    async def test(c: Cluster) -> None:
        for store in c.stores:
            store.delay = None
        futures = [c.gateway.execute(op.Get(b"k"), c.gateway.now() + 1) for _ in range(12)]
        with pytest.raises(Busy, match=r"gateway\.in_flight \(4\)"):
            await c.do(op.Get(b"k"), 1)
        for future in futures:
            with pytest.raises(DeadlineExceeded):
                await settled(future)

    with_cluster(test, in_flight_max=4)


def test_links_need_the_token_and_the_protocol() -> None:
    async def body() -> None:
        store = FakeStore()
        server = LinkServer(store, LinkOptions(token="secret"), hello_seconds=0.5)
        await server.start()
        options = {"nodes": (("127.0.0.1", server.port),), "probe": 0.05}
        wrong = GatewayStore(GatewayOptions(token="wrong", **options))  # type: ignore[arg-type]
        right = GatewayStore(GatewayOptions(token="secret", **options))  # type: ignore[arg-type]
        wrong.start()
        right.start()
        await until(lambda: right.nodes.connected == 1)
        await until(lambda: "token of the link is wrong" in wrong.nodes.links[0].state)
        rng = random.Random(9)
        for number in range(100):
            client = await Raw.connect(server.port)
            hello = b"\x00\x00\x00\x10\x94\x00\x01\xa6secret\xa4name"
            start = hello if number % 2 else b""
            await client.send(start + rng.randbytes(rng.randrange(1, 100)))
            client.writer.write_eof()
            await client.rest()
            client.close()
        silent = await Raw.connect(server.port)
        assert b"no hello came" in await silent.rest()
        assert (await settled(right.execute(op.Count(), right.now() + 5))) == 0
        await wrong.close()
        await right.close()
        await server.close()

    run(body)
