"""Greetings: HELLO and WELCOME, both sealed under the cluster key.

    HELLO   = kind (1) version (1) key name (4) random (32) sealed greeting
    WELCOME = kind (1) version (1) initiator's connection id (4) random (32) sealed greeting

Each is sealed under a key of its own, derived from the cluster key and its random (and, for the
WELCOME, the whole HELLO it answers), so no nonce can repeat. A WELCOME therefore proves that
the responder knows the key and answers this very HELLO; the initiator proves the same with its
first data datagram, and until then the responder changes nothing (a replayed HELLO is futile).
"""

from __future__ import annotations

import hashlib
from struct import Struct
from struct import error as struct_error
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from distkv.transport.base import Identity
from distkv.transport.keys import KEY_ID_BYTES, ClusterKey, derive
from distkv.transport.packet import HELLO, TAG_BYTES, VERSION, WELCOME

RANDOM_BYTES = 32
CLUSTER_BYTES_MAX = 64

_GREETING = Struct(">BqiQQiIQQI")
"""status generation ordinal incarnation boot target connection credits(2) socket-buffer."""

_HELLO_CLEAR = 2 + KEY_ID_BYTES + RANDOM_BYTES
_WELCOME_CLEAR = 2 + 4 + RANDOM_BYTES
GREETING_BYTES_MAX = _WELCOME_CLEAR + _GREETING.size + CLUSTER_BYTES_MAX + TAG_BYTES
_NONCE = bytes(12)

ACCEPTED = 0
FOREIGN_CLUSTER = 1
FOREIGN_GENERATION = 2
OLD_BOOT = 3
WRONG_TARGET = 4
SEAT_TAKEN = 5
TOO_MANY = 6

REFUSALS = {
    FOREIGN_CLUSTER: "foreign_cluster",
    FOREIGN_GENERATION: "foreign_generation",
    OLD_BOOT: "old_boot",
    WRONG_TARGET: "wrong_target",
    SEAT_TAKEN: "seat_taken",
    TOO_MANY: "too_many_peers",
}


class Greeting(NamedTuple):
    """What one side says of itself. `credits`: of the control and the bulk lane, in bytes.

    `socket_buffer`: bytes its socket can hold before it drops datagrams.
    """

    status: int
    identity: Identity
    target: int
    connection: int
    control_credit: int
    bulk_credit: int
    socket_buffer: int


class BadGreeting(Exception):
    """A greeting that is not authentic or not of this protocol; `kind` is for on_suspicion."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def _pack(greeting: Greeting) -> bytes:
    who = greeting.identity
    return (
        _GREETING.pack(
            greeting.status,
            who.generation,
            who.ordinal,
            who.incarnation,
            who.boot,
            greeting.target,
            greeting.connection,
            greeting.control_credit,
            greeting.bulk_credit,
            greeting.socket_buffer,
        )
        + who.cluster
    )


def _unpack(raw: bytes) -> Greeting:
    try:
        status, generation, ordinal, incarnation, boot, target, *rest = _GREETING.unpack_from(raw)
    except struct_error:
        raise BadGreeting("malformed_greeting") from None
    cluster = raw[_GREETING.size :]
    if len(cluster) > CLUSTER_BYTES_MAX or ordinal < 0:
        raise BadGreeting("malformed_greeting")
    identity = Identity(cluster, generation, ordinal, incarnation, boot)
    return Greeting(status, identity, target, *rest)


def _open(key: bytes, datagram: bytes, clear: int) -> Greeting:
    try:
        raw = AESGCM(key).decrypt(_NONCE, datagram[clear:], datagram[:clear])
    except InvalidTag:
        raise BadGreeting("bad_tag") from None
    return _unpack(raw)


def _check(datagram: bytes, clear: int) -> None:
    if not clear + TAG_BYTES <= len(datagram) <= GREETING_BYTES_MAX:
        raise BadGreeting("garbage")
    if datagram[1] != VERSION:
        raise BadGreeting("protocol_version")


def seal_hello(key: ClusterKey, random: bytes, greeting: Greeting) -> bytes:
    """The HELLO datagram; `random`: 32 fresh bytes."""
    clear = bytes([HELLO, VERSION]) + key.name + random
    secret = derive(key.secret, random, b"distkv hello", 32)
    return clear + AESGCM(secret).encrypt(_NONCE, _pack(greeting), clear)


def hello_key_name(datagram: bytes) -> bytes:
    """Name of the cluster key of a HELLO; raises BadGreeting."""
    _check(datagram, _HELLO_CLEAR)
    return datagram[2 : 2 + KEY_ID_BYTES]


def hello_random(datagram: bytes) -> bytes:
    """The random of a HELLO that passed `hello_key_name`."""
    return datagram[2 + KEY_ID_BYTES : _HELLO_CLEAR]


def open_hello(key: ClusterKey, datagram: bytes) -> Greeting:
    """Raises BadGreeting."""
    secret = derive(key.secret, hello_random(datagram), b"distkv hello", 32)
    return _open(secret, datagram, _HELLO_CLEAR)


def _welcome_secret(key: ClusterKey, random: bytes, hello: bytes) -> bytes:
    info = b"distkv welcome" + hashlib.sha256(hello).digest()
    return derive(key.secret, random, info, 32)


def seal_welcome(
    key: ClusterKey, random: bytes, hello: bytes, to: int, greeting: Greeting
) -> bytes:
    """The WELCOME datagram that answers `hello`, sent to connection id `to`."""
    clear = bytes([WELCOME, VERSION]) + to.to_bytes(4, "big") + random
    secret = _welcome_secret(key, random, hello)
    return clear + AESGCM(secret).encrypt(_NONCE, _pack(greeting), clear)


def welcome_connection(datagram: bytes) -> int:
    """The connection id a WELCOME is for; raises BadGreeting."""
    _check(datagram, _WELCOME_CLEAR)
    return int.from_bytes(datagram[2:6], "big")


def open_welcome(key: ClusterKey, datagram: bytes, hello: bytes) -> Greeting:
    """Raises BadGreeting."""
    random = datagram[6:_WELCOME_CLEAR]
    return _open(_welcome_secret(key, random, hello), datagram, _WELCOME_CLEAR)
