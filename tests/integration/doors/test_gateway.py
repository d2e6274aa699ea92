"""A gateway before three nodes that share one store; nodes die, hang and refuse."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from integration.doors.support import FakeStore, Raw, run, until

from distkv import operations as op
from distkv.api.link.server import LinkServer
from distkv.api.options import KIB, MIB, Limits, LinkOptions, Listen
from distkv.errors import (
    BadRequest,
    Busy,
    ConditionFailed,
    DeadlineExceeded,
    DistKVError,
    NoQuorum,
    NotFormed,
    OutcomeUnknown,
    ShuttingDown,
    TooLarge,
)
from distkv.gateway.options import GatewayOptions
from distkv.gateway.store import GatewayStore


class NodeStore(FakeStore):
    """One node's view of the shared state."""

    def __init__(self, shared: FakeStore) -> None:
        super().__init__()
        self.shared = shared
        self.info["serving"] = True

    def apply(self, operation: op.Operation) -> object:
        self.shared.fail_download_at = self.fail_download_at
        result = self.shared.apply(operation)
        self.shared.executed.append(operation)
        return result


class Cluster:
    """Nodes' links over one state, and a gateway."""

    def __init__(self, count: int, options: dict[str, Any], limits: Limits) -> None:
        self.shared = FakeStore()
        self.limits = limits
        self.stores = [NodeStore(self.shared) for _ in range(count)]
        self.servers: list[LinkServer] = []
        self.options = options
        self.gateway: GatewayStore = None  # type: ignore[assignment]

    async def start(self) -> None:
        for store in self.stores:
            server = LinkServer(store, LinkOptions(Listen(), self.limits))
            await server.start()
            self.servers.append(server)
        nodes = tuple(("127.0.0.1", server.port) for server in self.servers)
        values: dict[str, Any] = {"probe": 0.05, "limits": self.limits} | self.options
        self.gateway = GatewayStore(GatewayOptions(nodes, **values))
        self.gateway.start()
        await until(lambda: self.gateway.nodes.serving == len(self.stores))

    async def close(self) -> None:
        await self.gateway.close()
        for server in self.servers:
            await server.close()
        await until(lambda: not any(server.connections for server in self.servers))
        assert self.gateway.retained.used == 0
        assert all(server.budget.used == 0 for server in self.servers)
        assert not any(store.open_uploads() for store in self.stores)
        assert all(download.closed for download in self.shared.downloads)

    def kill(self, index: int) -> None:
        """As kill -9: connections break, nobody listens."""
        server = self.servers[index]
        assert server._listener is not None
        server._listener.close()
        for connection in list(server.connections):
            connection.abort()

    async def revive(self, index: int) -> None:
        port = self.gateway.nodes.links[index].options.port
        server = LinkServer(self.stores[index], LinkOptions(Listen(port=port), self.limits))
        await server.start()
        self.servers[index] = server

    async def do(self, operation: op.Operation, seconds: float = 10.0) -> Any:
        """Execute and wait."""
        result = self.gateway.execute(operation, self.gateway.now() + seconds)
        return await settled(result)

    def busy_node(self) -> int:
        """The node that is asked now."""
        return next(i for i, link in enumerate(self.gateway.nodes.links) if link.in_flight)


async def settled(future: Any) -> Any:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.add_callback(lambda _: done.done() or done.set_result(None))
    await asyncio.wait_for(done, 30)
    return future.result()


def with_cluster(
    test: Callable[[Cluster], Awaitable[None]],
    count: int = 3,
    limits: Limits | None = None,
    **options: Any,
) -> None:
    async def body() -> None:
        cluster = Cluster(count, options, limits or Limits())
        await cluster.start()
        await test(cluster)
        await cluster.close()

    run(body)


def put(key: bytes, value: Any, **options: Any) -> op.Write:
    return op.Write((op.Put(key, value, **options),))


def upload(cluster: Cluster, value: bytes, step: int = 50_000) -> Any:
    """An upload that was written as fast as the gateway took it."""
    sink = cluster.gateway.upload(len(value))
    for at in range(0, len(value), step):
        sink.write(value[at : at + step])
    sink.finish()
    return sink


async def read_all(value: Any) -> bytes:
    if isinstance(value.data, bytes):
        return value.data
    pieces = []
    while piece := await settled(value.data.next()):
        pieces.append(piece)
    value.data.close()
    return b"".join(pieces)


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


