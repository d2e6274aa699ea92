"""The endpoint on the loopback interface."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from integration.transport.peers import SECRET, Peer

from distkv.transport.base import Identity, Lane
from distkv.transport.endpoint import open_endpoint
from distkv.transport.keys import KeyRing
from distkv.transport.options import LARGEST_DATAGRAM, Options

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return asyncio.run if request.param == "asyncio" else uvloop.run


async def pair(*, offload: bool = True, options: Options | None = None) -> tuple[Peer, Peer]:
    one, other = Peer(0), Peer(1)
    for peer in (one, other):
        peer.open("127.0.0.1", 0, options or Options(), offload=offload)
    one.endpoint.set_peer(1, *other.endpoint.address)
    other.endpoint.set_peer(0, *one.endpoint.address)
    await one.until(lambda: bool(one.up))
    await other.until(lambda: bool(other.up))
    return one, other


def close(*peers: Peer) -> None:
    for peer in peers:
        peer.endpoint.close()


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("sizes", [Options().datagram_sizes, (1_472,), ()])
def test_large_messages_arrive_whole(run: Run, offload: bool, sizes: tuple[int, ...]) -> None:
    async def body() -> None:
        one, other = await pair(offload=offload, options=Options(datagram_sizes=sizes))
        control, bulk = os.urandom(8 << 20), os.urandom(2 << 20)
        assert one.endpoint.send(1, Lane.CONTROL, control)
        assert one.endpoint.send(1, Lane.BULK, bulk)
        assert other.endpoint.send(0, Lane.BULK, bulk)
        await other.until(lambda: len(other.messages) == 2)
        await one.until(lambda: len(one.messages) == 1)
        assert set(other.messages) == {(Lane.CONTROL, control), (Lane.BULK, bulk)}
        assert one.messages == [(Lane.BULK, bulk)]
        assert other.turns > 0
        assert not one.suspicions
        close(one, other)

    run(body())


def test_the_loopback_interface_carries_the_largest_datagrams(run: Run) -> None:
    async def body() -> None:
        one, other = await pair()
        await one.until(lambda: bool(one.up))
        while one.endpoint.statistics()[0].connection.datagram != LARGEST_DATAGRAM:
            count = len(other.messages)
            assert one.endpoint.send(1, Lane.CONTROL, b"tick")
            await other.until_messages(count + 1)
        close(one, other)

    run(asyncio.wait_for(body(), 20))


def test_a_stopped_peer_is_noticed_and_found_again_by_name(run: Run) -> None:
    async def body() -> None:
        one, other = await pair()
        port = other.endpoint.address[1]
        one.endpoint.set_peer(1, "localhost", port)
        other.endpoint.close()
        await one.until(lambda: one.down == ["peer stopped"])
        assert not one.endpoint.send(1, Lane.CONTROL, b"nobody")
        again = Peer(1)
        again.identity = again.identity._replace(boot=2)
        again.open("127.0.0.1", port)
        await one.until(lambda: len(one.up) == 2)
        assert one.endpoint.connected(1) == again.identity
        assert one.endpoint.send(1, Lane.CONTROL, b"welcome back")
        await again.until(lambda: bool(again.messages))
        close(one, again)

    run(body())


def test_a_name_that_does_not_exist_is_asked_again_and_blocks_nothing(run: Run) -> None:
    async def body() -> None:
        one, other = await pair()
        one.endpoint.set_peer(7, "no-such-host.invalid", 7400)
        assert one.endpoint.send(1, Lane.CONTROL, b"meanwhile")
        await other.until(lambda: bool(other.messages))
        close(one, other)

    run(body())


def test_a_full_queue_refuses_then_drains(run: Run) -> None:
    async def body() -> None:
        one, other = await pair()
        other.keep = False
        sent = 0
        while one.endpoint.send(1, Lane.BULK, bytes(256 * 1024)):
            sent += 1
        assert 0 < one.endpoint.queued(1, Lane.BULK) <= Options().bulk_queue
        await asyncio.wait_for(one.drained.wait(), 20)
        assert one.endpoint.send(1, Lane.BULK, b"room")
        await other.until(lambda: other.bulk_bytes == sent * 256 * 1024 + 4)
        close(one, other)

    run(body())


def test_garbage_from_the_network_is_survived(run: Run) -> None:
    async def body() -> None:
        one, other = await pair()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
            for size in (0, 1, 5, 24, 25, 60, 150, 1_500, 60_000):
                for kind in (b"\x01\x01", b"\x02\x01", b"\x40", b"\x41", b""):
                    attacker.sendto(kind + os.urandom(size), one.endpoint.address)
        assert other.endpoint.send(0, Lane.CONTROL, b"still here")
        await one.until(lambda: bool(one.messages))
        await one.until(lambda: {kind for _, kind, _ in one.suspicions} >= {"unknown_key"})
        assert not one.down
        close(one, other)

    run(body())


def test_a_taken_port_is_an_error_at_once(run: Run) -> None:
    async def body() -> None:
        one, other = await pair()
        who = Identity(b"integration", 1, 2, 9, 1)
        with pytest.raises(OSError, match="in use"):
            await open_endpoint(who, KeyRing(SECRET), one, *one.endpoint.address)
        third = Peer(2)
        third.endpoint = await open_endpoint(third.identity, KeyRing(SECRET), third, "::1", 0)
        assert third.endpoint.address[0] == "::1"
        close(one, other, third)

    run(body())


def test_after_a_stall_nobody_is_silent_whose_datagrams_wait_unread(run: Run) -> None:
    """Found on a machine with 60 runnable processes: a node that had not run for a second
    took all its peers for silent at its first turn, and refused writes for want of a quorum."""

    async def body() -> None:
        options = Options(ping_interval=0.1, dead_after=0.3)
        one, other = await pair(options=options)
        await asyncio.sleep(0.1)
        other.endpoint.send(0, Lane.CONTROL, b"said before the stall")
        other.endpoint.flush()
        time.sleep(options.dead_after + 0.2)  # noqa: ASYNC251
        assert one.endpoint.send(1, Lane.CONTROL, b"the first turn after it")
        one.endpoint.flush()
        assert not one.down
        assert one.endpoint.connected(1) is not None
        one.endpoint._fired()
        assert not one.down
        assert one.messages == [(Lane.CONTROL, b"said before the stall")]
        close(one, other)

    run(body())


def test_who_says_nothing_is_taken_for_silent_all_the_same(run: Run) -> None:
    async def body() -> None:
        options = Options(ping_interval=0.05, dead_after=0.2)
        one, other = await pair(options=options)
        other.endpoint._loop.remove_reader(other.endpoint._udp.socket.fileno())
        other.endpoint.closed = True  # it neither hears nor says anything from here on
        await one.until(lambda: bool(one.down), 10)
        assert one.down == ["silent"]
        other.endpoint.closed = False
        close(one, other)

    run(body())
