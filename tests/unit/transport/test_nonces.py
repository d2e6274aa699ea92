"""A nonce is used once under a key, whatever happens."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from unit.transport.world import Link, World

from distkv.transport import handshake, keys
from distkv.transport.base import Lane


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """(key, nonce) of everything sealed."""
    seen: list[tuple[bytes, bytes]] = []
    real = AESGCM

    class Watched:
        def __init__(self, key: bytes) -> None:
            self._key, self._real = key, real(key)

        def encrypt(self, nonce: bytes, data: Any, header: Any) -> bytes:
            seen.append((self._key, nonce))
            return self._real.encrypt(nonce, data, header)

        def decrypt(self, nonce: bytes, data: Any, header: Any) -> bytes:
            return self._real.decrypt(nonce, data, header)

    monkeypatch.setattr(keys, "AESGCM", Watched)
    monkeypatch.setattr(handshake, "AESGCM", Watched)
    return seen


@pytest.mark.parametrize("seed", range(5))
def test_nonces_under_loss_restarts_and_reconnects(
    seed: int, used: list[tuple[bytes, bytes]]
) -> None:
    world = World(seed, Link(loss=0.2, duplicate=0.2, reorder=0.3))
    one, other = world.pair()
    for boot in range(2, 6):
        for number in range(30):
            one.hub.send(1, Lane.BULK, bytes(3_000), number % 4)
            other.hub.send(0, Lane.CONTROL, bytes(100))
        world.spend(0.5)
        if boot % 2:
            other = world.add(1, boot=boot)
        else:
            world.link.cut = lambda source, target: True
            world.spend(2)
            world.link.cut = lambda source, target: False
            other = world.add(1, boot=boot)
        world.join(one, other)
        world.run_connected(one, other)
    assert len(used) > 300
    assert len(set(used)) == len(used)
    assert len({key for key, _ in used}) > 10


def test_packet_numbers_pass_the_32_bits_that_travel() -> None:
    world = World(9, Link(loss=0.1, reorder=0.2))
    one, other = world.pair()
    a, b = one.hub._peers[1].session, other.hub._peers[0].session
    assert a is not None
    assert b is not None
    world.spend(1)
    a._recovery.next_number = 0xFFFFFFF0
    b._received.top = b._received.bottom = b._received.floor = 0xFFFFFFEF
    for _ in range(100):
        one.hub.send(1, Lane.BULK, bytes(2_000))
    world.run(lambda: len(other.handler.messages) == 100)
    assert a._recovery.next_number > 0x100000000
    assert not other.handler.suspicions