@pytest.mark.parametrize("moment", ["arriving", "executing", "applied"])
def test_a_put_survives_the_node_that_was_getting_it(moment: str) -> None:
    async def test(c: Cluster) -> None:
        value = random.Random(4).randbytes(3 * MIB)
        await c.do(put(b"first", b"opens the session"))
        sink = c.gateway.upload(len(value))
        if moment != "arriving":
            for store in c.stores:
                store.delay = None if moment == "executing" else 0.2
        half = len(value) // 2
        sink.write(value[:half])
        victim = c.gateway.nodes.links.index(sink.target)
        if moment == "arriving":
            c.kill(victim)
            await until(lambda: sink.target is not c.gateway.nodes.links[victim])
        sink.write(value[half:])
        sink.finish()
        future = c.gateway.execute(put(b"k", sink), c.gateway.now() + 20)
        if moment == "executing":
            await until(lambda: c.stores[victim].in_flight > 0)
            for store in c.stores:
                store.delay = 0.0
            c.kill(victim)
        elif moment == "applied":
            # The command is applied, but the answer is lost with the node.
            await until(lambda: c.stores[victim].in_flight > 0)
            c.stores[victim].after_apply = lambda _: c.kill(victim)  # type: ignore[func-returns-value]
        (written,) = await settled(future)
        assert c.shared.rows[b"k"].value == value
        assert c.shared.rows[b"k"].version == written.version
        assert not written.existed, "applied once: the second try got the first one's result"

    with_cluster(test, retained_max=8 * MIB)


def test_a_value_too_large_to_be_kept_fails_honestly() -> None:
    async def test(c: Cluster) -> None:
        value = b"v" * (3 * MIB)
        sink = c.gateway.upload(len(value))
        sink.write(value[: 2 * MIB])
        await until(lambda: c.gateway.retained.used == 0)
        c.kill(c.gateway.nodes.links.index(sink.target))
        await until(lambda: c.gateway.nodes.connected == 2)
        sink.write(value[2 * MIB :])
        sink.finish()
        with pytest.raises(NoQuorum, match="too large to be kept"):
            await c.do(put(b"k", sink))
        assert not c.shared.rows
        await c.do(put(b"k", upload(c, value)))
        assert c.shared.rows[b"k"].value == value

    with_cluster(test, retained_max=MIB)


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


def test_a_download_goes_on_from_another_node() -> None:
    async def test(c: Cluster) -> None:
        value = random.Random(5).randbytes(6 * MIB)
        await c.do(put(b"k", upload(c, value)))
        found = await c.do(op.Get(b"k"))
        pieces = [await settled(found.data.next()) for _ in range(3)]
        serving = found.data._source._connection.client
        c.kill(c.gateway.nodes.links.index(serving))
        await until(lambda: not serving.connected)
        while piece := await settled(found.data.next()):
            pieces.append(piece)
        assert b"".join(pieces) == value
        found.data.close()
        found = await c.do(op.Get(b"k"))
        await settled(found.data.next())
        serving = found.data._source._connection.client
        await c.do(put(b"k", b"changed"))
        c.kill(c.gateway.nodes.links.index(serving))
        with pytest.raises(NoQuorum, match="changed meanwhile"):
            await read_all(found)
        found.data.close()

    with_cluster(test)


def test_a_failed_download_is_told() -> None:
    async def test(c: Cluster) -> None:
        await c.do(put(b"k", upload(c, b"v" * MIB)))
        for store in c.stores:
            store.fail_download_at = 500_000
        found = await c.do(op.Get(b"k"))
        with pytest.raises(DistKVError, match="injected: a shard is gone"):
            await read_all(found)
        found.data.close()

    with_cluster(test)


def test_slow_nodes_pause_the_client() -> None:
    async def test(c: Cluster) -> None:
        for store in c.stores:
            store.pause_uploads = True
        value = b"v" * (5 * MIB)
        sink = c.gateway.upload(len(value))
        resumed = asyncio.Event()
        sink.on_resume = resumed.set
        paused = 0
        for at in range(0, len(value), 200 * KIB):
            resumed.clear()
            if not sink.write(value[at : at + 200 * KIB]):
                paused += 1
                await asyncio.wait_for(resumed.wait(), 10)
        sink.finish()
        assert paused > 0
        await c.do(put(b"k", sink))
        assert c.shared.rows[b"k"].value == value

    with_cluster(test)


def test_uploads_of_one_write_meet_at_one_node() -> None:
    async def test(c: Cluster) -> None:
        sinks = [upload(c, bytes([i]) * 300_000) for i in range(6)]
        puts = tuple(op.Put(b"k%d" % i, sink) for i, sink in enumerate(sinks))
        await c.do(op.Write(puts))
        assert [c.shared.rows[b"k%d" % i].value[:1] for i in range(6)] == [
            bytes([i]) for i in range(6)
        ]

    with_cluster(test)


def test_refused_uploads_are_tried_elsewhere() -> None:
    async def test(c: Cluster) -> None:
        c.stores[0].refuse_upload = c.stores[1].refuse_upload = Busy("no room")
        for number in range(10):
            await c.do(put(b"k%d" % number, upload(c, b"v" * 100_000)))
        c.stores[2].refuse_upload = Busy("no room")
        with pytest.raises(Busy, match="no room"):
            await c.do(put(b"k", upload(c, b"v" * 100_000)))
        with pytest.raises(TooLarge, match="value_bytes_max"):
            c.gateway.upload(2**30)

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
