"""Real sockets and a proxy that loses, duplicates and reorders: once, and in order."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest
import uvloop
from integration.transport.namespaces import Network, inside
from integration.transport.peers import Peer
from integration.transport.proxy import Faults, Proxy

from distkv.transport.base import Lane

PORT = 7400
FAULTS = {
    "five percent": Faults(loss=0.05, duplicate=0.05, reorder=0.1),
    "twenty percent": Faults(loss=0.2, duplicate=0.1, reorder=0.2),
}
LOOPS = {"asyncio": asyncio.run, "uvloop": uvloop.run}


def bound(namespace: str, address: str) -> socket.socket:
    with inside(namespace):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, PORT))
    return made


async def exchange(network: Network, faults: Faults, seed: int) -> None:
    left, middle, right = network.add("left"), network.add("middle"), network.add("right")
    left_ip, middle_left = network.link(left, middle)
    middle_right, right_ip = network.link(middle, right)
    proxy = Proxy(
        bound(middle, middle_left),
        bound(middle, middle_right),
        (left_ip, PORT),
        (right_ip, PORT),
        faults,
        seed,
    )
    one, other = Peer(0), Peer(1)
    try:
        with inside(left):
            one.open(left_ip, PORT)
        with inside(right):
            other.open(right_ip, PORT)
        one.endpoint.set_peer(1, middle_left, PORT)
        other.endpoint.set_peer(0, middle_right, PORT)
        await one.until(lambda: bool(one.up))
        await other.until(lambda: bool(other.up))
        await both_ways(one, other, seed)
        assert proxy.lost > 20
        assert proxy.duplicated > 20
        assert proxy.delayed > 20
    finally:
        for peer in (one, other):
            if hasattr(peer, "endpoint"):
                peer.endpoint.close()
        proxy.close()


async def both_ways(one: Peer, other: Peer, seed: int) -> None:
    generator = random.Random(seed)
    sent: dict[int, dict[tuple[Lane, int], list[bytes]]] = {0: {}, 1: {}}
    count = {0: 0, 1: 0}
    for number in range(150):
        for source, target in ((one, 1), (other, 0)):
            lane = Lane(generator.randrange(2))
            stream = generator.randrange(4)
            size = generator.choice((0, 64, 64, 1_000, 5_000, 100_000 if lane else 5_000))
            payload = b"%d %d:" % (stream, number) + generator.randbytes(size)
            assert source.endpoint.send(target, lane, payload, stream)
            sent[target].setdefault((lane, stream), []).append(payload)
            count[target] += 1
        if number % 10 == 0:
            await asyncio.sleep(0)
    for target, peer in ((1, other), (0, one)):
        await peer.until_messages(count[target])
    # what is still under way (duplicates, late ones) must add nothing
    for peer, target in ((one, 1), (other, 0)):
        peer.endpoint.send(target, Lane.CONTROL, b"0 last:")
        sent[target].setdefault((Lane.CONTROL, 0), []).append(b"0 last:")
    for target, peer in ((1, other), (0, one)):
        await peer.until_last(b"0 last:")
        got: dict[tuple[Lane, int], list[bytes]] = {}
        for lane, payload in peer.messages:
            got.setdefault((lane, int(payload.split(b" ")[0])), []).append(payload)
        assert got == sent[target]
        assert not peer.down
        assert not peer.suspicions


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", FAULTS)
def test_messages_arrive_once_and_in_order(network: Network, name: str, loop: str) -> None:
    LOOPS[loop](exchange(network, FAULTS[name], seed=11))
