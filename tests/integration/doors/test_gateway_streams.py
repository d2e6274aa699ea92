"""Large values through a gateway whose nodes die half-way."""

from __future__ import annotations

import asyncio
import random

import pytest
from integration.doors.cluster import Cluster, put, read_all, settled, upload, with_cluster
from integration.doors.support import until

from distkv import operations as op
from distkv.api.options import KIB, MIB
from distkv.errors import (
    Busy,
    DistKVError,
    NoQuorum,
    TooLarge,
)


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
